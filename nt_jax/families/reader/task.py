"""Readers of noise as a task of the training loop."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from nt_jax import families, prng, readings
from nt_jax.checkpointing import load_state
from nt_jax.evaluation import heldout
from nt_jax.evaluation.heldout import Scores
from nt_jax.families.reader import reads
from nt_jax.families.reader.quantities import QUANTITIES
from nt_jax.models.biased import init_biased
from nt_jax.models.noise_reader import (
    LAST,
    NoiseReader,
    NoiseReaderOutputs,
    read_noise,
    widened,
)
from nt_jax.models.parameters import Array, Tree
from nt_jax.training import logs
from nt_jax.training.optimizer import JitStep, averaged, descend, make_optimizer
from nt_jax.training.task import Batch, Metrics, Step, Task


class ReaderState(flax.struct.PyTreeNode):
    """State that a reader's training carries from step to step.

    Attributes:
      step: int32 scalar, updates done.
      params: float32.
      optimizer: optax state.
      average: moving average of `params`, or None when `train.ema_decay` is 0.
    """

    step: Array
    params: Tree
    optimizer: Any
    average: Tree | None


class ReaderTask(Task):
    """A network that reads numbers of the noise off noisy patches."""

    titles: ClassVar = {
        "level_error": "noise level, mean absolute log ratio",
        "lag1_error": "correlation of neighbouring pixels, mean absolute error",
        "spectrum_error": "amplitude of luma and colour in rings of frequency, mean error in dB",
    }
    headline = ("level_error", "lag1_error", "spectrum_error")
    curves = ("level_error", "lag1_error", "spectrum_error")
    picture = "noisy"
    shown = ("loss", "level_error", "spectrum_error")
    inherits: ClassVar = {"params": "params", "average": "params"}
    inputs = ("clean", "noisy")

    def __init__(self, config: Any) -> None:
        """Reads the held-out patches; raises InputError."""
        self.config = config
        self._quantity = QUANTITIES[config.model.reads]
        self._network = NoiseReader(config.model.width, self._quantity.size)
        self._held_out = heldout.make_heldout(config)
        self._read = jax.jit(partial(read_noise, self._network))

    def init(self, key: Array) -> ReaderState:
        """Makes the state before the first step."""
        params = init_biased(key, self._network)
        return ReaderState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            optimizer=make_optimizer(self.config.train).init(params),
            average=jax.tree.map(jnp.copy, params) if self.config.train.ema_decay else None,
        )

    def parameters(self, state: ReaderState) -> dict[str, Tree]:
        """Gives the trained parameters by network name."""
        return {"reader": state.params}

    def make_step(self, mesh: Mesh) -> Step:
        """Compiles the step."""
        return JitStep(train_step, self.config, (self._network,), mesh)

    def networks_of(self, source: str) -> tuple[int, dict[str, Any]]:
        """Reads another run's, in two cases not as they are.

        Where that reads other numbers, the last layer begins at 0; where it is narrower, what this
        one has more changes nothing at first.
        """
        config, step, state = load_state(source)
        changes: list[Callable[[Tree], Tree]] = []
        if families.name_of(config) == "reader":
            theirs, ours = reads(config["model"]), self.config.model.reads
            if theirs != ours:
                logs.say(f"{source} reads {theirs}, not {ours}: the last layer begins at 0")
                changes.append(self._without_last)
            width = config["model"]["width"]
            if width < self.config.model.width:
                logs.say(
                    f"{source} has width {width}, not {self.config.model.width}: it is widened"
                )
                changes.append(partial(self._widened, width))
        for name in self.inherits:
            for change in changes if state.get(name) is not None else ():
                state[name] = change(state[name])
        return step, state

    def _without_last(self, params: Tree) -> Tree:
        count = 2 * self._quantity.size
        return params | {
            LAST: jax.tree.map(
                lambda leaf: np.zeros((*leaf.shape[:-1], count), leaf.dtype), params[LAST]
            )
        }

    def _widened(self, width: int, params: Tree) -> Tree:
        fresh = init_biased(prng.key(self.config.seed), self._network)
        return widened(params, width, fresh, self.config.model.width)

    def evaluate(self, state: ReaderState, key: Array) -> Scores:
        """Compares what is read off held-out patches with what their noise is."""
        del key
        held_out = self._held_out
        params = state.params if state.average is None else state.average
        found = heldout.in_batches(lambda noisy: self._read(params, noisy).values, held_out.noisy)
        true = self._quantity.measure(
            jnp.asarray(held_out.noisy - held_out.clean), jnp.asarray(held_out.clean)
        )
        results: dict[str, float] = {}
        for name, values in self._quantity.errors(jnp.asarray(found), true).items():
            results |= heldout.by_kind(held_out, name, np.asarray(values))
        rows = heldout.sample_rows(held_out)
        noise = 0.5 + 4 * (held_out.noisy[rows] - held_out.clean[rows])
        return Scores(results, {self.picture: held_out.noisy[rows], "noise x4": noise})


def laplace(outputs: NoiseReaderOutputs, measured: readings.Measured) -> Array:
    """Computes the mean negative log likelihood of measured numbers, each Laplace-distributed.

    Numbers that an image has not are left out.
    """
    terms = jnp.abs(measured.values - outputs.values) / outputs.spread + jnp.log(outputs.spread)
    return jnp.where(measured.known, terms, 0.0).sum() / measured.known.sum(dtype=jnp.float32)


def train_step(
    config: Any, network: NoiseReader, state: ReaderState, batch: Batch, key: Array
) -> tuple[ReaderState, Metrics]:
    """Makes one update.

    Args:
      config: training config.
      network: the reader.
      state: state before the step.
      batch: `clean` and `noisy`, [B, H, W, 3] float32 in [0, 1].
      key: not used.

    Returns:
      (state after the step, {name: float32 scalar}).
    """
    del key
    quantity = QUANTITIES[config.model.reads]
    measured = quantity.measure(batch["noisy"] - batch["clean"], batch["clean"])

    def loss_of(params: Tree) -> tuple[Array, Array]:
        outputs = read_noise(network, params, batch["noisy"])
        return laplace(outputs, measured), outputs.values

    (loss, found), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    optimizer = make_optimizer(config.train)
    params, moments = descend(optimizer, gradient, state.optimizer, state.params)
    average = state.average
    if average is not None:
        average = averaged(average, params, config.train.ema_decay, state.step)
    errors = quantity.errors(found, measured)
    values = {name: error.mean() for name, error in errors.items()} | {
        "loss": loss,
        "gradient_norm": optax.tree.norm(gradient),
    }
    return ReaderState(state.step + 1, params, moments, average), values

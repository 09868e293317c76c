"""Interface between the training loop and the model it trains."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from nt_jax.checkpointing import load_state
from nt_jax.evaluation import heldout
from nt_jax.evaluation.heldout import Scores
from nt_jax.models.parameters import Array, Tree
from nt_jax.training import logs
from nt_jax.training.optimizer import JitStep

Batch = dict[str, Array]
Metrics = dict[str, Array]
# (state, batch, key) -> (state after the step, {name: float32 scalar})
Step = Callable[[Any, Batch, Array], tuple[Any, Metrics]]


class Task(ABC):
    """A model and how it is trained.

    A state is a pytree with a field `step`, the updates done.

    Attributes:
      titles: names of an evaluation's results, less `eval/`, for the table at the end of a run.
      headline: those for the line of an evaluation.
      curves: those drawn over the steps in `samples/curves.png`.
      picture: the column of the sample pictures that TensorBoard shows.
      shown: numbers of a step for the progress line.
      inputs: entries of a batch that a step takes.
      inherits: {field of the state: field of another run's state that `train.init_from` starts it
        with}.
    """

    titles: ClassVar[dict[str, str]]
    headline: ClassVar[tuple[str, ...]]
    curves: ClassVar[tuple[str, ...]] = ()
    picture: ClassVar[str]
    shown: ClassVar[tuple[str, ...]] = ()
    inherits: ClassVar[dict[str, str]]
    inputs: tuple[str, ...]

    @abstractmethod
    def __init__(self, config: Any) -> None:
        """Reads what a checked config is evaluated on; raises InputError."""

    @abstractmethod
    def init(self, key: Array) -> Any:
        """Makes the state before the first step."""

    @abstractmethod
    def parameters(self, state: Any) -> dict[str, Tree]:
        """Gives the trained parameters by network name."""

    def networks_of(self, source: str) -> tuple[int, dict[str, Any]]:
        """Reads what `train.init_from` names: (step, state as nested dicts), as `inherits` has it.

        Raises:
          InputError: it is nothing to start from.
        """
        _, step, state = load_state(source)
        return step, state

    @abstractmethod
    def make_step(self, mesh: Mesh) -> Step:
        """Compiles the step, batches split over the mesh's `data` axis, the state donated."""

    @abstractmethod
    def evaluate(self, state: Any, key: Array) -> Scores:
        """Scores the state on the held-out patches."""


class GeneratorTask(Task):
    """A generator of noise: scored on held-out patches as all generators are."""

    titles: ClassVar = {
        "akld": "AKLD (reference: itself)",
        "ks": "KS (reference: itself)",
        "level_correlation": "noise-level correlation (reference: itself)",
        "akld_other": "AKLD (reference: another image)",
        "ks_other": "KS (reference: another image)",
        "level_correlation_other": "noise-level correlation (reference: another image)",
    }
    headline = ("akld", "ks", "level_correlation", "akld_other", "level_correlation_other")
    picture = "generated"
    inputs: tuple[str, ...] = ("clean", "noisy", "reference")

    def __init__(self, config: Any) -> None:
        """Reads the held-out patches; raises InputError."""
        self.config = config
        self._held_out = held_out = heldout.make_heldout(config)
        if not held_out.has_other.all():
            count, total = int(held_out.has_other.sum()), len(held_out.has_other)
            logs.say(
                f"held-out patches: {count} of {total} have another photograph with the same noise"
                " for a reference; scores that end in _other are of these"
            )

    @abstractmethod
    def generate(self, state: Any, batch: Batch, key: Array) -> Array:
        """Makes noisy versions of clean patches, as the released model would.

        Args:
          state: as `evaluate` has it; jit this function's work once, not in each call.
          batch: `clean`, `reference`, `reference_clean`, [N, P, P, 3] float32 in [0, 1].
          key: PRNG key.

        Returns:
          [N, P, P, 3] in [0, 1].
        """

    def evaluate(self, state: Any, key: Array) -> Scores:
        """Scores the state's generator, and draws the strongest noise of each kind."""

        def generate(batch: Batch, key: Array) -> Array:
            return self.generate(state, batch, key)

        held_out = self._held_out
        results, images = heldout.evaluate(generate, held_out, key)
        rows = heldout.sample_rows(held_out)
        clean, noisy, generated = held_out.clean[rows], held_out.noisy[rows], images["other"][rows]
        pictures = {
            "reference": held_out.reference[rows],
            "clean": clean,
            self.picture: np.clip(generated, 0, 1),
            "true noisy": noisy,
            "generated noise x4": 0.5 + 4 * (generated - clean),
            "true noise x4": 0.5 + 4 * (noisy - clean),
        }
        return Scores(results, pictures)


class Functions(NamedTuple):
    """Pure functions that make up a generator and its training.

    Attributes:
      make_networks: (config) -> the modules.
      init_state: (config, networks, key) -> the state before the first step.
      train_step: (config, networks, state, batch, key) -> (state after the step, metrics).
      make_noise: (networks, state, batch, key) -> unclipped noise of `batch["clean"]`,
        [N, P, P, 3]; batches as `GeneratorTask.generate` has them.
    """

    make_networks: Callable[[Any], Any]
    init_state: Callable[[Any, Any, Array], Any]
    train_step: Callable[[Any, Any, Any, Batch, Array], tuple[Any, Metrics]]
    make_noise: Callable[[Any, Any, Batch, Array], Array]


class FunctionsTask(GeneratorTask):
    """A generator given by functions; the fields of its state that `inherits` names are trained.

    Attributes:
      functions: what a subclass gives.
    """

    functions: ClassVar[Functions]

    def __init__(self, config: Any) -> None:
        """Reads the held-out patches; raises InputError."""
        super().__init__(config)
        self._networks = self.functions.make_networks(config)
        self._noise = jax.jit(partial(self.functions.make_noise, self._networks))

    def init(self, key: Array) -> Any:
        """Makes the state before the first step."""
        return self.functions.init_state(self.config, self._networks, key)

    def parameters(self, state: Any) -> dict[str, Tree]:
        """Gives the trained parameters by network name."""
        return {name: getattr(state, name) for name in self.inherits}

    def make_step(self, mesh: Mesh) -> Step:
        """Compiles the step."""
        return JitStep(self.functions.train_step, self.config, (self._networks,), mesh)

    def generate(self, state: Any, batch: Batch, key: Array) -> Array:
        """Makes noisy patches."""
        batch = {name: jnp.asarray(images) for name, images in batch.items()}
        return jnp.clip(batch["clean"] + self._noise(state, batch, key), 0, 1)

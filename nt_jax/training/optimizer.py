"""Shares what all training needs: Adam, learning rates, moving averages, the step's jit."""

import functools
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike
from ml_collections import FrozenConfigDict

from nt_jax.adam import scale_by_adam
from nt_jax.compilation import Program
from nt_jax.models.parameters import Array, Tree


def learning_rate(train: Any) -> optax.Schedule:
    """Returns the rate by updates done: halved at each step of `train.halve_at`, or a cosine.

    float32; a cosine ends with 0 after `train.steps`.
    """

    def rate(step: ArrayLike) -> Array:
        value = jnp.float32(train.learning_rate)
        if train.decay == "cosine":
            done = jnp.minimum(jnp.asarray(step, jnp.float32) / train.steps, 1)
            return value * (0.5 + 0.5 * jnp.cos(np.float32(np.pi) * done))
        for halved in train.halve_at:
            value = jnp.where(jnp.asarray(step, jnp.int32) >= halved, value / 2, value)
        return value

    return rate


def make_optimizer(train: Any) -> optax.GradientTransformation:
    """Makes Adam as PyTorch's: L2 regularisation joins the gradient before the moments (4.1)."""
    return optax.chain(
        optax.add_decayed_weights(train.l2),
        scale_by_adam(train.adam_b1, train.adam_b2),
        optax.scale_by_learning_rate(learning_rate(train)),
    )


def descend(
    optimizer: optax.GradientTransformation, gradient: Any, moments: Any, params: Any
) -> tuple[Any, Any]:
    """Makes one update: (parameters, moments) after it, trees like those before."""
    updates, moments = optimizer.update(gradient, moments, params)
    return optax.apply_updates(params, updates), moments


def averaged(average: Tree, params: Tree, decay: float, step: Array) -> Tree:
    """Moves an average of parameters, by less than `decay` keeps in the first steps.

    It keeps min(decay, (1 + step) / (10 + step)): a young average forgets its random start quickly.
    """
    kept = jnp.minimum(decay, (1 + step) / (10 + step))
    return optax.incremental_update(params, average, 1 - kept)


class JitStep:
    """A compiled training step: (state, batch, key) -> (state, metrics).

    Batches are split over the mesh's `data` axis, the state is donated; all else is replicated.
    """

    def __init__(
        self,
        step: Callable[..., Any],
        config: Any,
        modules: tuple[Any, ...],
        mesh: Mesh,
        constants: tuple[Any, ...] = (),
        kept: bool = True,
    ) -> None:
        """Compiles it at the first call.

        Args:
          step: a function of a module, (config, *modules, state, *constants, batch, key) -> (state,
            metrics); of the config it sees what `step_config` leaves.
          config: training config.
          modules: networks and the like, hashable.
          mesh: has an axis `data`.
          constants: trees of arrays.
          kept: whether the traced step is kept for the next process (`compilation.Program`); then
            the `repr` of a module says all there is to it.
        """
        everywhere = NamedSharding(mesh, P())

        def put(leaf: Any) -> Array:
            return jax.make_array_from_process_local_data(everywhere, np.asarray(leaf))

        self._constants, structure = jax.tree.flatten(jax.tree.map(put, constants))
        self._static = step_config(config), modules, structure

        # What is not kept may be anybody's, and goes with this step.
        make_program = _program_of if kept else _program_of.__wrapped__
        self._program = make_program(step, mesh, kept)

    def __call__(
        self, state: Any, batch: dict[str, Array], key: Array
    ) -> tuple[Any, dict[str, Array]]:
        """Makes a step."""
        leaves, structure = jax.tree.flatten(state)
        static = structure, *self._static
        leaves, metrics = self._program(static, leaves, self._constants, batch, key)
        return jax.tree.unflatten(structure, leaves), metrics

    def lower(self, state: Any, batch: dict[str, Array], key: Array) -> Any:
        """Lowers the step as `jax.jit(...).lower` does, to be compiled and measured."""
        leaves, structure = jax.tree.flatten(state)
        static = structure, *self._static
        return self._program.lower(static, leaves, self._constants, batch, key)


@functools.cache
def _program_of(step: Callable[..., Any], mesh: Mesh, kept: bool) -> Program:
    """Makes a step's program: one, so that runs of a process which differ in nothing share it."""
    everywhere, by_example = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))

    # Files of traced programs know lists and dicts, but not a family's state.
    @functools.wraps(step)
    def of_leaves(
        static: tuple[Any, ...],
        leaves: list[Array],
        constants: list[Array],
        batch: dict[str, Array],
        key: Array,
    ) -> tuple[list[Array], dict[str, Array]]:
        of_state, config, modules, of_constants = static
        state = jax.tree.unflatten(of_state, leaves)
        trees = jax.tree.unflatten(of_constants, constants)
        state, metrics = step(config, *modules, state, *trees, batch, key)
        return jax.tree.leaves(state), metrics

    return Program(
        of_leaves,
        donate=0,
        kept=kept,
        in_shardings=(everywhere, everywhere, by_example, everywhere),
        out_shardings=(everywhere, everywhere),
    )


def step_config(config: Any) -> FrozenConfigDict:
    """Picks what a step may depend on: not the data, nor how often it is saved and looked at."""
    seen = json.loads(config.to_json())
    for name in _NOT_OF_STEPS:
        seen.pop(name, None)
    for name in (*_OF_THE_LOOP, *(("steps",) if config.train.decay != "cosine" else ())):
        seen["train"].pop(name, None)
    return FrozenConfigDict(seen)


_NOT_OF_STEPS = ("data", "eval", "seed")
_OF_THE_LOOP = ("init_from", "batch_size", "checkpoint_every", "keep_checkpoints", "log_every")

"""What all training shares: Adam, learning rates, moving averages, the step's jit."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from nt_jax.adam import scale_by_adam
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


def early_decay(decay: float, step: Array) -> Array:
    """min(decay, (1 + step) / (10 + step)): a young average forgets its random start quickly."""
    return jnp.minimum(decay, (1 + step) / (10 + step))


def moving_average(average: Tree, params: Tree, decay: float | Array) -> Tree:
    """decay * average + (1 - decay) * params, leaf by leaf."""
    return jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, params)


def jit_step(step: Callable[..., Any], mesh: Mesh, constants: tuple[Any, ...] = ()) -> Any:
    """Compiles (state, *constants, batch, key) -> (state, metrics) as (state, batch, key).

    Batches are split over the mesh's `data` axis, the state is donated; all else is replicated.
    """
    everywhere = NamedSharding(mesh, P())
    by_example = NamedSharding(mesh, P("data"))
    jitted = jax.jit(
        step,
        in_shardings=(everywhere, *(everywhere for _ in constants), by_example, everywhere),
        out_shardings=(everywhere, everywhere),
        donate_argnums=0,
    )
    if not constants:
        return jitted
    constants = jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(everywhere, np.asarray(leaf)), constants
    )
    return lambda state, batch, key: jitted(state, *constants, batch, key)

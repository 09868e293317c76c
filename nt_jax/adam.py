"""Adam in float32, whatever the surroundings."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def scale_by_adam(b1: float, b2: float) -> optax.GradientTransformation:
    """Makes `optax.scale_by_adam` (epsilon 1e-8) with a bias correction of 32 bits.

    That of optax has 64 where `jax_enable_x64` is set.

    Args:
      b1, b2: decays of the first and the second moment.
    """

    def update(
        gradient: Any, state: optax.ScaleByAdamState, params: Any = None
    ) -> tuple[Any, optax.ScaleByAdamState]:
        del params
        count = state.count + 1
        first = jax.tree.map(lambda g, m: (1 - b1) * g + b1 * m, gradient, state.mu)
        second = jax.tree.map(lambda g, n: (1 - b2) * (g * g) + b2 * n, gradient, state.nu)
        unbiased = [1 - jnp.float32(b) ** count.astype(jnp.float32) for b in (b1, b2)]
        step = jax.tree.map(
            lambda m, n: m / unbiased[0] / (jnp.sqrt(n / unbiased[1]) + 1e-8), first, second
        )
        return step, optax.ScaleByAdamState(count, first, second)

    return optax.GradientTransformation(optax.scale_by_adam().init, update)

"""NeCA's losses: levels against measured ones, and Wasserstein's of two critics (CVPR 2023).

Noise and levels are [N, H, W, 3] for images in [0, 1].
"""

import jax
import jax.numpy as jnp

from nt_jax.models.layers import Array

# Side of the neighbourhood in which the local level is measured.
_SIDE = 7
# Real noise has hardly any correlation from one such cell to the next: the second critic sees
# one pixel of each.
CELL = 3


def global_level(noise: Array) -> Array:
    """Measures the deviation of each image's noise over pixels and channels: [N, 1, 1, 1]."""
    return jnp.std(noise, axis=(1, 2, 3), keepdims=True)


def local_level(noise: Array) -> Array:
    """Measures noise's deviation in 7x7 pixels around each, by channel; beyond edges it is 0."""
    squares = _local_mean(jnp.square(noise)) - jnp.square(_local_mean(noise))
    return jnp.sqrt(jnp.maximum(squares, 0))  # rounding may leave less than 0


def _local_mean(images: Array) -> Array:
    window, around = (1, _SIDE, _SIDE, 1), (_SIDE // 2, _SIDE // 2)
    padding = ((0, 0), around, around, (0, 0))
    sums = jax.lax.reduce_window(images, 0.0, jax.lax.add, window, (1, 1, 1, 1), padding)
    return sums / _SIDE**2


def squared_error(made: Array, true: Array) -> Array:
    """Computes the mean squared difference; shapes are broadcast."""
    return jnp.square(made - true).mean()


def cells(noise: Array) -> Array:
    """Takes one pixel of each cell of 3x3: [N, P, P, 3] -> [N, ceil(P / 3), ceil(P / 3), 3]."""
    return noise[:, ::CELL, ::CELL]

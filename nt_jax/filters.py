"""The Gaussian filter GF of losses and data."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

_BLUR_SIZE = 21
_BLUR_SIGMA = 0.15 * _BLUR_SIZE + 0.35


def gaussian_blur(images: jax.Array) -> jax.Array:
    """GF: 21x21 Gaussian, sigma 3.5, reflected borders (section 3.2).

    Two matrix products, whose gradients are matrix products too: made for patches, not for
    photographs.

    Args:
      images: float32 [N, H, W, C], H and W above 10.

    Returns:
      The same shape.
    """
    _, height, width, _ = images.shape
    return jnp.einsum(
        "ab,cd,nbdk->nack",
        _blur_matrix(height),
        _blur_matrix(width),
        images,
        precision=jax.lax.Precision.HIGHEST,
    )


@functools.cache
def _blur_matrix(size: int) -> np.ndarray:
    """[size, size]: what each pixel of a line gives to each blurred one."""
    margin = _BLUR_SIZE // 2
    positions = np.arange(_BLUR_SIZE) - margin
    taps = np.exp(-0.5 * (positions / _BLUR_SIGMA) ** 2)
    taps /= taps.sum()
    sources = np.pad(np.arange(size), margin, mode="reflect")
    matrix = np.zeros((size, size))
    for target in range(size):
        np.add.at(matrix[target], sources[target : target + _BLUR_SIZE], taps)
    return matrix.astype(np.float32)

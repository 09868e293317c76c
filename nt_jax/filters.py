"""Filters of patches: the Gaussian GF of losses and data, and one that takes noise off."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

_BLUR_SIZE = 21
_BLUR_SIGMA = 0.15 * _BLUR_SIZE + 0.35
_WINDOW = 7


def gaussian_blur(images: jax.Array) -> jax.Array:
    """Blurs images by GF: 21x21 Gaussian, sigma 3.5, reflected borders (section 3.2).

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


def wiener(images: jax.Array, level: jax.Array) -> jax.Array:
    """Takes noise of known level off and leaves edges: the local Wiener filter (Lee, 1980).

    In windows of 7x7, where the variance of all channels together is what the noise has, only the
    mean stays; the more it is above that, the more of the image stays.

    Args:
      images: float32 [N, H, W, C], H and W above 3.
      level: standard deviation of each channel's noise, in units of the images, [N, C].

    Returns:
      The same shape.
    """
    mean, variance = local_moments(images)
    variance = variance.sum(-1, keepdims=True)
    of_noise = jnp.square(level).sum(-1)[:, None, None, None]
    kept = jnp.maximum(variance - of_noise, 0) / jnp.maximum(variance, 1e-8)
    return mean + kept * (images - mean)


def local_moments(images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes mean and variance in windows of 7x7 by channel, borders reflected.

    Args:
      images: float32 [N, H, W, C], H and W above 3.

    Returns:
      Two of the same shape; rounding may leave a variance just below 0.
    """
    mean = _local_mean(images)
    return mean, _local_mean(jnp.square(images)) - jnp.square(mean)


def _local_mean(images: jax.Array) -> jax.Array:
    margin = _WINDOW // 2
    around = ((0, 0), (margin, margin), (margin, margin), (0, 0))
    x = jnp.pad(images, around, mode="reflect")
    for window in ((1, _WINDOW, 1, 1), (1, 1, _WINDOW, 1)):
        x = jax.lax.reduce_window(x, np.float32(0), jax.lax.add, window, (1, 1, 1, 1), "valid")
    return x / np.float32(_WINDOW**2)


@functools.cache
def _blur_matrix(size: int) -> np.ndarray:
    """Computes [size, size]: what each pixel of a line gives to each blurred one."""
    margin = _BLUR_SIZE // 2
    positions = np.arange(_BLUR_SIZE) - margin
    taps = np.exp(-0.5 * (positions / _BLUR_SIGMA) ** 2)
    taps /= taps.sum()
    sources = np.pad(np.arange(size), margin, mode="reflect")
    matrix = np.zeros((size, size))
    for target in range(size):
        np.add.at(matrix[target], sources[target : target + _BLUR_SIZE], taps)
    return matrix.astype(np.float32)

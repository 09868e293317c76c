"""Separable filters on images, shared by losses, metrics and data."""

import jax
import jax.numpy as jnp
import numpy as np

_BLUR_SIZE = 21
_BLUR_SIGMA = 0.15 * _BLUR_SIZE + 0.35


def filter_valid(images: jax.Array, taps: np.ndarray) -> jax.Array:
    """Separable filter where it fits: [N, H, W, C] -> [N, H − k + 1, W − k + 1, C].

    A sum of shifted images rather than a convolution, which an accelerator would round to fewer
    bits by default.
    """
    n, height, width, channels = images.shape
    height, width = height - len(taps) + 1, width - len(taps) + 1
    # Columns and channels as one axis of contiguous memory: twice as fast on a CPU.
    rows = images.reshape(n, images.shape[1], -1)
    rows = sum(tap * rows[:, i : i + height] for i, tap in enumerate(taps))
    rows = sum(
        tap * rows[:, :, i * channels :][:, :, : width * channels] for i, tap in enumerate(taps)
    )
    return rows.reshape(n, height, width, channels)


def gaussian_blur(images: jax.Array) -> jax.Array:
    """GF: 21x21 Gaussian, sigma 3.5, reflected borders (section 3.2).

    Args:
      images: float32 [N, H, W, C], H and W above 10.

    Returns:
      The same shape.
    """
    margin = _BLUR_SIZE // 2
    positions = np.arange(_BLUR_SIZE) - margin
    taps = np.exp(-0.5 * (positions / _BLUR_SIGMA) ** 2)
    padded = jnp.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="reflect")
    return filter_valid(padded, (taps / taps.sum()).astype(np.float32))

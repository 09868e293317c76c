"""Taking out of a real pair's noise what is no noise: the clean image, shifted or sharpened."""

import numpy as np
from scipy import ndimage

_SIDE = 3  # of the filter, in pixels
# Added to the normal equations, as a share of their mean diagonal: plain images have none.
_RIDGE = 1e-6


def align_noisy(clean: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """Removes from a noisy image what a linear filter of the clean one explains of its noise.

    A camera that moved by a fraction of a pixel between two shots, or a mean of many shots that is
    softer than one, leaves the edges of the scene in the difference of a pair. A generator learns
    them as noise, a denoiser learns to blur. Per channel, a filter of 3x3 pixels is fitted to the
    difference by least squares over the whole image, and what it makes of the clean image, less
    its mean, is taken away.

    Args:
      clean: uint8 or uint16 [H, W, 3].
      noisy: the same; its depth may be another.

    Returns:
      [H, W, 3] of the noisy image's dtype.
    """
    white = np.iinfo(noisy.dtype).max
    scale = white / np.iinfo(clean.dtype).max
    aligned = np.empty_like(noisy)
    for channel in range(clean.shape[2]):
        image = clean[..., channel] * scale
        difference = noisy[..., channel] - image
        explained = _explained(image, difference)
        aligned[..., channel] = np.clip(np.round(noisy[..., channel] - explained), 0, white)
    return aligned


def _explained(image: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """Computes the part of the difference, of mean 0, that is a filter of the image.

    It is float64 [H, W].
    """
    padded = np.pad(image - image.mean(), _SIDE // 2, mode="symmetric")
    views = np.lib.stride_tricks.sliding_window_view(padded, (_SIDE, _SIDE))
    # Sums of products over the image, without a copy of it per element of the filter.
    products = np.einsum("hwij,hwkl->ijkl", views, views, optimize=True)
    products = products.reshape(_SIDE**2, _SIDE**2)
    right = np.einsum("hwij,hw->ij", views, difference - difference.mean()).ravel()
    ridge = _RIDGE * max(np.trace(products) / _SIDE**2, 1.0)
    weights = np.linalg.solve(products + ridge * np.eye(_SIDE**2), right)
    explained = ndimage.correlate(image, weights.reshape(_SIDE, _SIDE), mode="reflect")
    return explained - explained.mean()

"""Power spectra of noise in numbers: measured, read off a photo by a network, and corrected.

The level of generated noise follows the photo (calibration.py), its share of fine and coarse, of
luma and colour, less so: a denoiser trained on it learns to leave what is missing. Where noise is
known, its spectrum can be measured, and a filter brings it to one that is read.

Not in the paper.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nt_jax.readings import Measured

Array = jax.Array

# Bounds between the rings of frequency, cycles a pixel.
_BOUNDS = np.array([0.008, 0.04, 0.07, 0.1, 0.14, 0.19, 0.26, 0.36, 0.75])
_RINGS = len(_BOUNDS) - 1
# Between these frequencies the logarithm of a gain is linear. The corners of the plane hold little
# power: the last ring is around .45.
_CENTRES = np.append((_BOUNDS[:-2] + _BOUNDS[1:-1]) / 2, 0.45)
# Luma, and two axes of colour at right angles to it and to each other.
_AXES = np.array([[1, 1, 1], [1, -1, 0], [1, 1, -2]], np.float32)
_AXES /= np.linalg.norm(_AXES, axis=1, keepdims=True)
_ROUNDING = 0.02  # power that rounding to 8 bits leaves, about, in squared grey levels
# Of the vectors that a network reads.
_CENTRE, _SPREAD = np.float32(1.0), np.float32(1.2)
# Bounds of a gain: beyond, the reading or the generator is wrong.
_LEAST, _MOST = 1 / 3, 3.0
_AROUND = 24  # reflected pixels around filtered noise

SIZE = 2 * _RINGS
# What a difference of two logarithms of amplitude is in decibels.
DECIBELS = 20 / np.log(10)


def measure(noise: Array) -> Measured:
    """Measures the spectrum of known noise, standardised for a network to learn.

    Args:
      noise: float32 [N, H, W, 3], in [0, 1] units.

    Returns:
      Of luma, then of colour, 8 rings from coarse to fine each: the logarithm of the amplitude, the
      root of the mean power of a windowed image. A ring without a frequency of this size of image
      is not known.
    """
    _, height, width, _ = noise.shape
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[1:-1]
    window /= np.sqrt(np.square(window).mean())
    turned = jnp.einsum("nhwc,kc->nkhw", noise, _AXES, precision=jax.lax.Precision.HIGHEST)
    centred = turned - turned.mean((2, 3), keepdims=True)
    waves = jnp.fft.fft2(centred * window.astype(np.float32)[None, None])
    power = (jnp.square(waves.real) + jnp.square(waves.imag)) / np.float32(height * width / 255**2)
    by_plane = jnp.stack([power[:, 0], power[:, 1:].mean(1)], axis=1)  # [N, luma or colour, H, W]
    frequency = _frequencies(height, width)
    inside = (frequency >= _BOUNDS[:-1, None, None]) & (frequency < _BOUNDS[1:, None, None])
    share = inside / np.maximum(inside.sum((1, 2), keepdims=True), 1)
    means = jnp.einsum(
        "nphw,rhw->npr", by_plane, share.astype(np.float32), precision=jax.lax.Precision.HIGHEST
    )
    amplitude = 0.5 * jnp.log(means + np.float32(_ROUNDING)).reshape(-1, SIZE)
    known = np.tile(inside.any((1, 2)), 2)
    return Measured(
        (amplitude - _CENTRE) / _SPREAD, jnp.broadcast_to(jnp.asarray(known), amplitude.shape)
    )


def decode(vectors: Array | np.ndarray) -> Any:
    """Turns standardised vectors [..., SIZE] into logarithms of amplitude, 0 to 255 scale."""
    return vectors * _SPREAD + _CENTRE


def together(vectors: np.ndarray) -> np.ndarray:
    """Averages the power of K crops: standardised [K, SIZE] -> logarithms of amplitude [SIZE]."""
    return 0.5 * np.log(np.exp(2 * decode(vectors)).mean(0))


def find_gains(read: np.ndarray, measured: Measured, gains: np.ndarray | float = 1.0) -> np.ndarray:
    """Finds the gains that bring noise to a spectrum, each 1/3 to 3.

    Args:
      read: off K crops of a noisy image, standardised, [K, SIZE].
      measured: on noise of K crops.
      gains: those that the noise has had already; [] or [SIZE].

    Returns:
      float32 [SIZE]; no others than before where nothing is known.
    """
    wanted, found = together(read), together(np.asarray(measured.values))
    ratio = np.where(np.asarray(measured.known).all(0), np.exp(wanted - found), 1)
    # The coarsest ring holds what is not random, too: where clipping gives noise a mean, that of
    # brighter and darker parts. It is amplified as the next.
    ratio[::_RINGS] = ratio[1::_RINGS]
    return np.clip(gains * ratio, _LEAST, _MOST).astype(np.float32)


def amplify(noise: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Filters noise [H, W, 3] by `find_gains`' gains: float32 of that shape, its mean kept."""
    mean = noise.mean((0, 1))
    around = ((_AROUND, _AROUND), (_AROUND, _AROUND), (0, 0))
    turned = np.pad(noise - mean, around, mode="reflect") @ _AXES.T
    frequency = _frequencies(*turned.shape[:2])
    luma, colour = (
        np.exp(np.interp(frequency, _CENTRES, np.log(part))) for part in np.split(gains, 2)
    )
    waves = np.fft.fft2(turned, axes=(0, 1)) * np.stack([luma, colour, colour], axis=-1)
    filtered = np.fft.ifft2(waves, axes=(0, 1)).real @ _AXES
    inside = filtered[_AROUND:-_AROUND, _AROUND:-_AROUND] + mean
    return inside.astype(np.float32)


def _frequencies(height: int, width: int) -> np.ndarray:
    """Computes the distance from 0 of each frequency of a plane, cycles a pixel."""
    return np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))

"""Power spectra of noise in numbers: measured, read off a photo by a network, and corrected.

The level of generated noise follows the photo (calibration.py), its share of fine and coarse, of
luma and colour, less so: a denoiser trained on it learns to leave what is missing. Where noise is
known, its spectrum can be measured, and a filter brings it to one that is read.

Not in the paper.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.signal import fftconvolve

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
LEAST, MOST = 1 / 3, 3.0
# What clipping leaves is not linear in the gains.
_ITERATIONS = 3
# A pixel of filtered noise depends on those so far away.
RADIUS = 24

SIZE = 2 * _RINGS
# Of a denoiser's condition: a spectrum, and 1 where it is known.
CONDITIONS = SIZE + 1
# What a difference of two logarithms of amplitude is in decibels.
DECIBELS = 20 / np.log(10)
# Error of a standardised vector, 4 dB, up to which a reader knows what it reads.
_SURE = np.float32(4 / DECIBELS) / _SPREAD


@jax.jit
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
    return Measured(encode(amplitude), jnp.broadcast_to(jnp.asarray(known), amplitude.shape))


def condition(vectors: Array, known: Array | bool = True) -> Array:
    """Makes a denoiser's condition of standardised vectors: [N, SIZE] -> [N, CONDITIONS]."""
    # jax2onnx makes numbers of 64 bits of a 0 without a type.
    values = jnp.where(known, vectors, np.float32(0))
    return jnp.concatenate([values, jnp.ones_like(values[:, :1])], axis=1)


def hedged(vectors: Array, errors: Array) -> Array:
    """Moves standardised vectors [..., SIZE] by the errors that are expected of them.

    Up by half of one: what is read is a median of logarithms, below the logarithm of the mean
    power. Down by twice what one is above 4 dB: a reader that does not know takes fine detail for
    noise, and to take detail away costs a photo more than to leave weak noise. Both factors are
    fitted to what denoising makes of photos (docs/log/denoiser.md).
    """
    return vectors + 0.5 * errors - 2 * jnp.maximum(errors - _SURE, 0)


def decode(vectors: Array | np.ndarray) -> Any:
    """Turns standardised vectors [..., SIZE] into logarithms of amplitude, 0 to 255 scale."""
    return vectors * _SPREAD + _CENTRE


def encode(logs: Array) -> Array:
    """Turns logarithms of amplitude into standardised vectors: the other way of `decode`."""
    return (logs - _CENTRE) / _SPREAD


def together(vectors: Array | np.ndarray) -> Array:
    """Averages the power of K crops: standardised [K, ..., SIZE] -> logarithms of amplitude."""
    return 0.5 * jnp.log(jnp.exp(2 * decode(jnp.asarray(vectors))).mean(0))


@jax.jit
def find_gains(read: Array, measured: Measured, gains: Array | float = 1.0) -> Array:
    """Finds the gains that bring noise to a spectrum, each 1/3 to 3.

    Args:
      read: off K crops of a noisy image, standardised, [K, ..., SIZE].
      measured: on noise of K crops.
      gains: those that the noise has had already; [] or [..., SIZE].

    Returns:
      float32 [..., SIZE]; no others than before where nothing is known.
    """
    wanted, found = together(read), together(measured.values)
    ratio = jnp.where(measured.known.all(0), jnp.exp(wanted - found), 1)
    # The coarsest ring holds what is not random, too: where clipping gives noise a mean, that of
    # brighter and darker parts. It is amplified as the next.
    rings = ratio.reshape(*ratio.shape[:-1], 2, _RINGS)
    ratio = jnp.concatenate([rings[..., 1:2], rings[..., 1:]], axis=-1).reshape(ratio.shape)
    return jnp.clip(gains * ratio, LEAST, MOST)


def fit_gains(read: Array, measure_left: Callable[[Array], Measured]) -> Array:
    """Finds the gains that bring what clipping leaves of noise to a spectrum, in iterations.

    Args:
      read: as `find_gains` takes it.
      measure_left: measures, on K crops, what is left of the noise amplified by gains [..., SIZE].

    Returns:
      float32 [..., SIZE].
    """
    gains = jnp.ones(read.shape[1:], jnp.float32)
    for _ in range(_ITERATIONS):
        gains = find_gains(read, measure_left(gains), gains)
    return gains


def amplify(mode: Literal["same", "valid"], noise: Array, gains: Array) -> Array:
    """Filters noise by `find_gains`' gains.

    Args:
      mode: `same`, reflected around its edges, or `valid`, without `RADIUS` pixels at each edge.
      noise: float32 [N, H, W, 3].
      gains: float32 [N, SIZE].

    Returns:
      float32 [N, H, W, 3], or less in `valid`. What noise is around a pixel on average stays.
    """
    if mode == "same":
        around = ((0, 0), (RADIUS, RADIUS), (RADIUS, RADIUS), (0, 0))
        noise = jnp.pad(noise, around, mode="reflect")
    turned = jnp.einsum("nhwc,kc->nhwk", noise, _AXES, precision=jax.lax.Precision.HIGHEST)
    kernels = _kernels(gains)[..., np.array([0, 1, 1])]
    filtered = fftconvolve(turned, kernels, mode="valid", axes=(1, 2))
    return jnp.einsum("nhwk,kc->nhwc", filtered, _AXES, precision=jax.lax.Precision.HIGHEST)


def _kernels(gains: Array) -> Array:
    """Computes convolutions of luma and colour by gains [N, SIZE]: [N, side, side, 2], sum 1."""
    side = 2 * RADIUS + 1
    frequency = _frequencies(side, side)
    parts = np.stack([np.interp(frequency, _CENTRES, ring) for ring in np.eye(_RINGS)], axis=-1)
    logs = jnp.log(gains).reshape(-1, 2, _RINGS)
    logs = jnp.einsum("npr,hwr->nhwp", logs, parts.astype(np.float32), precision="highest")
    kernels = jnp.fft.fftshift(jnp.fft.ifft2(jnp.exp(logs), axes=(1, 2)).real, axes=(1, 2))
    slope = np.hanning(side + 2)[1:-1].astype(np.float32)
    window = (slope[:, None] * slope)[..., None]
    kernels *= window
    return kernels + (1 - kernels.sum((1, 2), keepdims=True)) * window / window.sum()


def _frequencies(height: int, width: int) -> np.ndarray:
    """Computes the distance from 0 of each frequency of a plane, cycles a pixel."""
    return np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))

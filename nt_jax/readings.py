"""Numbers that say what a noise is like: measured on noise, and read off an embedding.

The measured ones are known where the clean image is, as in training: there a small head learns to
predict them from the embedding (`Discriminator.readings`), so that the embedding holds them, and a
loss compares those of true and generated noise. A photo's noise is then read without its clean
image: `Model.read_noise`.
"""

from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

# Offsets (rows, columns) of the autocorrelation.
LAGS = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (0, 4), (4, 0))
_PAIRS = ((0, 1), (0, 2), (1, 2))  # of channels
# Bounds of brightness between the bins of the level curve.
_BRIGHTNESS = np.array([0.2, 0.4, 0.6, 0.8], np.float32)
_BINS = len(_BRIGHTNESS) + 1
_FEWEST_OF_BIN = 0.04  # share of the pixels
_LEAST_DEVIATION = 0.25 / 255  # what rounding to 8 bits leaves of weak noise
_BLOCK = 8  # pixels a side of which blotches are averages

# Sizes of the parts of a reading vector, its centre and its spread over camera noise.
_PARTS = {
    "log_level": (3, np.log(8 / 255), 1.0),
    "autocorrelation": (len(LAGS), 0.3, 0.3),
    "channel_correlation": (len(_PAIRS), 0.3, 0.35),
    "bias": (3, -0.05, 0.15),
    "blotches": (2, 1.3, 0.7),
    "curve": (_BINS, 0.0, 0.3),
}
SIZE = sum(size for size, _, _ in _PARTS.values())
_CENTRE, _SPREAD = (
    np.concatenate([np.full(part[0], part[i], np.float32) for part in _PARTS.values()])
    for i in (1, 2)
)


class Readings(flax.struct.PyTreeNode):
    """Numbers of the noise of images, float32.

    Attributes:
      log_level: [..., 3], logarithm of each channel's standard deviation, in [0, 1] units.
      autocorrelation: [..., 7], at `LAGS`, mean over channels.
      channel_correlation: [..., 3], of red with green, red with blue, green with blue.
      bias: [..., 3], each channel's mean over its standard deviation.
      blotches: [..., 2], of luma and of red minus green: log2 of how far the deviation of 8x8
        averages is above white noise's, 0 to 3.
      curve: [..., 5], logarithm of the level at five brightnesses, relative to that of the whole.
    """

    log_level: Array
    autocorrelation: Array
    channel_correlation: Array
    bias: Array
    blotches: Array
    curve: Array


class Measured(NamedTuple):
    """Readings of known noise as standardised vectors.

    Attributes:
      values: float32 [N, SIZE].
      known: bool [N, SIZE], false for brightnesses that an image has not.
    """

    values: Array
    known: Array


def autocorrelation(noise: Array) -> Array:
    """Measures the spatial correlation of noise at `LAGS`.

    Args:
      noise: float32 [N, H, W, C], H and W above 4.

    Returns:
      [N, C, 7], 0 where there is no noise.
    """
    centred = noise - noise.mean((1, 2), keepdims=True)
    variance = jnp.square(centred).mean((1, 2)) + _LEAST_DEVIATION**2
    _, height, width, _ = noise.shape
    products = [
        (centred[:, dy:, dx:] * centred[:, : height - dy, : width - dx]).mean((1, 2))
        for dy, dx in LAGS
    ]
    return jnp.stack(products, axis=-1) / variance[..., None]


def channel_correlation(noise: Array) -> Array:
    """Measures the correlation between the channels of noise: [N, H, W, 3] -> [N, 3]."""
    centred = noise - noise.mean((1, 2), keepdims=True)
    deviation = jnp.sqrt(jnp.square(centred).mean((1, 2)) + _LEAST_DEVIATION**2)
    products = [
        (centred[..., a] * centred[..., b]).mean((1, 2)) / (deviation[:, a] * deviation[:, b])
        for a, b in _PAIRS
    ]
    return jnp.stack(products, axis=-1)


@jax.jit
def measure(noise: Array, clean: Array) -> Measured:
    """Measures all readings of known noise, standardised.

    Args:
      noise: float32 [N, H, W, 3], H and W 8 or more.
      clean: float32 [N, H, W, 3] in [0, 1], what it was put on.
    """
    mean = noise.mean((1, 2))
    centred = noise - mean[:, None, None]
    deviation = jnp.sqrt(jnp.square(centred).mean((1, 2)) + _LEAST_DEVIATION**2)  # [N, 3]
    log_level = jnp.log(deviation)
    bins = jnp.searchsorted(_BRIGHTNESS, clean.mean(-1), side="right")  # [N, H, W]
    inside = (
        bins[..., None] == jnp.arange(_BINS, dtype=jnp.int32)[None, None, None]
    )  # [N, H, W, bins]
    share = inside.mean((1, 2), dtype=jnp.float32)
    squares = jnp.square(centred).mean(-1)[..., None]
    variance = jnp.where(inside, squares, 0.0).mean((1, 2)) / jnp.maximum(share, 1e-6)
    of_whole = jnp.square(deviation).mean(-1, keepdims=True)
    curve = 0.5 * jnp.log((variance + _LEAST_DEVIATION**2) / of_whole)
    values = Readings(
        log_level=log_level,
        autocorrelation=autocorrelation(noise).mean(1),
        channel_correlation=channel_correlation(noise),
        bias=mean / deviation,
        blotches=_blotches(centred),
        curve=jnp.where(share > _FEWEST_OF_BIN, curve, 0.0),
    )
    vector = jnp.concatenate([getattr(values, name) for name in _PARTS], axis=-1)
    known = jnp.ones((*vector.shape[:-1], SIZE - _BINS), bool)
    known = jnp.concatenate([known, share > _FEWEST_OF_BIN], axis=-1)
    return Measured((vector - _CENTRE[None]) / _SPREAD[None], known)


def _blotches(centred: Array) -> Array:
    """Measures the blotches, [N, H, W, 3] -> [N, 2], see `Readings.blotches`."""
    fields = jnp.stack([centred.mean(-1), centred[..., 0] - centred[..., 1]], axis=-1)
    count, height, width = (fields.shape[0], *(side // _BLOCK for side in fields.shape[1:3]))
    whole = fields[:, : height * _BLOCK, : width * _BLOCK]
    blocks = whole.reshape(count, height, _BLOCK, width, _BLOCK, 2).mean((2, 4))
    # Rounding's share keeps faint colour noise from looking blotchy.
    fine = jnp.square(whole).mean((1, 2)) + _LEAST_DEVIATION**2
    coarse = jnp.square(blocks).mean((1, 2)) * _BLOCK**2 + _LEAST_DEVIATION**2
    return 0.5 * jnp.log2(coarse / fine)


def decode(vectors: Array | np.ndarray) -> Readings:
    """Decodes readings of standardised vectors [..., SIZE], as the embedding's head gives them."""
    ones = (1,) * (jnp.ndim(vectors) - 1)
    values = vectors * _SPREAD.reshape(*ones, -1) + _CENTRE.reshape(*ones, -1)
    ends = np.cumsum([size for size, _, _ in _PARTS.values()])[:-1]
    # Arrays of NumPy stay there: each operation of JAX is a program to find and to load.
    split: Any = np.split if isinstance(values, np.ndarray) else jnp.split
    parts: Any = split(values, ends, axis=-1)
    return Readings(**dict(zip(_PARTS, parts, strict=True)))


class NoiseReading(NamedTuple):
    """Noise of one or N images in numbers, NumPy float32.

    Attributes:
      level: [..., 3], standard deviation of each channel, 0 to 255 scale.
      lag1, lag2: [...], correlation with the next pixel and the one after, along rows and columns.
      channel_correlation: [..., 3], of red with green, red with blue, green with blue.
      bias: [..., 3], mean of each channel's noise, 0 to 255 scale.
    """

    level: np.ndarray
    lag1: np.ndarray
    lag2: np.ndarray
    channel_correlation: np.ndarray
    bias: np.ndarray

    @property
    def total_level(self) -> np.ndarray:
        """Of all channels together, [...], 0 to 255 scale."""
        return np.sqrt(np.square(self.level).mean(-1))


def summarize(readings: Readings) -> NoiseReading:
    """Puts the readings of K crops together: [K, N, ...] -> [N, ...]; a strong crop counts more."""
    deviation = np.exp(np.asarray(readings.log_level, np.float32))  # [K, N, 3]
    variance = np.square(deviation)
    weight = variance.mean(-1, keepdims=True)
    weight = weight / weight.mean(0, keepdims=True)
    correlations = np.clip((weight * np.asarray(readings.autocorrelation)).mean(0), -1, 1)
    lag1, lag2 = (
        np.mean([correlations[..., LAGS.index(lag)] for lag in lags], axis=0)
        for lags in (((0, 1), (1, 0)), ((0, 2), (2, 0)))
    )
    between = np.clip((weight * np.asarray(readings.channel_correlation)).mean(0), -1, 1)
    return NoiseReading(
        level=255 * np.sqrt(variance.mean(0)),
        lag1=lag1,
        lag2=lag2,
        channel_correlation=between,
        bias=255 * (deviation * np.asarray(readings.bias)).mean(0),
    )

"""Cameras' processing of noise between the mosaic and the file: reduction, smoothing, sharpening.

Each step is linear in the noise, which is in linear sRGB here, so that the tone curve acts on what
they leave of it and no bias of its own is smoothed or amplified. Smoothing and sharpening are
products with a transfer function over the frequencies, one for luma and one for chroma: cameras
smooth colour far more. The level that smoothing takes away is given back, since the level has a
range of its own. Noise reduction that keeps edges leaves more and finer noise where the image has
detail.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nt_jax import prng
from nt_jax.filters import local_moments
from nt_jax.noise.jpeg import RGB_TO_YCC, YCC_TO_RGB, times

# Ranges, fitted so that the real images in docs/noise_world.jpg lie inside the cloud of samples
# (experiments/dataset_statistics.py): SIDD at 256 x 256 is white, SIDD at full resolution is
# demosaicked and no more, PolyU's JPEGs have colour blotches of 8 to 16 pixels.

# Share of settings with the noise of a mosaic; the others have noise of each channel by itself, as
# images of three sensors, or reduced so far that no correlation is left, have.
_MOSAIC_SHARE = 2 / 3
# Share of settings that a camera reduced in size, and the least scale.
_REDUCED_SHARE, _LEAST_SCALE = 1 / 4, 1 / 2
# Share of settings with strong noise reduction, of luma and chroma alike.
_STRONG_SHARE = 1 / 3
# Smoothing of luma in pixels, a Gaussian's sigma: share of the other settings without, share of
# light smoothing up to 1 pixel; the rest is strong. What chroma has on top, likewise.
_LUMA_NONE, _LUMA_LIGHT, _LUMA_STRONG = 0.5, 0.35, (0.7, 2.2)
_CHROMA_NONE, _CHROMA_LIGHT, _CHROMA_STRONG = 0.4, 0.3, (1.2, 8.0)
_LIGHT_LUMA, _LIGHT_CHROMA = 1.0, 1.6
# Share of the noise's amplitude that smoothing leaves untouched, as edge-keeping filters do.
_FINE_SHARE, _MOST_FINE = 0.5, 0.5
# Share of settings with blotches, their share of the amplitude and their sigma in pixels.
_BLOTCHY_SHARE, _MOST_BLOTCHY, _BLOTCH_RANGE = 0.35, 0.6, (1.5, 8.0)
# Share of settings with sharpening, and its greatest amount (unsharp mask of 1 pixel, luma only).
_SHARP_SHARE, _MOST_SHARP = 0.3, 1.5
# Share of settings whose noise reduction keeps edges. On plain parts it multiplies the amplitude by
# e to the power of down to minus this: PolyU's log ratios of busy to plain parts are .3 to 1.7 in
# luma, .1 to 1.8 in chroma (docs/noise.md). Range of the detail at which it does half.
_EDGE_SHARE, _MOST_REDUCED, _DETAIL_RANGE = 0.5, 1.8, (2.0, 25.0)
# Stretch of all filters along one axis: e to the power of +- this.
_STRETCH = 0.3
# Levels of luma and chroma are multiplied by e to the power of +- these, and chroma in a share of
# settings, and with strong noise reduction, by anything from 0 (noise common to all channels) to 1.
_LEVEL_SPREAD, _CHROMA_SPREAD, _FAINT_CHROMA_SHARE = 0.6, 0.4, 0.3
# Share of settings saved as JPEG, the quality's range, and the share of those with 4:2:0.
_JPEG_SHARE, _JPEG_QUALITY, _SUBSAMPLED_SHARE = 0.4, (60.0, 98.0), 0.5


class Processing(NamedTuple):
    """Processing of noise by one camera; pairs are luma and chroma.

    Attributes:
      mosaic: bool [], noise of a mosaic, else of each channel by itself.
      scale: float32 [] in [1/2, 1], reduction in size.
      narrow: float32 [2], sigma of the smoothing, pixels.
      wide: float32 [2], sigma of blotches, pixels.
      blotches: float32 [2] in [0, 1], share of the smooth part that is blotches.
      fine: float32 [2] in [0, 1], share that is not smoothed.
      sharpness: float32 [], amount of the unsharp mask on luma.
      at_edges: float32 [2], amplitude of the noise on detail over that on plain parts.
      detail: float32 [], deviation of the image's luma in windows of 7x7, grey levels, at which the
        noise is half of either; infinity where noise is smoothed everywhere.
      stretch: float32 [], how much wider than high every filter is.
      level: float32 [2], what the noise is multiplied with.
      jpeg_quality: float32 [], 1..100; 0 for no JPEG.
      subsampled: bool [], whether its chroma has half the height and width.
    """

    mosaic: jax.Array
    scale: jax.Array
    narrow: jax.Array
    wide: jax.Array
    blotches: jax.Array
    fine: jax.Array
    sharpness: jax.Array
    at_edges: jax.Array
    detail: jax.Array
    stretch: jax.Array
    level: jax.Array
    jpeg_quality: jax.Array
    subsampled: jax.Array


def plain_processing(**changes: Any) -> Processing:
    """Makes a camera with a mosaic that does nothing to its noise, but for the changes."""
    values = {
        "mosaic": True,
        "scale": 1.0,
        "narrow": (0.0, 0.0),
        "wide": (1.0, 1.0),
        "blotches": (0.0, 0.0),
        "fine": (0.0, 0.0),
        "sharpness": 0.0,
        "at_edges": (1.0, 1.0),
        "detail": math.inf,
        "stretch": 1.0,
        "level": (1.0, 1.0),
        "jpeg_quality": 0.0,
        "subsampled": False,
    } | changes
    return Processing(**{name: jnp.asarray(value) for name, value in values.items()})


def sample_processing(key: jax.Array) -> Processing:
    """Draws what a camera does to its noise."""
    # One draw of all numbers, because each call of jax.random takes half a second to compile.
    numbers = prng.uniform(key, (32,))
    u = iter(numbers[:28])

    def amount(share: float, most: float) -> jax.Array:
        """Draws an amount up to `most` in a share of the draws, else 0."""
        return jnp.where(next(u) < share, most * next(u), 0.0)

    is_strong = next(u) < _STRONG_SHARE

    def smoothing(none: float, light: float, most: float, strong: tuple[float, float]) -> jax.Array:
        choice, size = jnp.where(is_strong, 1.0, next(u)), next(u)
        sigma = _between(size, *(math.log(bound) for bound in strong))
        sigma = jnp.where(choice < none + light, most * size, jnp.exp(sigma))
        return jnp.where(choice < none, 0.0, sigma)

    def spread(width: float) -> jax.Array:
        return jnp.exp(width * (2 * next(u) - 1))

    luma = smoothing(_LUMA_NONE, _LUMA_LIGHT, _LIGHT_LUMA, _LUMA_STRONG)
    chroma = luma + smoothing(_CHROMA_NONE, _CHROMA_LIGHT, _LIGHT_CHROMA, _CHROMA_STRONG)
    low, high = (math.log(bound) for bound in _BLOTCH_RANGE)
    wide = jnp.exp(_between(jnp.stack([next(u), next(u)]), low, high))
    level = spread(_LEVEL_SPREAD)
    faint, faintness = next(u), next(u)
    is_faint = is_strong | (faint < _FAINT_CHROMA_SHARE)
    of_chroma = jnp.where(is_faint, faintness, 1.0) * spread(_CHROMA_SPREAD)
    keeps_edges = numbers[28] < _EDGE_SHARE
    low, high = (math.log(bound) for bound in _DETAIL_RANGE)
    detail = jnp.exp(_between(numbers[29], low, high))
    reduced = jnp.where(keeps_edges, _MOST_REDUCED * numbers[30:], 0.0)
    return Processing(
        mosaic=next(u) < _MOSAIC_SHARE,
        scale=1 - amount(_REDUCED_SHARE, 1 - _LEAST_SCALE),
        narrow=jnp.stack([luma, chroma]),
        wide=wide,
        blotches=jnp.stack([amount(_BLOTCHY_SHARE, _MOST_BLOTCHY) for _ in range(2)]),
        fine=jnp.stack([amount(_FINE_SHARE, _MOST_FINE) for _ in range(2)]),
        sharpness=amount(_SHARP_SHARE, _MOST_SHARP),
        at_edges=jnp.exp(reduced),
        detail=jnp.where(keeps_edges, detail, jnp.inf),
        stretch=spread(_STRETCH),
        level=level * jnp.stack([jnp.ones_like(of_chroma), of_chroma]) * jnp.exp(-reduced),
        jpeg_quality=jnp.where(next(u) < _JPEG_SHARE, _between(next(u), *_JPEG_QUALITY), 0.0),
        subsampled=next(u) < _SUBSAMPLED_SHARE,
    )


def _between(uniform: jax.Array, low: float, high: float) -> jax.Array:
    return low + uniform * (high - low)


def resize(image: jax.Array, scale: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Scales [H, W, C] about its first corner, bilinearly and without aliasing.

    Args:
      image: float32.
      scale: [], may be traced; 1 changes nothing.
      size: height and width of the result, cut off or filled with 0.
    """
    return jax.image.scale_and_translate(
        image,
        (*size, image.shape[-1]),
        (0, 1),
        jnp.stack([scale, scale]),
        jnp.zeros(2, jnp.float32),
        "linear",
        precision=jax.lax.Precision.HIGHEST,
    )


def filter_noise(noise: jax.Array, processing: Processing) -> jax.Array:
    """Smooths and sharpens noise, as if it went on at the opposite edge.

    Args:
      noise: float32 [H, W, 3], linear.
      processing: scalars and pairs.

    Returns:
      float32 [H, W, 3]; white noise keeps its level but for `processing.level`.
    """
    height, width, _ = noise.shape
    transfer = _transfer(height, width, processing)
    transfer = jnp.stack([transfer[0], transfer[1], transfer[1]], axis=-1)
    spectrum = jnp.fft.rfft2(times(noise, RGB_TO_YCC), axes=(0, 1))
    product = jax.lax.complex(spectrum.real * transfer, spectrum.imag * transfer)
    filtered = jnp.fft.irfft2(product, (height, width), axes=(0, 1))
    return times(filtered, YCC_TO_RGB)


def keep_at_edges(
    filtered: jax.Array, noise: jax.Array, clean: jax.Array, processing: Processing
) -> jax.Array:
    """Mixes smoothed noise with unsmoothed where the image has detail, by a Wiener filter's weight.

    Args:
      filtered: what `filter_noise` makes of `noise`.
      noise: float32 [H, W, 3], linear.
      clean: the image in sRGB, [H, W, 3] in [0, 1], H and W above 3.
      processing: scalars and pairs.
    """
    luma = times(255 * clean, RGB_TO_YCC)[None, ..., :1]
    variance = jnp.maximum(local_moments(luma)[1][0], 0)
    weight = variance / (variance + jnp.square(processing.detail))
    luma_gain, chroma_gain = processing.level * processing.at_edges
    gains = jnp.stack([luma_gain, chroma_gain, chroma_gain]).reshape(1, 1, 3)
    kept = times(times(noise, RGB_TO_YCC) * gains, YCC_TO_RGB)
    return filtered + weight * (kept - filtered)


def _transfer(height: int, width: int, processing: Processing) -> jax.Array:
    """Computes the transfer functions of luma and chroma, [2, H, W // 2 + 1]."""
    rows = jnp.fft.fftfreq(height, dtype=jnp.float32)[:, None]
    columns = jnp.fft.rfftfreq(width, dtype=jnp.float32)[None]
    squares = rows**2 / processing.stretch + columns**2 * processing.stretch

    def gaussian(sigma: jax.Array) -> jax.Array:
        return jnp.exp(-2 * math.pi**2 * jnp.square(sigma)[:, None, None] * squares[None])

    fine, blotches = (x[:, None, None] for x in (processing.fine, processing.blotches))
    smooth = (1 - blotches) * gaussian(processing.narrow) + blotches * gaussian(processing.wide)
    amount = jnp.stack([processing.sharpness, jnp.zeros_like(processing.sharpness)])
    sharp = 1 + amount[:, None, None] * (1 - gaussian(jnp.ones(2, jnp.float32)))
    transfer = (fine + (1 - fine) * smooth) * sharp
    # Each column of the half plane stands for two but the first and, of an even width, the last.
    twice = jnp.arange(width // 2 + 1, dtype=jnp.int32)
    counts = jnp.where((twice == 0) | (2 * twice == width), jnp.float32(1), jnp.float32(2))
    power = (jnp.square(transfer) * counts[None, None]).sum((1, 2), keepdims=True) / (
        height * width
    )
    return transfer * (processing.level[:, None, None] / jnp.sqrt(power))

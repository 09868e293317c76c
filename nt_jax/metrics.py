"""How close generated noise is to real noise, and how close an image is to its clean version.

Every function takes images uint8 or float in [0, 1], NumPy or JAX, [N, H, W, 3] ([H, W, 3] counts
as N = 1) and returns float32 with one entry per image; averaging over images is the caller's.
Inputs are checked first: another layout, dtype or range, NaN, unequal shapes, or an image too
small for the metric raises `nt_jax.errors.InputError` (a ValueError). Inside `jit` the range
cannot be looked at, and images are clipped to [0, 1] instead.

"Real noise" is noisy − clean and "generated noise" is generated − clean throughout.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nt_jax import prng
from nt_jax.arrays import as_images, as_noise
from nt_jax.errors import InputError

# OpenCV's getGaussianKernel(7, -1): for size 7 a fixed table, not a sampled Gaussian.
_AKLD_TAPS = np.array([0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125], np.float32)
_HISTOGRAM_BINS = 256
_TAIL_BINS, _TAIL = 64, 0.1
_GREY_BINS = 130
_LEVEL_BINS = 16
_SPECTRUM_BINS = 32
_SSIM_SIZE, _SSIM_SIGMA, _SSIM_C1, _SSIM_C2 = 11, 1.5, 0.01**2, 0.03**2
# Variances below this (a standard deviation of 1e-5, 1/400 of an 8-bit step) count as none.
_VARIANCE_FLOOR = 1e-10


# --- Distribution of the noise -------------------------------------------------------------------


def akld(clean: ArrayLike, noisy: ArrayLike, generated: ArrayLike) -> jax.Array:
    """Computes the average KL divergence of real and generated noise, lower is better: [N].

    DANet (Yue et al., ECCV 2020) as NoiseTransfer's program computes it: both noises are taken as
    zero-mean Gaussians whose variance at a pixel and channel is the squared noise blurred by
    OpenCV's fixed 7×7 Gaussian (reflection without the edge pixel, floor 1e-10);
    ½ · mean(r − 1 − ln r), r = σ²_generated / σ²_real clamped to [0.1, 10].

    Two independent draws of one Gaussian noise score about 0.043, not 0: report `akld_floor`
    beside it. Images need at least 4 × 4 pixels.
    """
    return _akld(*_images(4, clean=clean, noisy=noisy, generated=generated))


def akld_floor(clean: ArrayLike, noisy: ArrayLike, key: jax.Array) -> jax.Array:
    """Estimates the AKLD that even a perfect generator would score on these images: [N].

    For when the true noise cannot be drawn again (if it can, score a second draw with `akld`).
    The local variance σ²(x) of the real noise is estimated as in `akld`; two images clean + σ·n
    are drawn from `key`, n Gaussian with the real noise's own power spectrum, each channel by
    itself (surrogate data: Theiler et al., Physica D 1992), and the second is scored against the
    first as if that were the real one. Spatially correlated noise has fewer independent samples
    under the blur, so its floor is higher than the 0.043 of white noise.
    """
    return _akld_floor(*_images(4, clean=clean, noisy=noisy), key)


def ks(clean: ArrayLike, noisy: ArrayLike, generated: ArrayLike) -> jax.Array:
    """Computes the Kolmogorov-Smirnov distance of noise histograms, 0 to 1, lower is better: [N].

    Largest |difference| of the cumulative histograms of all noise values of an image, channels
    pooled, in 256 equal bins on [−1, 1].
    """
    return _ks(*_images(1, clean=clean, noisy=noisy, generated=generated))


def kld(clean: ArrayLike, noisy: ArrayLike, generated: ArrayLike) -> jax.Array:
    """Computes the forward KL divergence of the noise histograms (bins of `ks`), in nats: [N].

    Σ p ln(p / q), p real and q generated, over the bins where both are > 0 (Noise Flow, Abdelhamed
    et al., ICCV 2019; as NAFlow's table has it). Papers call three things KLD: the numbers of
    `kld_tails` and `kld_grey_levels` are others. As mass outside those bins is left out, noises
    with hardly any bin in common can score near or below 0: read it beside `ks`.
    """
    return _kld(*_images(1, clean=clean, noisy=noisy, generated=generated))


def kld_tails(clean: ArrayLike, noisy: ArrayLike, generated: ArrayLike) -> jax.Array:
    """Computes KLD as NeCA (Fu et al., CVPR 2023) has it, in nats, lower is better: [N].

    As `kld`, in 64 equal bins on [−0.1, 0.1] and one for the tail on each side.
    """
    return _kld_tails(*_images(1, clean=clean, noisy=noisy, generated=generated))


def kld_grey_levels(clean: ArrayLike, noisy: ArrayLike, generated: ArrayLike) -> jax.Array:
    """Computes KLD as sRGB Flow (Kousha et al., CVPR 2022) does, in nats, lower is better: [N].

    Bins are 4 grey levels wide on [−260, 260) of the 0 to 255 scale; every count gets 1 more, so
    none is 0, and a generator that puts noise where there is none pays for it.
    """
    return _kld_grey_levels(*_images(1, clean=clean, noisy=noisy, generated=generated))


@jax.jit
def _akld(clean: jax.Array, noisy: jax.Array, generated: jax.Array) -> jax.Array:
    real, fake = _noises(clean, noisy, generated)
    ratio = jnp.clip(_local_variance(fake) / _local_variance(real), 0.1, 10.0)
    return 0.5 * jnp.mean(ratio - 1.0 - jnp.log(ratio), axis=(1, 2, 3))


@jax.jit
def _akld_floor(clean: jax.Array, noisy: jax.Array, key: jax.Array) -> jax.Array:
    (real,) = _noises(clean, noisy)
    # Without the floor: where there is no noise, a second draw of it is no noise either.
    sigma = jnp.sqrt(_blurred_square(real))
    amplitude = jnp.abs(jnp.fft.rfft2(real, axes=(1, 2)))
    power = jnp.sqrt(jnp.maximum(jnp.square(real).sum((1, 2), keepdims=True), _VARIANCE_FLOOR))
    spectra = jnp.fft.rfft2(prng.normal(key, (2, *real.shape)), axes=(2, 3))
    spectra *= (amplitude / power)[None].astype(spectra.dtype)
    shaped = jnp.fft.irfft2(spectra, s=real.shape[1:3], axes=(2, 3))
    first, second = sigma[None] * shaped
    return _akld(clean, clean + first, clean + second)


def _local_variance(noise: jax.Array) -> jax.Array:
    return jnp.maximum(_blurred_square(noise), _VARIANCE_FLOOR)


def _blurred_square(noise: jax.Array) -> jax.Array:
    padded = jnp.pad(noise**2, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="reflect")
    return _filter_valid(padded, _AKLD_TAPS)


@jax.jit
def _ks(clean: jax.Array, noisy: jax.Array, generated: jax.Array) -> jax.Array:
    real, fake = (_histogram(noise) for noise in _noises(clean, noisy, generated))
    # Integer counts: exact, so that identical noises score exactly 0.
    furthest = jnp.max(jnp.abs(jnp.cumsum(real - fake, axis=1)), axis=1)
    return furthest.astype(jnp.float32) / _values_per_image(clean)


@jax.jit
def _kld(clean: jax.Array, noisy: jax.Array, generated: jax.Array) -> jax.Array:
    return _divergence(*(_histogram(noise) for noise in _noises(clean, noisy, generated)))


@jax.jit
def _kld_tails(clean: jax.Array, noisy: jax.Array, generated: jax.Array) -> jax.Array:
    def counts(noise: jax.Array) -> jax.Array:
        half = _TAIL_BINS // 2
        index = jnp.floor(noise * (half / _TAIL)).astype(jnp.int32) + half
        return _counts(jnp.clip(index + 1, 0, _TAIL_BINS + 1), _TAIL_BINS + 2)

    return _divergence(*(counts(noise) for noise in _noises(clean, noisy, generated)))


@jax.jit
def _kld_grey_levels(clean: jax.Array, noisy: jax.Array, generated: jax.Array) -> jax.Array:
    def counts(noise: jax.Array) -> jax.Array:
        # A difference of two bytes may be a rounding error below the grey level that a bin starts.
        level = noise * 255 + 1e-3
        half = _GREY_BINS // 2
        return _counts(jnp.floor(level / 4).astype(jnp.int32) + half, _GREY_BINS) + 1

    return _divergence(*(counts(noise) for noise in _noises(clean, noisy, generated)))


def _divergence(real: jax.Array, fake: jax.Array) -> jax.Array:
    """Computes the KL divergence of counts [N, bins], over the bins where both are > 0: [N]."""
    real, fake = (counts.astype(jnp.float32) for counts in (real, fake))
    both = (real > 0) & (fake > 0)
    log_ratio = jnp.log(jnp.where(both, real, 1) / jnp.where(both, fake, 1))
    return jnp.sum(jnp.where(both, real * log_ratio, 0), axis=1) / jnp.sum(real, axis=1)


def _histogram(noise: jax.Array) -> jax.Array:
    """Counts the values of each image in 256 equal bins on [−1, 1]: int32 [N, 256]."""
    half = _HISTOGRAM_BINS // 2
    # Scaling by a power of two is exact and adding after the floor is too; floor((v + 1)·128)
    # would round a tiny negative value up into the bin that starts at 0.
    index = jnp.floor(noise * half).astype(jnp.int32) + half
    return _counts(jnp.minimum(index, _HISTOGRAM_BINS - 1), _HISTOGRAM_BINS)


def _counts(index: jax.Array, bins: int) -> jax.Array:
    """Counts each number of [N, ...]: int32 [N, bins]."""
    rows = index.reshape(index.shape[0], -1)
    return jax.vmap(lambda values: jnp.bincount(values, length=bins))(rows).astype(jnp.int32)


def _values_per_image(images: jax.Array) -> float:
    return float(np.prod(images.shape[1:]))


# --- Fidelity of an image ------------------------------------------------------------------------


def psnr(clean: ArrayLike, image: ArrayLike) -> jax.Array:
    """Computes the peak signal-to-noise ratio in dB, higher is better: [N].

    10·log10(1 / (mse + 1e-8)) over all pixels and channels, in float (no rounding to 8 bits);
    80 dB for identical images.
    """
    return _psnr(*_images(1, clean=clean, image=image))


def ssim(clean: ArrayLike, image: ArrayLike) -> jax.Array:
    """Computes the structural similarity (Wang et al., 2004), at most 1, higher is better: [N].

    Images are first reduced by average pooling with factor max(1, round(min(H, W) / 256)): from
    384 pixels on, so a few pixels more can change the score a lot; see `ssim_plain`. Then Gaussian
    windows of 11 × 11, σ 1.5, where they fit wholly, population covariance,
    K = (0.01, 0.03), data range 1; per channel, then the mean. Needs at least 11 × 11 pixels.
    """
    return _ssim(*_images(_SSIM_SIZE, clean=clean, image=image))


def ssim_plain(clean: ArrayLike, image: ArrayLike) -> jax.Array:
    """Computes the structural similarity of images as they are, without `ssim`'s reduction: [N].

    That of scikit-image with Gaussian weights, sigma 1.5, population covariance and data range 1,
    and what most programs report. Equal to `ssim` for images whose shorter side is below 384
    pixels; of larger ones `ssim` sees less of the finest detail, and is higher as a rule.
    """
    return _ssim_plain(*_images(_SSIM_SIZE, clean=clean, image=image))


@jax.jit
def _psnr(clean: jax.Array, image: jax.Array) -> jax.Array:
    (error,) = _noises(clean, image)
    return -10.0 * jnp.log10(jnp.mean(error**2, axis=(1, 2, 3)) + 1e-8)


@jax.jit
def _ssim(clean: jax.Array, image: jax.Array) -> jax.Array:
    return _similarity(*(_downsample(jnp.clip(v, 0.0, 1.0)) for v in (clean, image)))


@jax.jit
def _ssim_plain(clean: jax.Array, image: jax.Array) -> jax.Array:
    return _similarity(*(jnp.clip(v, 0.0, 1.0) for v in (clean, image)))


def _similarity(x: jax.Array, y: jax.Array) -> jax.Array:
    offsets = np.arange(_SSIM_SIZE) - _SSIM_SIZE // 2
    taps = np.exp(-(offsets**2) / (2 * _SSIM_SIGMA**2))
    window = partial(_filter_valid, taps=(taps / taps.sum()).astype(np.float32))
    mean_x, mean_y = window(x), window(y)
    variance_x, variance_y = window(x * x) - mean_x**2, window(y * y) - mean_y**2
    covariance = window(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _SSIM_C1) / (mean_x**2 + mean_y**2 + _SSIM_C1)
    structure = (2 * covariance + _SSIM_C2) / (variance_x + variance_y + _SSIM_C2)
    return jnp.mean(luminance * structure, axis=(1, 2, 3))


def _downsample(images: jax.Array) -> jax.Array:
    n, height, width, channels = images.shape
    factor = max(1, round(min(height, width) / 256))
    height, width = height // factor, width // factor
    blocks = images[:, : height * factor, : width * factor]
    return blocks.reshape(n, height, factor, width, factor, channels).mean(axis=(2, 4))


# --- Structure of the noise ----------------------------------------------------------------------


def lag_autocorrelation(noise: ArrayLike, lag: int) -> jax.Array:
    """Correlates the noise with itself `lag` pixels away, in [−1, 1]: [N].

    Pearson's coefficient of all pairs of pixels at that distance, horizontally and vertically for
    each channel; the mean of the six. Noise is finite float of any range; a constant channel
    counts as 0. Needs 1 ≤ lag ≤ min(H, W) − 2.
    """
    array = as_noise(noise, "noise")
    if not 1 <= lag <= min(array.shape[1:3]) - 2:
        raise InputError(f"lag: expected 1 to min(H, W) - 2 for {list(array.shape)}; got {lag}")
    return _lag_autocorrelation(array, lag)


def radial_power_spectrum(noise: ArrayLike, bins: int) -> jax.Array:
    """Computes the noise's power spectrum averaged over directions and channels: [N, bins].

    |DFT|² / (H·W), averaged in equal bins of radial frequency on (0, ½] cycles per pixel, so that
    white noise of variance v is flat at v. The mean (frequency 0) and the corners beyond ½, which
    not all directions reach, are left out. Noise is finite float of any range. Needs
    1 ≤ bins ≤ max(H, W) // 2, so that no bin is empty.
    """
    array = as_noise(noise, "noise")
    if not 1 <= bins <= max(array.shape[1:3]) // 2:
        raise InputError(f"bins: expected 1 to max(H, W) // 2 for {list(array.shape)}; got {bins}")
    return _radial_power_spectrum(array, bins)


def channel_correlation(noise: ArrayLike) -> jax.Array:
    """Computes Pearson's correlation of the noise between colour channels: [N, 3, 3].

    Noise is finite float of any range; rows and columns of a constant channel are 0.
    """
    return _channel_correlation(as_noise(noise, "noise"))


def noise_level_curve(
    clean: ArrayLike, noisy: ArrayLike, bins: int = _LEVEL_BINS
) -> tuple[jax.Array, jax.Array]:
    """Measures the noise level function: the noise's standard deviation by clean intensity.

    Every value of every channel falls in one of `bins` equal bins on [0, 1] by its clean intensity.
    Returns the population standard deviation (about the bin's mean noise) in each, in units of the
    image range, NaN where a bin is empty, and how many values each holds: [N, bins] float32 and
    [N, bins] int32.
    """
    if bins < 1:
        raise InputError(f"bins: expected 1 or more; got {bins}")
    return _noise_level_curve(*_images(1, clean=clean, noisy=noisy), bins)


def lag1_error(clean: ArrayLike, noisy: ArrayLike, generated: ArrayLike) -> jax.Array:
    """Computes |difference| of the lag-1 autocorrelations of real and generated noise: [N].

    Images need at least 3 × 3 pixels.
    """
    return _lag1_error(*_images(3, clean=clean, noisy=noisy, generated=generated))


def psd_error(clean: ArrayLike, noisy: ArrayLike, generated: ArrayLike) -> jax.Array:
    """Computes the log-spectral distance of the two noises' radial power spectra, in dB: [N].

    √ mean over bins of (10·log10(P_generated / P_real))², with min(32, min(H, W) // 2) bins and
    powers floored at 1e-10. Sees level as well as colour: twice the variance alone scores 3 dB.
    Images need at least 2 × 2 pixels.
    """
    return _psd_error(*_images(2, clean=clean, noisy=noisy, generated=generated))


def channel_correlation_error(
    clean: ArrayLike, noisy: ArrayLike, generated: ArrayLike
) -> jax.Array:
    """Averages |difference| of the three channel correlations of real and generated noise: [N]."""
    return _channel_correlation_error(*_images(1, clean=clean, noisy=noisy, generated=generated))


def noise_level_error(clean: ArrayLike, noisy: ArrayLike, generated: ArrayLike) -> jax.Array:
    """Computes the relative error of the generated noise level curve: [N].

    Σ c |s_generated − s_real| / Σ c s_real over the 16 bins of `noise_level_curve`, s the standard
    deviation and c the count: 0.05 means 5 % off on average, 1 no noise at all. The denominator's
    mean level is floored at 1e-5.
    """
    return _noise_level_error(*_images(1, clean=clean, noisy=noisy, generated=generated))


def level_ratio_error(clean: ArrayLike, noisy: ArrayLike, generated: ArrayLike) -> jax.Array:
    """Computes |logarithm| of the ratio of the generated to the real noise level: [N].

    The level is the standard deviation over all pixels and channels, floored at 1e-5; 0.1 means
    that it is 10 % off, up or down.
    """
    return _level_ratio_error(*_images(1, clean=clean, noisy=noisy, generated=generated))


@partial(jax.jit, static_argnames="lag")
def _lag_autocorrelation(noise: jax.Array, lag: int) -> jax.Array:
    horizontal = _correlation(noise[:, :, :-lag], noise[:, :, lag:])
    vertical = _correlation(noise[:, :-lag], noise[:, lag:])
    return jnp.mean((horizontal + vertical) / 2, axis=1)


@partial(jax.jit, static_argnames="bins")
def _radial_power_spectrum(noise: jax.Array, bins: int) -> jax.Array:
    n, height, width, _ = noise.shape
    power = jnp.abs(jnp.fft.fft2(noise, axes=(1, 2))) ** 2 / (height * width)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    # Bin i is (i, i + 1] / (2·bins); frequencies on an edge must not move up by rounding.
    index = np.ceil(frequency * 2 * bins - 1e-9).astype(np.int32) - 1
    power = jnp.mean(power, axis=3).reshape(n, -1)
    return _binned_moments(power, index.reshape(1, -1), bins)[0]


@jax.jit
def _channel_correlation(noise: jax.Array) -> jax.Array:
    return _correlation(noise[..., :, None], noise[..., None, :])


@partial(jax.jit, static_argnames="bins")
def _noise_level_curve(
    clean: jax.Array, noisy: jax.Array, bins: int
) -> tuple[jax.Array, jax.Array]:
    n = clean.shape[0]
    noise = _noises(clean, noisy)[0].reshape(n, -1)
    intensity = jnp.clip(clean, 0.0, 1.0).reshape(n, -1)
    index = jnp.minimum(jnp.floor(intensity * bins).astype(jnp.int32), bins - 1)
    _, variances, counts = _binned_moments(noise, index, bins)
    return jnp.where(counts > 0, jnp.sqrt(variances), jnp.nan), counts


@jax.jit
def _lag1_error(clean: jax.Array, noisy: jax.Array, generated: jax.Array) -> jax.Array:
    real, fake = (_lag_autocorrelation(n, 1) for n in _noises(clean, noisy, generated))
    return jnp.abs(fake - real)


@jax.jit
def _psd_error(clean: jax.Array, noisy: jax.Array, generated: jax.Array) -> jax.Array:
    bins = min(_SPECTRUM_BINS, min(clean.shape[1:3]) // 2)
    real, fake = (
        10.0 * jnp.log10(jnp.maximum(_radial_power_spectrum(n, bins), _VARIANCE_FLOOR))
        for n in _noises(clean, noisy, generated)
    )
    return jnp.sqrt(jnp.mean((fake - real) ** 2, axis=1))


@jax.jit
def _channel_correlation_error(
    clean: jax.Array, noisy: jax.Array, generated: jax.Array
) -> jax.Array:
    real, fake = (_channel_correlation(n) for n in _noises(clean, noisy, generated))
    rows, columns = np.triu_indices(3, k=1)
    return jnp.mean(jnp.abs(fake - real)[:, rows, columns], axis=1)


@jax.jit
def _noise_level_error(clean: jax.Array, noisy: jax.Array, generated: jax.Array) -> jax.Array:
    real, counts = _noise_level_curve(clean, noisy, _LEVEL_BINS)
    fake, _ = _noise_level_curve(clean, generated, _LEVEL_BINS)
    weights = counts.astype(jnp.float32) / _values_per_image(clean)

    def mean(levels: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(counts > 0, weights * levels, 0), axis=1)

    return mean(jnp.abs(fake - real)) / jnp.maximum(mean(real), _VARIANCE_FLOOR**0.5)


@jax.jit
def _level_ratio_error(clean: jax.Array, noisy: jax.Array, generated: jax.Array) -> jax.Array:
    real, fake = (
        jnp.log(jnp.maximum(jnp.var(n, axis=(1, 2, 3)), _VARIANCE_FLOOR))
        for n in _noises(clean, noisy, generated)
    )
    return jnp.abs(fake - real) / 2


def _correlation(x: jax.Array, y: jax.Array) -> jax.Array:
    """Correlates (Pearson) over axes 1 and 2, broadcast over the rest; 0 where one is constant."""
    x, y = (v - jnp.mean(v, axis=(1, 2), keepdims=True) for v in (x, y))
    variance_x, variance_y = (
        jnp.maximum(jnp.mean(v**2, axis=(1, 2)), _VARIANCE_FLOOR) for v in (x, y)
    )
    return jnp.mean(x * y, axis=(1, 2)) / jnp.sqrt(variance_x * variance_y)


def _binned_moments(
    values: jax.Array, index: ArrayLike, bins: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Computes mean, population variance and count of `values` [N, K] in each bin: [N, bins] each.

    `index` is [N, K] or [1, K]; indices outside [0, bins) fall in no bin, and an empty bin has
    moments 0. One masked reduction a bin, because a scatter-add of floats has no fixed order on a
    GPU.
    """

    def one_bin(number: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        inside = jnp.broadcast_to(index == number, values.shape)
        count = jnp.sum(inside, axis=1, dtype=jnp.int32)
        divisor = jnp.maximum(count, 1).astype(jnp.float32)

        def mean(v: jax.Array) -> jax.Array:
            return jnp.sum(jnp.where(inside, v, 0), axis=1) / divisor

        first = mean(values)
        return first, mean((values - first[:, None]) ** 2), count

    means, variances, counts = jax.lax.map(one_bin, jnp.arange(bins, dtype=jnp.int32))
    return means.T, variances.T, counts.T


# --- Shared --------------------------------------------------------------------------------------


def _images(smallest: int, **named: ArrayLike) -> list[jax.Array | np.ndarray]:
    """Takes the named images as float32 [N, H, W, 3], of one shape with H, W ≥ `smallest`."""
    images = [as_images(value, name) for name, value in named.items()]
    shapes = ", ".join(f"{name} {list(v.shape)}" for name, v in zip(named, images, strict=True))
    if any(v.shape != images[0].shape for v in images):
        raise InputError(f"images must have one shape, one for one; got {shapes}")
    if min(images[0].shape[1:3]) < smallest:
        raise InputError(f"this metric needs {smallest} x {smallest} pixels or more; got {shapes}")
    return images


def _noises(clean: jax.Array, *noisy: jax.Array) -> list[jax.Array]:
    """Subtracts the clean image from each noisy one, all images clipped to [0, 1] first."""
    clean = jnp.clip(clean, 0.0, 1.0)
    return [jnp.clip(image, 0.0, 1.0) - clean for image in noisy]


def _filter_valid(images: jax.Array, taps: np.ndarray) -> jax.Array:
    """Filters separably where the filter fits: [N, H, W, C] -> [N, H − k + 1, W − k + 1, C].

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


# --- What evaluations score ----------------------------------------------------------------------


class Metric(NamedTuple):
    """A metric as a column of a table.

    Attributes:
      function: images [N, H, W, 3] -> [N]: (clean, noisy, generated) of generated noise, (clean,
        image) of a restored image.
      title: of the column.
      digits: behind the point.
    """

    function: Callable[..., ArrayLike]
    title: str
    digits: int


# Of generated noise; another one is one more entry.
GENERATION = {
    "akld": Metric(akld, "AKLD", 3),
    "ks": Metric(ks, "KS", 3),
    "kld": Metric(kld, "KLD", 3),
    "level_ratio_error": Metric(level_ratio_error, "level, log", 3),
    "lag1_error": Metric(lag1_error, "lag 1", 3),
    "psd_error": Metric(psd_error, "spectrum, dB", 2),
    "noise_level_error": Metric(noise_level_error, "level curve", 3),
    "channel_correlation_error": Metric(channel_correlation_error, "channels", 3),
}
# Of a restored image.
RESTORATION = {
    "psnr": Metric(psnr, "PSNR, dB", 2),
    "ssim": Metric(ssim, "SSIM", 4),
    "ssim_plain": Metric(ssim_plain, "SSIM, plain", 4),
}

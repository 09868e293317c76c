"""Baselines that a generator must beat: noise imitated from a noisy photograph by classical means.

A baseline is a function (clean, reference, key) -> noisy, and so is anybody's own generator: one
more row of the tables. `clean` and `reference` are uint8 [H, W, 3], the reference a noisy image of
another size perhaps; `key` is a JAX random key. What comes back is uint8, or float in [0, 1], of
`clean`'s size. A method knows the noise that it is scored against through the reference alone,
which with `--reference=self` is the scored image itself; those of CycleISP's levels do not look.

Levels are estimated at the highest frequencies, as usual (Donoho and Johnstone 1994; Foi et al.
2008): too low for noise that is correlated from pixel to pixel, too high where the scene has detail
in every pixel. The oracles of `oracles.py` know the true level.
"""

import importlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.ndimage import gaussian_gradient_magnitude, uniform_filter
from scipy.optimize import nnls
from skimage.restoration import denoise_nl_means

from nt_jax import prng
from nt_jax.errors import InputError
from nt_jax.images import cut_middle
from nt_jax.noise import camera

Method = Callable[[np.ndarray, np.ndarray, jax.Array], np.ndarray]

# Daubechies' wavelet of two vanishing moments, high-pass.
_HIGH_PASS = np.array([-0.48296291, 0.83651630, -0.22414387, -0.12940952], np.float32)
_MAD = 0.67448975  # median of the absolute value of a standard normal variable
# Side of the neighbourhood whose mean says how bright a place is.
_SIDE = 7
_BINS, _FEWEST_PLACES = 16, 64
# Where more pixels than that are black or white, clipping has taken part of the noise.
_MOST_CLIPPED = 0.2
# Share of the pixels whose extracted noise is kept (Noise2Grad does not name it).
_KEPT = 0.5
# Side of the middle of the reference on which a camera is fitted.
_FIT_SIDE = 256


class PoissonGaussian(NamedTuple):
    """Noise of variance x / photons + sigma² at intensity x.

    Attributes:
      sigma: standard deviation of the Gaussian part, in [0, 1] units.
      photons: at white; infinite where there is no Poisson part.
    """

    sigma: float
    photons: float


class RawLevels(NamedTuple):
    """Distribution of raw noise of variance shot * x + read: log10 read is about a line.

    Attributes:
      low, high: of the shot noise, log-uniform.
      slope, offset: log10 read = slope * log10 shot + offset, on average.
      deviation: of log10 read around it, normal.
    """

    low: float
    high: float
    slope: float
    offset: float
    deviation: float


# CycleISP's (Zamir et al., CVPR 2020), for the cameras of SIDD and of DND. The line for DND has the
# numbers of Brooks et al. 2019, who mean natural logarithms; CycleISP takes them to base 10.
SIDD_LEVELS = RawLevels(6.8674e-4, 0.02194856, 1.85, 0.30, 0.20)
DND_LEVELS = RawLevels(1e-4, 0.012, 2.18, 1.20, 0.26)


def level(reference: np.ndarray) -> np.ndarray:
    """Estimates a noisy image's white noise: standard deviation by channel, in [0, 1] units: [3].

    Median absolute value of the diagonal wavelet coefficients at the flatter half of its places.
    """
    return np.array([_deviation(*_places(channel)[:2]) for channel in _channels(reference)])


def fit_poisson_gaussian(reference: np.ndarray) -> PoissonGaussian:
    """Fits the Poisson-Gaussian noise whose noise-level curve is nearest to a noisy image's.

    Places are put in bins by the mean around them, where the variance is that of `level`; the line
    through the variances is of least relative squares, neither part negative. Channels are pooled.
    """
    detail, flatness, mean = (
        np.concatenate(values)
        for values in zip(*(_places(channel) for channel in _channels(reference)), strict=True)
    )
    index = np.minimum((mean * _BINS).astype(int), _BINS - 1)
    rows, variances = [], []
    for b in range(_BINS):
        inside = index == b
        count = inside.sum()
        if count < _FEWEST_PLACES:
            continue
        variance = max(_deviation(detail[inside], flatness[inside]) ** 2, 1e-8)
        weight = np.sqrt(count) / variance  # the standard error is in proportion to the variance
        rows.append([weight * mean[inside].mean(), weight])
        variances.append(weight * variance)
    if not rows:
        return PoissonGaussian(float(level(reference).mean()), np.inf)
    (slope, offset), _ = nnls(np.array(rows), np.array(variances))
    return PoissonGaussian(float(np.sqrt(offset)), float(1 / slope) if slope > 1e-7 else np.inf)


def _channels(image: np.ndarray) -> list[np.ndarray]:
    return list(np.moveaxis(image.astype(np.float32) / 255, -1, 0))


def _places(channel: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measures on a grid of 2: diagonal coefficient, slope of the image, mean around it: [n] each.

    Places where much is clipped are left out, unless that leaves too few.
    """
    detail = _filter(_filter(channel).T).T
    rows, columns = (2 * np.arange(side) + 1 for side in detail.shape)
    grid = np.ix_(rows, columns)
    slope = gaussian_gradient_magnitude(channel, _SIDE / 2)[grid].ravel()
    mean = uniform_filter(channel, _SIDE)[grid].ravel()
    clipped = uniform_filter(((channel <= 0) | (channel >= 1)).astype(np.float32), _SIDE)
    inside = clipped[grid].ravel() < _MOST_CLIPPED
    if inside.sum() < _FEWEST_PLACES:
        inside[:] = True
    return detail.ravel()[inside], slope[inside], mean[inside]


def _filter(image: np.ndarray) -> np.ndarray:
    """Computes every second row of the high-pass along columns, where it fits."""
    count = (image.shape[0] - len(_HIGH_PASS)) // 2 + 1
    shifted = np.stack([image[i : i + 2 * count : 2][:count] for i in range(len(_HIGH_PASS))])
    return np.tensordot(_HIGH_PASS, shifted, 1)


def _deviation(detail: np.ndarray, slope: np.ndarray) -> float:
    flat = slope <= np.median(slope)
    return float(np.median(np.abs(detail[flat])) / _MAD)


def white(clean: np.ndarray, reference: np.ndarray, key: jax.Array) -> np.ndarray:
    """Adds white Gaussian noise of the reference's level in each channel."""
    noise = np.asarray(prng.normal(key, clean.shape))
    return _clipped(clean.astype(np.float32) / 255 + level(reference) * noise)


def poisson_gaussian(clean: np.ndarray, reference: np.ndarray, key: jax.Array) -> np.ndarray:
    """Adds Poisson-Gaussian noise fitted to the reference's noise-level curve."""
    sigma, photons = fit_poisson_gaussian(reference)
    rng, image = _generator(key), clean / 255
    noisy = rng.poisson(image * photons) / photons if np.isfinite(photons) else image
    return _clipped(noisy + sigma * rng.standard_normal(clean.shape))


def camera_model(clean: np.ndarray, reference: np.ndarray, key: jax.Array) -> np.ndarray:
    """Adds a random camera's noise at the reference's level, by the model `nt_jax.noise.camera`.

    The level is that of means of 2x2 pixels, doubled, as much of a camera's noise has larger grains
    than a pixel; it is matched on the reference, denoised.
    """
    middle = cut_middle(reference, _FIT_SIDE)
    wanted = 2 * float(np.sqrt((level(_halved(middle)) ** 2).mean()))
    image = clean.astype(np.float32) / 255
    return np.asarray(_camera(key, denoise(middle), image, wanted))


@jax.jit
def _camera(key: jax.Array, base: jax.Array, clean: jax.Array, wanted: jax.Array) -> jax.Array:
    """Adds to `clean` noise of the random camera whose noise on `base` has the wanted level."""
    camera_key, match_key, noise_key = prng.split(key, 3)
    setting = camera.sample_setting(camera_key, camera.PUBLISHED)
    setting = camera.match_level(match_key, base, setting, wanted)
    return camera.add_noise(noise_key, clean, setting)


def sample_levels(key: jax.Array, levels: RawLevels) -> tuple[jax.Array, jax.Array]:
    """Draws (shot, read), variances of raw values in [0, 1]: float32 [] each."""
    shot_key, read_key = prng.split(key)
    low, high = jnp.log10(levels.low), jnp.log10(levels.high)
    shot = low + prng.uniform(shot_key) * (high - low)
    read = levels.slope * shot + levels.offset + levels.deviation * prng.normal(read_key)
    return 10**shot, 10**read


def cycleisp_sidd(clean: np.ndarray, reference: np.ndarray, key: jax.Array) -> np.ndarray:
    """Adds a random camera's noise at a level of CycleISP's for SIDD, whatever the reference.

    The development is our analytic camera's, without CycleISP's learned networks.
    """
    return _clipped(_at_levels(key, clean.astype(np.float32) / 255, SIDD_LEVELS))


def cycleisp_dnd(clean: np.ndarray, reference: np.ndarray, key: jax.Array) -> np.ndarray:
    """Does the same at a level for DND, which CycleISP's sRGB program draws whatever the camera."""
    return _clipped(_at_levels(key, clean.astype(np.float32) / 255, DND_LEVELS))


@jax.jit
def _at_levels(key: jax.Array, clean: jax.Array, levels: RawLevels) -> jax.Array:
    """Adds to `clean` noise of a random camera whose level is one of `levels`."""
    camera_key, level_key, noise_key = prng.split(key, 3)
    shot, read = sample_levels(level_key, levels)
    setting = camera.sample_setting(camera_key, camera.PUBLISHED)._replace(shot=shot, read=read)
    return camera.add_noise(noise_key, clean, setting)


def _halved(image: np.ndarray) -> np.ndarray:
    """Means of 2x2 pixels."""
    rows, columns = (side // 2 for side in image.shape[:2])
    blocks = image[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2, -1)
    return blocks.mean(axis=(1, 3))


def extracted(clean: np.ndarray, reference: np.ndarray, key: jax.Array) -> np.ndarray:
    """Adds noise taken from the reference, in the manner of Noise2Grad (Lin et al., IJCAI 2021).

    What a denoiser removes (here non-local means; there a network trained for it), less its mean,
    is put elsewhere on the clean image: moved by a quarter of the reference or more, so that no
    pixel gets its own noise. A Bernoulli mask, the same for all channels, breaks what it still has
    of the scene; the kept half is scaled by sqrt(2), which keeps the level. (There random signs of
    each element do: family `n2g`.)
    """
    image = reference.astype(np.float32) / 255
    noise = image - denoise(reference)
    noise -= noise.mean(axis=(0, 1))
    rng = _generator(key)
    rows, columns = (
        (np.arange(target) + rng.integers(side // 4, side - side // 4)) % side
        for target, side in zip(clean.shape[:2], noise.shape[:2], strict=True)
    )
    mask = rng.random((*clean.shape[:2], 1)) < _KEPT
    return _clipped(clean / 255 + mask * noise[np.ix_(rows, columns)] / np.sqrt(_KEPT))


def denoise(noisy: np.ndarray) -> np.ndarray:
    """Denoises uint8 -> float32 in [0, 1] by non-local means (Buades et al. 2005).

    The noise's level is the estimated one.
    """
    sigma = max(float(np.sqrt((level(noisy) ** 2).mean())), 1e-3)
    image = noisy.astype(np.float32) / 255
    denoised = denoise_nl_means(image, 5, 6, h=0.8 * sigma, sigma=sigma, channel_axis=-1)
    return np.clip(denoised, 0, 1).astype(np.float32)


def _generator(key: jax.Array) -> np.random.Generator:
    return np.random.default_rng(prng.words(key))


def _clipped(image: np.ndarray) -> np.ndarray:
    return np.clip(image, 0, 1).astype(np.float32)


# By the name of their row.
BASELINES: dict[str, Method] = {
    "white Gaussian": white,
    "Poisson-Gaussian, fitted": poisson_gaussian,
    "camera model": camera_model,
    "extracted and masked": extracted,
    "CycleISP-style levels, SIDD's": cycleisp_sidd,
    "CycleISP-style levels, DND's": cycleisp_dnd,
}
# Those of them that do not look at the reference.
BLIND: tuple[Method, ...] = (cycleisp_sidd, cycleisp_dnd)


def load_method(spec: str) -> Method:
    """Imports the function that `package.module:function` names.

    Raises:
      InputError: there is none.
    """
    module, _, name = spec.partition(":")
    try:
        method = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"--method={spec}: {error}; give package.module:function, a function (clean, "
            "reference, key) -> noisy"
        ) from error
    if not callable(method):
        raise InputError(f"--method={spec}: {name} is no function")
    return method

"""The baselines: what each knows of the reference, and what its noise is like."""

import sys
import types

import jax
import numpy as np
import pytest
from skimage import data

from nt_jax import metrics
from nt_jax.errors import InputError
from nt_jax.evaluation import baselines
from nt_jax.evaluation.baselines import BASELINES


def photo(size=192):
    return data.astronaut()[100 : 100 + size, 100 : 100 + size]


def noisy(clean, sigma, photons=None, seed=0):
    """By NumPy; sigma on the 0 to 255 scale; one number, or one a channel."""
    rng = np.random.default_rng(seed)
    mean = clean / 255
    image = rng.poisson(mean * photons) / photons if photons else mean
    image = image + np.asarray(sigma) / 255 * rng.normal(size=clean.shape)
    return np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)


def noise_of(method, clean, reference, seed=0):
    made = np.asarray(method(clean, reference, jax.random.key(seed)))
    assert made.shape == clean.shape
    assert made.dtype == np.float32
    assert 0 <= made.min() < made.max() <= 1
    return made - (clean / 255).astype(np.float32)


def lag1(noise):
    return float(metrics.lag_autocorrelation(noise, 1)[0])


def test_level_of_each_channel():
    clean = photo()
    for sigma in ((8, 16, 32), (40, 10, 20)):
        estimate = 255 * baselines.level(noisy(clean, sigma))
        np.testing.assert_allclose(estimate, sigma, rtol=0.12)
    assert (255 * baselines.level(np.full((64, 64, 3), 90, np.uint8)) < 1e-3).all()


@pytest.mark.parametrize(("sigma", "photons"), [(20, None), (0.0, 30), (15, 25)])
def test_fit_recovers_poisson_gaussian(sigma, photons):
    fit = baselines.fit_poisson_gaussian(noisy(photo(256), sigma, photons))
    # The two parts trade against each other: the curve is what must be right.
    levels = np.array([0.1, 0.3, 0.5])
    true = np.sqrt(sigma**2 / 255**2 + (levels / photons if photons else 0))
    np.testing.assert_allclose(np.sqrt(fit.sigma**2 + levels / fit.photons), true, rtol=0.12)
    if photons:
        assert fit.photons == pytest.approx(photons, rel=0.3)
    else:
        assert fit.photons > 1000
    assert 255 * fit.sigma == pytest.approx(sigma, abs=6)


def test_white_has_the_level_and_nothing_else():
    reference = noisy(photo(), (10, 20, 15))
    clean = np.full((128, 160, 3), 128, np.uint8)
    noise = noise_of(baselines.white, clean, reference)
    np.testing.assert_allclose(255 * noise.std((0, 1)), (10, 20, 15), rtol=0.12)
    assert abs(lag1(noise)) < 0.02
    assert abs(noise.mean()) < 1e-3


def test_poisson_gaussian_grows_with_intensity():
    steps = np.repeat([26, 77, 128], 64).astype(np.uint8)
    clean = np.broadcast_to(steps[:, None, None], (192, 192, 3))
    noise = noise_of(baselines.poisson_gaussian, clean, noisy(photo(256), 0, 30))
    levels = [noise[i : i + 64].std() for i in (0, 64, 128)]
    np.testing.assert_allclose(levels, np.sqrt(np.array([26, 77, 128]) / 255 / 30), rtol=0.15)
    assert abs(lag1(noise)) < 0.02


def test_camera_model_has_the_level_and_grain():
    clean = photo(64)  # the size of the next test's: one compilation
    reference = noisy(clean, 15)
    noises = [noise_of(baselines.camera_model, clean, reference, seed) for seed in range(4)]
    assert 255 * np.mean([n.std() for n in noises]) == pytest.approx(15, rel=0.35)
    assert np.mean([lag1(n) for n in noises]) > 0.15
    between = [float(metrics.channel_correlation(n)[0, 0, 1]) for n in noises]
    assert np.ptp(between) > 1e-3, "a camera of its own each time"


@pytest.mark.parametrize(
    ("levels", "low", "high", "slope", "offset", "deviation"),
    [
        (baselines.SIDD_LEVELS, 6.8674e-4, 0.02194856, 1.85, 0.30, 0.20),
        (baselines.DND_LEVELS, 1e-4, 0.012, 2.18, 1.20, 0.26),
    ],
)
def test_cycleisp_draws_the_published_levels(levels, low, high, slope, offset, deviation):
    draw = jax.jit(jax.vmap(baselines.sample_levels, (0, None)))
    shot, read = draw(jax.random.split(jax.random.key(11), 4000), levels)
    assert shot.dtype == read.dtype == np.float32
    shot, read = np.log10(shot), np.log10(read)
    counts, _ = np.histogram(shot, 8, (np.log10(low) - 1e-4, np.log10(high) + 1e-4))
    assert counts.sum() == 4000
    assert counts == pytest.approx(500, abs=110)
    residual = read - slope * shot - offset
    assert residual.mean() == pytest.approx(0, abs=5 * deviation / np.sqrt(4000))
    assert residual.std() == pytest.approx(deviation, rel=0.06)


def test_cycleisp_is_told_nothing():
    clean, other = photo(64), noisy(photo(64), 40)
    for method in (baselines.cycleisp_sidd, baselines.cycleisp_dnd):
        np.testing.assert_array_equal(
            noise_of(method, clean, clean), noise_of(method, clean, other)
        )


def test_extracted_is_the_references_noise_elsewhere():
    clean = photo()
    reference = noisy(clean, 20)
    true = reference / 255 - clean / 255
    grey = np.full(clean.shape, 128, np.uint8)  # nothing is clipped
    noise = noise_of(baselines.extracted, grey, reference)
    assert np.abs(255 * noise.mean((0, 1))).max() < 0.3
    assert noise.std() == pytest.approx(true.std(), rel=0.15)
    zero = np.abs(noise).max(axis=2) < 1e-6
    assert zero.mean() == pytest.approx(0.5, abs=0.03)
    assert abs(np.corrcoef(noise.ravel(), true.ravel())[0, 1]) < 0.02, "no pixel has its own noise"
    wider = np.full((250, 210, 3), 128, np.uint8)  # than the reference
    assert noise_of(baselines.extracted, wider, reference).std() == pytest.approx(
        true.std(), rel=0.15
    )


@pytest.mark.parametrize("name", BASELINES)
def test_randomness_is_the_key(name):
    clean = photo(64)
    reference = noisy(photo(64), 15)
    first, again, other = (noise_of(BASELINES[name], clean, reference, s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 0.3 * first.std()


def test_denoising_removes_noise():
    clean = photo()
    before = noisy(clean, 20)
    after = baselines.denoise(before)
    assert metrics.psnr(clean, after)[0] > metrics.psnr(clean, before)[0] + 5


def test_load_method(monkeypatch):
    module = types.ModuleType("someones")
    module.add_noise = baselines.white
    monkeypatch.setitem(sys.modules, "someones", module)
    assert baselines.load_method("someones:add_noise") is baselines.white
    for wrong in ("someones", "someones:nothing", "nowhere:add_noise", "someones:__name__", ":f"):
        with pytest.raises(InputError, match="--method"):
            baselines.load_method(wrong)

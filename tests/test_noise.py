"""The synthetic noise models: moments, support, and how settings are drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nt_jax import noise
from nt_jax.errors import InputError
from nt_jax.evaluation.denoising import make_noise
from nt_jax.fields import COMMON
from nt_jax.noise import camera

SIGMA, LAM = 0.1, 50.0


def _setting(kind: str, sigma: float = SIGMA, lam: float = LAM) -> noise.NoiseSetting:
    return noise.NoiseSetting(
        jnp.int32(noise.KINDS.index(kind)), jnp.float32(sigma), jnp.float32(lam)
    )


@pytest.fixture(scope="module")
def add_noise():
    return jax.jit(jax.vmap(noise.add_noise, in_axes=(0, None, 0)))


@pytest.fixture(scope="module")
def noisy(add_noise) -> dict[str, np.ndarray]:
    """One image of every kind, 128 x 128, of grey levels 0.4, 0.5 and 0.6 by channel."""
    clean = jnp.broadcast_to(jnp.array([0.4, 0.5, 0.6]), (128, 128, 3))
    settings = jax.tree.map(lambda *x: jnp.stack(x), *[_setting(kind) for kind in noise.KINDS])
    keys = jax.random.split(jax.random.key(0), len(noise.KINDS))
    return dict(zip(noise.KINDS, np.asarray(add_noise(keys, clean, settings)), strict=True))


@pytest.mark.parametrize(
    ("kind", "sigma", "lam"),
    [("gaussian", SIGMA, np.inf), ("poisson", 0.0, LAM), ("poisson_gaussian", SIGMA, LAM)],
)
def test_mean_and_variance(noisy, kind, sigma, lam):
    levels = np.array([0.4, 0.5, 0.6])
    n = 128 * 128
    variance = sigma**2 + levels / lam
    measured = noisy[kind].reshape(-1, 3)
    # Five standard errors; clipping starts 2.8 standard deviations away and takes under 2 %.
    assert np.all(np.abs(measured.mean(0) - levels) < 5 * np.sqrt(variance / n) + 1e-3)
    assert measured.var(0) == pytest.approx(variance, rel=5 * np.sqrt(2 / n) + 0.02)


def test_poisson_is_counts_over_lambda_and_skewed(noisy):
    counts = noisy["poisson"] * LAM
    assert counts == pytest.approx(np.round(counts), abs=1e-4)
    deviation = noisy["poisson"][..., 1] - 0.5
    third_moment = (deviation**3).mean()
    assert third_moment == pytest.approx(0.5 / LAM**2, rel=0.35)  # of a Poisson count: its rate
    gaussian = noisy["gaussian"][..., 1] - 0.5
    assert abs((gaussian**3).mean()) < 5 * np.sqrt(15 / gaussian.size) * SIGMA**3


def test_noise_is_white_and_independent_between_channels(noisy):
    for kind in ("gaussian", "poisson", "poisson_gaussian"):
        n = noisy[kind] - noisy[kind].mean((0, 1))
        unit = n / n.std((0, 1))
        for product in (
            unit[1:] * unit[:-1],
            unit[:, 1:] * unit[:, :-1],
            unit * np.roll(unit, 1, 2),
        ):
            assert np.all(np.abs(product.mean((0, 1))) < 5 / 128)


def test_real_is_left_alone(noisy):
    assert np.array_equal(noisy["real"][0, 0], np.array([0.4, 0.5, 0.6], np.float32))
    assert np.all(np.ptp(noisy["real"], axis=(0, 1)) == 0)


def test_result_is_clipped_and_black_stays_black_under_poisson(add_noise):
    clean = jnp.broadcast_to(jnp.array([0.0, 0.5, 1.0]), (128, 128, 3))
    settings = jax.tree.map(
        lambda *x: jnp.stack(x),
        *[_setting(kind, sigma=70 / 255, lam=5.0) for kind in noise.KINDS],
    )
    result = add_noise(jax.random.split(jax.random.key(1), len(noise.KINDS)), clean, settings)
    assert result.dtype == jnp.float32
    assert result.min() == 0
    assert result.max() == 1
    poisson = result[noise.KINDS.index("poisson")]
    assert np.all(poisson[..., 0] == 0)
    assert (np.asarray(poisson[..., 2]) == 1).mean() == pytest.approx(0.56, abs=0.03)  # P(N >= 5)


def test_poisson_is_right_up_to_the_most_photons():
    rate = jnp.full(20_000, noise.MOST_PHOTONS)
    counts = np.asarray(jax.jit(noise.poisson)(jax.random.key(1), rate))
    assert counts.mean() == pytest.approx(noise.MOST_PHOTONS, rel=1e-3)
    assert counts.var() == pytest.approx(noise.MOST_PHOTONS, rel=0.1)
    with pytest.raises(InputError, match="from 1 to 10000"):
        make_noise("poisson", "0", f"{noise.MOST_PHOTONS + 1}")
    assert not COMMON["data.lam_range"].takes((1.0, noise.MOST_PHOTONS + 1))


def test_settings_follow_weights_and_ranges():
    draw = jax.jit(
        jax.vmap(lambda key: noise.sample_setting(key, (0, 0.2, 0.2, 0.6, 0), (10, 70), (5, 100)))
    )
    setting = draw(jax.random.split(jax.random.key(2), 20_000))
    assert setting.camera_setting is None
    kind, sigma, lam = map(np.asarray, setting[:3])
    shares = np.bincount(kind, minlength=4) / kind.size
    assert shares == pytest.approx([0, 0.2, 0.2, 0.6], abs=0.015)
    has_sigma, has_lam = np.isin(kind, (1, 3)), np.isin(kind, (2, 3))
    assert np.all(sigma[~has_sigma] == 0)
    assert np.all(lam[~has_lam] == 0)
    for values, low, high in (
        (sigma[has_sigma] * 255, 10, 70),
        (lam[has_lam], 5, 100),
    ):
        assert values.min() >= low
        assert values.max() <= high
        # Uniform: deciles within five standard errors.
        deciles = np.histogram(values, bins=10, range=(low, high))[0] / values.size
        assert deciles == pytest.approx(np.full(10, 0.1), abs=5 * np.sqrt(0.09 / values.size))


def test_a_kind_of_weight_zero_never_comes():
    draw = jax.vmap(lambda key: noise.sample_setting(key, (0, 0, 1, 0, 0), (0, 70), (5, 100)))
    assert np.all(np.asarray(draw(jax.random.split(jax.random.key(3), 500)).kind) == 2)


def test_camera_noise_is_put_on_settings_of_its_kind_alone():
    weights = (0, 1, 0, 0, 1)
    draw = jax.jit(jax.vmap(lambda key: noise.sample_setting(key, weights, (10, 70), (5, 100))))
    settings = draw(jax.random.split(jax.random.key(4), 24))
    is_camera = np.asarray(settings.kind) == noise.KINDS.index("camera")
    assert is_camera.mean() == pytest.approx(0.5, abs=5 * np.sqrt(0.25 / 24))
    assert np.array_equal(settings.sigma == 0, is_camera)
    clean = jnp.full((16, 16, 3), 0.5)
    keys = jax.random.split(jax.random.key(5), 24)
    noisy = jax.jit(jax.vmap(noise.add_noise, in_axes=(0, None, 0)))(keys, clean, settings)
    in_8_bits = np.abs(noisy * 255 - np.round(noisy * 255)).max((1, 2, 3)) < 1e-3
    assert np.array_equal(in_8_bits, is_camera)
    for row in np.flatnonzero(is_camera)[:2]:
        setting = jax.tree.map(lambda x, row=row: x[row], settings.camera_setting)
        alone = jax.jit(camera.add_noise)(jax.random.fold_in(keys[row], 4), clean, setting)
        assert np.abs(noisy[row] - alone).max() < 1.01 / 255  # rounding may go either way

"""Numbers of the noise: measured against NumPy, and standardised vectors back to numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from nt_jax import readings
from nt_jax.families.noisetransfer import losses

SHAPE = (2, 48, 48, 3)


@pytest.fixture(scope="module")
def noise():
    white = np.random.default_rng(0).standard_normal(SHAPE)
    white[1] = ndimage.gaussian_filter(white[1], (1.0, 1.0, 0.4))
    scales = np.array([[0.02, 0.04, 0.08], [0.1, 0.1, 0.1]])
    return (white * scales[:, None, None] + 0.01).astype(np.float32)


@pytest.fixture(scope="module")
def clean():
    ramp = np.linspace(0, 1, 48, dtype=np.float32)
    image = np.broadcast_to(ramp[:, None, None], SHAPE[1:])
    return np.stack([image, np.full(SHAPE[1:], 0.5, np.float32)])


def test_measured_numbers_are_numpys(noise, clean):
    measured = jax.jit(readings.measure)(noise, clean)
    found = readings.decode(measured.values)
    np.testing.assert_allclose(np.exp(found.log_level), noise.std((1, 2)), rtol=2e-3)
    np.testing.assert_allclose(found.bias, noise.mean((1, 2)) / noise.std((1, 2)), atol=1e-3)
    for index, image in enumerate(noise):
        correlation = np.corrcoef(image.reshape(-1, 3).T)
        expected = [correlation[0, 1], correlation[0, 2], correlation[1, 2]]
        np.testing.assert_allclose(found.channel_correlation[index], expected, atol=1e-3)
        centred = image - image.mean((0, 1))
        for lag, (dy, dx) in enumerate(readings.LAGS):
            product = centred[dy:, dx:] * centred[: 48 - dy, : 48 - dx]
            expected = (product.mean((0, 1)) / centred.var((0, 1))).mean()
            assert found.autocorrelation[index, lag] == pytest.approx(expected, abs=1e-3)
    assert found.blotches[0] == pytest.approx(0, abs=0.35)
    assert found.blotches[1].min() > 0.9


def test_the_level_curve_knows_the_brightnesses_that_are_there(noise, clean):
    measure = jax.jit(readings.measure)
    measured = measure(noise, clean)
    assert measured.known[0].all()
    assert measured.known[1, -5:].tolist() == [False, False, True, False, False]
    grows = noise[:1] * (0.5 + clean[:1])
    curve = readings.decode(measure(grows, clean[:1]).values).curve[0]
    assert np.all(np.diff(curve) > 0)
    assert curve[4] - curve[0] == pytest.approx(np.log(1.4 / 0.6), abs=0.1)


def test_no_noise_has_finite_numbers():
    nothing = jnp.zeros(SHAPE)
    measured = readings.measure(nothing, nothing)
    assert np.isfinite(measured.values).all()


def test_reading_loss_counts_known_numbers_only():
    read = jnp.array([[1.0, 2.0], [3.0, 5.0]])
    values = jnp.array([[0.0, 2.5], [3.0, -100.0]])
    known = jnp.array([[True, True], [True, False]])
    assert losses.reading(read, readings.Measured(values, known)) == pytest.approx(1.5 / 3)


def test_autocorrelation_loss(noise):
    white, smooth = noise[:1], noise[1:]
    assert losses.autocorrelation(smooth, smooth) == 0
    assert losses.autocorrelation(smooth, 3 * smooth) < 0.01
    assert losses.autocorrelation(smooth, white) > 0.15


def test_a_photos_reading_is_of_all_its_crops():
    vectors = np.zeros((2, 1, readings.SIZE), np.float32)
    found = readings.decode(jnp.asarray(vectors))
    found = found.replace(
        log_level=jnp.log(jnp.array([[[3.0] * 3], [[4.0] * 3]]) / 255),
        autocorrelation=jnp.stack([jnp.full((1, 7), 0.2), jnp.full((1, 7), 0.6)]),
    )
    reading = readings.summarize(found)
    np.testing.assert_allclose(reading.level, [[np.sqrt(12.5)] * 3], rtol=1e-5)
    np.testing.assert_allclose(reading.lag1, [(9 * 0.2 + 16 * 0.6) / 25], rtol=1e-5)
    assert reading.bias.shape == reading.channel_correlation.shape == (1, 3)

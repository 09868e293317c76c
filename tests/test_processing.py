"""What cameras do to noise: filters against their definition, and the range of what comes out."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from PIL import Image
from scipy import ndimage

from nt_jax.noise import camera, processing
from nt_jax.noise.jpeg import RGB_TO_YCC, jpeg

WIDE = camera.Options(processed=True)
filter_noise = jax.jit(processing.filter_noise)
add_noise = jax.jit(camera.add_noise)
sample = jax.jit(camera.sample_setting, static_argnums=1)
plain = processing.plain_processing


@pytest.fixture(scope="module")
def white() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((64, 96, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def patch() -> np.ndarray:
    return skimage.data.astronaut()[:64, 100:164].astype(np.float32) / 255


def luma_and_chroma(noise):
    ycc = np.asarray(noise) @ RGB_TO_YCC.T
    return ycc[..., 0], ycc[..., 1:]


def test_no_filter_changes_nothing(white):
    np.testing.assert_allclose(filter_noise(white, plain()), white, atol=1e-5)


def test_smoothing_is_a_gaussian_that_keeps_the_level(white):
    found_luma, found_chroma = luma_and_chroma(filter_noise(white, plain(narrow=(1.0, 2.5))))
    luma, chroma = luma_and_chroma(white)
    for found, given, sigma in (
        (found_luma, luma, 1.0),
        (found_chroma[..., 0], chroma[..., 0], 2.5),
    ):
        smooth = ndimage.gaussian_filter(given, sigma, mode="wrap", truncate=6)
        assert np.corrcoef(found.ravel(), smooth.ravel())[0, 1] > 0.9999
        assert found.std() == pytest.approx(given.std(), rel=0.12)


def test_what_is_left_fine_and_what_is_blotchy_add_up(white):
    luma = luma_and_chroma(white)[0]
    mixed = plain(narrow=(1.0, 0.0), wide=(4.0, 1.0), blotches=(0.4, 0.0), fine=(0.25, 0.0))
    found = luma_and_chroma(filter_noise(white, mixed))[0]
    smooth = [ndimage.gaussian_filter(luma, s, mode="wrap", truncate=6) for s in (1.0, 4.0)]
    expected = 0.25 * luma + 0.75 * (0.6 * smooth[0] + 0.4 * smooth[1])
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.9999


def test_sharpening_stretching_and_levels(white):
    luma, chroma = luma_and_chroma(filter_noise(white, plain(sharpness=1.5, level=(2.0, 0.5))))
    given = luma_and_chroma(white)
    blurred = ndimage.gaussian_filter(given[0], 1.0, mode="wrap", truncate=6)
    unsharp = given[0] + 1.5 * (given[0] - blurred)
    assert np.corrcoef(luma.ravel(), unsharp.ravel())[0, 1] > 0.9999
    assert luma.std() == pytest.approx(2 * given[0].std(), rel=0.05)
    np.testing.assert_allclose(chroma, 0.5 * given[1], atol=1e-5)
    wide = luma_and_chroma(filter_noise(white, plain(narrow=(1.5, 0.0), stretch=0.5)))[0]
    rows, columns = ((wide * np.roll(wide, 1, axis)).mean() for axis in (0, 1))
    assert columns < 0.9 * rows


def test_noise_reduction_that_keeps_edges(white):
    """Smoothed and a quarter as strong on a plain part, as it was on detail, half way between."""
    grain = np.resize([1.0, -1.0], 96)[None, :, None] * np.ones((64, 1, 3))
    clean = 0.5 + grain * (np.arange(96)[None, :, None] >= 48) * 40 / 255
    reduction = plain(narrow=(1.0, 1.0), level=(0.25, 0.25), at_edges=(4.0, 4.0), detail=1.0)
    keep = jax.jit(processing.keep_at_edges)
    filtered = filter_noise(white, reduction)
    kept = np.asarray(keep(filtered, white, clean.astype(np.float32), reduction))
    np.testing.assert_allclose(kept[:, :44], filtered[:, :44], atol=1e-5)
    np.testing.assert_allclose(kept[:, 52:], white[:, 52:], atol=1e-2)
    half = reduction._replace(detail=jnp.float32(40))
    mean = np.asarray(keep(filtered, white, clean.astype(np.float32), half))[:, 52:]
    np.testing.assert_allclose(mean, (filtered + white)[:, 52:] / 2, atol=0.05)
    smooth = np.asarray(keep(filtered, white, clean.astype(np.float32), plain()))
    np.testing.assert_array_equal(smooth, filtered)


def test_resizing_by_one_is_exact_and_by_half_keeps_white_noise_white(white):
    resize = jax.jit(processing.resize, static_argnums=2)
    np.testing.assert_array_equal(resize(white, jnp.float32(1), (64, 96)), white)
    cut = resize(white, jnp.float32(1), (32, 40))
    np.testing.assert_array_equal(cut, white[:32, :40])
    half = np.asarray(resize(white, jnp.float32(0.5), (32, 48)))
    assert abs((half[:, 1:] * half[:, :-1]).mean() / half.var()) < 0.4


def test_a_processed_image_without_noise_stays_as_it_is(patch):
    setting = sample(jax.random.key(0), WIDE)._replace(
        shot=jnp.float32(0), read=jnp.float32(0), processing=plain()
    )
    assert np.abs(add_noise(jax.random.key(1), patch, setting) - patch).max() < 1.01 / 255


def test_processed_noise_is_unbiased_where_nothing_clips():
    """Smoothing must not amplify a bias: the mean over a plain stays that of the tone curve."""
    plane = np.full((64, 64, 3), 0.5, np.float32)
    setting = sample(jax.random.key(0), WIDE)._replace(
        shot=jnp.float32(1e-3), read=jnp.float32(1e-6), processing=plain(narrow=(2.0, 6.0))
    )
    keys = jax.random.split(jax.random.key(2), 40)
    draw = jax.jit(jax.vmap(lambda key: camera.add_noise(key, plane, setting)))
    noise = np.asarray(draw(keys)) - plane
    assert abs(noise.mean()) < 0.1 * noise.std()


def test_the_world_is_finite_8_bit_and_wide(patch):
    keys = jax.random.split(jax.random.key(3), 120)

    @jax.jit
    @jax.vmap
    def draw(key):
        setting_key, noise_key = jax.random.split(key)
        return camera.add_noise(noise_key, patch, camera.sample_setting(setting_key, WIDE))

    noisy = np.asarray(draw(keys))
    assert np.isfinite(noisy).all()
    np.testing.assert_allclose(noisy * 255, np.round(noisy * 255), atol=1e-3)
    noise = noisy - patch
    level = 255 * noise.std((1, 2, 3))
    assert np.quantile(level, 0.05) < 2.5
    assert np.quantile(level, 0.95) > 30
    centred = noise - noise.mean((1, 2), keepdims=True)
    lag1 = (centred[:, :, 1:] * centred[:, :, :-1]).mean((1, 2, 3)) / centred.var((1, 2, 3))
    assert np.quantile(lag1, 0.1) < 0.15
    assert np.quantile(lag1, 0.9) > 0.8


@pytest.mark.parametrize("quality", [95, 60])
def test_subsampled_jpeg_is_close_to_pillows(quality):
    image = skimage.data.astronaut()[100:164, 60:124]
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=2)
    pillows = np.asarray(Image.open(buffer)).astype(np.float32) / 255
    image = image.astype(np.float32) / 255
    corner = jnp.array((0, 0))
    ours = np.asarray(jax.jit(jpeg)(image, jnp.float32(quality), corner, True))
    whole = np.asarray(jax.jit(jpeg)(image, jnp.float32(quality), corner, False))
    # Theirs interpolates chroma between the pixels that ours repeats.
    loss = np.sqrt(np.mean((pillows - image) ** 2))
    assert np.sqrt(np.mean((ours - pillows) ** 2)) < 0.6 * loss
    assert np.sqrt(np.mean((ours - image) ** 2)) == pytest.approx(loss, rel=0.25)
    never = np.asarray(jax.jit(jpeg)(image, jnp.float32(quality), corner))
    np.testing.assert_allclose(whole, never, atol=1e-6)

"""Power spectra of noise: measured, read by a network, and what noise is filtered to."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage import data
from tiny_models import amplitude, save_tiny, save_tiny_spectrum_reader, standardised

import nt_jax
from nt_jax import eval, spectra
from nt_jax.inference.spectrum import match_spectrum
from nt_jax.readings import Measured

LUMA, COLOUR = slice(0, 8), slice(8, 16)


def test_white_noise_has_its_level_at_each_frequency():
    noise = np.random.default_rng(0).normal(0, 7 / 255, (512, 512, 3))
    np.testing.assert_allclose(amplitude(noise), 7, rtol=0.08)


def test_grey_noise_has_no_colour():
    noise = np.random.default_rng(0).normal(0, 7 / 255, (256, 256, 1)).repeat(3, axis=-1)
    found = amplitude(noise)
    np.testing.assert_allclose(found[LUMA], 7 * np.sqrt(3), rtol=0.15)
    np.testing.assert_allclose(found[COLOUR], np.sqrt(0.02), rtol=1e-3)  # rounding's share


def test_a_wave_is_in_the_ring_of_its_frequency():
    """Of power 3 A^2 / 2 in luma, all of it in that ring."""
    wave = 0.02 * np.cos(2 * np.pi * 0.3125 * np.arange(64))
    noise = np.broadcast_to(wave[:, None, None], (64, 64, 3))
    power = np.square(amplitude(noise))
    assert np.argmax(power[LUMA]) == 6  # .26 to .36
    frequencies = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64))
    inside = ((frequencies >= 0.26) & (frequencies < 0.36)).sum()
    np.testing.assert_allclose(
        inside * power[6], 3 * (0.02 * 255) ** 2 / 2 * 64**2, rtol=0.02, atol=0
    )
    assert power[[0, 1, 2, 3, 4, 7]].max() < 0.03
    assert power[COLOUR].max() < 0.03


def test_small_images_do_not_know_coarse_noise():
    noise = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    measured = spectra.measure(jnp.asarray(noise))
    known = np.asarray(measured.known)
    np.testing.assert_array_equal(known[0], ([False] + [True] * 7) * 2)
    assert np.isfinite(measured.values).all()


def test_gains_by_hand():
    """The ratio of the roots of the mean power, within 1/3 and 3, 1 where nothing is known.

    The coarsest ring's is that of the next.
    """

    def encoded(*amplitudes):
        return standardised(np.append(amplitudes, np.ones(spectra.SIZE - len(amplitudes))))

    read = np.stack([encoded(9, 3, 1, 2), encoded(9, 4, 1, 2)])
    measured = np.stack([encoded(2, 2, 9, 4), encoded(2, 2, 9, 4)])
    known = np.ones(measured.shape, bool)
    known[:, 3] = False
    gains = spectra.find_gains(read, Measured(measured, known))
    second = np.sqrt((9 + 16) / 2) / 2
    expected = np.append([second, second, 1 / 3], np.ones(13))
    np.testing.assert_allclose(gains, expected, rtol=1e-5)
    again = spectra.find_gains(read, Measured(measured, known), np.full(spectra.SIZE, 0.5))
    expected = np.append([second / 2, second / 2, 1 / 3], np.full(13, 0.5))
    np.testing.assert_allclose(again, expected, rtol=1e-5)


def _amplify(noise, gains):
    return np.asarray(spectra.amplify("same", jnp.asarray(noise)[None], jnp.float32(gains)[None]))[
        0
    ]


def test_a_gain_of_one_changes_nothing():
    noise = np.random.default_rng(0).normal(0.01, 0.03, (60, 80, 3)).astype(np.float32)
    np.testing.assert_allclose(_amplify(noise, np.ones(spectra.SIZE)), noise, atol=1e-6)


def test_gains_of_luma_leave_colour_and_the_mean():
    noise = np.random.default_rng(0).normal(0.01, 0.03, (192, 192, 3)).astype(np.float32)
    gains = np.repeat(np.float32([2, 1]), 8)
    louder = _amplify(noise, gains)
    found = amplitude(louder) / amplitude(noise)
    np.testing.assert_allclose(found[1:], gains[1:], rtol=0.02)
    assert 1.6 < found[0] < 2  # the coarsest lies beside the mean, which stays
    np.testing.assert_allclose(louder.mean((0, 1)), noise.mean((0, 1)), atol=2e-4)


def _steady_model(folder, wanted):
    """A model whose reader of spectra reads the same amplitudes off any image."""
    save_tiny(folder)
    save_tiny_spectrum_reader(folder, wanted)
    return nt_jax.load(folder)


def test_noise_gets_the_spectrum_that_is_read(tmp_path):
    rng = np.random.default_rng(0)
    soft = gaussian_filter(rng.normal(size=(192, 192, 3)), (0.8, 0.8, 0)) * 20 / 255
    wanted = amplitude(soft)
    white = rng.normal(0, 9 / 255, (192, 192, 3)).astype(np.float32)
    model = _steady_model(tmp_path / "model", wanted)
    photo = np.float32(data.chelsea()[:192, :192]) / 255
    grey = np.full(photo.shape, 0.5, np.float32)
    found = amplitude(match_spectrum(model, grey, white, photo))
    before, after = (np.abs(np.log(one / wanted)) for one in (amplitude(white), found))
    assert before.max() > 0.9
    # The first is filtered as the second; the last is wide, and the filter in it no step.
    np.testing.assert_array_less(after.reshape(2, 8)[:, 1:7], 0.06)
    assert after.mean() < before.mean() / 4


def test_clipped_noise_gets_the_spectrum_that_is_read(tmp_path):
    """On black half of the noise is lost, and what is left is still as strong as what is read."""
    wanted = np.full(spectra.SIZE, 9.0)
    model = _steady_model(tmp_path / "model", wanted)
    white = np.random.default_rng(0).normal(0, 9 / 255, (192, 192, 3)).astype(np.float32)
    black = np.full(white.shape, 2 / 255, np.float32)

    def left(noise):
        return amplitude(np.clip(black + noise, 0, 1) - black)

    assert left(white)[1:].max() < 0.75 * 9
    found = left(match_spectrum(model, black, white, black))
    np.testing.assert_allclose(found[1:], wanted[1:], rtol=0.12)


def test_eval_noise_tells_how_far_off_the_spectrum_is(tmp_path):
    """White noise of 12 grey levels, of which twice that is read: 6 dB."""
    folder = save_tiny(tmp_path / "model", reader=True)
    save_tiny_spectrum_reader(folder, np.full(spectra.SIZE, 24.0))
    rng = np.random.default_rng(0)
    clean = np.full((256, 256, 3), 128, np.uint8)
    noisy = np.rint(clean + rng.normal(0, 12, clean.shape)).astype(np.uint8)
    for part, pixels in (("gt", clean), ("noisy", noisy)):
        (tmp_path / "pairs" / part).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "pairs" / part / "0.png")
    command = ["noise", f"--model={folder}", f"--output={tmp_path / 'scores'}"]
    eval.main([*command, f"--pairs={tmp_path / 'pairs'}"])
    results = json.loads((tmp_path / "scores" / "results.json").read_text())
    assert results["mean"]["spectrum_error"] == pytest.approx(20 * np.log10(2), abs=0.4)
    eval.main([*command, f"--images={tmp_path / 'pairs' / 'noisy'}"])
    images = json.loads((tmp_path / "scores" / "results.json").read_text())["images"]
    assert "spectrum_error" not in images[0]


def test_a_model_that_reads_no_spectrum_leaves_noise_as_it_is(tmp_path):
    model = nt_jax.load(save_tiny(tmp_path / "model"))
    noise = np.random.default_rng(0).normal(size=(64, 64, 3)).astype(np.float32)
    np.testing.assert_array_equal(match_spectrum(model, noise, noise, noise), noise)


def test_a_reading_is_raised_by_half_its_expected_error_and_lowered_by_doubt():
    decibels = np.array([0.0, 2.0, 4.0, 9.0])
    errors = standardised(10 ** (decibels / 20)) - standardised(1.0)
    found = spectra.hedged(standardised(np.full(4, 4.0)), errors)
    moved = np.array([0.0, 1.0, 2.0, 4.5 - 10])
    np.testing.assert_allclose(found, standardised(4 * 10 ** (moved / 20)), rtol=1e-4, atol=1e-5)

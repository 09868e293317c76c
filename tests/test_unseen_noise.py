"""The noises of experiments/unseen_noise.py, what it measures of them, and its command."""

import json
from unittest import mock

import numpy as np
import pytest
from PIL import Image
from skimage import data
from tiny_models import save_tiny

from experiments import unseen_noise
from nt_jax.evaluation.samples import Images
from nt_jax.metrics import lag_autocorrelation

SIDE = 64


@pytest.fixture(scope="module")
def noises():
    """Of a grey image, 0 to 255 scale, by name."""
    grey = np.full((SIDE, SIDE, 3), 128, np.uint8)
    return {
        name: noise(grey, np.random.default_rng(0)) - grey.astype(np.float64)
        for name, noise in unseen_noise.NOISES.items()
    }


def test_noises_are_what_their_names_say(noises):
    white, salt, blurred, stripes, artefacts = noises.values()
    for noise in (white, blurred, stripes):
        assert noise.std() == pytest.approx(20, rel=0.2)
    assert set(np.unique(salt)) == {-128, 0, 127}
    assert (salt != 0).mean() == pytest.approx(0.05, abs=0.015)
    assert (salt == salt[..., :1]).all()
    assert abs(np.mean(lag_autocorrelation(np.float32(white), 1))) < 0.1
    assert np.mean(lag_autocorrelation(np.float32(blurred), 1)) > 0.8
    assert (stripes == stripes[:, :1, :1]).all()
    assert np.abs(artefacts).max() <= 1  # JPEG has nothing to lose of one grey


def test_errors_of_the_true_noise_itself_and_of_none():
    clean = data.coffee()[:SIDE, :SIDE]
    noisy = np.uint8(np.clip(unseen_noise.white(clean, np.random.default_rng(0)), 0, 255))
    images = Images(clean=clean, noisy=noisy, reference=noisy)
    same, none = unseen_noise.errors(images, noisy), unseen_noise.errors(images, clean)
    assert same["level"] == same["level, true"] > 15
    assert same["lag 1"] == same["lag 1, true"]
    assert (same["AKLD"], same["KS"]) == pytest.approx((0, 0), abs=1e-6)
    assert none["level"] == 0
    assert none["AKLD"] > 0.3


def test_command(tmp_path, capsys):
    tiny = save_tiny(tmp_path / "tiny")
    with mock.patch.object(unseen_noise, "_SIDE", SIDE):
        unseen_noise.main([f"--model={tiny}", f"--output={tmp_path / 'out'}"])
    assert (tmp_path / "out" / "results.md").read_text() in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())["noises"]
    assert list(results) == list(unseen_noise.NOISES)
    assert np.asarray(Image.open(tmp_path / "out" / "unseen.png")).std() > 10

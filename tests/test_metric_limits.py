"""Limits of AKLD and KS on noise whose level is known."""

import numpy as np
import pytest
from PIL import Image

from experiments.metric_limits import limits, main
from nt_jax.errors import InputError


@pytest.fixture(scope="module")
def brighter_is_noisier():
    """A ramp over the columns; the noise's level grows threefold along it."""
    clean = np.broadcast_to(np.linspace(60, 190, 128)[None, :, None], (128, 128, 3))
    clean = clean.astype(np.uint8)
    level = 6 + 12 * (clean / np.float32(255) - 60 / 255) / (130 / 255)
    noise = np.random.default_rng(1).normal(0, 1, clean.shape) * level
    return clean, np.clip(np.round(clean + noise), 0, 255).astype(np.uint8)


def test_what_is_known_of_the_level_lowers_the_limit(brighter_is_noisier):
    found = limits(np.random.default_rng(0), *brighter_is_noisier)
    # White Gaussian noise whose level is the brightness's: knowing that is knowing all.
    assert found["second draw"].akld == pytest.approx(0.043, abs=0.004)
    assert found["by brightness"].akld == pytest.approx(found["second draw"].akld, abs=0.006)
    assert found["level alone"].akld > found["by brightness"].akld + 0.05
    assert found["by brightness"].ks == pytest.approx(found["not rounded"].ks, abs=0.01)
    assert found["level alone"].ks > found["not rounded"].ks


def test_weak_noise_in_whole_grey_levels_is_at_a_distance_from_itself():
    rng = np.random.default_rng(0)
    clean = np.full((128, 128, 3), 100, np.uint8)
    noisy = np.round(clean + 1 + rng.normal(0, 2, clean.shape)).astype(np.uint8)
    found = limits(rng, clean, noisy)
    # Half of the noise that is 0 counts as negative once it is spread: P(|N(1, 2)| < .5) / 2.
    assert found["not rounded"].ks == pytest.approx(0.0874, abs=0.004)
    # Half of it is negative once its mean is gone, of the real P(N(1, 2) < -.5).
    assert found["not rounded, mean 0"].ks == pytest.approx(0.5 - 0.2266, abs=0.01)


def test_a_line_a_row_of_each_set(brighter_is_noisier, tmp_path, monkeypatch, capsys):
    for name, image in zip(("clean", "noisy"), brighter_is_noisier, strict=True):
        (tmp_path / name).mkdir()
        Image.fromarray(image).save(tmp_path / name / "a.png")
    monkeypatch.setattr("sys.argv", ["metric_limits.py", str(tmp_path)])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path}, images: 1"
    assert len(lines) == 8
    assert lines[1].split()[:3] == ["second", "draw", "AKLD"]
    assert lines[1].split()[-2:] == ["KS", "–"]
    assert float(lines[1].split()[3]) == pytest.approx(0.043, abs=0.004)
    monkeypatch.setattr("sys.argv", ["metric_limits.py", str(tmp_path), "--seed=-1"])
    with pytest.raises(InputError, match="expected 0 to"):
        main()

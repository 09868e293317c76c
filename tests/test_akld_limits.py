"""Limits of AKLD on noise whose level is known."""

import numpy as np
import pytest
from PIL import Image

from experiments.akld_limits import limits, main


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
    assert found["second draw"] == pytest.approx(0.043, abs=0.004)
    assert found["by brightness"] == pytest.approx(found["second draw"], abs=0.006)
    assert found["level alone"] > found["by brightness"] + 0.05


def test_a_line_a_row_of_each_set(brighter_is_noisier, tmp_path, monkeypatch, capsys):
    for name, image in zip(("clean", "noisy"), brighter_is_noisier, strict=True):
        (tmp_path / name).mkdir()
        Image.fromarray(image).save(tmp_path / name / "a.png")
    monkeypatch.setattr("sys.argv", ["akld_limits.py", str(tmp_path)])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path}, images: 1"
    assert len(lines) == 6
    assert float(lines[1].split()[2]) == pytest.approx(0.043, abs=0.004)

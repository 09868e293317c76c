"""The gallery's script: its noises, what it draws and measures, and what is committed of it."""

from pathlib import Path

import numpy as np
import pytest
from tiny_models import save_tiny

from experiments import gallery

DOCS = Path(__file__).parents[1] / "docs"


def test_committed_pictures_are_those_of_the_script():
    names = {path.stem for path in (DOCS / "gallery").iterdir()}
    assert set(gallery.NOISES) == names
    page = (DOCS / "gallery.md").read_text()
    assert all(f"](gallery/{name}.jpg)" in page for name in names)


def test_a_row_of_grey_noise(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "_SIDE", 64)
    monkeypatch.setattr(gallery, "_SHOWN", 32)
    noise = np.where(np.random.default_rng(0).random((64, 64, 1)) < 0.5, -8, 8)

    def add(_, photos, seed):
        return [np.uint8(np.clip(photo, 8, 247) + noise) for photo in photos]

    monkeypatch.setattr(gallery, "add_noise", add)  # the camera's compiles for long
    picture, found = gallery.row(gallery.NOISES["grey"], 0, save_tiny(tmp_path / "tiny"))
    assert found[0] == pytest.approx(8, rel=0.02)
    assert found[2] > 0
    pixels = np.asarray(picture)
    assert pixels.shape == (64, 5 * 64 + 4 * 6, 3)
    assert np.ptp(pixels, axis=-1).max() == 0
    reference, clean, made, true, generated = (pixels[:, 70 * i :][:, :64, 0] for i in range(5))
    np.testing.assert_array_equal(np.unique(true), [96, 160])  # 128 -+ 4 * 8
    for picture in (reference, clean, made, generated):
        assert picture.std() > 1


def test_what_is_drawn_and_measured():
    clean = np.full((256, 256, 3), 100, np.uint8)
    noisy = clean.copy()
    noisy[::2] += 20
    level, lag = gallery.numbers(noisy, clean)
    assert level == pytest.approx(10)
    assert lag == pytest.approx(0, abs=0.05)  # 1 across, -1 down
    drawn = np.asarray(gallery.draw([noisy, clean]))
    middle = noisy[80:176, 80:176]
    np.testing.assert_array_equal(drawn[:192:2, :192:2], middle)
    np.testing.assert_array_equal(drawn[1:192:2, 1:192:2], middle)
    assert (drawn[:, 192:198] == 255).all()

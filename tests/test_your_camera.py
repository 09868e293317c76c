"""The table of what can be done about one camera's noise, its rows without a network."""

import json

import numpy as np
import pytest
from PIL import Image
from skimage import data

from experiments import your_camera
from nt_jax.errors import InputError


@pytest.fixture
def pairs(tmp_path):
    rng = np.random.default_rng(0)
    clean = data.astronaut()
    folder = tmp_path / "camera"
    folder.mkdir()
    for number in range(4):
        crop = clean[64 * number : 64 * number + 64, 64:128]
        noisy = np.clip(crop + rng.normal(0, 20, crop.shape), 0, 255).astype(np.uint8)
        Image.fromarray(crop).save(folder / f"{number}_gt.png")
        Image.fromarray(noisy).save(folder / f"{number}_noisy.png")
    return folder


def test_the_strength_by_hand_is_the_best_and_a_row_is_made_once(pairs, tmp_path, monkeypatch):
    output = tmp_path / "out"
    flags = [f"--pairs={pairs}", f"--output={output}", "--rows=nlm"]
    your_camera.main(flags)
    (kept,) = output.glob("*/nlm.json")
    rows = json.loads(kept.read_text())
    by_hand, estimated = (rows[f"nlm, {name}"][0]["psnr"] for name in ("by hand", "estimated"))
    assert len(by_hand) == 2, "every second pair is yours"
    assert np.mean(by_hand) > np.mean(estimated) - 0.5
    scored = your_camera.find_pairs(pairs)[1::2]
    one, _ = your_camera._score({"one": your_camera._nlm(25.0)}, scored)
    assert (np.array(by_hand) >= one["one"]["psnr"]).all()
    table = (output / "results.md").read_text()
    assert f"| nlm, by hand   | {np.mean(by_hand):.2f}" in table
    assert "2 pairs are yours, 2 are scored" in table
    monkeypatch.setattr(your_camera, "_make_row", lambda *args: pytest.fail("made again"))
    your_camera.main(flags)
    assert (output / "results.md").read_text() == table


def test_yours_are_copied_role_by_role(pairs, tmp_path):
    found = your_camera.find_pairs(pairs)
    your_camera._copied(found[:2], tmp_path / "two", ("gt", "noisy"))
    assert len(your_camera.find_pairs(tmp_path / "two")) == 2
    your_camera._copied(found[:3], tmp_path / "one", ("noisy",))
    assert len(list((tmp_path / "one").iterdir())) == 3


def test_an_unknown_row_is_named(pairs, tmp_path):
    with pytest.raises(InputError, match="unknown row 'dncnn'"):
        your_camera.main([f"--pairs={pairs}", f"--output={tmp_path / 'out'}", "--rows=dncnn"])

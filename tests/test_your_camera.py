"""The table of what can be done about one camera's noise, its rows without a network."""

import json

import numpy as np
import pytest
from PIL import Image
from skimage import data

from experiments import your_camera, zero_shot
from nt_jax import prepare
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
    rows = json.loads(kept.read_text())["answer"]
    by_hand, estimated = (rows[f"nlm, {name}"][0]["psnr"] for name in ("by hand", "estimated"))
    assert len(by_hand) == 2, "every second pair is yours"
    assert np.mean(by_hand) > np.mean(estimated) - 0.5
    scored = your_camera.Scored(None, None).scenes(your_camera.find_pairs(pairs)[1::2])
    one, _ = your_camera._score({"one": your_camera._nlm(25.0)}, scored)
    assert (np.array(by_hand) >= one["one"]["psnr"]).all()
    table = (output / "results.md").read_text()
    assert f"| nlm, by hand   | {np.mean(by_hand):.2f}" in table
    assert "2 pairs of 2 photographs are yours, 2 pairs of 2 photographs are others'" in table
    monkeypatch.setattr(your_camera, "_make_row", lambda *args: pytest.fail("made again"))
    your_camera.main(flags)
    assert (output / "results.md").read_text() == table


def test_fewer_images_and_their_middle_are_scored_anew(pairs, tmp_path):
    flags = [f"--pairs={pairs}", f"--output={tmp_path / 'out'}", "--rows=nlm"]
    your_camera.main(flags)
    your_camera.main([*flags, "--images=1", "--side=32"])
    table = (tmp_path / "out" / "results.md").read_text()
    assert "1 are scored, the middle 32x32 of each" in table
    (scene,) = your_camera.Scored(1, 32).scenes(your_camera.find_pairs(pairs)[1::2])
    assert (scene.name, scene.rows, scene.columns) == ("1", slice(16, 48), slice(16, 48))
    with pytest.raises(InputError, match="--side=8: needs 16 or more"):
        your_camera.main([*flags, "--side=8"])


def test_halves_are_the_diagonals_means():
    image = np.array([[[1.0], [2.0]], [[4.0], [7.0]]])
    assert zero_shot.halves(image).ravel().tolist() == [3.0, 4.0]


def test_zs_n2n_learns_from_the_image_alone():
    clean = data.astronaut()[16:48, 200:233] / 255  # an odd side
    noisy = np.clip(clean + np.random.default_rng(0).normal(0, 0.1, clean.shape), 0, 1)
    denoised = zero_shot.denoise(noisy.astype(np.float32), steps=60)
    before, after = (-10 * np.log10(np.square(x - clean).mean()) for x in (noisy, denoised))
    assert denoised.shape == clean.shape
    assert after > before + 3


def test_crops_of_a_photograph_are_on_one_side(pairs, tmp_path):
    found = your_camera.find_pairs(pairs)
    # The third photograph goes where two pairs are missing, and so do the next.
    names = ["Sony_4-5_200_800_a_1", "Sony_4-5_200_800_a_2", "Sony_4-5_200_800_b_1", "c", "d", "e"]
    found = [found[0]._replace(name=name, clean=tmp_path / name) for name in names]
    yours, others = your_camera._by_photograph(found, 2)
    assert [pair.name for pair in yours] == [names[0], names[1], names[4]]
    assert [pair.name for pair in others] == [names[2], names[3], names[5]]
    assert your_camera._by_photograph(found[2:], 4) == ([found[2]], found[3:])


def test_a_folder_of_one_photograph_is_refused(pairs, tmp_path):
    for number in range(1, 4):
        for role in ("gt", "noisy"):
            (pairs / f"{number}_{role}.png").unlink()
    with pytest.raises(InputError, match="needs pairs of two photographs or more"):
        your_camera.main([f"--pairs={pairs}", f"--output={tmp_path / 'out'}", "--rows=nlm"])
    assert not (tmp_path / "out").exists()


def test_yours_are_copied_role_by_role(pairs, tmp_path):
    found = your_camera.find_pairs(pairs)
    your_camera._copied(found[:2], tmp_path / "two", ("gt", "noisy"))
    assert len(your_camera.find_pairs(tmp_path / "two")) == 2
    your_camera._copied(found[:3], tmp_path / "one", ("noisy",))
    assert len(list((tmp_path / "one").iterdir())) == 3
    prepare.main(["--dataset=pairs", f"--raw_dir={pairs}", f"--data_dir={tmp_path / 'prepared'}"])
    (stored,) = (tmp_path / "prepared").glob("*/train")
    your_camera._copied(your_camera.find_pairs(stored), tmp_path / "stored", ("gt", "noisy"))
    assert len(your_camera.find_pairs(tmp_path / "stored")) == 3, "one is for `val`"


def test_an_unknown_row_is_named(pairs, tmp_path):
    with pytest.raises(InputError, match="unknown row 'dncnn'"):
        your_camera.main([f"--pairs={pairs}", f"--output={tmp_path / 'out'}", "--rows=nlm,dncnn"])
    assert not (tmp_path / "out").exists()

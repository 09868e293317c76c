"""The table and pictures of a data set whose noise is known."""

import numpy as np
import pytest
from PIL import Image
from skimage import data

from experiments import dataset_statistics
from nt_jax.errors import InputError


def test_statistics_of_known_noise(tmp_path, capsys):
    for i, (name, sigma) in enumerate((("S6_00100", 4.0), ("GP_00800", 12.0))):
        folder = tmp_path / "pairs" / f"000{i}_001_{name}_00060_3200_N"
        folder.mkdir(parents=True)
        rng = np.random.default_rng(i)
        clean = np.full((96, 96, 3), 100, np.uint8)
        noisy = np.round(clean + rng.normal(2, sigma, clean.shape)).astype(np.uint8)
        Image.fromarray(clean).save(folder / "GT_SRGB_010.PNG")
        Image.fromarray(noisy).save(folder / "NOISY_SRGB_010.PNG")
    output = tmp_path / "output"
    dataset_statistics.main([f"--pairs={tmp_path / 'pairs'}", f"--output={output}"])
    lines = (output / "statistics.md").read_text().splitlines()[5:]
    assert capsys.readouterr().out.count("ISO 100") == 1
    rows = {line.split(" | ")[1]: line.strip(" |").split(" | ") for line in lines}
    assert [rows[part][2] for part in ("all", "ISO 100", "ISO 800")] == ["2", "1", "1"]
    for part, std in (("ISO 100", 4), ("ISO 800", 12), ("all", 8)):
        values = [float(cell) for cell in rows[part][3:15]]
        assert values[:4] == pytest.approx([std] * 4, rel=0.05)
        assert values[4:7] == pytest.approx([2] * 3, abs=0.4)
        assert values[7:] == pytest.approx([0] * 5, abs=0.04)
        levels = rows[part][15:]
        assert float(levels[3]) == pytest.approx(std, rel=0.05)
        assert {*levels[:3], *levels[4:]} == {"–"}
    for name in ("statistics.png", f"batch_{tmp_path.name}_pairs.png"):
        assert np.asarray(Image.open(output / name)).std() > 10


def test_sets_of_the_same_name_have_a_line_and_a_picture_each(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    folders = [tmp_path / name / "polyu/val" for name in "AB"]
    for folder in folders:
        folder.mkdir(parents=True)
        for role, image in (("gt", pixels), ("noisy", pixels[::-1])):
            Image.fromarray(image).save(folder / f"a_{role}.png")
    drawn = []
    monkeypatch.setattr(dataset_statistics, "draw_batch", lambda path, **_: drawn.append(path.name))
    output = tmp_path / "output"
    dataset_statistics.main([f"--pairs={folders[0]},{folders[1]}", f"--output={output}"])
    assert drawn == ["batch_A_polyu_val.png", "batch_B_polyu_val.png"]
    lines = (output / "statistics.md").read_text().splitlines()[5:]
    assert [line.split(" | ")[0] for line in lines] == ["| A/polyu/val", "| B/polyu/val"]


def test_nothing_to_look_at(tmp_path):
    with pytest.raises(InputError, match="name a folder"):
        dataset_statistics.main([f"--output={tmp_path}"])


def test_the_noise_world_and_what_is_inside_it(tmp_path, capsys):
    """White noise of level 9 is in the world, a checkerboard of level 60 is not."""
    clean = data.astronaut()[:192, 100:292]
    noise = np.random.default_rng(0).normal(0, 9, clean.shape)
    board = 60 * (-1.0) ** np.add.outer(np.arange(192), np.arange(192))[..., None]
    for name, added in (("white", noise), ("board", board)):
        folder = tmp_path / name
        folder.mkdir()
        noisy = np.clip(np.round(clean + added), 0, 255).astype(np.uint8)
        Image.fromarray(clean).save(folder / "a_gt.png")
        Image.fromarray(noisy).save(folder / "a_noisy.png")
    (tmp_path / "photos").mkdir()
    for number, photo in enumerate((data.coffee(), data.chelsea())):
        Image.fromarray(photo).save(tmp_path / "photos" / f"{number}.png")
    output = tmp_path / "output"
    pairs = ",".join(str(tmp_path / name) for name in ("white", "board"))
    photos = f"--photos={tmp_path / 'photos'}"
    dataset_statistics.main([f"--pairs={pairs}", photos, "--world=40", f"--output={output}"])
    rows = (output / "world.md").read_text().splitlines()[2:]
    assert [row.split(" | ")[1:] for row in rows] == [["1", "1 |"], ["1", "0 |"]]
    assert np.asarray(Image.open(output / "world.jpg")).std() > 10


def test_a_world_that_cannot_be(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    for name, side in (("small", 96), ("large", 128)):
        (tmp_path / name).mkdir()
        for role in ("gt", "noisy"):
            Image.fromarray(pixels[:side]).save(tmp_path / name / f"a_{role}.png")
        (tmp_path / f"{name}_photos").mkdir()
        Image.fromarray(pixels[:side]).save(tmp_path / f"{name}_photos/a.png")
    small, large = (tmp_path / name for name in ("small", "large"))
    small_photos, photos = (tmp_path / f"{name}_photos" for name in ("small", "large"))
    (tmp_path / "file").touch()
    for pairs, images, world, output, told in (
        (large, photos, 5, "output", "needs 6 samples or more"),
        (large, photos, -1, "output", "needs 6 samples or more"),
        (large, small_photos, 6, "output", "no photograph has 128 pixels"),
        (small, photos, 6, "output", "no pair has 128 pixels"),
        (large, photos, 6, "file", "is a file"),
    ):
        flags = [f"--pairs={pairs}", f"--photos={images}", f"--world={world}"]
        with pytest.raises(InputError, match=told):
            dataset_statistics.main([*flags, f"--output={tmp_path / output}"])
    assert not (tmp_path / "output").exists()

"""Photographs of other sharpness."""

import itertools

import numpy as np
import pytest
from PIL import Image

from experiments.resize_photos import main
from nt_jax.data.catalogue import sources
from nt_jax.errors import InputError


@pytest.fixture
def resize(tmp_path, monkeypatch):
    """Runs the command on two photographs, 400x360 and 170x200; returns what it wrote."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for name, shape in (("a", (400, 360, 3)), ("b", (170, 200, 3))):
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{name}.png")

    numbers = itertools.count()

    def run(*flags: str) -> list[np.ndarray]:
        output = tmp_path / f"{next(numbers)}"
        folders = [f"--photos={tmp_path / 'photos'}", f"--output={output}"]
        monkeypatch.setattr("sys.argv", ["resize_photos", *folders, *flags])
        main()
        return [sources.read_rgb(file) for file in sorted(output.glob("*.png"))]

    return run


def test_sizes_and_sharpness(resize):
    whole = [photo.astype(float) for photo in resize("--every=1")]
    assert [photo.shape for photo in whole] == [(400, 360, 3), (170, 200, 3)]
    (half,) = resize("--factor=0.5")  # the other would be 85 pixels high
    assert half.shape == (200, 180, 3)
    assert half.std() < 0.7 * whole[0].std(), "averaged"
    (aliased,) = resize("--every=2")
    np.testing.assert_array_equal(aliased, whole[0][1::2, 1::2])
    large = resize("--factor=2", "--side=400")
    assert [photo.shape for photo in large] == [(400, 400, 3), (340, 400, 3)]
    step = lambda photo: np.abs(np.diff(photo.astype(float), axis=1)).mean()  # noqa: E731
    assert step(large[1]) < 0.7 * step(whole[1]), "soft"


def test_the_seed_draws_the_windows(resize):
    first, again, other = (
        resize("--factor=2", "--side=400", f"--seed={seed}")[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("flag", ["--factor=0", "--factor=nan", "--every=0", "--every=-1"])
def test_bad_numbers(resize, flag):
    with pytest.raises(InputError, match="above 0"):
        resize(flag)


def test_a_side_too_small(resize):
    with pytest.raises(InputError, match="--side is 160 or more"):
        resize("--factor=2", "--side=100")


def test_a_seed_that_is_none(resize):
    with pytest.raises(InputError, match="expected 0 to"):
        resize("--factor=2", "--seed=-1")


@pytest.mark.parametrize("flag", ["--side=400", "--seed=1"])
@pytest.mark.parametrize("how", ["--every=2", "--factor=0.5"])
def test_flags_of_windows_where_there_are_none(resize, how, flag):
    with pytest.raises(InputError, match="for --factor above 1 alone"):
        resize(how, flag)


def test_the_folder_is_new_and_whole(resize, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name, told in (("file", "is a file"), ("photos", "is in the input folder")):
        with pytest.raises(InputError, match=told):
            resize("--every=1", f"--output={tmp_path / name}")
    resize("--every=1", f"--output={tmp_path / 'empty'}")
    assert len(list((tmp_path / "empty").iterdir())) == 2
    with pytest.raises(InputError, match="is not empty"):
        resize("--every=2", f"--output={tmp_path / 'empty'}")
    (tmp_path / "photos/b.png").write_bytes((tmp_path / "photos/b.png").read_bytes()[:-200])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"b\.png"):
        resize("--every=1", f"--output={tmp_path / 'new'}")
    assert sorted(tmp_path.iterdir()) == before

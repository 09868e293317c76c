"""Pairs with noise of the noise world, of chosen levels."""

import numpy as np
import pytest
from PIL import Image
from skimage import data

from experiments.world_pairs import main
from nt_jax.data.catalogue.sources import find_pairs, read_rgb
from nt_jax.errors import InputError


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs it on two photographs; gives the noise of each pair, on the 0 to 255 scale."""
    for index, photo in enumerate((data.chelsea(), data.coffee())):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(photo[:96, :128]).save(tmp_path / f"photos/{index}.png")

    def run(output, *flags):
        given = [f"--photos={tmp_path / 'photos'}=2", f"--output={tmp_path / output}", *flags]
        monkeypatch.setattr("sys.argv", ["world_pairs", "--size=64", *given])
        main()
        return [
            read_rgb(pair.noisy).astype(np.float32) - read_rgb(pair.clean)
            for pair in find_pairs(tmp_path / output)
        ]

    return run


def test_levels_are_those_asked_for_and_a_seed_makes_the_same(command):
    noises = command("a", "--levels=3,6", "--count=6", "--jpeg=0")
    levels = [noise.std() for noise in noises]
    assert len(noises) == 6
    assert 2.7 < min(levels) < max(levels) < 6.5
    again = command("b", "--levels=3,6", "--count=2", "--jpeg=0")
    np.testing.assert_array_equal(noises[:2], again)


def test_wrong_flags_leave_nothing(command, tmp_path):
    for flags in (["--levels=0,1"], ["--levels=1,2", "--size=200"], ["--levels=1,2", "--jpeg=2"]):
        with pytest.raises(InputError):
            command("a", *flags)
    with pytest.raises(InputError, match="LOW,HIGH"):
        command("a", "--levels=2,1")
    with pytest.raises(InputError, match="no such noise"):
        command("a", "--levels=4,5", "--lags=.99,1", "--count=1")
    assert not (tmp_path / "a").exists()

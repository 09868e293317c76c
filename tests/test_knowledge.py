"""What a denoiser restores by what it knows of the noise, and the table."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from skimage import data

from experiments import knowledge
from nt_jax import metrics, spectra
from nt_jax.data.catalogue.sources import find_pairs
from nt_jax.errors import InputError
from nt_jax.images import Photo, read_rgb, to_float, write_photo
from nt_jax.inference.denoiser import Denoiser, SpectrumReader
from nt_jax.models.biased import init_biased
from nt_jax.models.noise_reader import LAST, NoiseReader
from nt_jax.models.unet import UNet
from tests.tiny_models import save_tiny_denoiser

NETWORK = UNet(16, 1, conditions=spectra.CONDITIONS)
READER = NoiseReader(4, spectra.SIZE)


@pytest.fixture(scope="module")
def denoiser():
    """Its output is darker by .05 times the first number that it is told, which it reads as 1."""
    params = jax.tree.map(np.zeros_like, init_biased(jax.random.key(0), NETWORK))
    params["tail"]["condition"][0] = 0.05
    reader = jax.tree.map(np.zeros_like, init_biased(jax.random.key(0), READER))
    # Surely: nothing is moved.
    reader[LAST]["bias"][:] = [1.0] * spectra.SIZE + [-9.0] * spectra.SIZE
    return Denoiser(NETWORK, params, {}, SpectrumReader(READER, reader, 32))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Two scenes, the first twice; what is noise is brighter by .1 and as good as constant."""
    folder = tmp_path_factory.mktemp("pairs")
    for name, photo in (("a_1", data.coffee()), ("a_2", data.coffee()), ("b_1", data.chelsea())):
        clean = photo[64:128, 64:128] // 2 + 32
        write_photo(folder / f"{name}_gt.png", Photo(clean))
        write_photo(folder / f"{name}_noisy.png", Photo(clean + np.uint8(26)))
    return folder


def test_each_row_knows_what_it_says(denoiser, pairs):
    found = knowledge.score(denoiser, find_pairs(pairs))
    off = 26 / 255
    # Of noise without a spectrum the amplitude is that of rounding.
    told = float(spectra.encode(0.5 * np.log(0.02)))
    steps = np.log([0.5, 1, 1.5, 2, 3]) / 1.2
    expected = {
        "noisy": off,
        "knows nothing": off,
        "knows other scenes": off - 0.05,
        "reads": off - 0.05,
        "reads, strength by hand": np.abs(off - 0.05 * (1 + steps)).min(),
        "reads, ensemble": off - 0.05,
        "told the true spectrum": off - 0.05 * told,
    }
    assert list(found) == list(expected)
    for name, error in expected.items():
        assert found[name] == pytest.approx(-20 * np.log10(abs(error)), abs=0.3), name
    [first, *_] = find_pairs(pairs)
    clean, noisy = (to_float(read_rgb(file))[None] for file in (first.clean, first.noisy))
    assert found["noisy"] == pytest.approx(float(metrics.psnr(clean, noisy)[0]), abs=1e-3)


def test_a_scene_is_a_name_without_its_number(denoiser, pairs):
    found = find_pairs(pairs)
    assert [knowledge.scene_of(pair) for pair in found] == ["a", "a", "b"]
    assert "knows other scenes" not in knowledge.score(denoiser, found[:2])


def test_the_table_and_wrong_input(denoiser, pairs, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(knowledge, "load_denoiser", lambda name: denoiser)
    knowledge.main([f"--pairs={pairs}"])
    table = capsys.readouterr().out
    assert table.count("\n|") == 9
    blind = replace(denoiser, reader=None)
    monkeypatch.setattr(knowledge, "load_denoiser", lambda name: blind)
    with pytest.raises(InputError, match="is blind"):
        knowledge.main([f"--pairs={pairs}", f"--denoiser={save_tiny_denoiser(tmp_path / 'd')}"])

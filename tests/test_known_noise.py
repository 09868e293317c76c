"""Noise of known levels by a denoiser that is told more or less of it, and the table."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from skimage import data

from experiments import known_noise
from nt_jax import spectra
from nt_jax.errors import InputError
from nt_jax.images import Photo, write_photo
from nt_jax.inference.denoiser import Denoiser
from nt_jax.models.biased import init_biased
from nt_jax.models.unet import UNet
from tests.tiny_models import save_tiny_denoiser

NETWORK = UNet(16, 1, conditions=spectra.CONDITIONS)


@pytest.fixture(scope="module")
def denoiser():
    """One whose output is brighter by .1 if it is told a spectrum, whichever."""
    params = jax.tree.map(np.zeros_like, init_biased(jax.random.key(0), NETWORK))
    params["tail"]["condition"][-1] = -0.1
    return Denoiser(NETWORK, params, {})


@pytest.mark.parametrize(
    ("put", "of_noisy", "of_told"),
    # A camera's noise has a mean of its own, that adds to what the denoiser adds.
    [(known_noise.put_white(0), 0.1, 0.05), (known_noise.put_camera(0), 0.2, 0.5)],
    ids=["white", "camera"],
)
def test_scores_are_of_the_noise_that_was_put_on(denoiser, put, of_noisy, of_told):
    images = [np.full((96, 96, 3), 0.5, np.float32)] * 2

    def make(clean, noisy):
        return known_noise.by_denoiser(denoiser, clean, noisy)

    found = known_noise.score(images, 10.0, make, put)
    assert list(found) == ["noisy", "blind", "told the spectrum"]
    assert found["noisy"] == pytest.approx(20 * np.log10(25.5), abs=of_noisy)
    assert found["blind"] == pytest.approx(found["noisy"], abs=1e-3)
    told = -10 * np.log10(10 ** (-found["noisy"] / 10) + 0.01)
    assert found["told the spectrum"] == pytest.approx(told, abs=of_told)
    blind = replace(denoiser, network=UNet(16, 1), params=denoiser.fixed.params)
    assert list(known_noise.by_denoiser(blind, images[0], images[0])) == ["blind"]


def test_a_table_of_each_folder(tmp_path, capsys):
    save_tiny_denoiser(tmp_path / "model")
    for folder, name in (("photos", "a.png"), ("pairs", "a_gt.png"), ("pairs", "a_noisy.png")):
        (tmp_path / folder).mkdir(exist_ok=True)
        write_photo(tmp_path / folder / name, Photo(data.astronaut()[:96, :80]))
    flags = [f"--denoiser={tmp_path / 'model'}", "--rows=denoiser", "--levels=5,20"]
    flags += [f"--photos={tmp_path / 'photos'}", f"--pairs={tmp_path / 'pairs'}"]
    known_noise.main([*flags, "--side=48"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path / 'photos'}, images: 1"
    assert lines[1].replace(" ", "") == "|level|5|20|"
    half = len(lines) // 2
    assert lines[half] == f"{tmp_path / 'pairs'}, images: 1"
    assert lines[1:half] == lines[half + 1 :], "the clean ones of pairs"
    with pytest.raises(InputError, match="is smaller than 160x160"):
        known_noise.main(flags)
    for wrong, message in (("levels=a", "expected numbers"), ("rows=nlm", "unknown row 'nlm'")):
        with pytest.raises(InputError, match=message):
            known_noise.main([*flags, f"--{wrong}"])
    with pytest.raises(InputError, match="needs --photos or --pairs"):
        known_noise.main([])

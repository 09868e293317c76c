"""The picture of models' noise beside the true noise."""

import numpy as np
import pytest
from PIL import Image
from tiny_models import save_tiny

from experiments import gallery, peers_picture
from nt_jax.errors import InputError


def test_spectrum_of_white_noise_is_flat_and_its_level_squared():
    noise = np.random.default_rng(0).normal(5, 10, (256, 256, 3))  # a mean is no noise
    power = peers_picture.spectrum(noise)
    assert power.shape == (32, 32)
    assert power.mean() == pytest.approx(100, rel=0.02)
    assert power.std() < 10
    assert peers_picture.spectrum(np.ones((32, 48, 3))).max() == 0


def test_spectrum_of_grain_is_in_its_middle():
    grain = np.random.default_rng(0).normal(size=(64, 64, 3)).repeat(4, 0).repeat(4, 1)
    power = peers_picture.spectrum(grain)
    assert power[12:21, 12:21].sum() > power.sum() / 2, "a twelfth of the frequencies"


def test_a_row_for_the_true_noise_and_one_for_each_model(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(2):
        clean = rng.integers(40, 200, (64, 64, 3)).astype(np.uint8)
        noisy = np.clip(clean + rng.normal(0, 9, clean.shape), 0, 255).astype(np.uint8)
        for role, pixels in (("gt", clean), ("noisy", noisy)):
            (tmp_path / "pairs").mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / f"pairs/{number}_{role}.png")
    models = [str(save_tiny(tmp_path / name)) for name in ("one", "two")]
    flags = [f"--model={','.join(models)}", f"--pairs={tmp_path / 'pairs'}"]
    flags += [f"--output={tmp_path / 'out' / 'peers.jpg'}"]
    peers_picture.main([*flags, "--image=1"])
    with Image.open(tmp_path / "out" / "peers.jpg") as picture:
        assert picture.format == "JPEG"
        assert picture.size == (750, 3 * 250)
    with pytest.raises(InputError, match="0 to 1"):
        peers_picture.main([*flags, "--image=2"])


def test_wrong_flags_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    for flag, told in (
        (f"--output={tmp_path / 'p.xyz'}", "name a picture"),
        (f"--output={tmp_path / 'p'}", "name a picture"),
        (f"--output={tmp_path / 'file/p.png'}", "is a file"),
        ("--image=1", "--pairs"),
    ):
        with pytest.raises(InputError, match=told):
            peers_picture.main(["--model=nowhere", f"--output={tmp_path / 'p.png'}", flag])


def test_without_pairs_it_is_a_photograph_with_camera_noise(monkeypatch):
    monkeypatch.setattr(gallery, "add_noise", lambda noise, photos, seed: [photos[0] // 2])
    images = peers_picture.pair_of(None, 0)
    np.testing.assert_array_equal(images.noisy, images.clean // 2)
    assert images.reference is images.noisy
    assert images.reference_clean is images.clean

"""The picture of real cameras' noise: what is kept of a pair, and what is drawn of it."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny_models import save_tiny

import nt_jax
from experiments import real_noise
from nt_jax.images import Photo, write_photo


def test_looks_of_a_known_noise():
    clean = np.full((64, 64, 3), 100, np.uint8)
    noise = np.random.default_rng(0).choice([-3, 3], (64, 32, 3)).repeat(2, axis=1)
    found = real_noise.looks(clean, np.uint8(clean + noise))
    assert found["level"] == pytest.approx(3, rel=1e-3)
    shares = np.array(found["histogram"])
    assert shares[[37, 43]].sum() == pytest.approx(1)
    assert shares[37] == np.mean(noise == -3)
    # Along rows every second pixel is the one before; along columns none is.
    assert found["autocorrelation"][:2] == pytest.approx([1, 0.25], abs=0.03)
    assert abs(found["autocorrelation"][2]) < 0.03


def test_of_pairs_a_camera_file_is_kept_and_drawn(tmp_path):
    rng = np.random.default_rng(0)
    clean = rng.integers(40, 200, (64, 64, 3)).astype(np.uint8)
    flags = [f"--model={save_tiny(tmp_path / 'model', reader=True)}"]
    flags += [f"--cameras={tmp_path / 'cameras'}", f"--output={tmp_path / 'out' / 'picture.png'}"]
    truth = {}
    write_photo(tmp_path / "clean.png", Photo(clean))
    for name, level in (("A", 5), ("B, strong", 20)):
        noisy = np.clip(clean + rng.normal(0, level, clean.shape), 0, 255).astype(np.uint8)
        write_photo(tmp_path / f"{name[0]}.png", Photo(noisy))
        flags.append(f"--pairs={name}={tmp_path}/clean.png,{tmp_path}/{name[0]}.png")
        truth[name] = real_noise.looks(clean, noisy)
    real_noise.main(flags)
    assert json.loads((tmp_path / "cameras" / "truth.json").read_text()) == truth
    bank = nt_jax.NoiseBank.load(tmp_path / "cameras" / "cameras.npz")
    assert bank.names == ("A.png", "B, strong.png")
    made = [real_noise.put(bank, number, clean) for number in range(2)]
    assert not np.array_equal(*made)
    width, height = Image.open(tmp_path / "out" / "picture.png").size
    assert (width, height) == (1100, 2 * 260)
    with pytest.raises(nt_jax.InputError, match="NAME=CLEAN,NOISY"):
        real_noise.main([*flags, "--pairs=photo.png"])


def test_the_committed_cameras_are_of_the_bundled_model():
    bank = nt_jax.NoiseBank.load(real_noise.CAMERAS / "cameras.npz")
    clean = np.full((32, 32, 3), 128, np.uint8)
    levels = [float((real_noise.put(bank, i, clean) - 128.0).std()) for i in range(len(bank))]
    truth = json.loads((real_noise.CAMERAS / "truth.json").read_text())
    phone = next(i for i, name in enumerate(bank.names) if "phone" in name)
    assert set(truth) == {name.removesuffix(".png") for name in bank.names}
    assert levels[phone] > 2 * max(levels[:phone] + levels[phone + 1 :])

"""Noise banks: the noise of `transfer`, in files, other processes, other frameworks and folders."""

import json
import pickle
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data
from tiny_models import save_tiny

import nt_jax
from nt_jax import augment, spectra
from nt_jax.__main__ import main as nt_jax_main

SIDE = 64
DOCS = Path(__file__).parents[1] / "docs" / "augment.md"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with two noisy photos, two clean ones, a model that reads, and a camera file."""
    root = tmp_path_factory.mktemp("bank")
    rng = np.random.default_rng(0)
    photo = data.chelsea()[100 : 100 + SIDE, 100 : 100 + SIDE]
    for folder in ("noisy", "clean/more"):
        (root / folder).mkdir(parents=True)
    for name, sigma in (("faint", 5), ("strong", 40)):
        noisy = np.clip(photo + rng.normal(0, sigma, photo.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(root / f"noisy/{name}.png")
    Image.fromarray(photo).save(root / "clean/photo.png")
    Image.fromarray(photo[::-1]).save(root / "clean/more/turned.png")
    save_tiny(root / "model", reader=True)
    nt_jax.NoiseBank.from_photos(root / "noisy", root / "model").save(root / "camera.npz")
    return root


@pytest.fixture(scope="module")
def bank(place):
    return nt_jax.NoiseBank.load(place / "camera.npz")


@pytest.fixture(scope="module")
def clean():
    return np.random.default_rng(1).random((SIDE, SIDE, 3)).astype(np.float32)


def test_a_bank_makes_the_calibrated_noise_of_transfer(place, bank, clean):
    model = nt_jax.load(place / "model")
    seeds = {bank.draw(seed).reference: seed for seed in range(20)}
    assert set(seeds) == {0, 1}
    for reference, seed in seeds.items():
        photo = np.asarray(Image.open(place / "noisy" / bank.names[reference]))
        expected = model.transfer(clean, reference=photo, seed=bank.draw(seed).seed)
        np.testing.assert_allclose(bank(clean, seed), expected, atol=1e-6)
        np.testing.assert_allclose(bank.readings.level[reference], model.read_noise(photo).level)
    assert (bank.gains != 1).any()
    assert np.abs(bank(clean, 0) - bank(clean, 1)).max() > 0.01


def test_the_dtype_stays(bank, clean):
    noisy = bank(clean, 3)
    for dtype in (np.float16, np.float64):
        assert bank(clean.astype(dtype), 3).dtype == dtype
    bytes_in = np.rint(255 * clean).astype(np.uint8)
    bytes_out = bank(bytes_in, 3)
    assert bytes_out.dtype == np.uint8
    assert np.abs(bytes_out / 255 - noisy).max() < 0.02
    for image, seed in ((clean[None], 0), (clean * 255, 0), (clean, -1), (clean, 2**32)):
        with pytest.raises(nt_jax.InputError):
            bank(image, seed)


def test_a_bank_travels_as_its_arrays(bank, clean):
    expected = bank(clean, 5)  # the model is loaded by now
    sent = pickle.dumps(bank)
    assert len(sent) < 5000
    np.testing.assert_array_equal(pickle.loads(sent)(clean, 5), expected)


def damaged(tmp_path, place, harm):
    whole = (place / "camera.npz").read_bytes()
    path = tmp_path / "camera.npz"
    if harm == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif harm == "bit":  # zipfile's checksum
        middle = whole.index(b"NUMPY") + 200
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    elif harm == "png":
        path.write_bytes((place / "clean/photo.png").read_bytes())
    elif harm == "folder":
        path.mkdir()
    elif harm != "missing":
        with np.load(place / "camera.npz") as content:
            arrays = dict(content)
        if harm == "gains":
            arrays["gains"] = arrays["gains"][:1]
        elif harm == "nan":
            arrays["embeddings"][0, 0] = np.nan
        else:
            del arrays[harm]
        np.savez(path, **arrays)
    return path


HARMS = ("missing", "folder", "cut", "bit", "png", "gains", "nan", "about", "embeddings")


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_camera_file_is_one_line(tmp_path, place, harm):
    path = damaged(tmp_path, place, harm)
    with pytest.raises(nt_jax.InputError, match=re.escape(str(path))) as error:
        nt_jax.NoiseBank.load(path)
    assert "\n" not in str(error.value)


def test_a_camera_file_of_before_has_no_gains_of_rings(tmp_path, place, bank, clean):
    with np.load(place / "camera.npz") as content:
        arrays = dict(content)
    about = json.loads(str(arrays["about"]))
    del arrays["ring_gains"]
    np.savez(tmp_path / "old.npz", **arrays | {"about": json.dumps(about | {"version": 1})})
    old = nt_jax.NoiseBank.load(tmp_path / "old.npz")
    np.testing.assert_array_equal(old.ring_gains, np.ones((2, spectra.SIZE)))
    np.testing.assert_array_equal(old(clean, 0), bank(clean, 0))  # this model reads no spectrum


def test_another_model_is_refused(tmp_path, place, clean):
    other = save_tiny(tmp_path / "other", reader=True, bound="l2", blocks=(2, 1, 1))
    with pytest.raises(nt_jax.InputError, match="another model"):
        nt_jax.NoiseBank.load(place / "camera.npz", model=other)(clean, 0)


def command(place, output, *flags):
    augment.main(
        [f"--bank={place}/camera.npz", f"--clean={place}/clean", f"--output={output}", *flags]
    )


@pytest.mark.parametrize(
    ("layout", "noisy", "target"),
    [("basicsr", "input_crops", "target_crops"), ("kair", "L", "H")],
)
def test_pairs_in_the_folders_of_others(tmp_path, place, bank, layout, noisy, target):
    command(place, tmp_path, f"--layout={layout}", "--count=2", "--seed=7")
    made = json.loads((tmp_path / "augment.json").read_text())["pairs"]
    names = ["more_turned_0.png", "more_turned_1.png", "photo_0.png", "photo_1.png"]
    assert list(made) == names
    assert {path.name for path in tmp_path.iterdir()} == {noisy, target, "augment.json"}
    for index, name in enumerate(names):
        clean, image = (np.asarray(Image.open(tmp_path / f / name)) for f in (target, noisy))
        of = np.asarray(Image.open(place / "clean" / made[name]["clean"]))
        np.testing.assert_array_equal(clean, of)
        np.testing.assert_array_equal(image, bank(clean, 7 + index))
    for folder in (noisy, target):
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == names


def test_pairs_go_on_where_they_were_stopped(tmp_path, place, bank, monkeypatch):
    output, written = tmp_path / "out", []

    def fails_late(path, photo, write=augment.write_photo):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        write(path, photo)

    monkeypatch.setattr(augment, "write_photo", fails_late)
    with pytest.raises(KeyboardInterrupt):
        command(place, output, "--layout=kair")
    files = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert files == {"augment.json", "L/more_turned.png", "H/more_turned.png"}
    monkeypatch.undo()
    assert augment.make_pairs(bank, place / "clean", output, "kair") == 1
    before = {path: path.read_bytes() for path in output.rglob("*.*")}
    with pytest.raises(nt_jax.InputError, match="another"):
        command(place, output, "--layout=kair", "--seed=1")
    assert {path: path.read_bytes() for path in output.rglob("*.*")} == before


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")  # not so in a command's own process
def test_wrong_input_ends_with_2_and_writes_nothing(tmp_path, place, monkeypatch, capsys):
    broken = tmp_path / "clean"
    broken.mkdir()
    (broken / "a.png").write_bytes((place / "clean/photo.png").read_bytes()[:200])
    bank, clean, output = f"--bank={place}/camera.npz", f"--clean={place}/clean", tmp_path / "out"
    end = [f"--output={output}", "--layout=kair"]
    wrong = [
        [bank, f"--clean={broken}", *end],
        [bank, clean, *end, "--count=0"],
        [bank, clean, *end, f"--noisy={place}/noisy"],
        [bank, clean, "--layout=kair"],
        [bank, clean, f"--output={tmp_path}", "--layout=kair"],
        [clean, f"--noisy={broken}", f"--model={place}/model", *end, f"--save_bank={tmp_path}/b"],
    ]
    for flags in wrong:
        monkeypatch.setattr(sys, "argv", ["nt-jax", "augment", *flags])
        with pytest.raises(SystemExit) as ended:
            nt_jax_main()
        assert ended.value.code == 2, flags
        assert re.fullmatch(r"error: [^\n]+\n", capsys.readouterr().err), flags
    assert [path.name for path in tmp_path.iterdir()] == ["clean"]


# --- The examples of the documentation, as they are ----------------------------------------------


def example(name):
    return re.search(rf"```python\n(# {re.escape(name)}\n.*?)```", DOCS.read_text(), re.S)[1]


@pytest.fixture
def run_example(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)

    def run(name):
        names = {"__name__": "__main__"}
        exec(compile(example(name), name, "exec"), names)
        return names

    return run


def noise_between(noisy, clean):
    noise = np.asarray(noisy, np.float32) - np.asarray(clean, np.float32)
    return float(np.abs(noise).mean())


def test_example_of_torch_with_spawned_workers(place, run_example):
    torch = pytest.importorskip("torch")
    (place / "pairs.py").write_text(example("pairs.py"))
    names = run_example("torch")
    assert names["noisy"].shape == (1, 3, SIDE, SIDE)
    assert names["noisy"].dtype == torch.float32
    assert noise_between(names["noisy"], names["clean"]) > 0.01


def test_example_of_tf_data(run_example):
    pytest.importorskip("tensorflow")
    names = run_example("tf.data")
    assert names["noisy"].shape == (1, SIDE, SIDE, 3)
    assert noise_between(names["noisy"], names["clean"]) > 2


def test_example_of_albumentations(run_example, monkeypatch):
    try:
        import albumentations  # noqa: F401
    except ImportError:
        monkeypatch.setitem(sys.modules, "albumentations", stand_in())
    names = run_example("albumentations")
    assert names["noisy"].dtype == np.uint8
    assert noise_between(names["noisy"], names["clean"]) > 2


def stand_in():
    """As little of albumentations 2 as the example asks for, for where it is not installed."""
    import random

    class ImageOnlyTransform:
        def __init__(self, p):
            self.p, self.py_random = p, random.Random(0)

        def __call__(self, image, mask):
            return self.apply(image, **self.get_params(), shape=image.shape), mask

    class Compose:
        def __init__(self, transforms, seed):
            self.transforms = transforms

        def __call__(self, image, mask):
            for transform in self.transforms:
                image, mask = transform(image, mask)
            return {"image": image, "mask": mask}

    module = types.ModuleType("albumentations")
    module.ImageOnlyTransform, module.Compose = ImageOnlyTransform, Compose
    module.RandomCrop = lambda height, width: lambda *both: [x[:height, :width] for x in both]
    module.HorizontalFlip = lambda: lambda *both: [x[:, ::-1] for x in both]
    return module

"""Every data set's builder on small files of the published layout, resuming, and what is broken."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import h5py
import imagecodecs
import jax
import numpy as np
import pytest
import scipy.io
import skimage.data
from jax.sharding import Mesh
from PIL import Image

from nt_jax import prepare
from nt_jax.data.builders import run, tiles
from nt_jax.data.builders.alignment import align_noisy
from nt_jax.data.builders.pairs import list_pairs
from nt_jax.data.catalogue import prepared, sources
from nt_jax.data.sampling import pipeline
from nt_jax.data.sampling.bank import load_bank
from nt_jax.errors import InputError
from nt_jax.images import read_rgb

TILE = 32
HEIGHT, WIDTH = 40, 56  # 2 x 2 tiles


def _image(*seed: int, height=HEIGHT, width=WIDTH) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def _write(path: Path, array: np.ndarray) -> np.ndarray:
    """Returns what a reader gets: JPEG loses something."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return np.asarray(Image.open(path))


def _write_mat(path: Path, version: str, **arrays: np.ndarray) -> None:
    """As MATLAB does: 7.3 is HDF5 behind 512 bytes, its axes reversed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if version == "v5":
        scipy.io.savemat(path, arrays)
        return
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            file[name] = array.T


def _sidd_folder(root: Path, prefix: str) -> dict:
    captures = (
        "0001_001_S6_00100_00060_3200_L",
        "0002_001_GP_03200_02000_5500_N",
        "0003_002_S6_00800_00060_3200_H",
    )
    images = {}
    for i, name in enumerate(captures):
        folder = root / "Data" / name
        number = f"{name[:5]}" if prefix else ""
        for take in ("010", "011") if prefix else ("010",):
            clean = _write(folder / f"{number}GT_SRGB_{take}.PNG", _image(i, int(take), 0))
            noisy = _write(folder / f"{number}NOISY_SRGB_{take}.PNG", _image(i, int(take), 1))
            images[f"Data/{name}_{take}"] = (clean, noisy)
    return images


def sidd_small(root):
    return _sidd_folder(root, ""), "Data/0002_001_GP_03200_02000_5500_N_010"


def sidd_medium(root):
    return _sidd_folder(root, "x"), "Data/0002_001_GP_03200_02000_5500_N_011"


def _blocks(root, version):
    clean, noisy = (
        np.stack([[_image(i, j, k, height=24, width=24) for j in range(3)] for i in range(2)])
        for k in (0, 1)
    )
    _write_mat(root / "ValidationGtBlocksSrgb.mat", version, ValidationGtBlocksSrgb=clean)
    _write_mat(root / "ValidationNoisyBlocksSrgb.mat", version, ValidationNoisyBlocksSrgb=noisy)
    return {
        f"ValidationBlocksSrgb/{i:04d}_{j:02d}": (clean[i, j], noisy[i, j])
        for i in range(2)
        for j in range(3)
    }


def sidd_blocks(root):
    return _blocks(root, "v5"), "ValidationBlocksSrgb/0001_02"


def sidd_all(root):
    return _blocks(root, "v7.3") | _sidd_folder(root, ""), "ValidationBlocksSrgb/0001_02"


def siddplus_mat(root):
    clean, noisy = (np.stack([_image(i, k, height=24, width=24) for i in range(5)]) for k in (0, 1))
    _write_mat(root / "siddplus_valid_gt_srgb.mat", "v5", siddplus_valid_gt_srgb=clean)
    _write_mat(root / "siddplus_valid_noisy_srgb.mat", "v5", siddplus_valid_noisy_srgb=noisy)
    names = [f"siddplus_valid_srgb/{i:04d}" for i in range(5)]
    return dict(zip(names, zip(clean, noisy, strict=True), strict=True)), names[3]


def siddplus_png(root):
    images = {}
    for i in range(3):
        name = f"{i:04d}"
        images[name] = tuple(
            _write(root / f"siddplus_valid_{role}_srgb" / f"{name}.PNG", _image(i, k))
            for k, role in enumerate(("gt", "noisy"))
        )
    return images, "0001"


def dnd(root):
    """Two images of two boxes; MATLAB's boxes count from 1 and include the end."""
    images = {}
    boxes = [
        np.array([[1, 1, 24, 32], [17, 25, 40, 56]]),
        np.array([[3, 5, 26, 36], [9, 9, 32, 40]]),
    ]
    root.mkdir(parents=True)
    with h5py.File(root / "info.mat", "w", userblock_size=512) as file:
        info = file.create_group("info")
        references = np.empty((1, 2), h5py.ref_dtype)
        for i, box in enumerate(boxes):
            file[f"#refs#/{i}"] = box.T.astype(np.float64)
            references[0, i] = file[f"#refs#/{i}"].ref
        info.create_dataset("boundingboxes", data=references, dtype=h5py.ref_dtype)
    for i, box in enumerate(boxes):
        image = _image(i)
        _write_mat(
            root / "images_srgb" / f"{i + 1:04d}.mat",
            "v7.3",
            InoisySRGB=(image / 255).astype(np.float32),
        )
        for k, (top, left, bottom, right) in enumerate(box):
            images[f"{i + 1:04d}_{k + 1:02d}"] = (None, image[top - 1 : bottom, left - 1 : right])
    return images, "0002_01"


def polyu(root):
    images = {}
    for i, name in enumerate(("Canon5D2_5_160_3200_chair_11", "NikonD800_6-3_125_5000_plant__4")):
        images[f"CroppedImages/{name}"] = (
            _write(root / "CroppedImages" / f"{name}_mean.JPG", _image(i, 0)),
            _write(root / "CroppedImages" / f"{name}_real.JPG", _image(i, 1)),
        )
    name = "NikonD800_6-3_125_5000_plant"
    images[f"OriginalImages/{name}"] = (
        _write(root / "OriginalImages" / f"{name}_mean.JPG", _image(3, 0, height=70)),
        _write(root / "OriginalImages" / f"{name}_Real.JPG", _image(3, 1, height=70)),
    )
    _write(root / "OriginalImages" / "IMG_8325.JPG", _image(9))  # is there, and no pair
    return images, "OriginalImages/NikonD800_6-3_125_5000_plant"


def _photos(root, paths):
    return {path: (_write(root / path, _image(i)), None) for i, path in enumerate(paths)}


def div2k(root):
    paths = ["DIV2K_train_HR/0001.png", "DIV2K_train_HR/0002.png", "DIV2K_valid_HR/0801.png"]
    return _photos(root, paths), "DIV2K_valid_HR/0801.png"


def bsds500(root):
    paths = ["train/1.jpg", "val/2.jpg", "test/3.jpg"]
    return _photos(root / "BSR" / "BSDS500" / "data" / "images", paths), "test/3.jpg"


def bsds500_plain(root):
    return _photos(root, ["train/1.jpg", "val/2.jpg", "test/3.jpg"]), "val/2.jpg"


def pairs(root):
    images = {}
    for i, name in enumerate(("a", "b", "sub/c")):
        clean = _write(root / f"{name}_gt.png", _image(i, 0))
        images[name] = (clean, _write(root / f"{name}_noisy.png", _image(i, 1)))
    return images, "sub/c"


def pairs_in_splits(root):
    images = {}
    for i, name in enumerate(("train/a", "val/a")):
        split, stem = name.split("/")
        clean = _write(root / split / "gt" / f"{stem}.png", _image(i, 0))
        images[name] = (clean, _write(root / split / "noisy" / f"{stem}.png", _image(i, 1)))
    return images, "val/a"


def photos(root):
    return _photos(root, ["a.png", "b.jpg", "sub/c.png"]), "sub/c.png"


# Splits where they are published; a line of features of the named image.
CASES = {
    sidd_small: ("sidd", None, ("001", "GP", 3200, 2000, 5500)),
    sidd_medium: ("sidd", None, ("001", "GP", 3200, 2000, 5500)),
    sidd_blocks: ("sidd", {"val": 6}, ("", "", 0, 0, 0)),
    sidd_all: ("sidd", {"train": 3, "val": 6}, ("", "", 0, 0, 0)),
    siddplus_mat: ("siddplus", {"val": 5}, ("", "", 0, 0, 0)),
    siddplus_png: ("siddplus", {"val": 3}, ("", "", 0, 0, 0)),
    dnd: ("dnd", {"test": 4}, ("", "", 0, 0, 0)),
    polyu: ("polyu", None, ("plant", "NikonD800", 5000, 125, 0)),
    div2k: ("div2k", {"train": 2, "val": 1}, ("", "", 0, 0, 0)),
    bsds500: ("bsds500", {"train": 1, "val": 1, "test": 1}, ("", "", 0, 0, 0)),
    bsds500_plain: ("bsds500", {"train": 1, "val": 1, "test": 1}, ("", "", 0, 0, 0)),
    pairs: ("pairs", None, ("", "", 0, 0, 0)),
    pairs_in_splits: ("pairs", {"train": 1, "val": 1}, ("", "", 0, 0, 0)),
    photos: ("photos", None, ("", "", 0, 0, 0)),
}


def _examples(folder: Path) -> list[dict]:
    """All examples, read as anyone would with TFDS."""
    import tensorflow_datasets as tfds

    import nt_jax.data.tfds  # noqa: F401  (registers)

    splits = tfds.load(f"nt_jax/{folder.name}", data_dir=folder.parent)
    return [
        {
            name: value.decode() if isinstance(value, bytes) else value
            for name, value in example.items()
        }
        for split in splits.values()
        for example in tfds.as_numpy(split)
    ]


@pytest.mark.parametrize("layout", CASES, ids=lambda layout: layout.__name__)
def test_round_trip(layout, tmp_path):
    dataset, splits, features = CASES[layout]
    images, named = layout(tmp_path / "raw")
    folder = run.prepare(dataset, tmp_path / "raw", tmp_path / "data", TILE)
    assert folder == tmp_path / "data" / dataset
    assert [path.name for path in (tmp_path / "data").iterdir()] == [dataset]
    examples = _examples(folder)
    for example in examples:
        example["source"] = re.sub(r"_y\d{5}_x\d{5}$", "", example["name"])
    assert {example["source"] for example in examples} == set(images)

    scenes: dict[str, set[str]] = {}
    covered = {name: np.zeros(HEIGHT * WIDTH * 4, bool) for name in images}
    for example in examples:
        name = example["source"]
        for role, image in zip(("clean", "noisy"), images[name], strict=True):
            assert (role in example) == (image is not None)
            if image is None:
                continue
            y, x = (0, 0) if layout is dnd else (example["y"], example["x"])
            tile = example[role]
            assert np.array_equal(tile, image[y : y + TILE, x : x + TILE])
            assert tile.shape[:2] == tuple(min(side, TILE) for side in image.shape[:2])
            seen = covered[name][: image[..., 0].size].reshape(image.shape[:2])
            seen[y : y + TILE, x : x + TILE] = True
        assert example["dataset"] == dataset
        scenes.setdefault(example["scene"] or example["image"], set()).add(example["split"])
    for name, versions in images.items():
        size = next(image[..., 0].size for image in versions if image is not None)
        assert covered[name].sum() == size
    assert all(len(found) == 1 for found in scenes.values())
    images_of = {split: set() for split in ("train", "val", "test")}
    for example in examples:
        images_of[example["split"]].add(example["source"])
    counts = {split: len(found) for split, found in images_of.items() if found}
    assert counts == splits if splits else set(counts) == {"train", "val"}
    first = next(example for example in examples if example["source"] == named)
    names = ("scene", "camera", "iso", "shutter", "illuminant")
    assert tuple(first[name] for name in names) == features
    if layout is dnd:
        assert (first["y"], first["x"], first["image"]) == (2, 4, "0002")

    # The same through the index, without TensorFlow.
    stored = {tile.name: tile for tile in prepared.find_tiles(folder)}
    assert set(stored) == {example["name"] for example in examples}
    for example in examples:
        for role in ("clean", "noisy"):
            image = getattr(stored[example["name"]], role)
            assert (image is None) == (role not in example)
            if image:
                assert np.array_equal(sources.read_rgb(image), example[role])
                assert sources.image_size(image) == example[role].shape[:2]


@pytest.fixture(scope="module")
def sidd(tmp_path_factory) -> SimpleNamespace:
    root = tmp_path_factory.mktemp("sidd")
    images, _ = sidd_medium(root / "raw")
    folder = run.prepare("sidd", root / "raw", root / "data", TILE, ["002"])
    return SimpleNamespace(images=images, raw=root / "raw", data=root / "data", folder=folder)


def test_prepared_pairs_stand_where_folders_of_pairs_do(sidd):
    everything = sources.find_pairs(sidd.data)
    assert len(everything) == 4 * len(sidd.images)
    assert (
        everything == sources.find_pairs(str(sidd.data / "sidd")) == sources.find_pairs(sidd.folder)
    )
    train, val = (sources.find_pairs(sidd.data / "sidd" / split) for split in ("train", "val"))
    assert sorted(train + val) == everything
    assert {pair.scene for pair in train} == {"001"}
    assert {(pair.group, pair.iso) for pair in val} == {("S6_800", 800)}
    assert len({pair.image for pair in val}) == 2
    assert sources.find_pairs(sidd.data / "val") == val
    assert sources.find_photos(sidd.data / "val") == [pair.clean for pair in val]
    ((_, clean, noisy), *_) = sources.load_pairs(f"{sidd.data / 'val'}=2")
    assert clean.shape == noisy.shape == (TILE, TILE, 3)
    with pytest.raises(InputError, match=r"no such split, .* has train, val"):
        sources.find_pairs(sidd.data / "test")


def test_several_data_sets_in_one_folder_need_a_name(sidd, tmp_path):
    shutil.copytree(sidd.data, tmp_path, dirs_exist_ok=True)
    photos(tmp_path / "raw")
    run.prepare("photos", tmp_path / "raw", tmp_path)
    assert len(sources.find_photos(tmp_path / "photos")) == 3
    with pytest.raises(InputError, match=r"more than one.*photos.*sidd"):
        sources.find_photos(tmp_path)
    with pytest.raises(InputError, match="without pairs"):
        sources.find_pairs(tmp_path / "photos")


def test_noisy_images_alone_are_no_photographs(tmp_path):
    dnd(tmp_path / "raw")
    run.prepare("dnd", tmp_path / "raw", tmp_path / "data")
    with pytest.raises(InputError, match="noisy images only"):
        sources.find_photos(tmp_path / "data")


def test_damaged_tiles_are_named(sidd, tmp_path):
    shutil.copytree(sidd.data, tmp_path, dirs_exist_ok=True)
    (*_, last) = sources.find_pairs(tmp_path / "train")
    path = last.clean.path
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=f"{path.name} cannot be decoded, it is truncated"):
        sources.read_rgb(last.clean)
    path.unlink()
    with pytest.raises(InputError, match=f"{path.name}: no such file"):
        sources.read_rgb(last.clean)
    (tmp_path / "sidd" / prepared.INDEX).write_text("{")
    with pytest.raises(InputError, match="not readable: prepare the data again"):
        sources.find_pairs(tmp_path)


def test_data_of_an_older_version_are_to_be_prepared_again(sidd, tmp_path):
    old = tmp_path / "sidd" / "1.0.0"
    old.mkdir(parents=True)
    (old / "tiles.json").write_text("{}")
    again = f"{old}: prepared by an older version .* run `python -m nt_jax.prepare` again"
    for folder in (tmp_path, old.parent, old, tmp_path / "sidd" / "train", tmp_path / "train"):
        with pytest.raises(InputError, match=again):
            sources.find_pairs(folder)
    with pytest.raises(InputError, match=again):
        run.prepare("sidd", sidd.raw, tmp_path, TILE)


def test_tiles_keep_16_bits_and_are_plain_files(tmp_path):
    deep = np.random.default_rng(0).integers(0, 65536, (2, HEIGHT, WIDTH, 3), np.uint16)
    (tmp_path / "raw").mkdir()
    for role, pixels in zip(("gt", "noisy"), deep, strict=True):
        imagecodecs.imwrite(tmp_path / "raw" / f"a_{role}.png", pixels)
    _write(tmp_path / "raw" / "b_gt.png", _image(1))
    _write(tmp_path / "raw" / "b_noisy.png", _image(2))
    folder = run.prepare("pairs", tmp_path / "raw", tmp_path / "data", TILE, [])
    rows = [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]
    assert {(row["image"], row["bits"]) for row in rows} == {("a", 16), ("b", 8)}
    for row in rows:
        assert row["origin"] == [f"{row['image']}_gt.png", f"{row['image']}_noisy.png"]
        for role, pixels in zip(("clean", "noisy"), deep, strict=True):
            data = (folder / row[role]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == row[f"{role}_sha256"]
            if row["image"] == "a":
                window = pixels[row["y"] :, row["x"] :][: row["height"], : row["width"]]
                assert np.array_equal(imagecodecs.png_decode(data), window)
    # Folders of tiles are pairs without the index, too.
    shutil.copytree(folder / "train", tmp_path / "plain")
    assert [pair.name for pair in sources.find_pairs(tmp_path / "plain")] == [
        row["name"] for row in rows
    ]
    first = next(example for example in _examples(folder) if example["image"] == "a")
    assert first["clean"].dtype == np.uint16


def test_stopping_leaves_waiting_images_alone():
    done = []

    def work(i: int) -> None:
        time.sleep(0.01)
        done.append(i)

    running = tiles.in_parallel(work, range(1000), 1000, "worked")
    next(running)
    running.close()
    assert len(done) < 500


@pytest.mark.parametrize("size", [(16, 16), (40, 56), (32, 100), (33, 31), (96, 64), (1, 200)])
def test_windows_cover_the_image_once_and_stay_inside(size):
    height, width = size
    count = np.zeros(size, int)
    windows = tiles.windows(height, width, TILE)
    for y, x, h, w in windows:
        assert (h, w) == (min(height, TILE), min(width, TILE))
        assert min(y, x) >= 0
        count[y : y + h, x : x + w] += 1
        assert y + h <= height
        assert x + w <= width
    assert count.min() == 1
    assert len(windows) == -(-height // TILE) * -(-width // TILE)


def test_scenes_are_held_out_whole(tmp_path):
    sidd_medium(tmp_path / "raw")
    from nt_jax.data.builders import listing
    from nt_jax.data.builders.sidd import list_sidd

    found = list_sidd(tmp_path / "raw").sources
    for scenes, expected in ((["001"], {"001"}), ([], set()), (["001"], {"001"})):
        split = listing.assign_splits(found, "sidd", scenes)
        assert {source.scene for source in split if source.split == "val"} == expected
    assert listing.assign_splits(found, "sidd") == listing.assign_splits(found, "sidd")
    with pytest.raises(InputError, match="no scene '007', there are 001, 002"):
        listing.assign_splits(found, "sidd", ["007"])
    with pytest.raises(InputError, match="names every scene"):
        listing.assign_splits(found, "sidd", ["001", "002"])


def test_pairs_beside_the_splits_are_prepared_too(tmp_path):
    for name in ("train/a", "b", "extra/c"):
        for kind in ("gt", "noisy"):
            _write(tmp_path / "raw" / f"{name}_{kind}.png", _image(0))
    listed = list_pairs(tmp_path / "raw").sources
    splits = {source.name: source.split for source in listed}
    assert splits == {"b": "", "extra/c": "", "train/a": "train"}


def _missing_partner(root):
    (root / "b_noisy.png").unlink()
    return "b_gt.png: its noisy partner is missing"


def _other_size(root):
    _write(root / "b_noisy.png", _image(0, width=WIDTH + 1))
    return "b_noisy.png: its size differs"


def _truncated(root):
    data = (root / "b_noisy.png").read_bytes()
    (root / "b_noisy.png").write_bytes(data[: len(data) // 2])
    return "b_noisy.png cannot be decoded"


def _text(root):
    (root / "b_gt.png").write_text("no image")
    return "b_gt.png is not a readable PNG"


def _tiny(root):
    for kind in ("gt", "noisy"):
        _write(root / f"b_{kind}.png", _image(0, height=15, width=20))
    return "b_noisy.png is 20x15"


@pytest.mark.parametrize("damage", [_missing_partner, _other_size, _truncated, _text, _tiny])
def test_broken_images_fail_by_name_or_are_skipped(damage, tmp_path, capsys):
    pairs(tmp_path / "raw")
    message = damage(tmp_path / "raw")
    flags = ["--dataset=pairs", f"--raw_dir={tmp_path / 'raw'}", f"--data_dir={tmp_path / 'data'}"]
    with pytest.raises(
        InputError, match=f"{message}.*; 1 of 3 images are unus.*; .*--on_error=skip"
    ):
        prepare.main(flags)
    assert not (tmp_path / "data").exists()
    prepare.main([*flags, "--on_error=skip", "--val_scenes=a"])
    assert f"skipped: {tmp_path / 'raw' / message[:5]}" in capsys.readouterr().out
    folder = tmp_path / "data" / "pairs"
    assert message in (folder / "skipped.txt").read_text()
    assert [pair.name for pair in sources.find_pairs(folder)] == ["a", "sub/c"]


def test_the_same_images_twice_are_named(tmp_path):
    sidd_blocks(tmp_path / "raw")
    shutil.copytree(tmp_path / "raw", tmp_path / "raw" / "copy")
    with pytest.raises(InputError, match="named ValidationBlocksSrgb/0000_00 like"):
        run.prepare("sidd", tmp_path / "raw", tmp_path / "data")


def test_siddplus_folders_without_a_partner_are_named(tmp_path):
    siddplus_png(tmp_path / "raw")
    (tmp_path / "raw" / "siddplus_test_noisy_srgb").mkdir()
    with pytest.raises(InputError, match="its clean partner siddplus_test_gt_srgb is missing"):
        run.prepare("siddplus", tmp_path / "raw", tmp_path / "data")


def test_broken_matlab_files(tmp_path):
    raw = tmp_path / "raw"
    siddplus_mat(raw)
    (noisy,) = raw.glob("*noisy*")
    data = noisy.read_bytes()
    noisy.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"noisy_srgb\.mat: not a readable MATLAB file.*1 of 1"):
        run.prepare("siddplus", raw, tmp_path / "data")
    (raw / "siddplus_valid_gt_srgb.mat").unlink()
    with pytest.raises(InputError, match="its clean partner siddplus_valid_gt_srgb"):
        run.prepare("siddplus", raw, tmp_path / "data")
    dnd(tmp_path / "dnd")
    (tmp_path / "dnd" / "images_srgb" / "0002.mat").write_bytes(b"MATLAB")
    with pytest.raises(InputError, match=r"0002\.mat: not a readable MATLAB file.*2 of 4"):
        run.prepare("dnd", tmp_path / "dnd", tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("dataset", run.DATASETS)
def test_wrong_folders_are_one_line(dataset, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "notes.txt").write_text("no images")
    with pytest.raises(InputError, match=f"raw: nothing of {dataset} found: need "):
        run.prepare(dataset, tmp_path / "raw", tmp_path / "data")
    with pytest.raises(InputError, match="missing: no such folder"):
        run.prepare(dataset, tmp_path / "missing", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_command_ends_with_2_and_one_line(tmp_path):
    command = [sys.executable, "-m", "nt_jax.prepare", "--dataset=sidd", f"--data_dir={tmp_path}"]
    ended = subprocess.run(
        [*command, "--raw_dir=missing"], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "error: missing: no such folder\n"


def test_an_output_that_takes_no_files_is_told_before_images_are_decoded(tmp_path, monkeypatch):
    _photos(tmp_path / "raw", ["a.png"])
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(run, "_check_all", lambda *_: pytest.fail("decodes"))
    with pytest.raises(InputError, match="photos cannot be written: Not a directory"):
        run.prepare("photos", tmp_path / "raw", tmp_path / "file" / "data")


def test_a_data_set_is_not_overwritten(sidd, tmp_path, capsys):
    assert run.prepare("sidd", sidd.raw, sidd.data, TILE, ["002"]) == sidd.folder
    assert capsys.readouterr().out == f"{sidd.folder}: prepared already\n"
    for change in ({"tile": 24}, {"val_scenes": ["001"]}):
        settings = {"tile": TILE, "val_scenes": ["002"]} | change
        with pytest.raises(InputError, match="other images or settings: remove it"):
            run.prepare("sidd", sidd.raw, sidd.data, **settings)
    shutil.copytree(sidd.folder, tmp_path / "sidd")
    (tmp_path / "sidd" / "index.jsonl").unlink()  # without it nothing can be read
    with pytest.raises(InputError, match="other images or settings: remove it"):
        run.prepare("sidd", sidd.raw, tmp_path, TILE, ["002"])


_KILLED = """
import os, signal, sys
from pathlib import Path
from nt_jax.data.catalogue import prepared
from nt_jax.data.builders import run, tiles

raw, data, phase, tile = sys.argv[1:]
write, done = tiles._write, []

def write_or_die(folder, source, tile):
    done.append(source)
    rows = write(folder, source, tile)
    if len(done) == 4 and phase == "cut":
        path = folder / rows[-1]["noisy"]
        path.rename(path.with_name("." + path.name + ".part")).write_bytes(b"half")
        (folder / "train" / "clean" / "of_other_settings.png").write_bytes(b"whole")
        os.kill(os.getpid(), signal.SIGKILL)
    return rows

def die(folder, rows, about):
    (folder / prepared.INDEX).write_text("{}")
    os.kill(os.getpid(), signal.SIGKILL)

tiles._write, prepared.write_index = write_or_die, die
os.cpu_count = lambda: 1
run.prepare("sidd", Path(raw), Path(data), int(tile), ["002"])
"""


def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same(sidd, tmp_path, monkeypatch):
    data = tmp_path / "data"

    def killed(phase: str) -> None:
        ended = subprocess.run(
            [sys.executable, "-c", _KILLED, str(sidd.raw), str(data), phase, str(TILE)],
            capture_output=True,
            check=False,
            env=os.environ | {"PYTHONPATH": str(Path(prepare.__file__).parents[1])},
        )
        assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
        with pytest.raises(InputError, match="no pair found"):
            sources.find_pairs(data)

    def done() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in data.rglob("done/*.json")}

    killed("cut")
    kept = done()
    assert len(kept) == 3
    killed("written")
    assert kept.items() <= done().items()
    assert list(data.rglob(prepared.INDEX))
    monkeypatch.setattr(tiles, "_write", lambda *_: pytest.fail("an image was cut again"))
    monkeypatch.setattr(tiles, "read", lambda *_: pytest.fail("an image was checked again"))
    folder = run.prepare("sidd", sidd.raw, data, TILE, ["002"])
    monkeypatch.undo()
    files = [path.relative_to(folder) for path in folder.rglob("*")]
    assert sorted(files) == sorted(path.relative_to(sidd.folder) for path in sidd.folder.rglob("*"))
    assert [path.name for path in data.iterdir()] == ["sidd"]
    for file in files:
        if not (folder / file).is_dir():
            assert (folder / file).read_bytes() == (sidd.folder / file).read_bytes()


def test_tfds_says_what_is_missing(sidd, tmp_path):
    import tensorflow_datasets as tfds

    assert {example["image"] for example in _examples(sidd.folder)} == set(sidd.images)
    with pytest.raises(InputError, match=r"no prepared data set: run .* --dataset=photos"):
        tfds.load("nt_jax/photos", data_dir=tmp_path)
    with pytest.raises(InputError, match="test: no such split: one of train, val"):
        tfds.load("nt_jax/sidd", data_dir=sidd.data, split="test")


@pytest.mark.parametrize("loader", ["tfdata", "device"])
def test_training_reads_prepared_data_from_memory_and_from_a_cache(loader, sidd, tmp_path):
    mesh = Mesh(np.asarray(jax.devices()[:1]), ("data",))

    def batches(cache: str) -> list[dict[str, np.ndarray]]:
        config = SimpleNamespace(
            loader=loader,
            patch_size=16,
            photos="",
            pairs=str(sidd.data / "sidd" / "train"),
            cache=cache,
            mixing="fixed",
            real_fraction=1.0,
            real_reference="same_image",
            pair_clean_fraction=1.0,
            noise_kinds=("gaussian",),
            noise_kind_weights=(1.0,),
            sigma_range=(5, 20),
            lam_range=(40, 100),
            camera_levels="",
            camera_jpeg_quality=(0, 0),
            blur_pair_clean=False,
            blend_probability=0.0,
            cutmix_probability=0.0,
            dequantise=False,
        )
        made = pipeline.make_loader(config, batch_size=4, seed=1, mesh=mesh)(0)
        return [jax.tree.map(np.asarray, next(made)) for _ in range(3)]

    in_memory, written = batches(""), batches(str(tmp_path / "cache"))
    (file,) = (tmp_path / "cache").iterdir()
    made = file.stat().st_mtime_ns
    again = batches(str(tmp_path / "cache"))
    assert file.stat().st_mtime_ns == made
    for step in range(3):
        for name, array in in_memory[step].items():
            assert np.array_equal(written[step][name], array)
            assert np.array_equal(again[step][name], array)
    # Every patch is a part of an image of the training scene.
    whole = {name: clean for name, (clean, _) in sidd.images.items() if "_001_" in name}
    patch = np.round(in_memory[0]["clean"][0] * 255).astype(np.uint8)
    turned = [np.rot90(p, k) for p in (patch, patch[:, ::-1]) for k in range(4)]
    windows = [
        np.lib.stride_tricks.sliding_window_view(image, (16, 16, 3)) for image in whole.values()
    ]
    assert any((view == p).all((-1, -2, -3)).any() for view in windows for p in turned)


def test_cache_follows_the_images(tmp_path):
    pairs(tmp_path / "raw")
    found = sources.find_pairs(tmp_path / "raw")
    bank = load_bank([], found, 16, tmp_path / "cache")
    assert np.array_equal(bank.pixels, load_bank([], found, 16).pixels)
    assert bank.pixels.ctypes.data % 64 == 0
    _write(tmp_path / "raw" / "a_noisy.png", _image(99))
    changed = load_bank([], found, 16, tmp_path / "cache")
    assert np.array_equal(changed.pixels, load_bank([], found, 16).pixels)
    assert not np.array_equal(changed.pixels, bank.pixels)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        load_bank([], found, 16, tmp_path / "file" / "cache")


# --- Pairs of which the camera moved ------------------------------------------------------------


@pytest.fixture
def moved(tmp_path):
    """A folder of two pairs whose noisy image lies half a pixel aside, and its white noise."""
    photo = skimage.data.astronaut().astype(float)
    noise = {}
    for number, split in enumerate(("train", "val")):
        clean = photo[:129, number * 128 : number * 128 + 129]
        aside = (clean + np.roll(clean, -1, 1)) / 2
        noise[split] = np.random.default_rng(number).normal(0, 3, (128, 128, 3))
        noisy = np.round(aside[:128, :128] + noise[split]).clip(0, 255).astype(np.uint8)
        _write(tmp_path / "raw" / split / f"a{number}_gt.png", clean[:128, :128].astype(np.uint8))
        _write(tmp_path / "raw" / split / f"a{number}_noisy.png", noisy)
    return tmp_path / "raw", noise


def _noise_of(folder: Path) -> np.ndarray:
    (pair,) = sources.find_pairs(folder)
    return read_rgb(pair.noisy).astype(float) - read_rgb(pair.clean)


def test_aligning_leaves_the_noise_of_training_pairs_alone(moved, tmp_path):
    raw, noise = moved
    run.prepare("pairs", raw, tmp_path / "plain", 128)
    run.prepare("pairs", raw, tmp_path / "aligned", 128, align=True)
    plain, aligned = (_noise_of(tmp_path / name / "pairs/train") for name in ("plain", "aligned"))
    assert np.corrcoef(plain.ravel(), noise["train"].ravel())[0, 1] < 0.6
    assert np.corrcoef(aligned.ravel(), noise["train"].ravel())[0, 1] > 0.98
    assert aligned.mean() == pytest.approx(plain.mean(), abs=0.05)  # some of it clips
    held_out = [_noise_of(tmp_path / name / "pairs/val") for name in ("plain", "aligned")]
    np.testing.assert_array_equal(*held_out)
    with pytest.raises(InputError, match="of other images or settings"):
        run.prepare("pairs", raw, tmp_path / "aligned", 128)


def test_of_noise_only_what_follows_the_scene_is_taken():
    clean = skimage.data.astronaut()[:128, :128]
    noise = np.random.default_rng(0).normal(0, 8, clean.shape)
    noisy = np.round(clean * 0.8 + 20 + noise).clip(0, 255).astype(np.uint8)
    flat = np.full_like(clean, 90)
    assert np.abs(align_noisy(flat, noisy).astype(int) - noisy).max() == 0
    change = align_noisy(clean, noisy) - noisy.astype(float)
    contrast = 0.2 * (clean - clean.mean(axis=(0, 1)))  # what the noisy image lacks
    assert np.corrcoef(change.ravel(), contrast.ravel())[0, 1] > 0.95


def test_what_cannot_be_aligned_is_refused(tmp_path):
    _write(tmp_path / "raw" / "a.png", _image(0))
    with pytest.raises(InputError, match="photos has no pairs"):
        run.prepare("photos", tmp_path / "raw", tmp_path / "data", TILE, align=True)

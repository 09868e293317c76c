"""Files that someone else made: taken whole or refused in one line, and nothing else happens.

They run no code, read no other file and write nowhere else. The long version of what damaged images
do is a soak experiment.
"""

import contextlib
import functools
import io
import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile
from PIL import Image
from tiny_models import save_tiny

import nt_jax
from experiments.soak import fuzz_images, image_mutations
from nt_jax import images, prepare, transfer
from nt_jax.data.builders import matlab, run
from nt_jax.data.catalogue import prepared, sources
from nt_jax.data.sampling.bank import load_bank
from nt_jax.errors import InputError
from nt_jax.files import check_inside, replacing, temporary_name
from nt_jax.images import Photo, image_size, read_photo, read_rgb
from nt_jax.inference import loading
from nt_jax.inference.files import make_folders

PACKAGE = Path(nt_jax.__file__).parent


def _image(seed=0, side=24):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def _write(path, array=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_image() if array is None else array).save(path)
    return path


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


# --- Code ----------------------------------------------------------------------------------------


def test_no_source_unpickles():
    forbidden = re.compile(r"pickle|np\.load\(|joblib|(?<![\w.])(eval|exec)\(")
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert not forbidden.search(text), path
        assert text.count("torch.load(") == text.count("weights_only=True"), path


@pytest.mark.parametrize("zipped", [False, True])
def test_released_checkpoints_run_no_code(tmp_path, zipped):
    pytest.importorskip("torch")
    from nt_jax.inference.torch_files import read_folder

    payload = pickle.dumps({"weight": Trap(tmp_path / "sprung")})
    path = tmp_path / "VUNet.pt"
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", payload)
            archive.writestr("archive/version", "3\n")
            archive.writestr("../outside", "x")
    else:
        path.write_bytes(payload)
    with pytest.raises(InputError, match=r"VUNet\.pt is damaged or was not written by torch\.save"):
        read_folder(tmp_path)
    assert not (tmp_path / "sprung").exists()
    assert not (tmp_path.parent / "outside").exists()
    pickle.loads(payload)
    assert (tmp_path / "sprung").exists()


def test_matlab_objects_are_no_images(tmp_path):
    cells = np.empty((2, 2, 2, 3), object)
    cells[:] = [[["a"]]]
    path = tmp_path / "siddplus_valid_noisy_srgb.mat"
    scipy.io.savemat(path, {"cells": cells, "struct": {"a": np.zeros((2, 2, 2, 3))}})
    with pytest.raises(InputError, match="holds no array of images"):
        matlab.read_blocks(path)
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=cells.astype("S"), dtype=h5py.string_dtype())
    with pytest.raises(InputError, match="holds no array of images"):
        matlab.read_blocks(path)


# --- Reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["external link", "soft link", "external bytes", "virtual"])
def test_hdf5_does_not_lead_into_other_files(tmp_path, how):
    secret, path = tmp_path / "secret", tmp_path / "0001.mat"
    with h5py.File(secret, "w") as file:
        file["InoisySRGB"] = np.zeros((3, 24, 24), np.uint8)
        file["blocks"] = np.zeros((3, 8, 8, 2), np.uint8)
    with h5py.File(path, "w") as file:
        for name, shape in (("InoisySRGB", (3, 24, 24)), ("blocks", (3, 8, 8, 2))):
            if how == "external link":
                file[name] = h5py.ExternalLink(str(secret), name)
            elif how == "soft link":
                file[name] = h5py.SoftLink("/elsewhere")
            elif how == "external bytes":
                size = int(np.prod(shape))
                file.create_dataset(name, shape, np.uint8, external=[(str(secret), 0, size)])
            else:
                layout = h5py.VirtualLayout(shape, np.uint8)
                layout[...] = h5py.VirtualSource(str(secret), name, shape)
                file.create_virtual_dataset(name, layout)
    with pytest.raises(InputError, match="no array of numbers InoisySRGB"):
        matlab.read_region(path, "InoisySRGB", 0, 0, 16, 16)
    with pytest.raises(InputError, match="holds no array of images"):
        matlab.read_blocks(path)


def test_matlab_files_that_declare_too_much(tmp_path):
    path = tmp_path / "0001.mat"
    with h5py.File(path, "w") as file:
        file.create_dataset("InoisySRGB", (3, 10**6, 10**6), np.uint8, chunks=(3, 8, 8))
        file.create_dataset("blocks", (3, 10**4, 10**4, 100), np.uint8, chunks=(3, 8, 8, 1))
    with pytest.raises(InputError, match="above 1 GB"):
        matlab.read_region(path, "InoisySRGB", 0, 0, 10**5, 10**5)
    with pytest.raises(InputError, match="above 1 GB"):
        matlab.read_blocks(path)
    assert matlab.read_region(path, "InoisySRGB", 0, 0, 16, 16).shape == (16, 16, 3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A prepared data set of one pair."""
    root = tmp_path_factory.mktemp("data")
    for role in ("gt", "noisy"):
        _write(root / "raw" / f"a_{role}.png")
    return run.prepare("pairs", root / "raw", root / "data", val_scenes=[])


@pytest.mark.parametrize(
    "change",
    [
        {"clean": "../secret"},
        {"clean": "/etc/passwd"},
        {"clean": "sub/../../secret"},
        {"clean": ""},
        {"clean": ".."},
        {"clean": 3},
        {"clean": [0, 10]},
        {"clean": None, "noisy": None},
        {"iso": -1},
        {"height": 10**9},
        {"height": 0},
        {"width": "8"},
        {"name": None},
    ],
)
def test_an_index_names_only_files_below_it(data, tmp_path, change):
    row = json.loads((data / prepared.INDEX).read_text()) | change
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / prepared.INDEX).write_text(json.dumps(row))
    (tmp_path / "secret").write_bytes(bytes(1000))
    with pytest.raises(InputError, match=r"index\.jsonl: not readable: prepare the data again"):
        sources.find_pairs(tmp_path / "set")


@pytest.mark.parametrize("text", ["", "[]", "{}", "1", '{"name": "a"}', "[" * 9999])
def test_an_index_of_another_kind(tmp_path, text):
    (tmp_path / prepared.INDEX).write_text(text)
    with pytest.raises(InputError, match=r"index\.jsonl: (not readable|empty)"):
        sources.find_pairs(tmp_path)


def test_an_index_that_lies_about_a_size(data, tmp_path):
    row = json.loads((data / prepared.INDEX).read_text())
    shutil.copytree(data / "train", tmp_path / "train")
    (tmp_path / prepared.INDEX).write_text(json.dumps(row | {"height": row["height"] + 1}))
    with pytest.raises(InputError, match=r"a\.png: not of the size"):
        load_bank([], sources.find_pairs(tmp_path), 8)


# --- Writing -------------------------------------------------------------------------------------


def _everything(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_nothing_is_made_behind_a_link_out_of_the_output(tmp_path):
    output, outside = tmp_path / "output", tmp_path / "outside"
    output.mkdir()
    outside.mkdir()
    (output / "a").symlink_to(outside)
    with pytest.raises(InputError, match="is a link out of"):
        make_folders([output / "b" / "x.png", output / "a" / "deep" / "x.png"], output)
    assert not _everything(outside)
    assert _everything(output) == ["a"]
    (output / "round").symlink_to(output / "round")
    with pytest.raises(InputError, match="round"):
        check_inside(output / "round" / "x", output)


def test_links_in_place_of_outputs_are_replaced_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    link = tmp_path / "result.png"
    link.symlink_to(outside)
    planted = tmp_path / temporary_name("result.png")
    planted.symlink_to(outside)
    with replacing(link) as temporary:
        temporary.write_text("result")
    assert outside.read_text() == "mine"
    assert (link.read_text(), link.is_symlink()) == ("result", False)


def test_a_folder_of_images_with_links(tmp_path):
    save_tiny(tmp_path / "model")
    outside, photos = _write(tmp_path / "outside" / "x.png"), tmp_path / "photos"
    reference = _write(photos / "a.png")
    (photos / "out.png").symlink_to(outside)
    (photos / "folder").symlink_to(outside.parent)
    (photos / "up").symlink_to("..")
    flags = [f"--model={tmp_path / 'model'}", f"--reference={reference}", f"--clean={photos}"]
    transfer.main([*flags, f"--output={tmp_path / 'made'}"])
    assert _everything(tmp_path / "made") == ["a.png"]
    prepare.main(["--dataset=photos", f"--raw_dir={photos}", f"--data_dir={tmp_path / 'data'}"])
    names = {row["name"] for row in prepared.read_index(tmp_path / "data/photos")}
    # Training and prepare follow links, but not upwards.
    assert names == {"a.png", "out.png", "folder/x.png"}
    assert _everything(outside.parent) == ["x.png"]


def test_prepare_does_not_work_behind_a_link(tmp_path):
    _write(tmp_path / "raw" / "a.png")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ".photos.unfinished").symlink_to(outside)
    with pytest.raises(InputError, match=r"\.photos\.unfinished is a link"):
        run.prepare("photos", tmp_path / "raw", tmp_path / "data")
    assert _everything(outside) == ["precious"]


def test_odd_names_are_printed(tmp_path):
    save_tiny(tmp_path / "model")
    names = [b"line\nbreak.png", b"not \xff utf-8.png", "--strength=2 ünï.png".encode()]
    for name in names:
        _write(tmp_path / "photos" / os.fsdecode(name))
    reference = _write(tmp_path / "reference.png")
    command = [sys.executable, "-m", "nt_jax.transfer", f"--model={tmp_path / 'model'}"]
    command += [f"--reference={reference}", f"--clean={tmp_path / 'photos'}"]
    ended = subprocess.run(
        [*command, f"--output={tmp_path / 'made'}"], capture_output=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert sorted(os.listdir(os.fsencode(tmp_path / "made"))) == sorted(names)


# --- Damaged image files -------------------------------------------------------------------------


def png_header(width, height, depth=8):
    """A PNG that declares a size and holds no pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def bad_files():
    good = io.BytesIO()
    Image.fromarray(_image()).save(good, "JPEG")
    sixteen = images._encode_png16(deep := _image(0, 24).astype(np.uint16), Photo(deep))
    tiff = io.BytesIO()
    tifffile.imwrite(tiff, _image(0, 24).astype(np.uint16), photometric="rgb")
    packed, webp = io.BytesIO(), io.BytesIO()
    tifffile.imwrite(packed, _image(), photometric="rgb", compression="lzw", rowsperstrip=8)
    Image.fromarray(_image()).save(webp, "WEBP", lossless=True)
    return {
        "packed.tif": (packed.getvalue()[:-100], "truncated or damaged"),
        "truncated.webp": (webp.getvalue()[:-300], "truncated or damaged"),
        "text.png": (b"This is no image.\n", "not a readable PNG"),
        "empty.jpg": (b"", "not a readable PNG"),
        "truncated.jpg": (good.getvalue()[:-200], "truncated or damaged"),
        "truncated.png": (sixteen[:-200], "truncated or damaged"),
        "truncated.tif": (tiff.getvalue()[:-200], "truncated or damaged"),
        "cut_header.tif": (b"II*\0\x08", "truncated or damaged"),
        "no_pixels.png": (png_header(0, 100), "not a readable PNG"),
        "bomb.png": (png_header(60000, 60000), "205 megapixels"),
        "bomb16.png": (png_header(60000, 60000, 16), "205 megapixels"),
        "hollow.png": (png_header(64, 64), "truncated or damaged"),
    }


@pytest.mark.parametrize("name", bad_files())
def test_broken_files_are_refused(tmp_path, name):
    data, message = bad_files()[name]
    path = tmp_path / name
    path.write_bytes(data)
    for read in (read_photo, read_rgb):
        with pytest.raises(InputError, match=message) as error:
            read(path)
        assert name in str(error.value)
        assert "\n" not in str(error.value)


def test_missing_folder_and_small_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_photo(tmp_path / "none.png")
    with pytest.raises(InputError, match="is a folder"):
        read_photo(tmp_path)
    Image.fromarray(np.zeros((15, 40, 3), np.uint8)).save(tmp_path / "small.png")
    with pytest.raises(InputError, match=r"40x15.*at least 16x16"):
        read_photo(tmp_path / "small.png")


def test_truncated_and_missing_files(tmp_path):
    path = _write(tmp_path / "a.png", _image(0, 64))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"a\.png cannot be decoded"):
        read_rgb(path)
    with pytest.raises(InputError, match=r"b\.png: no such file"):
        read_rgb(tmp_path / "b.png")


def test_other_formats_are_not_tried_whatever_the_name(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n")
    for read in (image_size, read_rgb, read_photo):
        with pytest.raises(InputError, match=r"a\.png is not a readable PNG"):
            read(path)


def test_damaged_files_are_taken_whole_or_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "load", functools.cache(loading.load))
    files = tmp_path / "files"
    files.mkdir()
    for name, data in image_mutations.mutations(120, seed=1):
        (files / name).write_bytes(data)
    save_tiny(tmp_path / "model")
    (tmp_path / "reference.png").write_bytes(image_mutations.sound_files()["rgb.png"])
    outcomes = fuzz_images.Outcomes()
    with contextlib.redirect_stdout(io.StringIO()):
        fuzz_images.fuzz_transfer(sorted(files.iterdir()), tmp_path, outcomes)
        fuzz_images.fuzz_prepare(sorted(files.iterdir()), tmp_path, outcomes)
    assert not outcomes.faults
    assert min(outcomes.counts["taken"], outcomes.counts["refused"]) > 20


def test_sound_files_are_taken(tmp_path):
    for name, data in image_mutations.sound_files().items():
        path = tmp_path / name
        path.write_bytes(data)
        size = (image_mutations.SIDE, image_mutations.SIDE)
        assert read_rgb(path).shape == (*size, 3)
        assert read_photo(path).pixels.shape[:2] == image_size(path) == size


def test_the_same_seed_gives_the_same_files():
    first, again = (dict(image_mutations.mutations(60, seed=3)) for _ in range(2))
    assert first == again
    assert len(first) == 60

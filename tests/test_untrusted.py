"""Files that someone else made: they run no code, read no other file and write nowhere else."""

import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image
from tiny_models import save_tiny

import nt_jax
from nt_jax import prepare, transfer
from nt_jax.data import prepared, sources
from nt_jax.data.builders import matlab, run
from nt_jax.errors import InputError
from nt_jax.inference.files import make_folders
from nt_jax.outputs import check_inside, replacing

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
        {"shard": "../secret"},
        {"shard": "/etc/passwd"},
        {"shard": "sub/shard"},
        {"shard": ""},
        {"shard": ".."},
        {"shard": 3},
        {"clean": [-1, 10]},
        {"clean": [0]},
        {"clean": "ab"},
        {"height": 10**9},
        {"height": 0},
        {"width": "8"},
        {"name": None},
    ],
)
def test_an_index_names_only_its_own_shards(data, tmp_path, change):
    index = json.loads((data / prepared.INDEX).read_text())
    index["splits"]["train"][0] |= change
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / prepared.INDEX).write_text(json.dumps(index))
    (tmp_path / "secret").write_bytes(bytes(1000))
    with pytest.raises(InputError, match=r"tiles\.json: not readable: prepare the data again"):
        sources.find_pairs(tmp_path / "set")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"splits": []}', '{"splits": {"a": [1]}}', "[" * 9999]
)
def test_an_index_of_another_kind(tmp_path, text):
    (tmp_path / prepared.INDEX).write_text(text)
    with pytest.raises(InputError, match=r"tiles\.json: not readable"):
        sources.find_pairs(tmp_path)


def test_an_index_that_points_past_its_shard(data, tmp_path):
    index = json.loads((data / prepared.INDEX).read_text())
    index["splits"]["train"][0]["clean"] = [0, 10**15]
    index["splits"]["train"][0]["shard"] = "shard"
    (tmp_path / prepared.INDEX).write_text(json.dumps(index))
    (tmp_path / "shard").write_bytes(bytes(100))
    (pair,) = sources.find_pairs(tmp_path)
    with pytest.raises(InputError, match="shard: ends too early"):
        sources.read_rgb(pair.clean)


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
    planted = tmp_path / f".result.png.{os.getpid()}.part"
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
    names = {
        row["name"]
        for row in prepared.read_index(tmp_path / "data/photos/1.0.0")["splits"]["train"]
    }
    assert names <= {"a.png", "out.png"}  # a link to a single image counts as an image
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

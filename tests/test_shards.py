"""Parts of a folder: together the same as the whole, going on where one ended, never mixed."""

import shutil
from pathlib import Path
from unittest import mock

import pytest
from skimage import data
from tiny_models import save_tiny

import nt_jax
from nt_jax import transfer
from nt_jax.errors import InputError
from nt_jax.images import Photo, write_photo
from nt_jax.inference.shards import RECORD

PHOTO = data.coffee()
NAMES = ["a/x.jpg", "b.png", "c.png", "d.tif", "e.png", "f.png"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Folder with a tiny model, a reference, six images of two sizes and the whole's results."""
    root = tmp_path_factory.mktemp("shards")
    save_tiny(root / "model")
    write_photo(root / "reference.png", Photo(data.chelsea()[:64, :64]))
    (root / "clean" / "a").mkdir(parents=True)
    for index, name in enumerate(NAMES):
        left, width = 48 * index, 40 + 8 * (index % 2)
        write_photo(root / "clean" / name, Photo(PHOTO[:40, left : left + width]))
    run(root, root / "whole")
    return root


def named(inputs, output):
    """The flags of every run."""
    return {
        "model": inputs / "model",
        "reference": inputs / "reference.png",
        "clean": inputs / "clean",
        "output": output,
        "seed": 3,
    }


def run(inputs, output, *flags):
    transfer.main([*(f"--{key}={value}" for key, value in named(inputs, output).items()), *flags])


def content(folder):
    """What is in each image, by its name."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != RECORD)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_shards_together_make_what_the_whole_makes(inputs, tmp_path, capsys):
    for index, names in enumerate((["a/x.jpg", "e.png"], ["b.png", "f.png"], ["c.png"], ["d.tif"])):
        before = set(content(tmp_path))
        run(inputs, tmp_path, f"--shard={index}/4")
        assert set(content(tmp_path)) - before == set(names)
        assert f"shard: {len(names)} of 6 images, 0 of them finished" in capsys.readouterr().out
    assert content(tmp_path) == content(inputs / "whole")
    run(inputs, tmp_path, "--shard=6/7")  # more shards than images: nothing to do


def test_a_shard_goes_on_where_it_ended(inputs, tmp_path, capsys):
    run(inputs, tmp_path, "--shard=0/1")
    whole = content(inputs / "whole")
    (tmp_path / "b.png").unlink()
    (tmp_path / "c.png").write_bytes(whole["c.png"][:-100])
    (tmp_path / "d.tif").write_bytes(b"")
    (tmp_path / "e.png").write_bytes(whole["f.png"])  # another size
    (tmp_path / "a/x.jpg").write_bytes(whole["a/x.jpg"][:-200])
    kept = (tmp_path / "f.png").stat().st_mtime_ns
    capsys.readouterr()
    run(inputs, tmp_path, "--shard=0/1")
    assert "6 of 6 images, 1 of them finished already" in capsys.readouterr().out
    assert (tmp_path / "f.png").stat().st_mtime_ns == kept
    assert content(tmp_path) == whole


def test_what_another_start_made_is_not_mixed_in(inputs, tmp_path):
    run(inputs, tmp_path, "--shard=5/6")
    before = content(tmp_path)
    with pytest.raises(InputError, match=r"another start \(other strength\)"):
        run(inputs, tmp_path, "--shard=0/6", "--strength=2")
    with pytest.raises(InputError, match=r"\(other references\)"):
        run(inputs, tmp_path, "--shard=0/6", f"--reference={inputs / 'clean/b.png'}")
    assert content(tmp_path) == before
    (tmp_path / RECORD).write_text("[]")
    with pytest.raises(InputError, match="holds images of another start"):
        run(inputs, tmp_path, "--shard=0/6")
    (tmp_path / RECORD).write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        run(inputs, tmp_path, "--shard=0/6")
    (tmp_path / RECORD).unlink()
    with pytest.raises(InputError, match="of no shard"):
        run(inputs, tmp_path, "--shard=0/6")


@pytest.mark.parametrize("shard", ["4/4", "-1/4", "0/0", "1", "1/2/3", "a/b", ""])
def test_a_wrong_shard(inputs, tmp_path, shard):
    with pytest.raises(InputError, match=r"--shard: expected I/N with 0 <= I < N"):
        run(inputs, tmp_path / "out", f"--shard={shard}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--report", "--shard is for a folder"),
        ("--clean={}/clean/b.png", "--shard is for a folder"),
        ("--tile=3", "tile"),
        ("--calibrate", "cannot read noise"),
        ("--seed=4294967295", r"for 6 image\(s\)"),
    ],
)
def test_wrong_flags_beside_a_shard_leave_nothing(inputs, tmp_path, flag, message):
    with pytest.raises(InputError, match=message):
        run(inputs, tmp_path / "out", "--shard=0/2", flag.format(inputs))
    assert not (tmp_path / "out").exists()


def test_a_broken_image_is_skipped_where_it_is_all_of_a_shard(inputs, tmp_path, capsys):
    clean = tmp_path / "clean"
    clean.mkdir()
    write_photo(clean / "a.png", Photo(PHOTO[:40, :40]))
    (clean / "b.png").write_text("no image")
    run(inputs, tmp_path / "out", f"--clean={clean}", "--shard=1/2", "--skip_broken")
    assert "skipped:" in capsys.readouterr().out
    assert set(content(tmp_path / "out")) == set()
    with pytest.raises(InputError, match=r"b\.png is not a readable"):
        run(inputs, tmp_path / "out", f"--clean={clean}", "--shard=1/2")


def test_a_beam_pipeline_makes_the_same_with_one_model(inputs, tmp_path, monkeypatch, capsys):
    pytest.importorskip("apache_beam")
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    import beam_transfer

    load = mock.Mock(side_effect=nt_jax.load)
    monkeypatch.setattr(nt_jax, "load", load, raising=False)
    clean = tmp_path / "clean"
    shutil.copytree(inputs / "clean", clean)
    (clean / "g.png").write_text("no image")
    given = named(inputs, tmp_path / "out") | {"clean": clean, "runner": "DirectRunner"}
    flags = [f"--{key}={value}" for key, value in given.items()]
    beam_transfer.main(flags)
    load.assert_called_once_with(str(inputs / "model"))
    assert content(tmp_path / "out") == content(inputs / "whole")
    (tmp_path / "out/c.png").write_bytes(b"half")
    beam_transfer.main(flags)
    assert content(tmp_path / "out") == content(inputs / "whole")
    lines = capsys.readouterr().out.splitlines()
    assert {"6 made", "5 finished already", "1 made"} <= set(lines)
    assert sum(f"1 {clean / 'g.png'} is not a readable" in line for line in lines) == 2

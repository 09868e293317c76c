"""A run that is trained in sittings, packed in between, ends as one that was not."""

import os
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest

from experiments import sittings
from experiments.sittings import main, pack, unpack
from nt_jax.errors import InputError


@pytest.fixture
def workdir(tmp_path):
    """A run's files, with a checkpoint that is larger than a part."""
    folder = tmp_path / "run"
    for step in (2, 4):
        checkpoint = folder / "checkpoints" / str(step) / "state"
        checkpoint.mkdir(parents=True)
        (checkpoint / "data").write_bytes(np.random.default_rng(step).bytes(5000))
    (folder / "config.json").write_text("{}")
    (folder / "metrics.jsonl").write_text('{"step": 4}\n')
    (folder / "samples").mkdir()
    return folder


@pytest.fixture
def packed(workdir, tmp_path):
    with mock.patch.object(sittings, "_PART_BYTES", 4096):
        pack(workdir, tmp_path / "parts")
    return tmp_path / "parts"


def files_of(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_what_a_run_needs_comes_back_from_small_files(workdir, packed, tmp_path):
    unpack(packed, tmp_path / "elsewhere" / "run")
    found = files_of(tmp_path / "elsewhere" / "run")
    needed = {"config.json", "metrics.jsonl", "checkpoints/4/state/data"}
    assert found == {name: files_of(workdir)[name] for name in needed}
    sizes = [part.stat().st_size for part in packed.glob("part-*")]
    assert len(sizes) > 1
    assert max(sizes) <= 4096


def test_packing_again_replaces_the_parts(workdir, packed):
    before = {part.name for part in packed.glob("part-*")}
    (workdir / "metrics.jsonl").write_text("")
    after = pack(workdir, packed)
    assert {part.name for part in packed.glob("part-*")} == {part.name for part in after} != before


def test_damage_is_named_and_leaves_no_workdir(packed, tmp_path):
    part = sorted(packed.glob("part-*"))[1]
    content = part.read_bytes()
    part.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match=rf"{part.name} is damaged"):
        unpack(packed, tmp_path / "new")
    part.unlink()
    with pytest.raises(InputError, match=part.name):
        unpack(packed, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_nothing_to_pack(tmp_path):
    with pytest.raises(InputError, match="no checkpoint"):
        pack(tmp_path, tmp_path / "parts")


def test_time_that_is_over_stops_the_run_and_packs_it(workdir, tmp_path):
    """With a stand-in for the training command, which waits for the signal."""
    program = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "time.sleep(60)"
    )
    popen = subprocess.Popen
    started = []

    def stand_in(command, **keywords):
        started.append(command)
        return popen([sys.executable, "-c", program], **keywords)

    flags = [f"--parts={tmp_path / 'parts'}", "--minutes=0.02", "--", f"--workdir={workdir}", "--x"]
    with (
        mock.patch.object(sittings.subprocess, "Popen", stand_in),
        pytest.raises(SystemExit) as ended,
    ):
        main(flags)
    assert ended.value.code == 143
    assert started == [[sys.executable, "-m", "nt_jax.main", f"--workdir={workdir}", "--x"]]
    assert os.listdir(tmp_path / "parts")


def test_wrong_flags(tmp_path):
    with pytest.raises(InputError, match="--workdir"):
        main([f"--parts={tmp_path}", "--minutes=1", "--", "--config=x"])
    with pytest.raises(InputError, match="--minutes"):
        main([f"--parts={tmp_path}", "--minutes=0", "--", "--workdir=x"])

"""A run survives SIGKILL at any moment, signals and a full disk; a divergence can be replayed."""

import json
import os
import pathlib
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import count
from types import SimpleNamespace
from unittest import mock

import jax
import light_run
import numpy as np
import pytest

from experiments.soak.kill_resume import differences, run_killed
from nt_jax.checkpointing import checkpoint_steps, load_state, read_summary
from nt_jax.errors import DivergedError, InputError, PreemptedError
from nt_jax.families.denoiser.task import DenoiserTask
from nt_jax.main import parse
from nt_jax.training import loop
from nt_jax.training.lock import alone_in
from nt_jax.training.loop import train_and_evaluate

REPOSITORY = pathlib.Path(__file__).parents[1]
LIGHT = [sys.executable, "-u", str(pathlib.Path(__file__).with_name("light_main.py"))]
STEPS = 16


def arguments(workdir: pathlib.Path, *options: str) -> list[str]:
    """Of a smoke run of 16 steps, a save every second.

    It trains a denoiser, which starts sooner; the loop is the same, and `test_training` kills and
    resumes the generator's.
    """
    config = f"--config={REPOSITORY / 'configs' / 'denoiser'}.py:smoke"
    short = [f"--config.train.steps={STEPS}", "--config.train.checkpoint_every=2"]
    return [config, *short, f"--config.eval.every={STEPS // 2}", *options, f"--workdir={workdir}"]


def train(workdir: pathlib.Path, *options: str):
    """`train_and_evaluate` in this process."""
    with mock.patch.object(sys, "argv", ["main", *arguments(workdir, *options)]):
        return train_and_evaluate(*parse()[:2])


def run(workdir: pathlib.Path, *options: str, **keywords):
    """The finished command."""
    return subprocess.run(
        [*LIGHT, *arguments(workdir, *options)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        **keywords,
    )


@pytest.fixture(scope="module", autouse=True)
def light():
    """As the subprocesses."""
    with light_run.light():
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Workdir of a run that nothing stopped."""
    workdir = tmp_path_factory.mktemp("runs") / "undisturbed"
    train(workdir)
    assert checkpoint_steps(workdir) == [STEPS - 2, STEPS]
    return workdir


# --- SIGKILL -------------------------------------------------------------------------------------


def test_four_kills_change_nothing(undisturbed, tmp_path):
    """Two in a save, one in a step, one while it starts."""
    command = [*LIGHT, *arguments(tmp_path)]
    killed, _ = run_killed(command, tmp_path, kills=4, seed=0, most_lines=2, delay=0)
    assert killed["during a save"] >= 1, killed
    assert differences(tmp_path, undisturbed) == []
    assert [line["step"] for line in lines(tmp_path)] == list(range(STEPS + 1))


def lines(workdir: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_killed_between_the_last_save_and_its_evaluation(undisturbed, tmp_path):
    """What a kill leaves there: no scores of the last step yet, in neither file."""
    subprocess.run(["cp", "-r", f"{undisturbed}/.", tmp_path], check=True)
    *before, last = lines(tmp_path)
    last = {name: value for name, value in last.items() if not name.startswith("eval/")}
    kept = [*before, last]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    summary = json.loads((tmp_path / "summary.json").read_text())
    (tmp_path / "summary.json").write_text(json.dumps(summary | {"end": {}, "steps": STEPS // 2}))
    assert train(tmp_path)["end"] == summary["end"]
    assert differences(tmp_path, undisturbed) == []


def test_killed_before_the_first_save(undisturbed, tmp_path):
    """The lines of a run without any checkpoint are written again, not twice."""
    first = (undisturbed / "metrics.jsonl").read_text().splitlines(keepends=True)[:2]
    (tmp_path / "metrics.jsonl").write_text("".join(first) + '{"step": 2, "cut o')
    train(tmp_path, "--config.train.steps=2")
    expected = lines(undisturbed)[:3]
    found = lines(tmp_path)
    assert found[:2] == expected[:2]
    assert expected[2].items() <= found[2].items()  # which was evaluated at its end, too
    assert len(found) == 3


# --- Two runs ------------------------------------------------------------------------------------


def test_a_second_run_in_a_workdir_is_refused_and_touches_nothing(tmp_path):
    """It would remove the first one's save under way as one that a kill left."""
    save = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp"
    save.mkdir(parents=True)
    with (
        alone_in(tmp_path),
        pytest.raises(InputError, match=f"another run is training in {tmp_path}"),
    ):
        train(tmp_path)
    assert sorted(tmp_path.rglob("*")) == [save.parent, save]


# --- Signals -------------------------------------------------------------------------------------


def test_a_signal_during_an_evaluation_saves_and_ends_at_once(undisturbed, tmp_path):
    evaluate, ended = DenoiserTask.evaluate, []
    ticking = SimpleNamespace(monotonic=partial(next, count()))

    def interrupted(task, state, key):
        if state.step == STEPS // 2:
            os.kill(os.getpid(), signal.SIGTERM)
            ended.append("not at once")
        return evaluate(task, state, key)

    with (
        mock.patch.object(DenoiserTask, "evaluate", interrupted),
        mock.patch.object(loop, "time", ticking),
        pytest.raises(PreemptedError, match=r"SIGTERM.*the same command resumes"),
    ):
        train(tmp_path)
    assert not ended
    assert checkpoint_steps(tmp_path)[-1] == STEPS // 2
    before = read_summary(tmp_path)["seconds"]
    assert before >= STEPS // 2, "those of the steps since the evaluation before, a tick each"
    train(tmp_path)
    assert read_summary(tmp_path)["seconds"] > before
    assert differences(tmp_path, undisturbed) == []


def test_a_second_signal_ends_the_process_at_once():
    """Even while the main thread is in a long operation that Python cannot interrupt."""
    script = (
        "import hashlib; from nt_jax.training.interrupts import Interrupts\n"
        "with Interrupts():\n"
        "  print('ready', flush=True)\n"
        "  hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 143
    assert "without saving" in errors


# --- Full disk -----------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MB; None where mounting one is not permitted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        yield None
        return
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def assert_one_line(done: subprocess.CompletedProcess) -> None:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert lines[0].endswith("make room, and the same command resumes")


def test_a_disk_that_fills_up(undisturbed, small_disk):
    if not small_disk:
        pytest.skip("mounting a tmpfs is not permitted")
    workdir = small_disk / "run"
    train(workdir, f"--config.train.steps={STEPS // 2}")
    room = os.statvfs(small_disk)
    filler = small_disk / "filler"
    with filler.open("wb") as file:
        file.write(bytes(room.f_bavail * room.f_frsize - 60_000))
    done = run(workdir)
    assert_one_line(done)
    assert "No space left" in done.stderr
    kept = checkpoint_steps(workdir)
    assert load_state(workdir)[1] == kept[-1]
    with pytest.raises(OSError, match="No space left"), filler.open("ab") as file:
        file.write(bytes(8_000_000))
    with pytest.raises(InputError, match=r"make room, and the same command resumes$"):
        train(workdir)
    assert load_state(workdir)[1] == kept[-1]
    filler.unlink()
    train(workdir)
    assert differences(workdir, undisturbed) == []


def test_files_that_cannot_grow(undisturbed, small_disk, tmp_path):
    """As on a full disk, where the test may not mount one."""
    if small_disk:
        pytest.skip("the test before filled a disk")
    train(tmp_path, f"--config.train.steps={STEPS // 2}")
    biggest = max(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file())

    # Orbax splits a checkpoint into files of other sizes each time: an eighth stops any.
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (biggest // 8, biggest // 8))

    assert_one_line(run(tmp_path, preexec_fn=limit))
    assert load_state(tmp_path)[1] == STEPS // 2
    train(tmp_path)
    assert differences(tmp_path, undisturbed) == []


# --- Divergence ----------------------------------------------------------------------------------


def test_a_divergence_is_replayed_by_the_command_it_prints(tmp_path):
    train(tmp_path, "--config.train.steps=4")
    done = run(tmp_path, "--config.train.learning_rate=1e30")
    assert done.returncode == 3
    message, command = done.stderr.splitlines()[-2:]
    found = re.match(
        r"diverged: step (\d+) is not finite \(seed 0, batch (\d+)\): (.*); the same command"
        r" replays it, from the checkpoint of step (\d+), which is kept:$",
        message,
    )
    assert found, done.stderr
    step, batch, terms, kept = found.groups()
    assert int(batch) == int(step) - 1
    assert "loss=" in terms or "the state after it" in terms
    _, at, state = load_state(tmp_path)
    assert at == int(kept) == checkpoint_steps(tmp_path)[-1]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    too_fast = "--config.train.learning_rate=1e30"
    assert shlex.split(command) == [*LIGHT, *arguments(tmp_path, too_fast)]
    with pytest.raises(DivergedError) as again:
        train(tmp_path, too_fast)
    assert f"diverged: {again.value}" == message

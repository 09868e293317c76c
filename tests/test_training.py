"""Training end to end on the smoke recipe: files, resuming, signals, divergence, wrong input."""

import json
import pathlib
import signal
import subprocess
import sys
import time
from unittest import mock

import jax
import numpy as np
import pytest

from experiments.release_model import release_networks
from experiments.soak.kill_resume import differences, unfinished, wait
from nt_jax import main as command
from nt_jax.checkpointing import checkpoint_steps, load_state
from nt_jax.data.sampling.pipeline import make_loader
from nt_jax.errors import DivergedError, InputError
from nt_jax.training import loop
from nt_jax.training.loop import train_and_evaluate

REPOSITORY = pathlib.Path(__file__).parents[1]


def parse(*arguments: str):
    """(config, workdir) of a command line."""
    with mock.patch.object(sys, "argv", ["main", *arguments]):
        return command.parse()[:2]


def smoke(workdir: pathlib.Path, *options: str):
    """(config, workdir) of the smoke recipe."""
    config_file = REPOSITORY / "configs" / "noisetransfer.py"
    return parse(f"--config={config_file}:smoke", f"--workdir={workdir}", *options)


def lines(workdir: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Workdir and summary of an uninterrupted run."""
    workdir = tmp_path_factory.mktemp("runs") / "uninterrupted"
    return workdir, train_and_evaluate(*smoke(workdir))


def test_a_run_leaves_its_files(finished):
    workdir, summary = finished
    assert json.loads((workdir / "config.json").read_text())["model"]["width"] == 4
    assert json.loads((workdir / "summary.json").read_text()) == summary
    assert [line["step"] for line in lines(workdir)] == list(range(7))
    assert {p.name for p in (workdir / "samples").iterdir()} == {
        f"step_{step:07d}.png" for step in (0, 3, 6)
    }
    assert any("tfevents" in p.name for p in workdir.iterdir())
    assert checkpoint_steps(workdir) == [4, 6]


def test_metrics_hold_every_term_and_the_held_out_scores(finished):
    by_step = {line["step"]: line for line in lines(finished[0])}
    terms = {"noise_d", "noise_g", "noise_fm", "gan_d", "gan_g", "gan_fm", "recon"}
    terms |= {"loss_g", "loss_d", "contrastive_accuracy", "d_real", "d_fake"}
    assert terms <= set(by_step[1])
    assert not any(name.startswith("eval/") for name in by_step[1])
    for step in (0, 3, 6):
        for name in ("akld", "ks", "level_correlation", "akld_other", "poisson/akld"):
            assert np.isfinite(by_step[step][f"eval/{name}"])


def test_the_total_is_the_weighted_sum(finished):
    line = lines(finished[0])[1]
    weights = json.loads((finished[0] / "config.json").read_text())["losses"]
    of_d = ("noise_d", "gan_d", "reading")
    terms = {name: weight * line[name] for name, weight in weights.items() if name in line}
    for loss, chosen in (("loss_g", terms.keys() - set(of_d)), ("loss_d", of_d)):
        assert line[loss] == pytest.approx(sum(terms[name] for name in chosen), rel=1e-5)


def test_resuming_changes_nothing(finished, tmp_path):
    train_and_evaluate(*smoke(tmp_path, "--config.train.steps=3"))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "left by": "a run that was killed"}\n{"step": 5, "cut o')
    train_and_evaluate(*smoke(tmp_path))
    whole, resumed = (load_state(workdir)[2] for workdir in (finished[0], tmp_path))
    assert jax.tree.structure(whole) == jax.tree.structure(resumed)
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)
    # The shorter run also evaluated at its own end, which is a step of the longer one here.
    assert lines(tmp_path) == lines(finished[0])


def test_a_kill_in_a_save_changes_nothing(finished, tmp_path):
    command = [sys.executable, "-u", "tests/light_main.py", f"--workdir={tmp_path}"]
    command += ["--config=configs/noisetransfer.py:smoke"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL) as process:
        wait(process, lambda: checkpoint_steps(tmp_path) and unfinished(tmp_path))
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert unfinished(tmp_path)
    assert 6 not in checkpoint_steps(tmp_path)
    train_and_evaluate(*smoke(tmp_path))
    assert differences(tmp_path, finished[0]) == []
    assert [line["step"] for line in lines(tmp_path)] == list(range(7))


def test_a_finished_run_is_left_as_it_is(finished):
    workdir, summary = finished
    before = (workdir / "metrics.jsonl").read_bytes()
    assert train_and_evaluate(*smoke(workdir)) == summary
    assert (workdir / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("field", "before", "now"),
    [("model.width", 4, 8), ("model.embedding_size", 16, 8), ("train.ema_decay", 0.99, 0.0)],
)
def test_a_config_that_does_not_fit_is_refused(finished, field, before, now):
    with pytest.raises(InputError, match=rf"config\.{field}={before}, not {now}"):
        train_and_evaluate(*smoke(finished[0], f"--config.{field}={now}"))
    assert checkpoint_steps(finished[0]) == [4, 6]


def test_a_run_can_start_with_the_networks_of_another(finished, tmp_path):
    source = tmp_path / "networks"
    release_networks(finished[0], source)  # in 16 bits
    restore_or_init, starts = loop._restore_or_init, []

    def recorded(*args):
        state = restore_or_init(*args)
        starts.append(jax.tree.map(np.array, state))  # a copy: the first step gives it away
        return state

    options = (f"--config.train.init_from={source}", "--config.train.steps=2")
    with mock.patch.object(loop, "_restore_or_init", recorded):
        train_and_evaluate(*smoke(tmp_path / "run", *options))
    before, after = (load_state(workdir)[2] for workdir in (source, tmp_path / "run"))
    before = jax.tree.map(np.float32, before)
    (start,) = starts
    assert start.step == 0
    for name in ("generator", "discriminator", "key_encoder", "queue"):
        jax.tree.map(np.testing.assert_array_equal, getattr(start, name), before[name])
    jax.tree.map(np.testing.assert_array_equal, start.generator_average, before["generator"])
    # And it is trained from there: two batches of keys are new.
    assert after["step"] == 2
    np.testing.assert_array_equal(after["queue"][16:], before["queue"][16:])
    assert np.abs(after["queue"][:16] - before["queue"][:16]).max() > 0
    moved = jax.tree.map(lambda x, y: np.abs(x - y).max(), after["generator"], before["generator"])
    assert 0 < max(jax.tree.leaves(moved)) < 1e-2


@pytest.mark.parametrize(
    ("option", "message"),
    [("--config.model.width=8", "its generator has other sizes"), (None, "is no training workdir")],
)
def test_a_run_that_cannot_be_started_from_is_refused(finished, tmp_path, option, message):
    source = finished[0] if option else tmp_path / "none"
    options = [option] if option else []
    with pytest.raises(InputError, match=message):
        train_and_evaluate(*smoke(tmp_path / "run", f"--config.train.init_from={source}", *options))
    assert not (tmp_path / "run").exists()


def test_a_non_finite_loss_ends_the_run_and_keeps_the_checkpoint(tmp_path):
    def broken_loader(*args, **kwargs):
        load = make_loader(*args, **kwargs)

        def batches(start):
            for step, batch in enumerate(load(start), start + 1):
                yield batch | {"noisy": batch["noisy"] * np.nan} if step == 3 else batch

        return batches

    with (
        mock.patch.object(loop, "make_loader", broken_loader),
        pytest.raises(DivergedError, match=r"step 3 is not finite.*batch 2.*loss_g"),
    ):
        train_and_evaluate(*smoke(tmp_path))
    assert checkpoint_steps(tmp_path) == [2]


def test_sigterm_saves_and_the_same_command_goes_on(tmp_path):
    """Of the denoiser: it starts sooner, and the loop is the same."""
    arguments = [sys.executable, "-u", "tests/light_main.py", f"--workdir={tmp_path}"]
    arguments += ["--config=configs/denoiser.py:smoke", "--config.train.steps=5000"]
    process = subprocess.Popen(
        arguments,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    for line in process.stdout:
        if line.startswith("held-out patches at step 3"):
            break
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143, errors
    assert "the same command resumes" in errors
    assert time.monotonic() - begun < 60
    step = checkpoint_steps(tmp_path)[-1]
    assert step >= 3
    config = f"--config={REPOSITORY / 'configs' / 'denoiser.py'}:smoke"
    steps = f"--config.train.steps={step + 1}"
    summary = train_and_evaluate(*parse(config, f"--workdir={tmp_path}", steps))
    assert summary["steps"] == step + 1
    assert [line["step"] for line in lines(tmp_path)] == list(range(step + 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config=configs/nosuch.py"], "nosuch.py"),
        (["--config=configs/noisetransfer.py:big"], "no config argument 'big'"),
        (["--config=configs/noisetransfer.py:smoke", "--config.train.stpes=3"], "stpes"),
        (["--config=configs/noisetransfer.py:smoke", "--config.train.steps=many"], "steps"),
        (["--config=configs/noisetransfer.py:smoke", "--nosuch=1"], "nosuch"),
        (["--config=configs/noisetransfer.py:smoke", "extra"], "extra"),
        ([], "--config"),
    ],
)
def test_wrong_flags(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(InputError) as caught:
        parse(f"--workdir={tmp_path / 'run'}", *options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--config.model.queue_length=60", "queue_length=60 is not a multiple"),
        ("--config.train.batch_size=12", "batch_size=12"),
        ("--config.model.embedding_bound=none", "embedding_bound='none'"),
        ("--config.model.dtype=float16", "dtype='float16'"),
        ("--config.data.patch_size=18", "data.patch_size=18"),
        ("--config.data.loader=disk", "disk"),
        ("--config.data.photos=/nosuch/folder", "/nosuch/folder"),
        ("--config.eval.photos=", "both empty"),
        ("--config.train.steps=0", "train.steps=0"),
        ("--config.data.real_reference=none", "real_reference=none: training needs references"),
    ],
)
def test_a_config_that_cannot_run_makes_no_workdir(option, message, tmp_path):
    workdir = tmp_path / "run"
    with pytest.raises(InputError) as caught:
        train_and_evaluate(*smoke(workdir, option))
    assert message in str(caught.value)
    assert not workdir.exists()


OWN_CONFIGS = {
    "def get_config(:": "SyntaxError",
    "import nosuchmodule": "nosuchmodule",
    "value = 1": "get_config",
    "def get_config():\n    return {}['a']": "line 2",
    "def get_config():\n    raise ValueError('bad\\nthing')": "ValueError: bad thing",
    "def get_config():\n    return 1 / 0": "division by zero",
    "def get_config():\n    pass": "returns no ConfigDict",
    "def get_config():\n    return {'a': 1}": "returns no ConfigDict",
    "from ml_collections import ConfigDict\ndef get_config():\n    c = ConfigDict({'a': 1})\n"
    "    c.a = 'x'\n    return c": "line 4",
}


@pytest.mark.parametrize("text", OWN_CONFIGS)
def test_a_config_file_that_fails_is_one_line(text, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "config_config", raising=False)  # of the recipe before
    file = tmp_path / "own.py"
    file.write_text(text + "\n")
    with pytest.raises(InputError) as caught:
        parse(f"--config={file}", f"--workdir={tmp_path / 'run'}")
    assert OWN_CONFIGS[text] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("config", ["noisetransfer.py:big", "denoiser.py:big", "quickstart.py:big"])
def test_a_wrong_name_behind_the_colon_is_one_line(config, tmp_path):
    file = REPOSITORY / "configs" / config
    with pytest.raises(InputError) as caught:
        parse(f"--config={file}", f"--workdir={tmp_path / 'run'}")
    assert len(str(caught.value)) < 200
    assert "Traceback" not in str(caught.value)
    assert "argument" in str(caught.value)


def test_the_command_ends_with_one_line_and_exit_code_2(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "nt_jax.main",
            "--config=configs/noisetransfer.py:big",
            f"--workdir={tmp_path / 'run'}",
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "choose from paper, official, small, base, smoke" in done.stderr

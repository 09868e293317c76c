"""Checkpoints of a run survive damage, foreign folders and full disks."""

import contextlib
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from nt_jax import model_folder
from nt_jax.checkpointing import (
    Checkpointer,
    checkpoint_steps,
    load_state,
    save_model,
)
from nt_jax.errors import InputError
from nt_jax.model_folder import load_model

CONFIG = {"model": {"width": 4}}


def state_of(step: int):
    return {"step": jnp.int32(step), "weights": jnp.full((300, 100), step, jnp.float32)}


SHAPES = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state_of(0)
)


def accept(step, config):
    assert config == CONFIG


@pytest.fixture
def workdir(tmp_path):
    """A workdir with checkpoints 2, 4 and 6."""
    (tmp_path / "config.json").write_text("{}")
    with Checkpointer(tmp_path, CONFIG, keep=3) as checkpointer:
        for step in (2, 4, 6):
            checkpointer.save(step, state_of(step))
    assert checkpoint_steps(tmp_path) == [2, 4, 6]
    return tmp_path


def truncate(folder) -> None:
    """Cuts every file of a checkpoint's state to half its length."""
    for path in (folder / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_the_newest_checkpoint_is_restored(workdir):
    with Checkpointer(workdir, CONFIG, keep=3) as checkpointer:
        step, state = checkpointer.restore(SHAPES, accept)
    assert step == 6
    np.testing.assert_array_equal(state["weights"], 6)


def test_without_checkpoints_there_is_nothing_to_restore(tmp_path):
    with Checkpointer(tmp_path, CONFIG, keep=3) as checkpointer:
        assert checkpointer.restore(SHAPES, accept) is None


@pytest.mark.filterwarnings("ignore:checkpoint 8")
def test_a_damaged_checkpoint_gives_way_to_the_one_before(workdir):
    truncate(workdir / "checkpoints" / "6")
    (workdir / "checkpoints" / "8").mkdir()  # a foreign folder
    with pytest.warns(UserWarning, match=r"checkpoint 6 of .* cannot be read"):
        assert load_state(workdir)[1] == 4
    with Checkpointer(workdir, CONFIG, keep=3) as checkpointer:
        with pytest.warns(UserWarning, match="moved to") as warned:
            step, state = checkpointer.restore(SHAPES, accept)
        assert step == 4
        np.testing.assert_array_equal(state["weights"], 4)
        messages = [str(warning.message) for warning in warned]
        for broken in (6, 8):
            assert any(f"checkpoint {broken} cannot be read" in text for text in messages)
            assert (workdir / "unreadable_checkpoints" / str(broken)).is_dir()
        # The run goes on and saves under the same number again.
        checkpointer.save(6, state_of(60))
    with Checkpointer(workdir, CONFIG, keep=3) as checkpointer:
        step, state = checkpointer.restore(SHAPES, accept)
    assert step == 6
    np.testing.assert_array_equal(state["weights"], 60)


@pytest.mark.filterwarnings("ignore:checkpoint")
def test_a_run_is_refused_when_no_checkpoint_is_left(workdir):
    for step in (2, 4, 6):
        truncate(workdir / "checkpoints" / str(step))
    with pytest.raises(InputError, match=r"checkpoint 2 of .* cannot be read"):
        load_state(workdir)
    with (
        Checkpointer(workdir, CONFIG, keep=3) as checkpointer,
        pytest.raises(InputError, match="no other is left"),
    ):
        checkpointer.restore(SHAPES, accept)


def test_a_config_that_does_not_fit_is_refused_and_nothing_is_moved(workdir):
    def refuse(step, config):
        raise InputError(f"width of {step}")

    with (
        Checkpointer(workdir, CONFIG, keep=3) as checkpointer,
        pytest.raises(InputError, match="width of 6"),
    ):
        checkpointer.restore(SHAPES, refuse)
    assert checkpoint_steps(workdir) == [2, 4, 6]


@contextlib.contextmanager
def largest_file(size: int):
    """Writing a file beyond `size` bytes fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_save_that_fails_says_so_and_leaves_the_one_before(workdir):
    rng = np.random.default_rng(0)  # which compression cannot make small
    large = state_of(8) | {"weights": jnp.asarray(rng.normal(size=(300, 1000)), jnp.float32)}

    def save() -> None:
        with Checkpointer(workdir, CONFIG, keep=3) as checkpointer, largest_file(100_000):
            checkpointer.save(8, large)
            checkpointer.wait()

    with pytest.raises(InputError, match=r"could not be saved.*that of step 6 is kept"):
        save()
    assert checkpoint_steps(workdir)[-1] == 6
    assert load_state(workdir)[1] == 6


# --- What is no damage ---------------------------------------------------------------------------

NO_DAMAGE = [
    jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"),
    RuntimeError("Unable to initialize backend 'cuda'"),
    MemoryError(),
    AssertionError(),
    ImportError("no module"),
    PermissionError(13, "Permission denied"),
    OSError(5, "Input/output error"),
    OSError(24, "Too many open files"),
    ValueError("PERMISSION_DENIED: Error opening file"),
]


@pytest.mark.parametrize("error", NO_DAMAGE, ids=lambda error: f"{type(error).__name__} {error}")
@pytest.mark.parametrize("item", ["config", "state"])
def test_a_failure_that_is_not_the_files_moves_no_checkpoint(workdir, error, item):
    restore = Checkpointer._restore

    def fail(self, step, **items):
        if item in items:
            raise error
        return restore(self, step, **items)

    with (
        Checkpointer(workdir, CONFIG, keep=3) as checkpointer,
        mock.patch.object(Checkpointer, "_restore", fail),
        pytest.raises((type(error), InputError)),
    ):
        checkpointer.restore(SHAPES, accept)
    assert checkpoint_steps(workdir) == [2, 4, 6]
    assert not (workdir / "unreadable_checkpoints").exists()


@pytest.mark.parametrize("error", NO_DAMAGE[:5], ids=lambda error: type(error).__name__)
def test_a_failure_that_is_not_the_files_is_not_blamed_on_a_model(tmp_path, error):
    save_model(tmp_path / "model", {"kind": "x"}, {"net": {"kernel": np.ones(3, np.float32)}})
    with (
        mock.patch.object(model_folder, "_read_arrays", side_effect=error),
        pytest.raises(type(error)),
    ):
        load_model(tmp_path / "model")


COMMANDS = {
    "denoise": ["--input=DIR", "--output=OUT"],
    "transfer": ["--reference=IMAGE", "--clean=DIR", "--output=OUT"],
    "main": ["--config=configs/denoiser.py:smoke", "--workdir=OUT"],
    "eval": ["generation", "--clean=DIR", "--noisy=DIR", "--generated=DIR", "--output=OUT"],
    "convert": ["--torch_dir=tests/golden/official_small_pt", "--output=OUT"],
}


@pytest.mark.parametrize(
    ("name", "platforms"), [*((name, "cuda") for name in COMMANDS), ("main", "nosuch")]
)
def test_a_platform_that_is_missing_is_what_every_command_says(name, platforms, tmp_path):
    (tmp_path / "dir").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "dir" / "a.png")
    places = {"IMAGE": tmp_path / "dir/a.png", "DIR": tmp_path / "dir", "OUT": tmp_path / "out"}
    arguments = COMMANDS[name]
    for word, place in places.items():
        arguments = [argument.replace(word, str(place)) for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-m", f"nt_jax.{name}", *arguments],
        cwd=pathlib.Path(__file__).parents[1],
        env=os.environ | {"JAX_PLATFORMS": platforms},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert f"JAX_PLATFORMS={platforms}" in done.stderr
    assert not (tmp_path / "out").exists()


# --- Model folders -------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", range(6))
def test_a_kill_while_a_model_is_replaced_loses_neither(tmp_path, moment):
    """Ends the save before its n-th change to the disk, as a kill would."""

    def save(value):
        save_model(tmp_path / "m", {"kind": str(value)}, {"net": {"w": np.full(3, value, "f4")}})

    class Killed(BaseException):
        pass

    changes = iter(range(100))

    def counted(function):
        def call(*arguments, **options):
            if moment == next(changes):
                raise Killed
            return function(*arguments, **options)

        return call

    for old in (1, 2):  # the second replaces the other way round
        save(old)
    changes_of_disk = [(pathlib.Path, "rename"), (pathlib.Path, "write_text")]
    changes_of_disk += [(os, "replace"), (shutil, "rmtree")]
    with contextlib.ExitStack() as stack:
        for owner, name in changes_of_disk:
            patched = counted(getattr(owner, name))
            stack.enter_context(mock.patch.object(owner, name, patched))
        with contextlib.suppress(Killed):
            save(3)
    metadata, variables = load_model(tmp_path / "m")
    assert variables["net"]["w"][0] == int(metadata["kind"])
    assert metadata["kind"] in ("2", "3")
    save(4)  # and it goes on
    assert load_model(tmp_path / "m")[0] == {"kind": "4"}
    assert len(list((tmp_path / "m").iterdir())) == 2


def test_the_place_of_parameters_is_no_path_of_someone_elses(tmp_path):
    folder = tmp_path / "m"
    save_model(folder, {"kind": "x"}, {"net": {"w": np.ones(3, np.float32)}})
    metadata = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(metadata | {"variables": "../other"}))
    assert load_model(folder)[1]["net"]["w"][0] == 1

"""Checkpoints of a run survive damage, foreign folders and full disks."""

import contextlib
import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nt_jax.checkpointing import Checkpointer, checkpoint_steps, load_state
from nt_jax.errors import InputError

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

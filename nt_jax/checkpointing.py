"""Model folders, written, and training checkpoints on disk. The only file that imports orbax.

`model_folder.py` reads model folders. A training workdir holds `config.json` and
`checkpoints/STEP/`, each with the state and the config it was made with.
"""

import contextlib
import json
import os
import pathlib
import shutil
import warnings
from collections.abc import Callable, Collection
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from nt_jax.errors import InputError
from nt_jax.files import scratch_beside
from nt_jax.model_folder import (
    CONFIG_FILE,
    DAMAGE,
    MODEL_FILE,
    OTHER_VARIABLES,
    VARIABLES,
    first_line,
    variables_of,
)
from nt_jax.paths import exists, is_file, is_folder

Tree = Any
SUMMARY_FILE = "summary.json"
_CHECKPOINTS = "checkpoints"
_UNREADABLE = "unreadable_checkpoints"
# TensorStore has one kind of error for all, with the reason in words.
_NO_DAMAGE = ("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED")


def check_replaceable(folder: pathlib.Path, beside: Collection[str] = ()) -> None:
    """Raises InputError where `save_model` would refuse to write."""
    if not exists(folder):
        return
    others = [path for path in _inside(folder) if path.name not in beside]
    is_model = is_file(folder / MODEL_FILE)
    if not (is_folder(folder) and (is_model or _only_a_denoiser(others))):
        raise InputError(f"{folder} exists and is no model folder; choose another output")


def _inside(folder: pathlib.Path) -> list[pathlib.Path]:
    return list(folder.iterdir()) if is_folder(folder) else []


def save_model(
    folder: str | os.PathLike,
    metadata: dict[str, Any],
    variables: dict[str, Tree],
    beside: Collection[str] = (),
) -> None:
    """Writes a model folder; it appears whole or not at all.

    A model that is there already is replaced at one stroke, that of `model.json`: a kill leaves the
    old one or the new one. What else lies in the folder stays.

    Args:
      folder: where to; anything there but a model, a converted model's `denoiser` or what is in
        `beside` is refused.
      metadata: JSON object with `kind` and `model`, the fields the networks are built from.
      variables: parameter trees by network name.
      beside: names of files and folders that may lie there.

    Raises:
      InputError: `folder` exists and is no model folder, or the parameters cannot be written.
    """
    folder = pathlib.Path(folder).absolute()
    check_replaceable(folder, beside)
    inside = _inside(folder)
    with scratch_beside(folder) as scratch:
        try:
            with ocp.PyTreeCheckpointer() as checkpointer:
                checkpointer.save(scratch / VARIABLES, variables)
        except Exception as error:  # orbax raises many kinds, of a full disk for instance
            raise InputError(f"{folder} cannot be written ({first_line(error)})") from error
        # It names a folder of this machine, and the rename below already says that all is there.
        (scratch / VARIABLES / "commit_success.txt").unlink(missing_ok=True)
        if inside:
            used = variables_of(folder)
            free = VARIABLES if used != VARIABLES else OTHER_VARIABLES
            shutil.rmtree(folder / free, ignore_errors=True)  # of a save that a kill cut off
            (scratch / VARIABLES).rename(folder / free)
            metadata = metadata | ({} if free == VARIABLES else {VARIABLES: free})
        (scratch / MODEL_FILE).write_text(json.dumps(metadata, indent=2) + "\n")
        if inside:
            os.replace(scratch / MODEL_FILE, folder / MODEL_FILE)
            if used:
                shutil.rmtree(folder / used, ignore_errors=True)
        else:
            scratch.chmod(0o755)
            scratch.rename(folder)


def _only_a_denoiser(inside: list[pathlib.Path]) -> bool:
    """Tells whether a folder holds nothing, or what `convert` makes of a denoiser alone."""
    return all(path.name == "denoiser" and is_file(path / MODEL_FILE) for path in inside)


def _restore_numpy(path: pathlib.Path) -> Tree:
    # A checkpointer around it would warn that the item of a training checkpoint is none by itself.
    with contextlib.closing(ocp.PyTreeCheckpointHandler()) as handler:
        structure = handler.metadata(path).tree
        arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), structure)
        return handler.restore(path, args=ocp.args.PyTreeRestore(restore_args=arguments))


def _is_damage(error: Exception) -> bool:
    return isinstance(error, DAMAGE) and not any(word in str(error) for word in _NO_DAMAGE)


def load_state(workdir: str | os.PathLike) -> tuple[dict[str, Any], int, dict[str, Any]]:
    """Loads a training workdir's newest readable checkpoint: (config, step, state as nested dicts).

    Leaves are NumPy arrays. A checkpoint that cannot be read is passed over with a warning.

    Raises:
      InputError: no workdir, or one without a readable checkpoint.
    """
    workdir = pathlib.Path(workdir).absolute()
    config = read_config(workdir)
    failure = f"{workdir} has no checkpoint yet; train longer or lower checkpoint_every"
    for step in reversed(checkpoint_steps(workdir)):
        try:
            return config, step, _restore_numpy(workdir / _CHECKPOINTS / str(step) / "state")
        except (*DAMAGE, OSError) as error:
            failure = f"checkpoint {step} of {workdir} cannot be read: {first_line(error)}"
            if not _is_damage(error):
                raise InputError(failure) from error
            warnings.warn(failure, stacklevel=2)
    raise InputError(failure)


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
    """Reads the config a workdir was made with.

    Raises:
      InputError: `workdir` is no training workdir.
    """
    try:
        return json.loads((workdir / CONFIG_FILE).read_text())
    except OSError as error:
        raise InputError(f"{workdir} is no training workdir: it has no {CONFIG_FILE}") from error
    except ValueError as error:
        raise InputError(f"{workdir / CONFIG_FILE} is not JSON: {error}") from error


def read_summary(workdir: pathlib.Path) -> dict[str, Any]:
    """Reads what a workdir's run has come to, as `training.loop` writes it; {} where nothing is."""
    path = workdir / SUMMARY_FILE
    return json.loads(path.read_text(encoding="utf-8")) if exists(path) else {}


def checkpoint_steps(workdir: pathlib.Path) -> list[int]:
    """Lists the steps of the finished checkpoints in a workdir, ascending."""
    folder = workdir / _CHECKPOINTS
    if not is_folder(folder):
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.is_dir() and p.name.isdigit())


def _as_in(state: Tree) -> ocp.args.PyTreeRestore:
    """Asks for structure, shapes, dtypes and shardings of a state."""
    restore_args = ocp.checkpoint_utils.construct_restore_args(state)
    return ocp.args.PyTreeRestore(state, restore_args=restore_args)


class Checkpointer:
    """Asynchronous checkpoints of a training run, the config beside each state.

    Use as a context manager: leaving it waits for the save under way.
    """

    def __init__(self, workdir: pathlib.Path, config: dict[str, Any], keep: int) -> None:
        """Takes the workdir of the run, its config, and how many checkpoints to keep."""
        self._config = config
        self._workdir = workdir
        self._folder = workdir.absolute() / _CHECKPOINTS
        self._keep = keep
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        # Else each of several devices would cut its part out of each array, by hundreds of programs
        # to compile, to write a few megabytes.
        whole = ocp.type_handlers.ArrayHandler(use_replica_parallel=False)
        registry = ocp.type_handlers.create_type_handler_registry(
            (jax.Array, whole), (np.ndarray, ocp.type_handlers.NumpyHandler())
        )
        return ocp.CheckpointManager(
            self._folder,
            item_handlers={
                "state": ocp.PyTreeCheckpointHandler(type_handler_registry=registry),
                "config": ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.LatestN(self._keep),
                enable_async_checkpointing=True,
                cleanup_tmp_directories=True,  # of a save that a kill cut off
            ),
        )

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._manager.close()
        except Exception as error:
            if kind is None:  # else this would hide what went wrong first
                raise self._not_saved(error) from error

    def save(self, step: int, state: Tree) -> None:
        """Starts saving `state` as the checkpoint of `step`, once the save before is done.

        Raises:
          InputError: this save or the one before failed, on a full disk for instance.
        """
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(state), config=ocp.args.JsonSave(self._config)
                ),
                force=True,
            )
        except Exception as error:  # orbax raises many kinds
            raise self._not_saved(error) from error

    def wait(self) -> None:
        """Waits until the save under way is on disk; raises InputError if it failed."""
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as error:  # orbax raises many kinds
            raise self._not_saved(error) from error

    def _not_saved(self, error: Exception) -> InputError:
        kept = checkpoint_steps(self._workdir)
        alone = jax.process_count() == 1
        return InputError(
            f"a checkpoint could not be saved in {self._workdir} ({first_line(error)}); "
            + (f"that of step {kept[-1]} is kept; " if kept else "there is none yet; ")
            + ("" if alone else "unless another process is gone, ")
            + "make room, and the same command resumes"
        )

    def restore(
        self, state: Tree, check: Callable[[int, dict[str, Any]], None]
    ) -> tuple[int, Tree] | None:
        """Restores step and state of the newest readable checkpoint; None without any checkpoint.

        A damaged or foreign one is moved to `unreadable_checkpoints/`, with a warning. One that may
        be good, because a right, the disk or memory is what fails, stays.

        Args:
          state: gives structure, shapes, dtypes and shardings.
          check: called with a checkpoint's step and config; raises if they do not fit.

        Raises:
          InputError: there are checkpoints, none of which can be read, or one cannot be read now.
        """
        failure = ""
        for step in reversed(checkpoint_steps(self._workdir)):
            try:
                config = self._restore(step, config=ocp.args.JsonRestore())
            except (*DAMAGE, OSError) as error:
                failure = self._set_aside(step, error)
                continue
            check(step, config)
            try:
                return step, self._restore(step, state=_as_in(state))
            except (*DAMAGE, OSError) as error:
                failure = self._set_aside(step, error)
        if failure:
            raise InputError(f"{failure}; no other is left: choose another workdir to start anew")
        return None

    def _restore(self, step: int, **item: Any) -> Any:
        ((name, arguments),) = item.items()
        return self._manager.restore(step, args=ocp.args.Composite(**{name: arguments}))[name]

    def _set_aside(self, step: int, error: Exception) -> str:
        """Moves a damaged checkpoint away, with a warning; raises InputError if it may be good."""
        if not _is_damage(error):
            raise InputError(
                f"checkpoint {step} in {self._workdir} cannot be read now ({first_line(error)});"
                " it stays where it is: see to that, and the same command resumes"
            ) from error
        target = self._workdir / _UNREADABLE / str(step)
        if jax.process_index() == 0:
            target.parent.mkdir(exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            (self._folder / str(step)).rename(target)
        multihost_utils.sync_global_devices(f"set checkpoint {step} aside")
        self._manager.close()
        self._manager = self._open()
        text = f"checkpoint {step} cannot be read ({first_line(error)}), moved to {target}"
        warnings.warn(text, stacklevel=3)
        return text

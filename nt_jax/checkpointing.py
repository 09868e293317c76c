"""Model folders and training checkpoints on disk. The only file that imports orbax.

A model folder holds `model.json` (what the model is) and `variables/` (an orbax checkpoint of the
parameters, kernels spectrally normalised). A training workdir holds `config.json` and
`checkpoints/STEP/`, each with the state and the config it was made with.
"""

import json
import os
import pathlib
import shutil
import tempfile
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from nt_jax.errors import InputError

Tree = Any
MODEL_FILE = "model.json"
CONFIG_FILE = "config.json"
_VARIABLES = "variables"
_CHECKPOINTS = "checkpoints"


def save_model(
    folder: str | os.PathLike, metadata: dict[str, Any], variables: dict[str, Tree]
) -> None:
    """Writes a model folder; it appears whole or not at all.

    Args:
      folder: where to; an existing model folder is replaced, anything else there is refused.
      metadata: JSON object with `kind` and `model`, the fields the networks are built from.
      variables: parameter trees by network name.

    Raises:
      InputError: `folder` exists and is no model folder.
    """
    folder = pathlib.Path(folder).absolute()
    usable = not folder.exists() or (folder / MODEL_FILE).is_file()
    if not usable and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder} exists and is no model folder; choose another output")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(scratch / _VARIABLES, variables)
        (scratch / MODEL_FILE).write_text(json.dumps(metadata, indent=2) + "\n")
        scratch.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def load_model(folder: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Tree]]:
    """Reads a model folder: (metadata, parameter trees by network name, float32 NumPy arrays).

    Raises:
      InputError: no model folder, or one that cannot be read.
    """
    folder = pathlib.Path(folder).absolute()
    if not (folder / MODEL_FILE).is_file():
        raise InputError(f"{folder} is no model folder: it has no {MODEL_FILE}")
    try:
        metadata = json.loads((folder / MODEL_FILE).read_text())
        variables = _restore_numpy(folder / _VARIABLES)
    except InputError:
        raise
    except Exception as error:  # orbax raises many kinds on damaged files
        raise InputError(f"{folder} cannot be read as a model: {_first_line(error)}") from error
    return metadata, jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), variables)


def _restore_numpy(path: pathlib.Path) -> Tree:
    with ocp.PyTreeCheckpointer() as checkpointer:
        structure = checkpointer.metadata(path).item_metadata.tree
        arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), structure)
        return checkpointer.restore(path, args=ocp.args.PyTreeRestore(restore_args=arguments))


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def load_state(workdir: str | os.PathLike) -> tuple[dict[str, Any], int, dict[str, Any]]:
    """Newest checkpoint of a training workdir: (config, step, state as nested dicts of NumPy).

    Raises:
      InputError: no workdir, or one without a readable checkpoint.
    """
    workdir = pathlib.Path(workdir).absolute()
    config = read_config(workdir)
    steps = checkpoint_steps(workdir)
    if not steps:
        raise InputError(f"{workdir} has no checkpoint yet; train longer or lower checkpoint_every")
    step = steps[-1]
    try:
        state = _restore_numpy(workdir / _CHECKPOINTS / str(step) / "state")
    except Exception as error:  # orbax raises many kinds on damaged files
        raise InputError(
            f"checkpoint {step} of {workdir} cannot be read: {_first_line(error)}"
        ) from error
    return config, step, state


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
    """The config a workdir was made with.

    Raises:
      InputError: `workdir` is no training workdir.
    """
    try:
        return json.loads((workdir / CONFIG_FILE).read_text())
    except OSError as error:
        raise InputError(f"{workdir} is no training workdir: it has no {CONFIG_FILE}") from error
    except ValueError as error:
        raise InputError(f"{workdir / CONFIG_FILE} is not JSON: {error}") from error


def checkpoint_steps(workdir: pathlib.Path) -> list[int]:
    """Steps of the finished checkpoints in a workdir, ascending."""
    folder = workdir / _CHECKPOINTS
    if not folder.is_dir():
        return []
    return sorted(int(p.name) for p in folder.iterdir() if p.is_dir() and p.name.isdigit())


class Checkpointer:
    """Asynchronous checkpoints of a training run, the config beside each state.

    Use as a context manager: leaving it waits for the save under way.
    """

    def __init__(self, workdir: pathlib.Path, config: dict[str, Any], keep: int) -> None:
        """Args: workdir of the run; its config; how many checkpoints to keep."""
        self._config = config
        self._manager = ocp.CheckpointManager(
            workdir.absolute() / _CHECKPOINTS,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.LatestN(keep),
                enable_async_checkpointing=True,
            ),
        )

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def latest_step(self) -> int | None:
        """Step of the newest finished checkpoint, None without any."""
        return self._manager.latest_step()

    def save(self, step: int, state: Tree) -> None:
        """Starts saving `state` as the checkpoint of `step`, once the save before is done."""
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), config=ocp.args.JsonSave(self._config)
            ),
            force=True,
        )

    def restore(self, step: int, state: Tree) -> Tree:
        """The state saved at `step`; `state` gives structure, shapes, dtypes and shardings."""
        restored = self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(state))
        )
        return restored["state"]

    def saved_config(self, step: int) -> dict[str, Any]:
        """The config saved with the checkpoint of `step`."""
        restored = self._manager.restore(
            step, args=ocp.args.Composite(config=ocp.args.JsonRestore())
        )
        return restored["config"]

    def wait(self) -> None:
        """Waits until the save under way is on disk; raises what went wrong with it."""
        self._manager.wait_until_finished()
        self._manager.check_for_errors()

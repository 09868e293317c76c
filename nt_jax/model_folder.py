"""Model folders, read without the checkpoint library that writes them: it takes a second to import.

A model folder holds `model.json` (what the model is) and `variables/` (an orbax checkpoint of the
parameters, kernels spectrally normalised): `checkpointing.save_model` writes it.
"""

import json
import os
import pathlib
from typing import Any

import numpy as np

from nt_jax.errors import InputError
from nt_jax.paths import is_file

Tree = Any
MODEL_FILE = "model.json"
# Of a training workdir, which is told from a model folder by it.
CONFIG_FILE = "config.json"
VARIABLES = "variables"
# Where a replaced model has its parameters, every second time: `model.json` says so.
OTHER_VARIABLES = "variables_2"
_EMPTY = "Dict"  # orbax's word for a dict without anything in it, which has no array
# What orbax and TensorStore raise on files that are damaged, or that something else wrote. Nothing
# else is the file's fault: not a device that fails, nor memory, nor a right that lacks.
DAMAGE = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError),
    *(FileNotFoundError, NotADirectoryError, IsADirectoryError),
)
# What `model.json` says, where it says it; all else is for people.
_TYPES: dict[str, type] = {
    **dict.fromkeys(("step", "reference_crop"), int),
    **dict.fromkeys(("model", "recipe", "terms", "held_out", "adapted", "began_from"), dict),
    **dict.fromkeys(("noise_reader", "spectrum_reader"), dict),
}


def load_model(folder: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Tree]]:
    """Reads a model folder: (metadata, parameter trees by network name, float32 NumPy arrays).

    Raises:
      InputError: no model folder, or one that cannot be read.
    """
    folder = pathlib.Path(folder).absolute()
    if not is_file(folder / MODEL_FILE):
        raise InputError(f"{folder} is no model folder: it has no {MODEL_FILE}")
    try:
        metadata = json.loads((folder / MODEL_FILE).read_text())
        _check_types(metadata)
        variables = _read_arrays(folder / variables_of(folder))
        metadata.pop(VARIABLES, None)
    except (*DAMAGE, OSError) as error:
        raise InputError(f"{folder} cannot be read as a model: {first_line(error)}") from error
    return metadata, variables


def _check_types(metadata: Any) -> None:
    """Raises TypeError if `model.json` holds another type than what reads it later expects."""
    if not isinstance(metadata, dict):
        raise TypeError(f"{MODEL_FILE} holds no object")
    for name, expected in _TYPES.items():
        found = metadata.get(name)
        # What is not known is null: `recipe` of a converted model.
        if found is not None and type(found) is not expected:
            raise TypeError(
                f"{name} of {MODEL_FILE}: expected {expected.__name__}; got {json.dumps(found)}"
            )


def variables_of(folder: pathlib.Path) -> str:
    """Finds the folder that a model's parameters are in: its name, "" without a readable model."""
    try:
        metadata = json.loads((folder / MODEL_FILE).read_text())
    except (OSError, ValueError):
        return ""
    named = metadata.get(VARIABLES) if isinstance(metadata, dict) else None
    return OTHER_VARIABLES if named == OTHER_VARIABLES else VARIABLES


def first_line(error: BaseException) -> str:
    """Gives the kind of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def _read_arrays(path: pathlib.Path) -> dict[str, Tree]:
    """Reads the arrays of an orbax checkpoint of nested dicts, as its metadata file lists them."""
    import tensorstore

    metadata = json.loads((path / "_METADATA").read_text())
    driver = "zarr3" if metadata["use_zarr3"] else "zarr"
    context = tensorstore.Context()

    def place(names: tuple[str, ...]) -> dict[str, Any]:
        name = ".".join(names)
        if metadata["use_ocdbt"]:
            base = {"driver": "file", "path": f"{path}/"}
            return {"driver": "ocdbt", "base": base, "path": f"{name}/"}
        return {"driver": "file", "path": f"{path / name}/"}

    entries = metadata["tree_metadata"].values()
    tree: dict[str, Tree] = {}
    leaves = []
    for entry in entries:
        names = tuple(part["key"] for part in entry["key_metadata"])
        if entry["value_metadata"]["value_type"] == _EMPTY:
            _set(tree, names, {})
        else:
            leaves.append(names)
    opened = [
        tensorstore.open({"driver": driver, "kvstore": place(leaf)}, context=context, open=True)
        for leaf in leaves
    ]
    reads = [array.result().read() for array in opened]  # all at a time
    for names, values in zip(leaves, reads, strict=True):
        _set(tree, names, np.asarray(values.result(), np.float32))
    return tree


def _set(tree: Tree, names: tuple[str, ...], value: Any) -> None:
    for name in names[:-1]:
        tree = tree.setdefault(name, {})
    tree[names[-1]] = value

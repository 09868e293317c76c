"""Models and denoisers by name: bundled ones, training workdirs, model folders."""

import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nt_jax import families
from nt_jax.devices import check_devices
from nt_jax.errors import InputError
from nt_jax.inference.denoiser import Denoiser
from nt_jax.inference.model import Model
from nt_jax.inference.processes import note_start
from nt_jax.model_folder import CONFIG_FILE, MODEL_FILE, load_model
from nt_jax.models.denoisers import KINDS as DENOISERS
from nt_jax.models.parameters import Tree
from nt_jax.paths import expand, is_file, is_folder

PRETRAINED = Path(__file__).parents[1] / "pretrained"
_DENOISER = "small-denoiser"


def load(name: str | os.PathLike = "small", dtype: str = "float32") -> Any:
    """Loads a model: a bundled name, a training workdir, or a model folder (see `convert`).

    A bundled name comes first: write `./small` for a folder of that name.

    Args:
      name: of the model.
      dtype: compute type of its convolutions, `float32` or `bfloat16`.

    Returns:
      A `families.Generator`, as its family loads it; NoiseTransfer's is `Model`.

    Raises:
      InputError: there is no such model, or it is of another kind or damaged.
    """
    metadata, variables = _read(name)
    kind = metadata.get("kind")
    if not isinstance(kind, str) or kind in DENOISERS:
        raise InputError(
            f"{name} is of kind {kind}, not a noise transfer model; "
            "load a denoiser with load_denoiser (--denoiser)"
        )
    return _built(name, families.find(kind), metadata, variables, dtype)


def load_noisetransfer(name: str | os.PathLike = "small") -> Model:
    """Loads a NoiseTransfer model, for what needs its embedding; as `load`.

    Raises:
      InputError: as there, or the model is of another family.
    """
    model = load(name)
    if not isinstance(model, Model):
        raise InputError(
            f"{name} is of kind {model.metadata.get('kind')}, which has no noise embedding; give a"
            " NoiseTransfer model"
        )
    return model


def load_denoiser(name: str | os.PathLike = _DENOISER) -> Denoiser:
    """Loads a denoiser: a bundled name, a training workdir, a denoiser's or a converted folder.

    Raises:
      InputError: there is no such denoiser, or it is of another kind or damaged.
    """
    nested = expand(name) / "denoiser"
    is_converted = os.fspath(name) not in _bundled() and is_folder(nested)
    metadata, variables = _read(nested if is_converted else name)
    kind = metadata.get("kind")
    if not isinstance(kind, str) or kind not in DENOISERS:
        raise InputError(
            f"{name} is of kind {kind}, not a denoiser; load a model with load (--model)"
        )
    return _built(name, families.find("denoiser"), metadata, variables, "float32")


def _built(
    name: str | os.PathLike,
    family: families.Family,
    metadata: dict[str, Any],
    variables: dict[str, Tree],
    dtype: str,
) -> Any:
    # Their shapes are told where they are first used: checks.fitting_parameters.
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables)):
        raise InputError(f"{name} has parameters that are no numbers; make it again")
    try:
        model = family.load(metadata, variables, dtype)
    except (KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{name} is damaged, it lacks {error}; make it again") from error
    note_start()
    return model


def bundled_denoisers() -> list[str]:
    """Lists the names of the denoisers that come with the package, the default one first."""
    kinds = {
        name: json.loads((PRETRAINED / name / "model.json").read_text())["kind"]
        for name in _bundled()
    }
    names = [name for name, kind in kinds.items() if kind in DENOISERS]
    return sorted(names, key=lambda name: name != _DENOISER)


def _bundled() -> list[str]:
    return sorted(path.parent.name for path in PRETRAINED.glob("*/model.json"))


def _read(name: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Tree]]:
    check_devices()
    folder = PRETRAINED / name if os.fspath(name) in _bundled() else expand(name)
    if is_file(folder / MODEL_FILE):
        return load_model(folder)
    if is_file(folder / CONFIG_FILE):
        # Orbax is slow to import.
        from nt_jax.inference.workdir import load_workdir

        return load_workdir(folder)
    raise InputError(
        f"no model {name}: there is no such bundled name ({', '.join(_bundled()) or 'none yet'}) "
        f"and no folder with {MODEL_FILE} or {CONFIG_FILE} at that path"
    )

"""Models and denoisers by name: bundled ones, training workdirs, model folders."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax

from nt_jax.devices import check_devices
from nt_jax.errors import InputError
from nt_jax.inference.denoiser import Denoiser
from nt_jax.inference.model import Model
from nt_jax.inference.processes import note_start
from nt_jax.model_folder import CONFIG_FILE, MODEL_FILE, load_model
from nt_jax.models.denoisers import KINDS, make_denoiser
from nt_jax.models.networks import make_networks
from nt_jax.models.parameters import Tree
from nt_jax.paths import expand

PRETRAINED = Path(__file__).parents[1] / "pretrained"


def load(name: str | os.PathLike = "small") -> Model:
    """Loads a model: a bundled name, a training workdir, or a model folder (see `convert`).

    A bundled name comes first: write `./small` for a folder of that name.

    Raises:
      InputError: there is no such model, or it is of another kind or damaged.
    """
    metadata, variables = _read(name)
    if metadata.get("kind") != "noisetransfer":
        raise InputError(
            f"{name} is of kind {metadata.get('kind')}, not a noise transfer model; "
            "load a denoiser with load_denoiser (--denoiser)"
        )
    try:
        networks = make_networks(SimpleNamespace(**metadata["model"]))
        params = {key: variables[key] for key in ("generator", "key_encoder")}
    except (KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{name} is damaged, it lacks {error}; make it again") from error
    if "discriminator" in variables:
        params["discriminator"] = variables["discriminator"]
    note_start()
    return Model(networks, jax.device_put(params), metadata)


def load_denoiser(name: str | os.PathLike = "small-denoiser") -> Denoiser:
    """Loads a denoiser: a bundled name, a training workdir, a denoiser's or a converted folder.

    Raises:
      InputError: there is no such denoiser, or it is of another kind or damaged.
    """
    nested = expand(name) / "denoiser"
    is_converted = os.fspath(name) not in _bundled() and nested.is_dir()
    metadata, variables = _read(nested if is_converted else name)
    if metadata.get("kind") not in KINDS:
        raise InputError(
            f"{name} is of kind {metadata.get('kind')}, not a denoiser; load a model with load "
            "(--model)"
        )
    try:
        network = make_denoiser(metadata["kind"], **metadata["model"])
        params = variables["denoiser"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{name} is damaged, it lacks {error}; make it again") from error
    note_start()
    return Denoiser(network, jax.device_put(params), metadata)


def bundled_denoisers() -> list[str]:
    """Lists the names of the denoisers that come with the package, sorted."""
    kinds = {
        name: json.loads((PRETRAINED / name / "model.json").read_text())["kind"]
        for name in _bundled()
    }
    return [name for name, kind in kinds.items() if kind in KINDS]


def _bundled() -> list[str]:
    return sorted(path.parent.name for path in PRETRAINED.glob("*/model.json"))


def _read(name: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Tree]]:
    check_devices()
    folder = PRETRAINED / name if os.fspath(name) in _bundled() else expand(name)
    if (folder / MODEL_FILE).is_file():
        return load_model(folder)
    if (folder / CONFIG_FILE).is_file():
        # Orbax is slow to import.
        from nt_jax.inference.workdir import load_workdir

        return load_workdir(folder)
    raise InputError(
        f"no model {name}: there is no such bundled name ({', '.join(_bundled()) or 'none yet'}) "
        f"and no folder with {MODEL_FILE} or {CONFIG_FILE} at that path"
    )

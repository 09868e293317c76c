"""A denoiser: from a checkpoint to its folder's content, from that to a denoiser."""

from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from nt_jax import spectra
from nt_jax.errors import InputError
from nt_jax.inference.denoiser import READER, Denoiser, SpectrumReader
from nt_jax.models.denoisers import layout_of, make_denoiser, with_conditions
from nt_jax.models.noise_reader import NoiseReader
from nt_jax.models.parameters import Tree, unstack


def released(
    config: Mapping[str, Any], state: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Tree]]:
    """Takes the parameters, their moving average where one is kept; `kind` is the network's."""
    kind = config["model"].get("kind", "ridnet")  # older runs do not say
    model = {"features": config["model"]["width"], "blocks": config["model"]["blocks"]}
    if config["model"].get("conditioned"):
        model["conditions"] = spectra.CONDITIONS
    if config["model"].get("finest_blocks"):
        model["finest_blocks"] = config["model"]["finest_blocks"]
    params = state["params"] if state.get("average") is None else state["average"]
    layout = layout_of(make_denoiser(kind, **model))
    tree = unstack(jax.tree.map(np.asarray, with_conditions(params, layout)), layout)
    return {"kind": kind, "model": model}, {"denoiser": tree}


def load(metadata: Mapping[str, Any], variables: Mapping[str, Tree], dtype: str) -> Denoiser:
    """Builds the denoiser."""
    network = make_denoiser(metadata["kind"], **metadata["model"], dtype=jnp.dtype(dtype))
    reader = None
    if network.conditions and READER in metadata:
        about = metadata[READER]
        module = NoiseReader(about["width"], spectra.SIZE)
        reader = SpectrumReader(module, jax.device_put(variables[READER]), about["patch_size"])
    params = jax.device_put(_with_gains(variables["denoiser"]))
    return Denoiser(network, params, metadata, reader, _condition_of(metadata))


def _with_gains(params: Tree) -> Tree:
    """Adds gains that change nothing where conditions shift biases alone, as they once did."""
    flat = flax.traverse_util.flatten_dict(params)
    gains = {
        (*path[:-1], "gain"): np.zeros_like(leaf)
        for path, leaf in flat.items()
        if path[-1] == "condition"
    }
    return flax.traverse_util.unflatten_dict(gains | flat)


def _condition_of(metadata: Mapping[str, Any]) -> np.ndarray | None:
    """Takes `Denoiser.condition`; raises InputError if it is none."""
    found = (metadata.get("adapted") or {}).get("condition")
    if found is None:
        return None
    numbers = isinstance(found, list) and all(isinstance(value, int | float) for value in found)
    condition = np.array(found if numbers else [], np.float32)
    if condition.shape != (spectra.CONDITIONS,) or not np.isfinite(condition).all():
        raise InputError(f"adapted.condition: expected {spectra.CONDITIONS} numbers; got {found}")
    return condition

"""NAFlow, a likelihood of noise whose latents a reference tells (Kim et al., ICLR 2024)."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from nt_jax.families.loaded import Loaded
from nt_jax.fields import COUNT, no_average

if TYPE_CHECKING:
    from nt_jax.families.naflow.task import NAFlowTask

FIELDS = {"model.width": COUNT, "model.levels": COUNT}


def patch_of_levels(config: Any) -> str:
    """Says what is wrong if patches cannot be halved as often as the flow does."""
    side, levels = config.data.patch_size, config.model.levels
    if side % 2**levels == 0:
        return ""
    return f"config.data.patch_size={side}: {levels} levels need a multiple of {2**levels}"


RELATIONS = (no_average, patch_of_levels)


def task_class() -> type["NAFlowTask"]:
    """Imports the task, which needs optax."""
    from nt_jax.families.naflow.task import NAFlowTask

    return NAFlowTask


def released(
    config: Mapping[str, Any], state: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Makes a model folder's content of a checkpoint: see `families.Family`."""
    variables = {**state["params"], "counts": {"settings": state["counts"]}}
    return {"model": dict(config["model"])}, jax.tree.map(np.asarray, variables)


def load(metadata: Mapping[str, Any], variables: Mapping[str, Any], dtype: str) -> Loaded:
    """Builds the model; it must be undone exactly, and computes in float32 whatever `dtype`."""
    from nt_jax.families.naflow.flow import Flow, make_noise

    del dtype
    model = metadata["model"]
    params = {name: variables[name] for name in ("flow", "prior")}
    params["counts"] = variables["counts"]["settings"]
    told = ("reference", "reference_clean")
    flow = Flow(model["levels"], model["width"])
    return Loaded(partial(make_noise, flow), params, metadata, told)

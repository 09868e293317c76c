"""sRGB Flow, a likelihood of noise by camera and ISO (Kousha et al., CVPR 2022)."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from nt_jax.fields import COUNT, no_average

if TYPE_CHECKING:
    from nt_jax.families.srgbflow.model import SRGBFlow
    from nt_jax.families.srgbflow.task import SRGBFlowTask

FIELDS = {"model.width": COUNT, "model.blocks": COUNT}
RELATIONS = (no_average,)


def task_class() -> type["SRGBFlowTask"]:
    """Imports the task, which needs optax."""
    from nt_jax.families.srgbflow.task import SRGBFlowTask

    return SRGBFlowTask


def released(
    config: Mapping[str, Any], state: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Makes a model folder's content of a checkpoint: see `families.Family`."""
    variables = {"flow": state["params"], "counts": {"settings": state["counts"]}}
    return {"model": dict(config["model"])}, jax.tree.map(np.asarray, variables)


def load(metadata: Mapping[str, Any], variables: Mapping[str, Any], dtype: str) -> "SRGBFlow":
    """Builds the model; it has no convolutions, and computes in float32 whatever `dtype`."""
    from nt_jax.families.srgbflow.flow import Flow
    from nt_jax.families.srgbflow.model import SRGBFlow

    del dtype
    model = SimpleNamespace(**metadata["model"])
    params = {"flow": variables["flow"], "counts": variables["counts"]["settings"]}
    return SRGBFlow(Flow(model.blocks, model.width), jax.device_put(params), metadata)

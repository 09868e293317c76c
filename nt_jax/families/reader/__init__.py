"""Networks that read numbers of the noise off a noisy photo; not in the paper (docs/noise.md)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from nt_jax.errors import InputError
from nt_jax.families.reader.quantities import QUANTITIES
from nt_jax.fields import ADDED, COUNT, choice

if TYPE_CHECKING:
    from nt_jax.families.reader.task import ReaderTask

__all__ = ["FIELDS", "load", "reads", "released", "task_class"]

FIELDS = {"model.width": COUNT, "model.reads": choice("readings", "spectrum")}


def task_class() -> type["ReaderTask"]:
    """Imports the task, which needs optax."""
    from nt_jax.families.reader.task import ReaderTask

    return ReaderTask


def reads(model: Mapping[str, Any]) -> str:
    """Tells what a reader reads, by its `config.model`; those of before the field: `readings`."""
    return str(model.get("reads", ADDED["model.reads"]))


def released(
    config: Mapping[str, Any], state: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Takes the parameters, their moving average where one is kept."""
    params = state["params"] if state.get("average") is None else state["average"]
    model = {"width": config["model"]["width"], "patch_size": config["data"]["patch_size"]}
    name = QUANTITIES[reads(config["model"])].part
    return {"model": model}, {name: jax.tree.map(np.asarray, params)}


def load(metadata: Mapping[str, Any], variables: Mapping[str, Any], dtype: str) -> Any:
    """Refuses it: a reader makes no noise, it becomes a part of a model that does.

    Raises:
      InputError: always.
    """
    del metadata, variables, dtype
    raise InputError(
        "a reader of noise is no model by itself: join it to one by"
        " `python -m experiments.release_model --model=MODEL --reader=RUN --output=FOLDER`"
    )

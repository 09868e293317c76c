"""C2N: noise learned without pairs (Jang et al., ICCV 2021)."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from nt_jax.families.loaded import Loaded, released
from nt_jax.fields import WEIGHT, integer, no_average, unpaired_images

if TYPE_CHECKING:
    from nt_jax.families.c2n.task import C2NTask

__all__ = ["FIELDS", "RELATIONS", "load", "released", "task_class"]

FIELDS = {
    "model.width": integer(2, step=2),
    "losses.mean": WEIGHT,
    "losses.penalty": WEIGHT,
}


RELATIONS = (no_average, unpaired_images)


def task_class() -> type["C2NTask"]:
    """Imports the task, which needs optax."""
    from nt_jax.families.c2n.task import C2NTask

    return C2NTask


def load(metadata: Mapping[str, Any], variables: Mapping[str, Any], dtype: str) -> Loaded:
    """Builds the generator, told nothing."""
    from nt_jax.families.c2n.networks import Generator, make_noise

    generator = Generator(metadata["model"]["width"], jnp.dtype(dtype))
    return Loaded(partial(make_noise, generator), variables["generator"], metadata)

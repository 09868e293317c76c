"""N2G: noise taken out of the reference by a network (Lin et al., IJCAI 2021)."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from nt_jax.families.loaded import Loaded, released
from nt_jax.fields import COUNT, no_average, unpaired_images

if TYPE_CHECKING:
    from nt_jax.families.n2g.task import N2GTask

__all__ = ["FIELDS", "RELATIONS", "load", "released", "task_class"]

FIELDS = {"model.width": COUNT, "train.rarer_after": COUNT}
RELATIONS = (no_average, unpaired_images)


def task_class() -> type["N2GTask"]:
    """Imports the task, which needs optax."""
    from nt_jax.families.n2g.task import N2GTask

    return N2GTask


def load(metadata: Mapping[str, Any], variables: Mapping[str, Any], dtype: str) -> Loaded:
    """Builds the network, told the reference that it takes the noise of."""
    from nt_jax.families.n2g.networks import Extractor, make_noise

    extractor = Extractor(metadata["model"]["width"], jnp.dtype(dtype))
    told = ("reference",)
    return Loaded(partial(make_noise, extractor), variables["generator"], metadata, told)

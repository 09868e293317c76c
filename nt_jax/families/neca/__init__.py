"""NeCA: noise of a gain, a level at each pixel, and grain (Fu et al., CVPR 2023)."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from nt_jax.families.loaded import Loaded, released
from nt_jax.fields import COUNT, WEIGHT, no_average

if TYPE_CHECKING:
    from nt_jax.families.neca.task import NeCATask

__all__ = ["FIELDS", "RELATIONS", "load", "released", "task_class"]

FIELDS = {
    "model.width": COUNT,
    "model.level_width": COUNT,
    "model.critic_width": COUNT,
    "losses.gain": WEIGHT,
    "losses.level": WEIGHT,
    "losses.evenness": WEIGHT,
    "losses.adversarial": WEIGHT,
    "losses.penalty": WEIGHT,
    "train.adversarial_every": COUNT,
}

RELATIONS = (no_average,)


def task_class() -> type["NeCATask"]:
    """Imports the task, which needs optax."""
    from nt_jax.families.neca.task import NeCATask

    return NeCATask


def load(metadata: Mapping[str, Any], variables: Mapping[str, Any], dtype: str) -> Loaded:
    """Builds the generator, told a reference: the gain is that of its noise."""
    from nt_jax.families.neca.networks import make_generator, make_noise

    generator = make_generator(metadata["model"], jnp.dtype(dtype))
    told = ("reference",)
    return Loaded(partial(make_noise, generator), variables["generator"], metadata, told)

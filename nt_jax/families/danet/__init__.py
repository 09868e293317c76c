"""DANet: a generator and a denoiser under one critic of pairs (Yue et al., ECCV 2020)."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from nt_jax.families.loaded import Loaded, released
from nt_jax.fields import COUNT, WEIGHT, no_average

if TYPE_CHECKING:
    from nt_jax.families.danet.task import DANetTask

__all__ = ["FIELDS", "RELATIONS", "load", "released", "task_class"]

FIELDS = {
    "model.width": COUNT,
    "model.critic_width": COUNT,
    "losses.restored": WEIGHT,
    "losses.generated": WEIGHT,
    "losses.penalty": WEIGHT,
    "train.critic_steps": COUNT,
    "train.critic_learning_rate": WEIGHT,
}


def patch_of_critic(config: Any) -> str:
    """Says what is wrong if the critic cannot halve patches down to 4 pixels a side."""
    side = config.data.patch_size
    if side >= 16 and side & (side - 1) == 0:
        return ""
    return f"config.data.patch_size={side}: the critic needs a power of two, at least 16"


RELATIONS = (no_average, patch_of_critic)


def task_class() -> type["DANetTask"]:
    """Imports the task, which needs optax."""
    from nt_jax.families.danet.task import DANetTask

    return DANetTask


def load(metadata: Mapping[str, Any], variables: Mapping[str, Any], dtype: str) -> Loaded:
    """Builds the generator, told nothing."""
    from nt_jax.families.danet.networks import UNet, make_noise

    generator = UNet(metadata["model"]["width"], jnp.dtype(dtype))
    return Loaded(partial(make_noise, generator), variables["generator"], metadata)

"""Cameras and ISOs that training has seen, by `sources.SETTINGS`, for families that know them."""

import jax
import jax.numpy as jnp

from nt_jax import prng
from nt_jax.data.catalogue.sources import SETTINGS
from nt_jax.models.parameters import Array

# Those of `SETTINGS`, and all others as one.
CLASSES = len(SETTINGS) + 1


def no_settings() -> Array:
    """Counts of before any training: int32 [CLASSES]."""
    return jnp.zeros(CLASSES, jnp.int32)


def count_settings(counts: Array, settings: Array) -> Array:
    """Adds a batch's settings, int32 [B], to the counts, int32 [CLASSES]."""
    seen = jax.nn.one_hot(settings, CLASSES, dtype=jnp.int32)
    return counts + seen.sum(axis=0, dtype=jnp.int32)


def draw_settings(counts: Array, key: Array, count: int) -> Array:
    """Draws cameras and ISOs as often as training saw them.

    Args:
      counts: [CLASSES], images of each.
      key: PRNG key.
      count: how many to draw.

    Returns:
      int32 [count]; before any training all are others.
    """
    shares = jnp.cumsum(counts.astype(jnp.float32))
    drawn = prng.uniform(key, (count,)) * shares[-1]
    numbers = (shares <= drawn[:, None]).sum(axis=1, dtype=jnp.int32)
    return jnp.minimum(numbers, CLASSES - 1)

"""Keys and random numbers: the only module that calls `jax.random`.

A draw depends on its key alone, not on the settings of the process, which no checkpoint records:

- keys are Threefry-2x32, whatever `jax_default_prng_impl` says (a caller's own key keeps its own);
- numbers are counted off one by one (`jax_threefry_partitionable`), as on several devices, whatever
  that setting says;
- floats are float32 and words uint32, whatever `jax_enable_x64` says.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

Array = jax.Array
IMPLEMENTATION = "threefry2x32"
# What the numbers of a run were drawn by: 2 since its keys are split in `keys_of_run`.
VERSION = 2


class RunKeys(NamedTuple):
    """One key for each thing of a training run that is random; none is drawn from another's.

    Attributes:
      initialisation: of parameters, spectral vectors and the queue.
      data: of crops, noise and augmentation, folded with the row's number.
      maps: of the generator's random maps, folded with the step.
      held_out: of the noise of held-out patches.
      evaluation: of the random maps of evaluations.
    """

    initialisation: Array
    data: Array
    maps: Array
    held_out: Array
    evaluation: Array


def keys_of_run(seed: int) -> RunKeys:
    """Makes the keys of a run with that seed."""
    return RunKeys(*split(key(seed), len(RunKeys._fields)))


def key(seed: int) -> Array:
    """Makes the key of a seed, 0 to 2**32 - 1."""
    return jax.random.key(np.uint32(seed), impl=IMPLEMENTATION)


def fold_in(key: Array, number: ArrayLike) -> Array:
    """Derives the key of something numbered, of 0 to 2**32 - 1."""
    return jax.random.fold_in(key, jnp.asarray(number, jnp.uint32))


def counting() -> AbstractContextManager:
    """Counts numbers off one by one, as everywhere here, in draws of other libraries inside it."""
    return jax.threefry_partitionable(True)


def split(key: Array, count: int | tuple[int, ...] = 2) -> Array:
    """Splits a key into new keys, [count]."""
    with counting():
        return jax.random.split(key, count)


def bits(key: Array, shape: Sequence[int] = ()) -> Array:
    """Draws random words, uint32."""
    with counting():
        return jax.random.bits(key, shape, jnp.uint32)


def uniform(key: Array, shape: Sequence[int] = (), low: float = 0.0, high: float = 1.0) -> Array:
    """Draws uniform numbers in [low, high), float32."""
    with counting():
        return jax.random.uniform(key, shape, jnp.float32, low, high)


def normal(key: Array, shape: Sequence[int] = ()) -> Array:
    """Draws standard normal numbers, float32."""
    with counting():
        return jax.random.normal(key, shape, jnp.float32)


def of_words(words: ArrayLike) -> Array:
    """Makes the key that has these words, uint32 [2]: the other way of `words`."""
    return jax.random.wrap_key_data(jnp.asarray(words, jnp.uint32), impl=IMPLEMENTATION)


def words(key: Array) -> np.ndarray:
    """Reads the key's own words, uint32, to seed another generator with."""
    return np.asarray(jax.random.key_data(key))

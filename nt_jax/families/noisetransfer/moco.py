"""Momentum contrast: the queue of keys and the momentum key encoder (paper section 3.1)."""

import jax
import jax.numpy as jnp

from nt_jax import prng
from nt_jax.models.parameters import Array


def init_queue(key: Array, length: int, embedding_size: int) -> Array:
    """Draws a queue [length, E] of normalised Gaussian vectors."""
    queue = prng.normal(key, (length, embedding_size))
    return queue / jnp.linalg.norm(queue, axis=1, keepdims=True)


def enqueue(queue: Array, pointer: Array, keys: Array) -> tuple[Array, Array]:
    """Writes keys [N, E] over the oldest ones; returns the queue [Q, E] and the next pointer.

    Whole batches fill the queue. A pointer between two, as a run has that once went on with another
    batch size, is set back to the first: a write beyond the end would be moved, and some rows never
    be written again.
    """
    pointer -= pointer % keys.shape[0]
    queue = jax.lax.dynamic_update_slice_in_dim(queue, keys, pointer, axis=0)
    return queue, (pointer + keys.shape[0]) % queue.shape[0]

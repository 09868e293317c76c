"""Momentum contrast: the queue of keys and the momentum key encoder (paper section 3.1)."""

import jax
import jax.numpy as jnp

from nt_jax import prng
from nt_jax.errors import InputError
from nt_jax.models.parameters import Array


def init_queue(key: Array, length: int, embedding_size: int) -> Array:
    """Queue [length, E] of normalised Gaussian vectors."""
    queue = prng.normal(key, (length, embedding_size))
    return queue / jnp.linalg.norm(queue, axis=1, keepdims=True)


def check_queue(length: int, batch_size: int) -> None:
    """Raises InputError unless whole batches fill the queue, so that no write wraps around."""
    if length % batch_size:
        raise InputError(
            f"config.model.queue_length={length} is not a multiple of"
            f" config.train.batch_size={batch_size}; change one of them"
        )


def enqueue(queue: Array, pointer: Array, keys: Array) -> tuple[Array, Array]:
    """Writes keys [N, E] over the oldest ones; returns the queue [Q, E] and the next pointer.

    Whole batches fill the queue. A pointer between two, as a run has that once went on with another
    batch size, is set back to the first: a write beyond the end would be moved, and some rows never
    be written again.
    """
    pointer -= pointer % keys.shape[0]
    queue = jax.lax.dynamic_update_slice_in_dim(queue, keys, pointer, axis=0)
    return queue, (pointer + keys.shape[0]) % queue.shape[0]

"""Checks of what a loaded model is asked for: one line says what was expected and what was seen."""

import contextlib
from collections.abc import Iterator
from typing import Any

import flax.errors
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nt_jax.arrays import as_integer, as_number, is_traced
from nt_jax.errors import InputError
from nt_jax.images import SMALLEST_SIDE
from nt_jax.inference.tiles import ALIGNMENT
from nt_jax.models.parameters import Array

_SEEDS = 2**32
_STRONGEST = float(np.finfo(np.float32).max)


@contextlib.contextmanager
def fitting_parameters() -> Iterator[None]:
    """Tells, where a network is applied, that its parameters are not those that it needs.

    Only then is it known: to find out while loading, it would have to be traced.

    Raises:
      InputError: they are not.
    """
    try:
        yield
    except (flax.errors.ScopeParamShapeError, flax.errors.ScopeParamNotFoundError) as error:
        raise InputError(
            f"the model is damaged, its parameters are not those of its model.json ({error}); "
            "make it again"
        ) from error


def check_large_enough(images: Any, name: str) -> Any:
    """Returns images [N, H, W, 3]; raises InputError if they are below 16 pixels a side."""
    if min(images.shape[1:3]) < SMALLEST_SIDE:
        raise InputError(
            f"{name}: expected sides of {SMALLEST_SIDE} pixels or more; got {list(images.shape)}"
        )
    return images


def check_options(seed: int, strength: float, images: int = 1) -> None:
    """Checks what `transfer` is asked to do with that many images.

    Raises:
      InputError: a seed, of the first or the last image, or the strength is no number or out of
        range.
    """
    if not 0 <= as_integer(seed, "seed") <= _SEEDS - images:
        raise InputError(f"seed: expected 0 to 2**32 - {images} for {images} image(s); got {seed}")
    if not 0 <= as_number(strength, "strength") <= _STRONGEST:
        raise InputError(f"strength: expected 0 to {_STRONGEST:.0e}; got {strength}")


def check_aligned(height: int, width: int, name: str) -> None:
    """Raises InputError if a network alone cannot take images of that size."""
    if height % ALIGNMENT or width % ALIGNMENT or min(height, width) < SMALLEST_SIDE:
        raise InputError(
            f"{name}: expected height and width multiples of {ALIGNMENT}, {SMALLEST_SIDE} or more; "
            f"got {height}x{width}; transfer() takes any size"
        )


def check_embedding(embedding: ArrayLike, batch: int, size: int) -> Array:
    """Checks embeddings: float [B, E], or [E] for B = 1 -> float32 [B, E]."""
    expected = (batch, size)
    try:
        array = jnp.asarray(embedding)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"embedding: expected float of shape {list(expected)}; got no array ({error})"
        ) from error
    if batch == 1 and array.ndim == 1:
        array = array.reshape(1, -1)
    if array.shape != expected or not jnp.issubdtype(array.dtype, jnp.floating):
        raise InputError(
            f"embedding: expected float of shape {list(expected)}, as embed() gives it; got "
            f"{array.dtype} of shape {list(np.shape(embedding))}"
        )
    if not is_traced(array) and not np.isfinite(np.asarray(array)).all():
        raise InputError("embedding: expected finite values; got NaN or infinity")
    return array.astype(jnp.float32)

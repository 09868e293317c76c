"""Checks on the image and noise arrays that users hand over, once, before anything is computed."""

import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nt_jax.errors import InputError

_IMAGES = "uint8 or float images in [0, 1] of shape [N, H, W, 3] or [H, W, 3]"
_NOISE = "finite float noise of shape [N, H, W, 3] or [H, W, 3]"
# A table, because XLA divides by a constant by multiplying with its reciprocal, one rounding off
# NumPy: noise that is exactly 0 must stay so whichever of the two converts an image.
_BYTE_VALUES = np.arange(256, dtype=np.float32) / np.float32(255)


def as_images(images: ArrayLike, name: str) -> jax.Array | np.ndarray:
    """Takes images as float32 [N, H, W, 3] in [0, 1]; `[H, W, 3]` gets a batch axis of one.

    `images` is uint8, or floating point in [0, 1]. NumPy stays NumPy and JAX stays JAX, on its
    device. Under a JAX trace (inside `jit`, `grad`, ...) the values do not exist yet: there shape
    and dtype are checked and the range is not.

    Raises InputError with `name` and the shape, dtype and range seen for anything else.
    """
    array = _as_rgb(images, name, _IMAGES)
    if array.dtype == np.uint8:
        take = jnp.take if isinstance(array, jax.Array) else np.take
        return _with_batch_axis(take(_BYTE_VALUES, array, axis=0))
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise _error(name, _IMAGES, array, "convert it, e.g. by dividing by its largest value")
    if not isinstance(array, jax.core.Tracer):
        low, high = _range(array)
        if math.isnan(low):
            raise _error(name, _IMAGES, array, "replace the NaN")
        if low < 0 or high > 1:
            raise _error(name, _IMAGES, array, "scale or clip it to [0, 1]")
    return _with_batch_axis(array.astype(np.float32))


def as_noise(noise: ArrayLike, name: str) -> jax.Array | np.ndarray:
    """Takes noise as float32 [N, H, W, 3].

    Like `as_images`, with any finite floating-point values.
    """
    array = _as_rgb(noise, name, _NOISE)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise _error(name, _NOISE, array, "subtract float images")
    if not isinstance(array, jax.core.Tracer) and not all(map(math.isfinite, _range(array))):
        raise _error(name, _NOISE, array, "replace NaN and infinity")
    return _with_batch_axis(array.astype(np.float32))


def is_traced(*values: Any) -> bool:
    """Tells whether a value is one that JAX traces, as inside `jit`: it has no numbers yet."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def refuse_traced(name: str, *values: Any) -> None:
    """Raises InputError where one of the arguments of `name` is traced."""
    if is_traced(*values):
        raise InputError(
            f"{name} works on arrays in tiles, not inside jit, vmap or grad: there, use "
            "generate_noise and embed, which are pure JAX, or call it outside"
        )


def as_integer(value: Any, name: str) -> int:
    """Takes an integer, Python's or an array's.

    Raises:
      InputError: it is none, such as 1.5 or "512".
    """
    try:
        return operator.index(value)
    except TypeError as error:
        raise InputError(f"{name}: expected an integer; got {value!r}") from error


def as_number(value: Any, name: str) -> float:
    """Takes a number, Python's or an array's.

    Raises:
      InputError: it is none, such as "0.5" or None.
    """
    try:
        if not isinstance(value, str):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise InputError(f"{name}: expected a number; got {value!r}")


def _as_rgb(values: ArrayLike, name: str, expected: str) -> jax.Array | np.ndarray:
    if not isinstance(values, jax.Array):
        try:
            values = np.asarray(values)
        except ValueError as error:  # a list of images of different sizes
            raise InputError(f"{name}: expected {expected}; got no array ({error})") from error
    if values.ndim not in (3, 4) or values.shape[-1] != 3:
        raise _error(name, expected, values, "put the channels last, three of them")
    if values.size == 0:
        raise _error(name, expected, values, "it holds no pixels")
    return values


def _with_batch_axis(array: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
    return array if array.ndim == 4 else array[None]


def _range(array: jax.Array | np.ndarray) -> tuple[float, float]:
    """Finds the smallest and the largest value; NaN if there is one."""
    return float(array.min()), float(array.max())


def _error(name: str, expected: str, array: jax.Array | np.ndarray, mend: str) -> InputError:
    seen = f"{array.dtype} of shape {list(array.shape)}"
    real = jnp.issubdtype(array.dtype, jnp.integer) or jnp.issubdtype(array.dtype, jnp.floating)
    if real and array.size and not isinstance(array, jax.core.Tracer):
        low, high = _range(array)
        seen += f" with values in [{low:g}, {high:g}]"
    return InputError(f"{name}: expected {expected}; got {seen}: {mend}")

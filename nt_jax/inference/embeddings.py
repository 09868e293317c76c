"""Embeddings as vectors: their average, what lies between two, and the direction of the level.

An embedding [E] has values between -1 and 1 (bound `tanh`) or unit length (bound `l2`). What is
computed from embeddings is put back onto that bound, as the networks know nothing beyond it.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nt_jax.arrays import as_number, is_traced
from nt_jax.errors import InputError
from nt_jax.images import SMALLEST_SIDE
from nt_jax.inference.tiles import ALIGNMENT, evenly_spaced
from nt_jax.models.discriminator import bound_embedding
from nt_jax.models.networks import Networks, embed
from nt_jax.models.parameters import Array, Tree

# Noise levels put on a photograph to see where its embedding goes, 0 to 255 scale.
LEVELS = (5.0, 15.0, 25.0, 35.0, 50.0)
# Middle of a photograph that is used: what is more costs time and tells little.
_SIDE = 256
# A reference is embedded by at most as many pixels as a square of this side has.
_EMBEDDED_SIDE = 1024


def crop_of_trained(patch_size: int) -> int:
    """Computes the side of the crops that references are embedded by.

    That is, after training on patches of `patch_size` pixels a side.
    """
    return max(patch_size, SMALLEST_SIDE)


def reference_crops(images: Any, side: int) -> list[Any]:
    """Cuts a reference [N, H, W, 3], or one image [H, W, 3] or [H, W], into pieces to embed.

    Along an axis of up to `side` pixels there is one piece, less what is beyond a multiple of 4;
    along a longer one evenly spaced pieces of that side, which cover it up to 1024 pixels and of
    which there are no more beyond: constant memory and time.
    """
    axis = 1 if images.ndim == 4 else 0
    before = (slice(None),) * axis
    height, width = images.shape[axis : axis + 2]
    return [
        images[(*before, row, column)]
        for row in _pieces(height, side)
        for column in _pieces(width, side)
    ]


def reference_mosaic(image: np.ndarray, side: int) -> np.ndarray:
    """Puts the pieces that `reference_crops` cuts an image into together: it cuts them again.

    Args:
      image: [H, W, 3] or [H, W].
      side: of the pieces.

    Returns:
      Of its type, as many pixels as all pieces.
    """
    rows, columns = (
        np.concatenate([np.arange(size)[piece] for piece in _pieces(size, side)])
        for size in image.shape[:2]
    )
    return image[np.ix_(rows, columns)]


def embed_by_crops(networks: Networks, params: Tree, images: Array, side: int) -> Array:
    """Averages of the embeddings of all crops of images [N, H, W, 3] -> [N, E].

    Args:
      networks: the modules.
      params: of the key encoder, spectrally normalised.
      images: in [0, 1].
      side: of the crops, see `reference_crops`.
    """
    crops = stacked_crops(images, side)
    embeddings = embed(networks, params, crops.reshape(-1, *crops.shape[2:]))
    return average(embeddings.reshape(*crops.shape[:2], -1), networks.discriminator.bound)


def stacked_crops(images: Array, side: int) -> Array:
    """Cuts images [N, H, W, 3] as `embed_by_crops`: K pieces of each, [K, N, h, w, 3]."""
    return jnp.stack(reference_crops(images, side))


def _pieces(size: int, side: int) -> list[slice]:
    if size <= side:
        return [slice(0, size // ALIGNMENT * ALIGNMENT)]
    return evenly_spaced(size, side, -(-min(size, _EMBEDDED_SIDE) // side))


def average(embeddings: Sequence[ArrayLike] | Array | np.ndarray, bound: str) -> Array:
    """Averages embeddings [..., E], on the bound; one alone stays as it is."""
    if len(embeddings) == 1:
        return jnp.asarray(embeddings[0])
    return _mean(jnp.asarray(embeddings), bound)


@partial(jax.jit, static_argnums=1)
def _mean(embeddings: Array, bound: str) -> Array:
    return _onto(jnp.mean(embeddings, axis=0), bound)


def interpolate(a: ArrayLike, b: ArrayLike, weight: float, bound: str) -> Array:
    """Mixes two, (1 - weight) * a + weight * b, on the bound: the average in unequal parts.

    For `l2` the way is that of spherical interpolation, the great circle, but not in even steps: so
    a weight is a share in both bounds, and 0.5 is `average`.

    Args:
      a, b: float [..., E], of one shape.
      weight: of `b`, 0 to 1.
      bound: `tanh` or `l2`.

    Raises:
      InputError: an argument is none of the above, or the embeddings are opposite.
    """
    first, second = _pair(a, b, "a", "b")
    if not is_traced(weight) and not 0 <= as_number(weight, "weight") <= 1:
        raise InputError(f"weight: expected 0 (all a) to 1 (all b); got {weight}")
    mixed = (1 - weight) * first + weight * second
    if (
        bound == "l2"
        and not is_traced(mixed)
        and bool((jnp.linalg.norm(mixed, axis=-1) < 1e-6).any())
    ):
        raise InputError("a and b are opposite: nothing lies between them; choose other references")
    return _onto(mixed, bound)


def shift(embedding: ArrayLike, direction: ArrayLike, amount: float, bound: str) -> Array:
    """Adds amount * direction to an embedding, on the bound: cut to [-1, 1], or of unit length.

    Args:
      embedding, direction: float [..., E], of one shape.
      amount: any finite number.
      bound: `tanh` or `l2`.

    Raises:
      InputError: an argument is none of the above.
    """
    start, step = _pair(embedding, direction, "embedding", "direction")
    if not is_traced(amount) and not math.isfinite(as_number(amount, "amount")):
        raise InputError(f"amount: expected a finite number; got {amount}")
    return _onto(start + amount * step, bound)


def level_direction(embeddings: ArrayLike, levels: ArrayLike) -> Array:
    """Fits how embeddings change per unit of noise level: the slope of the least-squares line.

    Where every photograph has every level, its own place among the embeddings cancels.

    Args:
      embeddings: float [N, E], of noisy images.
      levels: [N], standard deviation of the noise in each, 0 to 255 scale; two or more differ.

    Returns:
      float32 [E]: what one more of level adds to an embedding on average.

    Raises:
      InputError: an argument is none of the above.
    """
    vectors = np.asarray(_checked(embeddings, "embeddings"), np.float64)
    values = np.asarray(levels, np.float64)
    if vectors.ndim != 2 or values.shape != vectors.shape[:1]:
        raise InputError(
            f"expected embeddings [N, E] and levels [N]; got {list(vectors.shape)} and "
            f"{list(values.shape)}"
        )
    if not np.isfinite(values).all() or np.ptp(values) == 0:
        raise InputError("levels: expected finite numbers, two or more of them different")
    centred = values - values.mean()
    return jnp.asarray(centred @ vectors / (centred @ centred), jnp.float32)


def noisy_copies(photo: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Adds white Gaussian noise of growing level to a photograph, or to the middle of a large one.

    One draw is scaled to all levels, so that the copies differ in nothing else.

    Args:
      photo: clean, float32 [H, W, 3] in [0, 1].
      rng: of the noise.

    Returns:
      Copies, float32 [L, h, w, 3] in [0, 1]; and the level of each after clipping, 0 to 255, [L].
    """
    top, left = (max(0, (side - _SIDE) // 2) for side in photo.shape[:2])
    clean = photo[top : top + _SIDE, left : left + _SIDE]
    noise = rng.standard_normal(clean.shape, np.float32)
    copies = np.stack([np.clip(clean + level / 255 * noise, 0, 1) for level in LEVELS])
    copies = copies.astype(np.float32)
    return copies, 255 * (copies - clean).std(axis=(1, 2, 3))


def _onto(values: Array, bound: str) -> Array:
    """Finds the nearest embeddings on the bound."""
    return jnp.clip(values, -1, 1) if bound == "tanh" else bound_embedding(values, bound)


def _pair(a: ArrayLike, b: ArrayLike, name_a: str, name_b: str) -> tuple[Array, Array]:
    first, second = _checked(a, name_a), _checked(b, name_b)
    if first.shape != second.shape:
        raise InputError(
            f"{name_a} and {name_b} must have one shape, as embed() gives it; got "
            f"{list(first.shape)} and {list(second.shape)}"
        )
    return first, second


def _checked(values: ArrayLike, name: str) -> Array:
    try:
        array = jnp.asarray(values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: expected float [..., E]; got no array ({error})") from error
    if array.ndim == 0 or not jnp.issubdtype(array.dtype, jnp.floating):
        raise InputError(
            f"{name}: expected float [..., E], as embed() gives it; got {array.dtype} of shape "
            f"{list(array.shape)}"
        )
    if not is_traced(array) and not np.isfinite(np.asarray(array)).all():
        raise InputError(f"{name}: expected finite values; got NaN or infinity")
    return array.astype(jnp.float32)

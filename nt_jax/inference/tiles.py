"""Tiles with a halo, and random maps as a function of seed, layer and absolute position.

The generator has no normalisation, so what it computes at a pixel depends on a neighbourhood only.
A window that holds this neighbourhood, or ends where the image ends, gives exactly the whole
image's result inside, provided its random maps are the same there.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry2x32_p
from jax.typing import ArrayLike

from nt_jax.images import to_float
from nt_jax.models.generator import LEVEL_SCALES, blocks_of_levels
from nt_jax.models.parameters import Array

# The two stride-2 convolutions halve twice: sizes and positions of windows are multiples of this.
ALIGNMENT = 4
DEFAULT_TILE = 512
_TILE_STEP = 64

# As a decorator: products in full float32. An accelerator's default for convolutions has 10 bits of
# mantissa or fewer, with which a result would depend on the tile.
full_float32 = jax.default_matmul_precision("float32")


class Window(NamedTuple):
    """One axis of a tile: the network sees [start, stop), of which [keep_start, keep_stop) counts.

    What lies before 0 or beyond the image is its reflection. For the generator multiples of 4.
    """

    start: int
    stop: int
    keep_start: int
    keep_stop: int


class Tile(NamedTuple):
    """A finished piece of an image: rows, columns and its pixels, float32 [h, w, 3]."""

    rows: slice
    columns: slice
    pixels: np.ndarray


def evenly_spaced(size: int, side: int, count: int) -> list[slice]:
    """Cuts `count` pieces of one axis, two or more, of `side` pixels each, from start to end."""
    starts = [index * (size - side) // (count - 1) for index in range(count)]
    return [slice(start, start + side) for start in starts]


def round_up(size: int, multiple: int = ALIGNMENT) -> int:
    """Rounds a size up to the next multiple."""
    return -(-size // multiple) * multiple


def receptive_radius(blocks: tuple[int, int, int]) -> int:
    """Computes how many pixels away the clean image can change the generator's output.

    Walks from the output back to the input, as intervals at each level's own resolution, for each
    of the four positions an output pixel can have relative to the strides.

    Args:
      blocks: residual blocks of levels 1, 2 and 3.
    """
    first, second, third = (2 * count for count in blocks)

    def up(low: int, high: int) -> tuple[int, int]:  # outputs 2i - 1 ... 2i + 2 read input i
        return (low - 1) // 2, (high + 1) // 2

    def down(low: int, high: int) -> tuple[int, int]:  # output i reads input 2i - 1 ... 2i + 2
        return 2 * low - 1, 2 * high + 2

    radius = 0
    for position in range(ALIGNMENT):
        low, high = up(position - first - 1, position + first + 1)
        low, high = up(low - second - 1, high + second + 1)
        low, high = down(low - third, high + third)
        low, high = down(low - second, high + second)
        low, high = low - first - 1, high + first + 1
        radius = max(radius, position - low, high - position)
    return radius


def even_tile(size: int, tile: int, halo: int) -> int:
    """Finds the smallest tile that `split` makes as many windows of, in multiples of 64.

    So windows overlap no more than they must, and images of similar size share a program.
    """
    count = _count(size, tile, halo)
    return min(tile, round_up(-(-(size - 2 * halo) // count), _TILE_STEP)) if count > 1 else tile


def split(size: int, tile: int, halo: int) -> list[Window]:
    """Splits one axis into windows, all of one length so that one compiled program serves them.

    Args:
      size: length of the axis. Windows are multiples of what all three arguments are.
      tile: what a window adds between its halos.
      halo: of both sides. Windows at the image's ends have none there and keep more instead.
    """
    count = _count(size, tile, halo)
    if count == 1:
        return [Window(0, size, 0, size)]
    length = tile + 2 * halo
    cuts = [0, *(index * tile + halo for index in range(1, count)), size]
    starts = [min(index * tile, size - length) for index in range(count)]
    return [
        Window(start, start + length, low, high)
        for start, low, high in zip(starts, cuts, cuts[1:], strict=False)
    ]


def _count(size: int, tile: int, halo: int) -> int:
    """Counts the windows of one axis: those at its ends have no halo there and keep more."""
    return max(-(-(size - 2 * halo) // tile), 1)


def framed(size: int, tile: int, halo: int) -> list[Window]:
    """Splits one axis into windows with a halo on both sides, the image's ends included.

    So no window shows a network the end of the image, where its zero padding would leave a frame.

    Args:
      size: length of the axis.
      tile: what a window keeps.
      halo: of both sides; the image is reflected by as much. Windows are multiples of 4 where all
        three arguments are.
    """
    tile = min(tile, size)
    starts = [min(start, size - tile) for start in range(0, size, tile)]
    ends = [*starts[1:], size]
    return [
        Window(start - halo, start + tile + halo, start, end)
        for start, end in zip(starts, ends, strict=True)
    ]


def over_tiles(
    image: np.ndarray,
    windows: list[tuple[Window, Window]],
    function: Callable[[np.ndarray, Window, Window], np.ndarray],
    clipped: bool = True,
) -> Iterator[Tile]:
    """Works through an image window by window, so that it is never held as float.

    Args:
      image: [H, W, 3] or grey [H, W]; uint8, uint16 or float in [0, 1].
      windows: (vertical, horizontal); reflection fills what they reach beyond the image.
      function: (window's content float32 [h, w, 3], vertical, horizontal) -> its result, the same
        shape.
      clipped: whether results are clipped to [0, 1].

    Yields:
      The pieces, which cover the image once.
    """
    height, width = image.shape[:2]
    for row, column in windows:
        (top, bottom), (left, right) = _beyond(row, height), _beyond(column, width)
        inside = image[
            row.start + top : row.stop - bottom, column.start + left : column.stop - right
        ]
        padded = np.pad(to_float(inside), ((top, bottom), (left, right), (0, 0)), mode="reflect")
        result = function(padded, row, column)
        rows = slice(row.keep_start, min(row.keep_stop, height))
        columns = slice(column.keep_start, min(column.keep_stop, width))
        kept = result[
            rows.start - row.start : rows.stop - row.start,
            columns.start - column.start : columns.stop - column.start,
        ]
        yield Tile(rows, columns, np.clip(kept, 0, 1) if clipped else kept)


def _beyond(window: Window, size: int) -> tuple[int, int]:
    """Counts the pixels of a window that lie before and beyond the image."""
    return max(0, -window.start), max(0, window.stop - size)


def seeded_maps(
    seed: ArrayLike,
    origin: tuple[ArrayLike, ArrayLike],
    height: int,
    width: int,
    blocks: tuple[int, int, int],
) -> tuple[Array, ...]:
    """Draws the generator's random maps, N(0, 1), of one window by seed, map and position alone.

    Threefry-2x32 (Salmon et al., SC 2011) of `jax.random`, applied to the position: the key is
    (seed, block), the counter (y, x) at the level's resolution, and the two words it returns are
    the block's two maps. So a window draws exactly its own values, whatever the window.

    Args:
      seed: uint32, may be traced.
      origin: (y, x) of the window in the image, multiples of 4, may be traced.
      height, width: of the window, multiples of 4.
      blocks: residual blocks of levels 1, 2 and 3.

    Returns:
      [1, h, w, 1] each, in the generator's call order.
    """
    return unstack(stacked_maps(seed, origin, height, width, blocks), blocks)


def stacked_maps(
    seed: ArrayLike,
    origin: tuple[ArrayLike, ArrayLike],
    height: int,
    width: int,
    blocks: tuple[int, int, int],
) -> tuple[tuple[Array, Array], ...]:
    """Draws `seeded_maps` by scale 1, 2 and 4: first and second maps of its blocks, [n, h, w] each.

    Compile this by itself: compiled along with `unstack`, the whole generator of random numbers is
    compiled again for each of the 32 maps, which takes as long as all convolutions.
    """
    seed = jnp.asarray(seed, jnp.uint32)
    top, left = (jnp.asarray(value, jnp.uint32) for value in origin)
    stacks = []
    for scale, indices in _blocks_by_scale(blocks).items():
        block = jnp.array(indices, jnp.uint32)[:, None, None]
        y = (top // scale + jnp.arange(height // scale, dtype=jnp.uint32))[None, :, None]
        x = (left // scale + jnp.arange(width // scale, dtype=jnp.uint32))[None, None, :]
        words = jnp.broadcast_arrays(seed[None, None, None], block, y, x)
        first, second = threefry2x32_p.bind(*words)
        stacks.append((_normal(first), _normal(second)))
    return tuple(stacks)


def unstack(
    stacks: tuple[tuple[Array, Array], ...], blocks: tuple[int, int, int]
) -> tuple[Array, ...]:
    """Turns `stacked_maps` into what the generator takes: [1, h, w, 1] each, in call order."""
    pairs = {
        index: (first[place, :, :][None, ..., None], second[place, :, :][None, ..., None])
        for (first, second), indices in zip(stacks, _blocks_by_scale(blocks).values(), strict=True)
        for place, index in enumerate(indices)
    }
    return tuple(values for index in sorted(pairs) for values in pairs[index])


def _blocks_by_scale(blocks: tuple[int, int, int]) -> dict[int, list[int]]:
    """Lists the call-order indices of the residual blocks that run at full size / 1, 2 and 4."""
    scales = np.repeat(LEVEL_SCALES, blocks_of_levels(blocks))
    return {scale: np.flatnonzero(scales == scale).tolist() for scale in sorted(set(LEVEL_SCALES))}


def _normal(bits: Array) -> Array:
    """Turns uint32 into standard normal float32 by the inverse error function.

    As `jax.random.normal` does it.
    """
    # 23 bits as the mantissa of a float in [1, 2); half a step keeps clear of -1 and 1.
    mantissa = (bits >> np.uint32(9)) | np.uint32(0x3F800000)
    unit = jax.lax.bitcast_convert_type(mantissa, jnp.float32) - np.float32(1 - 2.0**-24)
    return np.float32(np.sqrt(2)) * jax.lax.erf_inv(2 * unit - 1)

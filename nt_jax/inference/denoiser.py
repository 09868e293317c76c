"""A trained denoiser, loaded: small images whole, large ones in tiles.

Convolutions look `radius` pixels around, so tiles with a halo of that width lose nothing. Networks
that work on cells of several pixels need sizes and positions that are multiples of these: an image
goes on as its own reflection until it is large enough. RIDNet's channel attention does not fit into
tiles: it scales the channels of each block
by a function of their averages over the image. Averages over each tile would make the result
depend on the tile and leave seams. So the averages are found first, once for the image, and all
tiles use them. They are exact for an image of up to 512x512 pixels, the sizes that published
figures are measured on; of a larger one they are taken over 16 evenly spaced crops of 128x128,
as many pixels as of a whole 512x512 image, in one further pass. (Training sees averages over 80x80
patches, so neither is more faithful.)
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nt_jax.arrays import as_images, as_integer, is_traced
from nt_jax.compilation import Program
from nt_jax.errors import InputError
from nt_jax.images import SMALLEST_SIDE, to_float
from nt_jax.inference.checks import fitting_parameters
from nt_jax.inference.processes import check_process
from nt_jax.inference.tiles import (
    DEFAULT_TILE,
    Tile,
    Window,
    evenly_spaced,
    full_float32,
    over_tiles,
    round_up,
    split,
)
from nt_jax.models.denoisers import DenoiserNetwork
from nt_jax.models.parameters import Array, Tree
from nt_jax.models.ridnet import RIDNet, attention_means

_POOLED_WHOLE = 512 * 512
_CROP_SIDE = 128
_CROPS = 4


@dataclass(frozen=True, eq=False)
class Denoiser:
    """A denoiser. Make one with `nt_jax.load_denoiser`.

    Attributes:
      network: the module.
      params: its parameters.
      metadata: what the denoiser's folder says about it.
    """

    network: DenoiserNetwork
    params: Tree
    metadata: Mapping[str, Any]

    def __call__(self, noisy: ArrayLike) -> Array:
        """Denoises images: [H, W, 3] or [N, H, W, 3] -> the same shape, float32 in [0, 1].

        Images of more than 512x512 pixels go through `denoise_tiles`, which needs actual arrays:
        call it outside of `jit` for them.

        Args:
          noisy: uint8 or float in [0, 1].
        """
        check_process()
        images = as_images(noisy, "noisy")
        if _is_pooled_whole(*images.shape[1:3]):
            clean = _denoise(self.network, self.params, images, None)
        else:
            if is_traced(images):
                raise InputError(
                    "noisy: above 512x512 pixels a denoiser works in tiles, not inside jit, vmap "
                    "or grad: call it outside, or on smaller images"
                )
            clean = jnp.stack([self._by_tiles(image) for image in np.asarray(images)])
        return clean if np.ndim(noisy) == 4 else clean[0]

    def _by_tiles(self, noisy: np.ndarray) -> np.ndarray:
        clean = np.empty_like(noisy)
        for part in self.denoise_tiles(noisy):
            clean[part.rows, part.columns] = part.pixels
        return clean

    def denoise_tiles(self, noisy: np.ndarray, *, tile: int = DEFAULT_TILE) -> Iterator[Tile]:
        """Denoises an image piece by piece, in bounded memory.

        The result does not depend on `tile`, up to 1e-5.

        Args:
          noisy: [H, W, 3] or grey [H, W]; uint8, uint16 or float in [0, 1], not checked further.
          tile: pixels a side processed at a time, 16 or more; sets the memory needed.

        Yields:
          The pieces, which cover the image once.
        """
        check_process()
        height, width = noisy.shape[:2]
        windows = self.windows(height, width, tile)
        whole = len(windows) == 1 and _is_pooled_whole(height, width)
        means = self._means(noisy) if isinstance(self.network, RIDNet) and not whole else None

        def denoise(inputs: np.ndarray, row: Window, column: Window) -> np.ndarray:
            del row, column
            return np.asarray(_denoise(self.network, self.params, inputs[None], means))[0]

        return over_tiles(noisy, windows, denoise)

    def windows(
        self, height: int, width: int, tile: int = DEFAULT_TILE
    ) -> list[tuple[Window, Window]]:
        """Lists the (vertical, horizontal) windows `denoise_tiles` works through."""
        if as_integer(tile, "tile") < SMALLEST_SIDE:
            raise InputError(f"tile: expected {SMALLEST_SIDE} or more; got {tile}")
        multiple = self.network.alignment
        tile, halo = (round_up(size, multiple) for size in (tile, self.network.radius))
        rows, columns = (split(round_up(size, multiple), tile, halo) for size in (height, width))
        return [(row, column) for row in rows for column in columns]

    def _means(self, noisy: np.ndarray) -> tuple[Array, ...]:
        """Computes what attention averages, over the image or its crops."""
        height, width = noisy.shape[:2]
        rows, columns = [slice(0, height)], [slice(0, width)]
        if not _is_pooled_whole(height, width):
            rows, columns = _crops(height), _crops(width)
        crops = np.stack([to_float(noisy[row, column]) for row in rows for column in columns])
        return _attention_means(self.network, self.params, crops)


def _is_pooled_whole(height: int, width: int) -> bool:
    return height * width <= _POOLED_WHOLE


def _crops(size: int) -> list[slice]:
    """Cuts one axis: all of it, or 4 evenly spaced pieces."""
    if size <= _CROP_SIDE:
        return [slice(0, size)]
    return evenly_spaced(size, _CROP_SIDE, _CROPS)


@Program
@fitting_parameters()
@full_float32
def _denoise(
    network: DenoiserNetwork, params: Tree, images: Array, means: tuple[Array, ...] | None
) -> Array:
    _, height, width, _ = images.shape
    down, right = (round_up(size, network.alignment) - size for size in (height, width))
    images = jnp.pad(images, ((0, 0), (0, down), (0, right), (0, 0)), mode="reflect")
    arguments = () if means is None else (means,)
    clean = jnp.asarray(network.apply({"params": params}, images, *arguments))
    return jnp.clip(clean[:, :height, :width], 0, 1)


@Program
@fitting_parameters()
@full_float32
def _attention_means(network: RIDNet, params: Tree, images: Array) -> tuple[Array, ...]:
    return attention_means(network, params, images)

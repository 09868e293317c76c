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

A conditioned denoiser reads the noise's power spectrum off the image first, on the same crops that
a reference is embedded by: they too are of the whole image, whatever the tiles.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any, NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nt_jax import spectra
from nt_jax.arrays import as_images, as_integer, as_number, is_traced
from nt_jax.compilation import Program
from nt_jax.errors import InputError
from nt_jax.images import SMALLEST_SIDE, to_float
from nt_jax.inference.checks import fitting_parameters
from nt_jax.inference.embeddings import reference_mosaic, stacked_crops
from nt_jax.inference.processes import check_process
from nt_jax.inference.tiles import (
    DEFAULT_TILE,
    Tile,
    Window,
    even_tile,
    evenly_spaced,
    full_float32,
    over_tiles,
    round_up,
    split,
)
from nt_jax.models.denoisers import DenoiserNetwork
from nt_jax.models.noise_reader import NoiseReader, read_noise
from nt_jax.models.parameters import Array, Tree
from nt_jax.models.ridnet import RIDNet, attention_means

_POOLED_WHOLE = 512 * 512
_CROP_SIDE = 128
_CROPS = 4
# With its halos a tile is then 1.36 times the work.
_HALOS_OF_A_TILE = 12
# Small crops are from more places of a photo.
_LARGEST_READ = 64
# Factor on the level that is read, or its inverse.
_STRONGEST = 4.0

# What a denoiser's folder says of the data and terms that it owes, and of those before it.
LINEAGE = ("recipe", "terms", "adapted", "began_from")
# Its network's name in a denoiser's folder.
READER = "spectrum_reader"

_Images = TypeVar("_Images", Array, np.ndarray)

# Whether to flip vertically, horizontally and, after that, to transpose; the first does nothing.
Turn = tuple[bool, ...]
_TURNS: tuple[Turn, ...] = tuple(product((False, True), repeat=3))


class SpectrumReader(NamedTuple):
    """Reads a noisy image's power spectrum for a denoiser that is conditioned on it.

    Attributes:
      network: the module.
      params: its parameters.
      patch_size: side of the patches that it was trained on, pixels.
    """

    network: NoiseReader
    params: Tree
    patch_size: int

    @property
    def side(self) -> int:
        """Side of the crops of a photo that it reads together, pixels."""
        return min(self.patch_size, _LARGEST_READ)


@dataclass(frozen=True, eq=False)
class Denoiser:
    """A denoiser. Make one with `nt_jax.load_denoiser`.

    Attributes:
      network: the module.
      params: its parameters.
      metadata: what the denoiser's folder says about it.
      reader: what reads the noise that the network is conditioned on; None of a blind network.
      condition: of the photos that it was adapted to, or is `knowing`, on average, float32
        [spectra.CONDITIONS]; None of any other.
    """

    network: DenoiserNetwork
    params: Tree
    metadata: Mapping[str, Any]
    reader: SpectrumReader | None = None
    condition: np.ndarray | None = None

    @property
    def variables(self) -> dict[str, Tree]:
        """Lists the parameters by network name, as the denoiser's folder has them."""
        reader = {} if self.reader is None else {READER: self.reader.params}
        return {"denoiser": self.params} | reader

    @property
    def fixed(self) -> "Denoiser":
        """The same under one condition, for programs that read no noise: `condition`, or none."""
        if not self.network.conditions:
            return self
        params = {}
        for layer, leaves in self.params.items():
            kernel, bias = leaves["kernel"], leaves["bias"]
            if self.condition is not None:
                kernel = kernel * jnp.exp(self.condition @ leaves["gain"])
                bias = bias + self.condition @ leaves["condition"]
            params[layer] = {"kernel": kernel, "bias": bias}
        return replace(self, network=self.network.clone(conditions=0), params=params, reader=None)

    def knowing(self, photos: Iterable[np.ndarray], strength: float = 1.0) -> "Denoiser":
        """Takes the noise of photos, on average, as `condition`: for programs that read no noise.

        Args:
          photos: as for `denoise_tiles`.
          strength: as for a call.

        Raises:
          InputError: a wrong strength, or nothing can be read off them.
        """
        if self.reader is None:
            raise InputError("this denoiser is blind: it reads no noise off photos")
        conditions = (self.read(photo, strength) for photo in photos)
        read = [condition for condition in conditions if condition is not None]
        if not read:
            side = self.reader.side
            raise InputError(f"no photo has the {side}x{side} pixels that noise is read off")
        return replace(self, condition=np.asarray(jnp.concatenate(read).mean(0)))

    def __call__(self, noisy: ArrayLike, *, ensemble: bool = False, strength: float = 1.0) -> Array:
        """Denoises images: [H, W, 3] or [N, H, W, 3] -> the same shape, float32 in [0, 1].

        Images of more than 512x512 pixels go through `denoise_tiles`, which needs actual arrays:
        call it outside of `jit` for them.

        Args:
          noisy: uint8 or float in [0, 1].
          ensemble: average the results of the image in all eight orientations, turned back: eight
            times the work, for a better result (geometric self-ensemble, Lim et al., CVPRW 2017).
          strength: factor on the level of the noise that is read, 1/4 to 4: above 1 more is taken
            away, below less. 1 is the only one of a blind denoiser.

        Raises:
          InputError: an argument is none of the above.
        """
        check_process()
        images = as_images(noisy, "noisy")
        self.check_strength(strength)
        if _is_pooled_whole(*images.shape[1:3]):
            condition = self._condition(images, strength)
            if ensemble:
                # So that the grid of the network's cells is the same in all orientations.
                aligned = _aligned(images, self.network.alignment)
                clean = self._mean_over(aligned, _TURNS, [None] * len(_TURNS), condition)
                clean = clean[:, : images.shape[1], : images.shape[2]]
            else:
                clean = _denoise(self.network, self.params, images, None, condition)
        else:
            if is_traced(images):
                raise InputError(
                    "noisy: above 512x512 pixels a denoiser works in tiles, not inside jit, vmap "
                    "or grad: call it outside, or on smaller images"
                )
            clean = jnp.stack(
                [self._by_tiles(image, ensemble, strength) for image in np.asarray(images)]
            )
        return clean if np.ndim(noisy) == 4 else clean[0]

    def check_strength(self, strength: float) -> None:
        """Raises InputError if a strength is none, or none of this denoiser."""
        if is_traced(strength):
            return
        if not 1 / _STRONGEST <= as_number(strength, "strength") <= _STRONGEST:
            raise InputError(f"strength: expected 1/4 to 4; got {strength}")
        if strength != 1 and self.reader is None:
            raise InputError("strength: this denoiser is blind, its only strength is 1")

    def _condition(self, images: Array | np.ndarray, strength: float) -> Array | None:
        """Reads what the network is conditioned on off images [N, H, W, 3]; None of a blind one.

        Images smaller than the reader's crops are unlike all that it has seen, so nothing is read
        off them either.
        """
        if self.reader is None or min(images.shape[1:3]) < self.reader.side:
            return None
        network, params, _ = self.reader
        return _read_condition((network, self.reader.side), params, images, jnp.float32(strength))

    def read(self, noisy: np.ndarray, strength: float = 1.0) -> Array | None:
        """Reads what the network is conditioned on off one image of any size.

        Args:
          noisy: as for `denoise_tiles`.
          strength: as for a call.

        Returns:
          float32 [1, spectra.CONDITIONS]; None of a blind denoiser, and of an image that is
          smaller than the reader's crops.

        Raises:
          InputError: a wrong strength.
        """
        check_process()
        self.check_strength(strength)
        if self.reader is None:
            return None
        mosaic = to_float(reference_mosaic(noisy, self.reader.side))
        return self._condition(mosaic[None], strength)

    def _by_tiles(self, noisy: np.ndarray, ensemble: bool, strength: float) -> np.ndarray:
        clean = np.empty_like(noisy)
        for part in self.denoise_tiles(noisy, ensemble=ensemble, strength=strength):
            clean[part.rows, part.columns] = part.pixels
        return clean

    def _mean_over(
        self,
        images: Array,
        turns: Sequence[Turn],
        means: Sequence[tuple[Array, ...] | None],
        condition: Array | None,
    ) -> Array:
        """Averages results of aligned images over orientations, each with its `_means` or None."""
        denoise = partial(_denoise, self.network, self.params)
        cleans = [
            _turned_back(denoise(_turned(images, turn), mean, condition), turn)
            for turn, mean in zip(turns, means, strict=True)
        ]
        # Of one: no operation that would have to be compiled.
        return sum(cleans[1:], cleans[0]) / len(cleans) if cleans[1:] else cleans[0]

    def denoise_tiles(
        self,
        noisy: np.ndarray,
        *,
        tile: int | None = None,
        ensemble: bool = False,
        strength: float = 1.0,
    ) -> Iterator[Tile]:
        """Denoises an image piece by piece, in bounded memory.

        The result does not depend on `tile`, up to 1e-5.

        Args:
          noisy: [H, W, 3] or grey [H, W]; uint8, uint16 or float in [0, 1], not checked further.
          tile: pixels a side processed at a time at most, 16 or more; sets the memory needed. By
            default 512, or twelve times as many as the network looks around.
          ensemble, strength: as for a call.

        Yields:
          The pieces, which cover the image once.
        """
        height, width = noisy.shape[:2]
        windows = self.windows(height, width, tile)
        condition = self.read(noisy, strength)
        whole = len(windows) == 1 and _is_pooled_whole(height, width)
        turns = _TURNS if ensemble else _TURNS[:1]
        means: list[tuple[Array, ...] | None] = [None] * len(turns)
        if isinstance(self.network, RIDNet) and not whole:
            means = [self._means(_turned(noisy[None], turn)[0]) for turn in turns]

        def denoise(inputs: np.ndarray, row: Window, column: Window) -> np.ndarray:
            del row, column
            images = jnp.asarray(inputs[None])
            return np.asarray(self._mean_over(images, turns, means, condition))[0]

        return over_tiles(noisy, windows, denoise)

    def windows(
        self, height: int, width: int, tile: int | None = None
    ) -> list[tuple[Window, Window]]:
        """Lists the (vertical, horizontal) windows `denoise_tiles` works through."""
        if tile is None:
            tile = max(DEFAULT_TILE, _HALOS_OF_A_TILE * self.network.radius)
        if as_integer(tile, "tile") < SMALLEST_SIDE:
            raise InputError(f"tile: expected {SMALLEST_SIDE} or more; got {tile}")
        multiple = self.network.alignment
        tile, halo = (round_up(size, multiple) for size in (tile, self.network.radius))
        sides = (round_up(size, multiple) for size in (height, width))
        rows, columns = (split(side, even_tile(side, tile, halo), halo) for side in sides)
        return [(row, column) for row in rows for column in columns]

    def _means(self, noisy: np.ndarray) -> tuple[Array, ...]:
        """Computes what attention averages, over the image or its crops."""
        height, width = noisy.shape[:2]
        rows, columns = [slice(0, height)], [slice(0, width)]
        if not _is_pooled_whole(height, width):
            rows, columns = _crops(height), _crops(width)
        crops = np.stack([to_float(noisy[row, column]) for row in rows for column in columns])
        return _attention_means(self.network, self.params, crops)


def _turned(images: _Images, turn: Turn) -> _Images:
    """Turns images [N, H, W, ...], NumPy's or JAX's."""
    if not any(turn):
        return images
    down, across, transposed = turn
    images = images[:, :: -1 if down else 1, :: -1 if across else 1]
    return images.swapaxes(1, 2) if transposed else images


def _turned_back(images: _Images, turn: Turn) -> _Images:
    if not any(turn):
        return images
    down, across, transposed = turn
    images = images.swapaxes(1, 2) if transposed else images
    return images[:, :: -1 if down else 1, :: -1 if across else 1]


def _aligned(images: Array | np.ndarray, multiple: int) -> Array:
    """Reflects images [N, H, W, 3] at the bottom and on the right up to such a size."""
    down, right = (round_up(size, multiple) - size for size in images.shape[1:3])
    return jnp.pad(images, ((0, 0), (0, down), (0, right), (0, 0)), mode="reflect")


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
    network: DenoiserNetwork,
    params: Tree,
    images: Array,
    means: tuple[Array, ...] | None,
    condition: Array | None,
) -> Array:
    _, height, width, _ = images.shape
    images = _aligned(images, network.alignment)
    # No network has both.
    arguments = [given for given in (means, condition) if given is not None]
    clean = jnp.asarray(network.apply({"params": params}, images, *arguments))
    return jnp.clip(clean[:, :height, :width], 0, 1)


@Program
@fitting_parameters()
@full_float32
def _read_condition(
    reader: tuple[NoiseReader, int], params: Tree, images: Array, strength: Array
) -> Array:
    network, side = reader
    return read_crops(network, params, stacked_crops(images, side), strength)


def read_crops(
    network: NoiseReader, params: Tree, crops: Array, strength: Array | float = 1.0
) -> Array:
    """Reads the noise of N images off K crops of each, as a network is conditioned on it.

    Args:
      network, params: the reader.
      crops: float32 [K, N, side, side, 3] in [0, 1].
      strength: as for a denoiser's call.

    Returns:
      float32 [N, spectra.CONDITIONS].
    """
    outputs = read_noise(network, params, crops.swapaxes(0, 1))
    logs = spectra.decode(spectra.hedged(outputs.values, outputs.spread))
    return spectra.condition(spectra.encode(logs + jnp.log(strength)))


@Program
@fitting_parameters()
@full_float32
def _attention_means(network: RIDNet, params: Tree, images: Array) -> tuple[Array, ...]:
    return attention_means(network, params, images)

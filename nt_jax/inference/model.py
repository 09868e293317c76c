"""A trained model, loaded: embed the noise of a photo, put it on others, judge the result."""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nt_jax.arrays import as_images
from nt_jax.errors import InputError
from nt_jax.inference import embeddings as embeddings_of
from nt_jax.inference.images import SMALLEST_SIDE
from nt_jax.inference.tiles import (
    ALIGNMENT,
    DEFAULT_TILE,
    Tile,
    Window,
    full_float32,
    over_tiles,
    receptive_radius,
    round_up,
    split,
    stacked_maps,
    unstack,
)
from nt_jax.models.discriminator import Discriminator
from nt_jax.models.generator import Generator, map_shapes, sample_maps
from nt_jax.models.networks import Networks, embed
from nt_jax.models.parameters import Array, Tree

_SEEDS = 2**32

# Of converted models: the size published figures are measured on.
_DEFAULT_REFERENCE_CROP = 256
# Crops of a reference that go through the encoder together.
_EMBEDDED_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class Model:
    """A NoiseTransfer model. Make one with `nt_jax.load`.

    Attributes:
      networks: the modules.
      params: spectrally normalised parameters by network: `generator`, `key_encoder` and, where
        known, `discriminator`.
      metadata: what the model's folder says about it.
    """

    networks: Networks
    params: Mapping[str, Tree]
    metadata: Mapping[str, Any]

    @property
    def blocks(self) -> tuple[int, int, int]:
        """Residual blocks of the generator's levels 1, 2 and 3."""
        return self.networks.generator.blocks

    @property
    def embedding_size(self) -> int:
        """E."""
        return self.networks.discriminator.embedding_size

    @property
    def reference_crop(self) -> int:
        """Side of the crops that `embed` averages over, pixels.

        That of the training patches of a model trained here: what an encoder trained on small
        patches says of larger images means another level to the generator
        (docs/training_log.md). 256 of a converted model.
        """
        return self.metadata.get("reference_crop", _DEFAULT_REFERENCE_CROP)

    def embed(self, image: ArrayLike) -> Array:
        """Noise embedding by the key encoder, float32: [H, W, 3] -> [E]; [N, H, W, 3] -> [N, E].

        The average over crops of `reference_crop` pixels a side.

        Args:
          image: uint8 or float in [0, 1], sides of 16 pixels or more.
        """
        images = _large_enough(as_images(image, "image"), "image")
        embeddings = self.embed_crops(embeddings_of.reference_crops(images, self.reference_crop))
        return embeddings if np.ndim(image) == 4 else embeddings[0]

    def embed_crops(self, crops: Sequence[ArrayLike]) -> Array:
        """Average of the embeddings of crops of one size.

        Args:
          crops: float in [0, 1], [N, h, w, 3] each, of the same N images.

        Returns:
          float32 [N, E].
        """
        if len(crops) == 1:
            return _embed(self.networks, self.params["key_encoder"], jnp.asarray(crops[0]))
        images = jnp.concatenate(crops)
        # Always as many at once: one program for references of all sizes.
        batches = -(-len(images) // _EMBEDDED_AT_ONCE)
        surplus = batches * _EMBEDDED_AT_ONCE - len(images)
        images = jnp.concatenate([images, jnp.zeros((surplus, *images.shape[1:]), jnp.float32)])
        embeddings = jnp.concatenate(
            [
                _embed(self.networks, self.params["key_encoder"], batch)
                for batch in jnp.split(images, batches)
            ]
        )[: len(images) - surplus]
        return embeddings_of.average(
            embeddings.reshape(len(crops), -1, self.embedding_size), self._bound
        )

    def average(self, embeddings: Sequence[ArrayLike]) -> Array:
        """Average of embeddings [..., E], back to unit length for the l2 bound."""
        return embeddings_of.average(embeddings, self._bound)

    def interpolate(self, a: ArrayLike, b: ArrayLike, weight: float) -> Array:
        """Embedding between two, for noise between that of two references.

        (1 - weight) * a + weight * b, back to unit length for the l2 bound. The noise level goes
        from one to the other, but not evenly.

        Args:
          a, b: float [E] or [N, E], as `embed` gives them.
          weight: of `b`, 0 to 1.

        Raises:
          InputError: an argument is none of the above, or the embeddings are opposite (l2).
        """
        return embeddings_of.interpolate(a, b, weight, self._bound)

    def level_direction(self, photos: ArrayLike | Sequence[ArrayLike], *, seed: int = 0) -> Array:
        """Direction in which embeddings move while the noise level grows, for `shift`.

        Found on white Gaussian noise of levels 5 to 50 put on the middle 256x256 of each
        photograph; `nt_jax.inference.embeddings.level_direction` takes any noisy images of known
        level instead.

        Args:
          photos: clean image, several as a batch, or a list of any sizes; uint8 or float in [0, 1],
            sides of 16 pixels or more. A few suffice.
          seed: of the noise, 0 to 2**32 - 1.

        Returns:
          float32 [E]: change of the embedding for each unit of level, 0 to 255 scale, on average.

        Raises:
          InputError: an argument is none of the above.
        """
        check_options(seed, strength=1.0)
        batches: Sequence[Any] = photos if isinstance(photos, list | tuple) else [photos]
        rng = np.random.default_rng(seed)
        copies = [
            embeddings_of.noisy_copies(np.asarray(photo), rng)
            for batch in batches
            for photo in as_images(batch, "photos")
        ]
        if not copies:
            raise InputError("photos: expected at least one image; got an empty list")
        embeddings = np.concatenate([self.embed(noisy) for noisy, _ in copies])
        return embeddings_of.level_direction(
            embeddings, np.concatenate([levels for _, levels in copies])
        )

    def shift(self, embedding: ArrayLike, direction: ArrayLike, amount: float) -> Array:
        """embedding + amount * direction, back onto the bound: more or less of something.

        With `level_direction`, noise of another level as the model knows it; the `strength` of
        `transfer` scales the same noise instead.

        Args:
          embedding, direction: float [E] or [N, E], of one shape.
          amount: for `level_direction`, in units of the level, 0 to 255 scale. How much the
            generated level changes depends on the model and on the embedding: measure it.

        Raises:
          InputError: an argument is none of the above.
        """
        return embeddings_of.shift(embedding, direction, amount, self._bound)

    @property
    def _bound(self) -> str:
        return self.networks.discriminator.bound

    def embed_references(self, references: ArrayLike | Sequence[ArrayLike]) -> Array:
        """Averaged embedding [E] of one image, a batch of images, or a list of any sizes."""
        images: Sequence[Any] = references if isinstance(references, list | tuple) else [references]
        if not images:
            raise InputError("reference: expected at least one image; got an empty list")
        embeddings = [self.embed(image) for image in images]
        return self.average([e for batch in embeddings for e in jnp.atleast_2d(batch)])

    def transfer(
        self,
        clean: ArrayLike,
        *,
        reference: ArrayLike | Sequence[ArrayLike] | None = None,
        embedding: ArrayLike | None = None,
        seed: int = 0,
        strength: float = 1.0,
        tile: int = DEFAULT_TILE,
    ) -> np.ndarray:
        """Puts the noise of the reference on a clean image: clip(clean + strength * noise).

        The result does not depend on `tile`, up to 1e-5. Sides that are no multiple of 4 are
        reflected at the bottom and the right.

        Args:
          clean: [H, W, 3], uint8 or float in [0, 1], sides of 16 pixels or more.
          reference: noisy image, or several as a list or batch, averaged; or
          embedding: [E], as `embed` gives it. Exactly one of the two.
          seed: of the random maps, 0 to 2**32 - 1.
          strength: factor of the noise, 0 or more.
          tile: pixels a side processed at a time, a multiple of 4; sets the memory needed.

        Returns:
          float32 [H, W, 3] in [0, 1].

        Raises:
          InputError: an argument is none of the above.
        """
        if (reference is None) == (embedding is None):
            raise InputError("transfer: give either reference= or embedding=")
        images = as_images(clean, "clean")
        if images.shape[0] != 1:
            raise InputError(f"clean: expected one image [H, W, 3]; got {list(images.shape)}")
        if embedding is None:
            embedding = self.embed_references(reference)  # type: ignore[arg-type]
        pixels = np.asarray(images[0])
        output = np.empty_like(pixels)
        for part in self.transfer_tiles(pixels, embedding, seed=seed, strength=strength, tile=tile):
            output[part.rows, part.columns] = part.pixels
        return output

    def transfer_tiles(
        self,
        clean: np.ndarray,
        embedding: ArrayLike,
        *,
        seed: int = 0,
        strength: float = 1.0,
        tile: int = DEFAULT_TILE,
    ) -> Iterator[Tile]:
        """`transfer` piece by piece, for images too large to be held as float.

        Args:
          clean: [H, W, 3] or grey [H, W]; uint8, uint16 or float in [0, 1], not checked further.
          embedding, seed, strength, tile: as in `transfer`.

        Yields:
          The pieces, which cover the image once.
        """
        check_options(seed, strength)
        _large_enough(clean[None], "clean")
        height, width = clean.shape[:2]
        windows = self.windows(height, width, tile)
        plane = self._embeddings(embedding, 1)
        return self._tiles(clean, windows, plane, np.uint32(seed), np.float32(strength))

    def _tiles(
        self,
        clean: np.ndarray,
        windows: list[tuple[Window, Window]],
        embedding: Array,
        seed: np.uint32,
        strength: np.float32,
    ) -> Iterator[Tile]:
        def add_noise(inputs: np.ndarray, row: Window, column: Window) -> np.ndarray:
            height, width, _ = inputs.shape
            origin = np.uint32(row.start), np.uint32(column.start)
            noise = _tile_function()(
                self.networks.generator,
                self.params["generator"],
                inputs[None],
                embedding,
                _stacked_maps(seed, origin, height, width, self.blocks),
            )
            return inputs + strength * np.asarray(noise)[0]

        return over_tiles(clean, windows, add_noise)

    def windows(
        self, height: int, width: int, tile: int = DEFAULT_TILE
    ) -> list[tuple[Window, Window]]:
        """The (vertical, horizontal) windows `transfer` works through."""
        if tile < ALIGNMENT or tile % ALIGNMENT:
            raise InputError(f"tile: expected a positive multiple of {ALIGNMENT}; got {tile}")
        halo = round_up(receptive_radius(self.blocks))
        rows, columns = (split(round_up(size), tile, halo) for size in (height, width))
        return [(row, column) for row in rows for column in columns]

    def sample_maps(self, key: Array, shape: tuple[int, int, int]) -> tuple[Array, ...]:
        """Random maps N(0, 1) for `generate_noise`, in call order, [B, h, w, 1] each.

        Args:
          key: JAX PRNG key.
          shape: (B, H, W), H and W multiples of 4.
        """
        batch, height, width = shape
        _aligned(height, width, "shape")
        return _sample_maps(key, batch, height, width, self.blocks)

    def generate_noise(
        self, clean: ArrayLike, embedding: ArrayLike, maps: Sequence[ArrayLike]
    ) -> Array:
        """The generator itself: noise, unclipped float32 [B, H, W, 3].

        Args:
          clean: [B, H, W, 3], uint8 or float in [0, 1], H and W multiples of 4; [H, W, 3] is B = 1.
          embedding: [B, E]; [E] for B = 1.
          maps: as `sample_maps` gives them.
        """
        images = as_images(clean, "clean")
        batch, height, width, _ = images.shape
        _aligned(height, width, "clean")
        expected = map_shapes(batch, height, width, self.blocks)
        seen = tuple(np.shape(values) for values in maps)
        if seen != expected:
            raise InputError(
                f"maps: expected {len(expected)} maps as sample_maps(key, ({batch}, {height}, "
                f"{width})) gives them; got {len(seen)} of shapes {sorted(set(seen))}"
            )
        return _generate(
            self.networks.generator,
            self.params["generator"],
            images,
            self._embeddings(embedding, batch),
            tuple(jnp.asarray(values, jnp.float32) for values in maps),
        )

    def discriminate(
        self, clean: ArrayLike, embedding: ArrayLike, noisy: ArrayLike
    ) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """Judges noisy images: features [B, h, w, C] and logits [B, h, w, 1] of the three levels.

        By the discriminator where the model has it, else by the key encoder, its momentum copy.

        Args:
          clean, noisy: [B, H, W, 3], uint8 or float in [0, 1], H and W multiples of 4; [H, W, 3] is
            B = 1.
          embedding: [B, E] of the reference; [E] for B = 1.
        """
        images, judged = as_images(clean, "clean"), as_images(noisy, "noisy")
        if images.shape != judged.shape:
            raise InputError(
                f"clean and noisy must have one shape; got {list(images.shape)} and "
                f"{list(judged.shape)}"
            )
        _aligned(images.shape[1], images.shape[2], "clean")
        return _discriminate(
            self.networks.discriminator,
            self.params.get("discriminator", self.params["key_encoder"]),
            images,
            self._embeddings(embedding, images.shape[0]),
            judged,
        )

    def export(self, path: str | os.PathLike, format: str = "stablehlo") -> tuple[Path, Path]:
        """Writes the generator and the embedding network for use without this package.

        See `nt_jax.inference.export` for their inputs and outputs.

        Args:
          path: file of the generator; the embedding network is written beside it, with `_embed`
            added to the name.
          format: `stablehlo`, or `onnx` (needs the extra `export`).

        Returns:
          Both paths.
        """
        from nt_jax.inference.export import export

        return export(self, Path(path), format)

    def _embeddings(self, embedding: ArrayLike, batch: int) -> Array:
        array = jnp.asarray(embedding)
        expected = (batch, self.embedding_size)
        if batch == 1 and array.ndim == 1:
            array = array.reshape(1, -1)
        if array.shape != expected or not jnp.issubdtype(array.dtype, jnp.floating):
            raise InputError(
                f"embedding: expected float of shape {list(expected)}, as embed() gives it; got "
                f"{array.dtype} of shape {list(np.shape(embedding))}"
            )
        traced = isinstance(array, jax.core.Tracer)
        if not traced and not np.isfinite(np.asarray(array)).all():
            raise InputError("embedding: expected finite values; got NaN or infinity")
        return array.astype(jnp.float32)


# --- Compiled functions --------------------------------------------------------------------------


def _apply(network: Any, params: Tree, *inputs: Any) -> Any:
    return network.apply({"params": params}, *inputs)


@partial(jax.jit, static_argnums=0)
@full_float32
def _embed(networks: Networks, params: Tree, images: Array) -> Array:
    return embed(networks, params, images)


@partial(jax.jit, static_argnums=0)
@full_float32
def _generate(
    generator: Generator, params: Tree, clean: Array, embedding: Array, maps: tuple[Array, ...]
) -> Array:
    return _apply(generator, params, clean, embedding, maps)


_stacked_maps = jax.jit(stacked_maps, static_argnums=(2, 3, 4))


@cache
def _tile_function() -> Callable[..., Array]:
    """Compiles (generator, params, clean, embedding, stacked maps) -> noise for one tile."""

    @full_float32
    def generate(
        generator: Generator, params: Tree, clean: Array, embedding: Array, stacks: Any
    ) -> Array:
        return _apply(generator, params, clean, embedding, unstack(stacks, generator.blocks))

    # On a CPU, XLA computes all modulations, which do not wait for each other, early by default:
    # at width 64 a tile would need 3.2 GB in place of 0.4 GB.
    low_memory = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    options = low_memory if jax.default_backend() == "cpu" else None
    return jax.jit(generate, static_argnums=0, compiler_options=options)


@partial(jax.jit, static_argnums=0)
@full_float32
def _discriminate(
    discriminator: Discriminator, params: Tree, clean: Array, embedding: Array, noisy: Array
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    _, outputs = _apply(discriminator, params, None, clean, embedding, noisy[:, None])
    return tuple(f[:, 0] for f in outputs.features), tuple(m[:, 0] for m in outputs.logits)


@partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _sample_maps(key: Array, batch: int, height: int, width: int, blocks: tuple[int, int, int]):
    return sample_maps(key, batch, height, width, blocks)


# --- Checks --------------------------------------------------------------------------------------


def _large_enough(images: Any, name: str) -> Any:
    if min(images.shape[1:3]) < SMALLEST_SIDE:
        raise InputError(
            f"{name}: expected sides of {SMALLEST_SIDE} pixels or more; got {list(images.shape)}"
        )
    return images


def check_options(seed: int, strength: float, images: int = 1) -> None:
    """Checks what `transfer` is asked to do with that many images.

    Raises:
      InputError: a seed, of the first or the last image, or the strength is out of range.
    """
    if not 0 <= seed <= _SEEDS - images:
        raise InputError(f"seed: expected 0 to 2**32 - {images} for {images} image(s); got {seed}")
    if not (math.isfinite(strength) and strength >= 0):
        raise InputError(f"strength: expected 0 or more; got {strength}")


def _aligned(height: int, width: int, name: str) -> None:
    if height % ALIGNMENT or width % ALIGNMENT or min(height, width) < SMALLEST_SIDE:
        raise InputError(
            f"{name}: expected height and width multiples of {ALIGNMENT}, {SMALLEST_SIDE} or more; "
            f"got {height}x{width}; transfer() takes any size"
        )

"""A trained model, loaded: embed the noise of a photo, put it on others, judge the result."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nt_jax import prng, spectra
from nt_jax.arrays import as_images, as_integer, refuse_traced
from nt_jax.calibration import calibrate as calibrate_noise
from nt_jax.errors import InputError
from nt_jax.inference import checks, programs
from nt_jax.inference import embeddings as embeddings_of
from nt_jax.inference.processes import check_process
from nt_jax.inference.reference import ReferenceNoise, raw_noise, read_crops, read_reference
from nt_jax.inference.tiles import (
    ALIGNMENT,
    DEFAULT_TILE,
    Tile,
    Window,
    framed,
    over_tiles,
    receptive_radius,
    round_up,
)
from nt_jax.models.generator import map_shapes, sample_maps
from nt_jax.models.networks import Networks, embed_and_read, generate_noise
from nt_jax.models.parameters import Array, Tree
from nt_jax.paths import expand
from nt_jax.readings import NoiseReading

# Pixels that zero padding changes visibly; those beyond, up to the receptive field, it hardly does.
_FRAME = 16

# Of converted models: the size published figures are measured on.
_DEFAULT_REFERENCE_CROP = 256
# Names of the networks that look at a reference.
_SEEING = ("key_encoder", "noise_reader")
# Crops of a reference that go through the encoder together.
_EMBEDDED_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class Model:
    """A NoiseTransfer model. Make one with `nt_jax.load`.

    Attributes:
      networks: the modules.
      params: spectrally normalised parameters by network: `generator`, `key_encoder` and, where
        known, `discriminator`, `noise_reader` and `spectrum_reader`.
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
        (docs/log/generator.md). 256 of a converted model.
        """
        return self.metadata.get("reference_crop", _DEFAULT_REFERENCE_CROP)

    def embed(self, image: ArrayLike) -> Array:
        """Embeds noise by the key encoder, float32: [H, W, 3] -> [E]; [N, H, W, 3] -> [N, E].

        The average over crops of `reference_crop` pixels a side.

        Args:
          image: uint8 or float in [0, 1], sides of 16 pixels or more.
        """
        check_process()
        images = checks.check_large_enough(as_images(image, "image"), "image")
        embeddings = self.embed_crops(embeddings_of.reference_crops(images, self.reference_crop))
        return embeddings if np.ndim(image) == 4 else embeddings[0]

    def embed_crops(self, crops: Sequence[ArrayLike]) -> Array:
        """Averages the embeddings of crops of one size.

        Args:
          crops: float in [0, 1], [N, h, w, 3] each, of the same N images.

        Returns:
          float32 [N, E].
        """
        return self.average(self._look_at_each(crops)[0])

    def _look_at_each(self, crops: Sequence[ArrayLike]) -> tuple[Array, Array | None]:
        """Embeds and reads crops of one size, K times [N, h, w, 3].

        Returns:
          (embeddings [K, N, E], what is read [K, N, SIZE]; None of a model that cannot read).
        """
        check_process()  # before anything that a fork would hang on; all that embeds comes here
        # Arrays of NumPy stay there: each operation of JAX is a program to find and to load.
        numpy: Any = jnp if any(isinstance(crop, jax.Array) for crop in crops) else np
        params = {name: self.params[name] for name in _SEEING if name in self.params}
        count = len(crops)
        if count == 1:
            found = [programs.look_at(self.networks, params, crops[0])]
            total = np.shape(crops[0])[0]
        else:
            images = numpy.concatenate(crops)
            # Always as many at once: one program for references of all sizes.
            total, batches = len(images), -(-len(images) // _EMBEDDED_AT_ONCE)
            surplus = batches * _EMBEDDED_AT_ONCE - total
            blank = np.zeros((surplus, *images.shape[1:]), np.float32)
            images = numpy.concatenate([images, blank])
            found = [
                programs.look_at(self.networks, params, batch)
                for batch in numpy.split(images, batches)
            ]

        def together(parts: Any) -> Any:
            joined = numpy.concatenate([numpy.asarray(part) for part in parts])[:total]
            return joined.reshape(count, -1, joined.shape[-1])

        embeddings, vectors = zip(*found, strict=True)
        return together(embeddings), together(vectors) if self.can_read else None

    def average(self, embeddings: Sequence[ArrayLike] | Array | np.ndarray) -> Array:
        """Averages embeddings [..., E], back to unit length for the l2 bound."""
        return embeddings_of.average(embeddings, self._bound)

    def interpolate(self, a: ArrayLike, b: ArrayLike, weight: float) -> Array:
        """Mixes two embeddings, for noise between that of two references.

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
        """Finds the direction in which embeddings move while the noise level grows, for `shift`.

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
        checks.check_options(seed, strength=1.0)
        refuse_traced("level_direction", photos)
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
        """Adds amount * direction to an embedding, back onto the bound: more or less of something.

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

    @property
    def can_read(self) -> bool:
        """Whether it reads numbers of the noise: by a head on the embedding or another network."""
        return self.networks.reader is not None or self.networks.discriminator.readings > 0

    def read_noise(self, image: ArrayLike) -> NoiseReading:
        """Reads what the noise of a photo is like, without its clean image.

        Args:
          image: noisy, [H, W, 3] or [N, H, W, 3], uint8 or float in [0, 1], sides of 16 pixels or
            more.

        Returns:
          Of each image the mean over crops of `reference_crop` pixels a side, levels as root mean
          square. How far they are off on images not trained on: `python -m nt_jax.eval noise`.

        Raises:
          InputError: the model cannot read, or the image is none of the above.
        """
        self._check_reader()
        images = checks.check_large_enough(as_images(image, "image"), "image")
        crops = embeddings_of.reference_crops(images, self.reference_crop)
        _, vectors = self._look_at_each(crops)
        assert vectors is not None
        reading = read_crops(vectors)
        if np.ndim(image) == 4:
            return reading
        return NoiseReading(*(numbers[0] for numbers in reading))

    def _check_reader(self) -> None:
        if not self.can_read:
            raise InputError(
                "this model cannot read noise: it was trained without config.model.reader"
            )

    def reference_noise(
        self,
        references: ArrayLike | Sequence[ArrayLike],
        *,
        calibrate: bool | None = None,
    ) -> ReferenceNoise:
        """Finds out all that `transfer` needs to know of a reference, to use it many times.

        Args:
          references: noisy image, a batch, or a list of any sizes, taken for one noise; as in
            `transfer`.
          calibrate: see `transfer`.

        Raises:
          InputError: an argument is none of the above.
        """
        images: Sequence[Any] = references if isinstance(references, list | tuple) else [references]
        if not images:
            raise InputError("reference: expected at least one image; got an empty list")
        crops = [
            embeddings_of.reference_crops(image[None], self.reference_crop)
            for batch in images
            for image in checks.check_large_enough(as_images(batch, "reference"), "reference")
        ]
        return self.noise_of_crops(crops, calibrate=calibrate)

    def noise_of_crops(
        self, crops: Sequence[Sequence[ArrayLike]], *, calibrate: bool | None = None
    ) -> ReferenceNoise:
        """Computes the `reference_noise` of images already cut by `embeddings.reference_crops`.

        Args:
          crops: of each image, float in [0, 1], [1, h, w, 3].
          calibrate: see `transfer`.
        """
        if calibrate:
            self._check_reader()
        looks = [self._look_at_each(of_image) for of_image in crops]  # [K, 1, E], [K, 1, SIZE]
        embedding = self.average([np.asarray(self.average(each))[0] for each, _ in looks])
        if not self.can_read:
            return raw_noise(embedding, None)
        vectors = np.concatenate([np.asarray(vectors) for _, vectors in looks])
        patches = (
            [crop for of_image in crops for crop in of_image] if calibrate in (None, True) else []
        )
        return read_reference(self.networks, self.params, patches, vectors, embedding)

    def transfer(
        self,
        clean: ArrayLike,
        *,
        reference: ArrayLike | Sequence[ArrayLike] | None = None,
        embedding: ArrayLike | None = None,
        seed: int = 0,
        strength: float = 1.0,
        calibrate: bool | None = None,
        tile: int = DEFAULT_TILE,
    ) -> np.ndarray:
        """Puts the noise of the reference on a clean image: clip(clean + strength * noise).

        The result does not depend on `tile`, up to 1e-5. The image is reflected around its edges
        while noise is generated, so that the noise has no frame.

        Args:
          clean: [H, W, 3], uint8 or float in [0, 1], sides of 16 pixels or more.
          reference: noisy image, or several as a list or batch, averaged; or
          embedding: [E], as `embed` gives it. Exactly one of the two.
          seed: of the random maps, 0 to 2**32 - 1.
          strength: factor of the noise, 0 or more.
          calibrate: whether the noise is brought to the level and the spectrum that are read off
            the reference (calibration.py); by default where there is a reference and the model can
            read. An embedding alone has no gains: see `reference_noise`.
          tile: pixels a side processed at a time, a multiple of 4; sets the memory needed.

        Returns:
          float32 [H, W, 3] in [0, 1].

        Raises:
          InputError: an argument is none of the above.
        """
        if (reference is None) == (embedding is None):
            raise InputError("transfer: give either reference= or embedding=")
        refuse_traced("transfer", clean, reference, embedding)
        images = as_images(clean, "clean")
        if images.shape[0] != 1:
            raise InputError(f"clean: expected one image [H, W, 3]; got {list(images.shape)}")
        options: dict[str, Any] = {"seed": seed, "strength": strength, "tile": tile}
        if embedding is None:
            assert reference is not None
            noise = self.reference_noise(reference, calibrate=calibrate)
            embedding = noise.embedding
            options |= noise.gains
        elif calibrate:
            raise InputError("calibrate: needs reference=, which the noise is measured on")
        pixels = np.asarray(images[0])
        output = np.empty_like(pixels)
        for part in self.transfer_tiles(pixels, embedding, **options):
            output[part.rows, part.columns] = part.pixels
        return output

    def transfer_tiles(
        self,
        clean: np.ndarray,
        embedding: ArrayLike,
        *,
        seed: int = 0,
        strength: float = 1.0,
        gain: ArrayLike = 1.0,
        ring_gain: ArrayLike = 1.0,
        tile: int = DEFAULT_TILE,
        clipped: bool = True,
    ) -> Iterator[Tile]:
        """Does `transfer` piece by piece, for images too large to be held as float.

        Args:
          clean: [H, W, 3] or grey [H, W]; uint8, uint16 or float in [0, 1], not checked further.
            A grey image gets the noise of the green channel in all three.
          embedding, seed, strength, tile: as in `transfer`.
          gain: further factor of each channel, as `reference_noise` finds it; [] or [3].
          ring_gain: as well, of each ring of frequency; [] or [spectra.SIZE].
          clipped: whether pixels are clipped to [0, 1]; not where their noise is worked on further.

        Yields:
          The pieces, which cover the image once.

        Raises:
          InputError: an argument is none of the above, or `ring_gain` is not 1 and the model reads
            no spectrum: only one that does makes tiles with room for the filter.
        """
        refuse_traced("transfer", clean, embedding)
        check_process()
        checks.check_options(seed, strength)
        factors = np.float32(strength) * np.broadcast_to(np.asarray(gain, np.float32), (3,))
        rings = np.broadcast_to(np.asarray(ring_gain, np.float32), (spectra.SIZE,))
        filtered = bool((rings != 1).any())
        if filtered and self.networks.spectrum_reader is None:
            raise InputError("ring_gain: this model reads no spectrum; its noise is not filtered")
        checks.check_large_enough(clean[None], "clean")
        height, width = clean.shape[:2]
        windows = self.windows(height, width, tile, filtered=filtered)
        plane = checks.check_embedding(embedding, 1, self.embedding_size)
        kept = rings if filtered else None
        return self._tiles(clean, windows, plane, np.uint32(seed), factors, kept, clipped)

    def _tiles(
        self,
        clean: np.ndarray,
        windows: list[tuple[Window, Window]],
        embedding: Array,
        seed: np.uint32,
        factors: np.ndarray,
        ring_gain: np.ndarray | None,
        clipped: bool,
    ) -> Iterator[Tile]:
        grey = clean.ndim == 2

        def add_noise(inputs: np.ndarray, row: Window, column: Window) -> np.ndarray:
            height, width, _ = inputs.shape
            # Windows begin before the image; positions of random numbers do not. They are the same
            # whether noise is filtered or not.
            before = self._halo(self.networks.spectrum_reader is not None)
            origin = np.uint32(row.start + before), np.uint32(column.start + before)
            noise = programs.tile_function()(
                self.networks.generator,
                self.params["generator"],
                inputs[None],
                embedding,
                programs.tile_maps((height, width, self.blocks), seed, origin),
            )
            made = factors * np.asarray(noise)
            if ring_gain is not None:
                inside = programs.amplify("valid", made, ring_gain[None])
                around = (spectra.RADIUS, spectra.RADIUS)
                made = np.pad(inside, ((0, 0), around, around, (0, 0)))
            made = made[0]
            # Averaged to grey, colour noise would lose a third of its level.
            return inputs + (made[..., 1:2] if grey else made)

        return over_tiles(clean, windows, add_noise, clipped)

    def windows(
        self, height: int, width: int, tile: int = DEFAULT_TILE, *, filtered: bool = False
    ) -> list[tuple[Window, Window]]:
        """Lists the (vertical, horizontal) windows `transfer` works through.

        Where noise is filtered they are larger, and as many.
        """
        tile = as_integer(tile, "tile")
        if tile < ALIGNMENT or tile % ALIGNMENT:
            raise InputError(f"tile: expected a positive multiple of {ALIGNMENT}; got {tile}")
        halo = self._halo(filtered)
        rows, columns = (framed(round_up(size), tile, halo) for size in (height, width))
        return [(row, column) for row in rows for column in columns]

    def _halo(self, filtered: bool) -> int:
        return round_up(receptive_radius(self.blocks)) + filtered * spectra.RADIUS

    @property
    def told(self) -> tuple[str, ...]:
        """Names of what a noise is made of; see `families.Generator`."""
        return ("reference",)

    def noise(self, params: Mapping[str, Tree], batch: Mapping[str, Array], key: Array) -> Array:
        """Makes noise inside `jit`: G(X, Dk(Yr), z), [B, H, W, 3], unclipped (section 4.3).

        Noise of a model that can read is calibrated (calibration.py). Patches are reflected around
        their edges while noise is generated and filtered, so that it has no frame.

        Args:
          params: `self.params`.
          batch: `clean` X and `reference` Yr, [B, H, W, 3] in [0, 1], sides multiples of 4.
          key: PRNG key of the random maps z.
        """
        around = ((0, 0), (_FRAME, _FRAME), (_FRAME, _FRAME), (0, 0))
        clean = jnp.pad(batch["clean"], around, mode="reflect")
        count, height, width, _ = clean.shape
        patches = embeddings_of.stacked_crops(batch["reference"], self.reference_crop)
        each, vectors = embed_and_read(
            self.networks, params, patches.reshape(-1, *patches.shape[2:])
        )
        embedding = self.average(each.reshape(*patches.shape[:2], -1))
        map_key, calibration_key = prng.split(key)
        maps = sample_maps(map_key, count, height, width, self.blocks)
        noise = generate_noise(self.networks, params["generator"], clean, embedding, maps)
        if vectors is not None:
            vectors = vectors.reshape(*patches.shape[:2], -1)
            found = calibrate_noise(
                self.networks, params, patches, vectors, embedding, calibration_key
            )
            noise *= found.gain[:, None, None]
            if found.ring_gain is not None:
                noise = spectra.amplify("same", noise, found.ring_gain)
        return noise[:, _FRAME:-_FRAME, _FRAME:-_FRAME]

    def sample_maps(self, key: Array, shape: tuple[int, int, int]) -> tuple[Array, ...]:
        """Draws random maps N(0, 1) for `generate_noise`, in call order, [B, h, w, 1] each.

        Args:
          key: JAX PRNG key.
          shape: (B, H, W), H and W multiples of 4.
        """
        batch, height, width = shape
        checks.check_aligned(height, width, "shape")
        return programs.draw_maps(key, batch, height, width, self.blocks)

    def generate_noise(
        self, clean: ArrayLike, embedding: ArrayLike, maps: Sequence[ArrayLike]
    ) -> Array:
        """Runs the generator itself: noise, unclipped float32 [B, H, W, 3].

        Args:
          clean: [B, H, W, 3], uint8 or float in [0, 1], H and W multiples of 4; [H, W, 3] is B = 1.
          embedding: [B, E]; [E] for B = 1.
          maps: as `sample_maps` gives them.
        """
        images = as_images(clean, "clean")
        batch, height, width, _ = images.shape
        checks.check_aligned(height, width, "clean")
        expected = map_shapes(batch, height, width, self.blocks)
        seen = tuple(np.shape(values) for values in maps)
        if seen != expected:
            raise InputError(
                f"maps: expected {len(expected)} maps as sample_maps(key, ({batch}, {height}, "
                f"{width})) gives them; got {len(seen)} of shapes {sorted(set(seen))}"
            )
        return programs.generate(
            self.networks.generator,
            self.params["generator"],
            images,
            checks.check_embedding(embedding, batch, self.embedding_size),
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
        checks.check_aligned(images.shape[1], images.shape[2], "clean")
        return programs.discriminate(
            self.networks.discriminator,
            self.params.get("discriminator", self.params["key_encoder"]),
            images,
            checks.check_embedding(embedding, images.shape[0], self.embedding_size),
            judged,
        )

    def export(
        self,
        path: str | os.PathLike,
        format: str = "stablehlo",
        size: tuple[int, int] | None = None,
    ) -> tuple[Path, Path]:
        """Writes the generator and the embedding network for use without this package.

        See `nt_jax.inference.export` for their inputs and outputs.

        Args:
          path: file of the generator; the embedding network is written beside it, with `_embed`
            added to the name.
          format: `stablehlo`, or `onnx` (needs the extra `export`).
          size: height and width of the generator's images, multiples of 4; None for any.

        Returns:
          Both paths.
        """
        from nt_jax.inference.export import export

        return export(self, expand(path), format, size)

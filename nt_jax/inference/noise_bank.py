"""The noises of a camera, as augmentation for anybody's training: NumPy in, NumPy out.

A bank keeps of each noisy photo what a model knows of its noise (embedding, gains, reading), in a
small `.npz`: a camera file. It travels to other processes as these arrays and the model's name; the
model is loaded where noise is first made, so `spawn` works, and `fork` while no model is loaded.
"""

import json
import os
import threading
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from nt_jax import spectra
from nt_jax.arrays import as_images, as_integer
from nt_jax.errors import InputError
from nt_jax.files import replacing
from nt_jax.images import from_float, list_images, nothing_found, read_photo
from nt_jax.paths import expand
from nt_jax.readings import NoiseReading

if TYPE_CHECKING:
    from nt_jax.inference.model import Model

_VERSION = 2
# Files of it have no `ring_gains`.
_WITHOUT_RINGS = 1
_ABOUT = "about"
_ARRAYS = ("embeddings", "gains", "ring_gains", "weights")
# Reading's shape of one photo, behind N.
_READINGS = {"level": (3,), "lag1": (), "lag2": (), "channel_correlation": (3,), "bias": (3,)}
# Two machines normalise the same weights alike to 1e-6; another step of training is further off.
_SAME_WEIGHTS = 1e-4
# Only one thread loads a bank's model. Not the bank's own: a lock does not travel.
_LOADING = threading.Lock()


class Draw(NamedTuple):
    """Draws that a seed stands for.

    Attributes:
      reference: number of the photo whose noise is made.
      seed: of the random maps, as `Model.transfer` takes it.
    """

    reference: int
    seed: int


class NoiseBank:
    """Noises of photos, to put on images. Make one with `from_photos` or `load`.

    Attributes:
      names: of the N photos.
      embeddings: float32 [N, E].
      gains: float32 [N, 3], what each channel's noise is multiplied with; 1 where the model
        cannot read.
      ring_gains: float32 [N, spectra.SIZE], factors of the rings of frequency; 1 where the model
        reads no spectrum.
      readings: what the noises are like, each number [N, ...]; None where the model cannot read.
      model: name or path of the model that embedded them and makes the noise.
      weights: float32 [L], one number of each of its parameter arrays, by which it is known again.
    """

    def __init__(
        self,
        names: Sequence[str],
        embeddings: np.ndarray,
        gains: np.ndarray,
        ring_gains: np.ndarray,
        readings: NoiseReading | None,
        model: str,
        weights: np.ndarray,
    ):
        self.names = tuple(names)
        self.embeddings, self.gains, self.ring_gains = embeddings, gains, ring_gains
        self.readings = readings
        self.model, self.weights = model, weights
        self._loaded: Model | None = None

    @classmethod
    def from_photos(
        cls, folder: str | os.PathLike, model: str | os.PathLike = "small"
    ) -> "NoiseBank":
        """Embeds the noisy photos in a folder and the folders below it, one noise each.

        Args:
          folder: of noisy images, in the formats and depths that `transfer` reads.
          model: a bundled name, a training workdir or a model folder.

        Raises:
          InputError: no folder, no image in it or a broken one; no such model.
        """
        from nt_jax.inference.files import noise_of_photos
        from nt_jax.inference.loading import load_noisetransfer

        root = expand(folder)
        paths = list_images(root)
        if not paths:
            raise nothing_found(root)
        loaded = load_noisetransfer(model)
        noises = [noise_of_photos(loaded, [read_photo(path)]) for path in paths]
        readings = None
        if loaded.can_read:
            each = [noise.reading for noise in noises if noise.reading is not None]
            readings = NoiseReading(
                *(np.stack(numbers).astype(np.float32) for numbers in zip(*each, strict=True))
            )
        bank = cls(
            [path.relative_to(root).as_posix() for path in paths],
            np.stack([np.asarray(noise.embedding, np.float32) for noise in noises]),
            np.stack([np.asarray(noise.gain, np.float32) for noise in noises]),
            np.stack([np.asarray(noise.ring_gain, np.float32) for noise in noises]),
            readings,
            os.fspath(model),
            _weights(loaded),
        )
        bank._loaded = loaded
        return bank

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"NoiseBank({len(self)} photos, model {self.model!r})"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}

    def __call__(self, image: ArrayLike, seed: int) -> np.ndarray:
        """Puts the noise of one of the photos on a clean image.

        A function of the image and the seed: the same in every process, and as `Model.transfer`
        with `draw(seed)`. The first image of another size takes seconds, while the network is
        compiled for it: crop before.

        Args:
          image: clean, [H, W, 3], uint8 or float in [0, 1], sides of 16 pixels or more.
          seed: 0 to 2**32 - 1; picks the photo and the random maps.

        Returns:
          The noisy image, of the same shape and dtype; float in [0, 1].

        Raises:
          InputError: an argument is none of the above; the model is gone, or another one by now.
        """
        reference, of_maps = self.draw(seed)
        clean = np.asarray(image)
        if clean.ndim != 3:
            raise InputError(f"image: expected one image [H, W, 3]; got {list(clean.shape)}")
        as_images(clean, "image")
        noisy = np.empty_like(clean)
        for part in self._loaded_model().transfer_tiles(
            clean,
            self.embeddings[reference],
            seed=of_maps,
            gain=self.gains[reference],
            ring_gain=self.ring_gains[reference],
        ):
            pixels = part.pixels
            if clean.dtype == np.uint8:
                pixels = from_float(pixels, clean.dtype, grey=False)
            noisy[part.rows, part.columns] = pixels
        return noisy

    def draw(self, seed: int) -> Draw:
        """Draws the photo and the seed of the random maps that a seed stands for.

        Raises:
          InputError: it is no integer from 0 to 2**32 - 1.
        """
        from nt_jax import prng
        from nt_jax.inference.processes import check_process

        if not 0 <= as_integer(seed, "seed") < 2**32:
            raise InputError(f"seed: expected 0 to 2**32 - 1; got {seed}")
        check_process()
        word, of_maps = np.asarray(prng.bits(prng.key(seed), (2,)))
        return Draw(int(word) % len(self), int(of_maps))

    def save(self, path: str | os.PathLike) -> Path:
        """Writes a camera file; it appears whole or not at all.

        It holds no pixels: of each photo its name, E + 19 numbers and 9 more of a reading.

        Raises:
          InputError: it cannot be written.
        """
        target = expand(path)
        about = {"version": _VERSION, "model": self.model, "names": self.names}
        arrays: dict[str, Any] = {_ABOUT: np.array(json.dumps(about))}
        arrays |= {name: getattr(self, name) for name in _ARRAYS}
        if self.readings is not None:
            arrays |= {f"reading_{name}": x for name, x in self.readings._asdict().items()}
        with replacing(target) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)
        return target

    @classmethod
    def load(cls, path: str | os.PathLike, model: str | os.PathLike | None = None) -> "NoiseBank":
        """Reads a camera file. The model is loaded when noise is first made.

        Args:
          path: as `save` wrote it.
          model: where the model is now, if it has moved.

        Raises:
          InputError: there is no such file, or it is no camera file or damaged.
        """
        source = expand(path)
        try:
            arrays = _read_npz(source)
            about = json.loads(str(arrays.pop(_ABOUT)))
            if about["version"] == _WITHOUT_RINGS:
                arrays["ring_gains"] = np.ones((len(about["names"]), spectra.SIZE), np.float32)
            elif about["version"] != _VERSION:
                raise InputError(
                    f"{source} is a camera file of version {about['version']}, not {_VERSION}; "
                    "make it again by NoiseBank.from_photos"
                )
            readings = _checked(arrays, about)
        except InputError:
            raise
        except FileNotFoundError as error:
            raise InputError(f"{source}: no such file; check the path") from error
        except IsADirectoryError as error:
            raise InputError(f"{source} is a folder; name a camera file (.npz)") from error
        except PermissionError as error:
            raise InputError(f"{source} cannot be read: {error.strerror}") from error
        except _DAMAGE as error:
            raise InputError(
                f"{source} is no camera file or damaged ({error}); make it again by "
                "NoiseBank.from_photos"
            ) from error
        name = about["model"] if model is None else os.fspath(model)
        embeddings, gains, ring_gains, weights = (arrays[key] for key in _ARRAYS)
        return cls(about["names"], embeddings, gains, ring_gains, readings, name, weights)

    def _loaded_model(self) -> "Model":
        with _LOADING:
            if self._loaded is None:
                from nt_jax.inference.loading import load_noisetransfer

                model = load_noisetransfer(self.model)
                seen = _weights(model)
                if seen.shape != self.weights.shape or not np.allclose(
                    seen, self.weights, rtol=_SAME_WEIGHTS, atol=1e-6
                ):
                    raise InputError(
                        f"{self.model} is another model than the one that embedded these photos; "
                        "make the bank again by NoiseBank.from_photos, or name that model"
                    )
                self._loaded = model
            return self._loaded


# What NumPy, zipfile and json raise on files of anybody's making.
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


def _read_npz(source: Path) -> dict[str, np.ndarray]:
    """Reads arrays of numbers and text alone.

    Of Python's objects NumPy's format reads none by itself.
    """
    with zipfile.ZipFile(source) as archive:
        arrays = {}
        for name in archive.namelist():
            with archive.open(name) as file:
                arrays[name.removesuffix(".npy")] = np.lib.format.read_array(file)
        return arrays


def _checked(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> NoiseReading | None:
    """Checks the content of a camera file and gives its readings.

    Raises:
      ValueError, LookupError: something is missing or of another form.
    """
    names = about["names"]
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise ValueError("it names no photos")
    if not isinstance(about["model"], str):
        raise ValueError("it names no model")
    count = len(names)
    has_readings = any(name.startswith("reading_") for name in arrays)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings": (count, arrays["embeddings"].shape[-1]),
        "gains": (count, 3),
        "ring_gains": (count, spectra.SIZE),
        "weights": (arrays["weights"].size,),
    }
    if has_readings:
        shapes |= {f"reading_{name}": (count, *rest) for name, rest in _READINGS.items()}
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != shape or array.dtype != np.float32 or not np.isfinite(array).all():
            raise ValueError(f"{name}: {array.dtype} {list(array.shape)}, or not finite")
    if not has_readings:
        return None
    return NoiseReading(**{name: arrays[f"reading_{name}"] for name in _READINGS})


def _weights(model: "Model") -> np.ndarray:
    """Sums the magnitudes of each parameter array that makes noise, float32 [L]."""
    import jax

    leaves = jax.tree.leaves([model.params["generator"], model.params["key_encoder"]])
    return np.array([np.abs(np.asarray(leaf)).sum(dtype=np.float64) for leaf in leaves], np.float32)

"""Finds out about a reference: numbers that a NoiseTransfer model reads, gains it needs."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from nt_jax import prng, spectra
from nt_jax.calibration import calibrate as calibrate_noise
from nt_jax.compilation import Program
from nt_jax.inference.tiles import full_float32
from nt_jax.models.networks import Networks
from nt_jax.models.parameters import Array, Tree
from nt_jax.readings import NoiseReading, decode, summarize

# Crops of a reference that its calibration generates noise on.
_CALIBRATED_ON = (1, 4, 16)
# Names of the networks that it needs.
_CALIBRATING = ("generator", "spectrum_reader")


class ReferenceNoise(NamedTuple):
    """Noise of a reference, as a model knows it.

    Attributes:
      embedding: float32 [E].
      gain: float32 [3], what each channel's generated noise is multiplied with.
      wanted: float32 [3], the gain without its bounds.
      ring_gain: float32 [spectra.SIZE], what each ring of frequency of the scaled noise is
        multiplied with; 1 where the model reads no spectrum.
      reading: what the noise is like; None where the model cannot read.
    """

    embedding: Array
    gain: np.ndarray
    wanted: np.ndarray
    ring_gain: np.ndarray
    reading: NoiseReading | None

    @property
    def gains(self) -> dict[str, np.ndarray]:
        """Its gains as `Model.transfer_tiles` takes them."""
        return {"gain": self.gain, "ring_gain": self.ring_gain}

    @property
    def out_of_bounds(self) -> bool:
        """Whether the model cannot make noise of the level it reads."""
        return bool((self.gain != self.wanted).any())

    @property
    def spectrum_out_of_bounds(self) -> bool:
        """Whether it cannot make noise of the spectrum it reads."""
        bounds = np.array([spectra.LEAST, spectra.MOST], np.float32)
        return bool(np.isin(self.ring_gain, bounds).any())


def read_crops(vectors: ArrayLike) -> NoiseReading:
    """Puts together what is read off the crops of N images, [K, N, SIZE]."""
    return summarize(decode(np.asarray(vectors)))


def read_reference(
    networks: Networks,
    params: Mapping[str, Tree],
    patches: Sequence[ArrayLike],
    vectors: np.ndarray,
    embedding: Array,
) -> ReferenceNoise:
    """Reads a reference, and calibrates its noise where there are patches to do it on.

    Args:
      networks, params: the model.
      patches: all crops of the reference's images, float in [0, 1], [1, h, w, 3]; none: the gain
        is 1.
      vectors: what is read off each, [K, 1, SIZE].
      embedding: average of their embeddings, [E].
    """
    reading = NoiseReading(*(x[0] for x in read_crops(vectors)))
    noise = raw_noise(embedding, reading)
    if patches:
        chosen = _spread(patches)
        found = _calibrate(
            networks,
            {name: params[name] for name in _CALIBRATING if name in params},
            np.stack([np.asarray(patches[i]) for i in chosen]),
            vectors[chosen],
            np.asarray(embedding)[None],
        )
        gains = {name: np.asarray(x)[0] for name, x in found.items()}
        noise = noise._replace(**gains)
    return noise


def raw_noise(embedding: Array, reading: NoiseReading | None) -> ReferenceNoise:
    """Describes noise that is not calibrated."""
    gain, ring_gain = np.ones(3, np.float32), np.ones(spectra.SIZE, np.float32)
    return ReferenceNoise(embedding, gain, gain, ring_gain, reading)


def _spread(crops: Sequence[ArrayLike]) -> list[int]:
    """Chooses 1, 4 or 16 evenly spaced crops of one size: few programs to compile."""
    size = max(np.shape(crop) for crop in crops)
    same = [i for i, crop in enumerate(crops) if np.shape(crop) == size]
    count = max(n for n in _CALIBRATED_ON if n <= len(same))
    return [same[(2 * i + 1) * len(same) // (2 * count)] for i in range(count)]


@Program
@full_float32
def _calibrate(
    networks: Networks,
    params: Mapping[str, Tree],
    patches: Array,
    vectors: Array,
    embedding: Array,
) -> dict[str, Array]:
    # The same key for every reference: the gains are a function of the reference.
    key = prng.key(0)
    found = calibrate_noise(networks, params, patches, vectors, embedding, key)
    return {name: value for name, value in found._asdict().items() if value is not None}

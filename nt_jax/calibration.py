"""Scales and filters generated noise to the level and the spectrum read off the reference.

A generator follows the level of noise it knows well and falls behind with noise it does not, while
what reads the reference gets its level far more evenly. Generated noise is known exactly, so it can
be measured where the reference was read: noise is generated on the reference's own patches,
filtered in place of the clean ones that nobody has, and the ratio of both levels is the gain of all
noise generated for that reference. It depends on the reference and the model alone: not on the
image that gets the noise, nor on a tile or a seed. Where a model reads spectra, the scaled noise is
then filtered, so that luma and colour have the amplitude that is read in each ring of frequency.

Not in the paper; for models that can read: by a head on the embedding
(`config.model.reader`) or by networks of their own (`noise_reader`, `spectrum_reader`).
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp

from nt_jax import spectra
from nt_jax.filters import wiener
from nt_jax.models.generator import sample_maps
from nt_jax.models.networks import Networks, generate_noise
from nt_jax.models.noise_reader import read_noise
from nt_jax.models.parameters import Array, Tree
from nt_jax.readings import Measured, decode
from nt_jax.spectra import LEAST, MOST

# The level after clipping is not linear in the gain.
_ITERATIONS = 3


class Calibration(NamedTuple):
    """How generated noise is scaled and filtered.

    Attributes:
      gain: float32 [N, 3], factor of each channel's noise.
      wanted: float32 [N, 3], what they would be without bounds.
      ring_gain: float32 [N, spectra.SIZE], factors of the scaled noise's rings of frequency; None
        of a model that reads no spectrum.
    """

    gain: Array
    wanted: Array
    ring_gain: Array | None


def calibrate(
    networks: Networks,
    params: Mapping[str, Tree],
    patches: Array,
    vectors: Array,
    embedding: Array,
    key: Array,
) -> Calibration:
    """Finds the gains of noise generated for references.

    Args:
      networks: the modules.
      params: `generator`, spectrally normalised, and `spectrum_reader` where there is one.
      patches: of N references, K of each, float32 [K, N, H, W, 3] in [0, 1]; sides multiples of 4
        above 10.
      vectors: what is read off each patch, [K, N, SIZE], see `readings.decode`.
      embedding: of each reference, which the noise is generated from, [N, E].
      key: PRNG key of the random maps.
    """
    levels = jnp.exp(decode(vectors).log_level)  # [K, N, 3]
    flat = patches.reshape(-1, *patches.shape[2:])
    # A filter that keeps edges: on them a generator makes other noise than beside them.
    pseudo_clean = wiener(flat, levels.reshape(-1, levels.shape[-1]))
    count, height, width, _ = flat.shape
    maps = sample_maps(key, count, height, width, networks.generator.blocks)
    repeated = jnp.broadcast_to(embedding, (len(patches), *embedding.shape))
    repeated = repeated.reshape(count, -1)
    noise = generate_noise(networks, params["generator"], pseudo_clean, repeated, maps)
    pseudo_clean, noise = (x.reshape(patches.shape) for x in (pseudo_clean, noise))

    aimed = jnp.sqrt(jnp.square(levels).mean(0))
    wanted = jnp.ones_like(aimed)
    for _ in range(_ITERATIONS):
        gain = jnp.clip(wanted, LEAST, MOST)[None, :, None, None]
        made = jnp.clip(pseudo_clean + gain * noise, 0, 1) - pseudo_clean
        variance = made.var((2, 3)).mean(0)
        wanted = gain[0, :, 0, 0] * aimed / jnp.maximum(jnp.sqrt(variance), 1e-4)
    gain = jnp.clip(wanted, LEAST, MOST)
    if networks.spectrum_reader is None:
        return Calibration(gain, wanted, None)
    read = read_noise(networks.spectrum_reader, params["spectrum_reader"], flat).values
    read = read.reshape(*patches.shape[:2], -1)
    ring_gain = _find_ring_gain(read, pseudo_clean, gain[:, None, None] * noise)
    return Calibration(gain, wanted, ring_gain)


def _find_ring_gain(read: Array, clean: Array, noise: Array) -> Array:
    """Finds the gains of the rings of noise [K, N, H, W, 3]: [N, spectra.SIZE]."""

    def measure_left(gains: Array) -> Measured:
        repeated = jnp.broadcast_to(gains, read.shape).reshape(-1, spectra.SIZE)
        filtered = spectra.amplify("same", noise.reshape(-1, *noise.shape[2:]), repeated)
        made = jnp.clip(clean + filtered.reshape(noise.shape), 0, 1) - clean
        measured = spectra.measure(made.reshape(-1, *noise.shape[2:]))
        return Measured(*(x.reshape(read.shape) for x in measured))

    return spectra.fit_gains(read, measure_left)

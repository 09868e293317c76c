"""Scales generated noise to the level that is read off the reference.

A generator follows the level of noise it knows well and falls behind with noise it does not, while
what reads the reference gets its level far more evenly. Generated noise is known exactly, so it can
be measured where the reference was read: noise is generated on the reference's own patches,
filtered in place of the clean ones that nobody has, and the ratio of both levels is the gain of all
noise generated for that reference. It depends on the reference and the model alone: not on the
image that gets the noise, nor on a tile or a seed.

Not in the paper; for models that can read: by a head on the embedding
(`config.model.reader`) or by a network of its own (`noise_reader`).
"""

from typing import NamedTuple

import jax.numpy as jnp

from nt_jax.filters import wiener
from nt_jax.models.generator import sample_maps
from nt_jax.models.networks import Networks, generate_noise
from nt_jax.models.parameters import Array, Tree
from nt_jax.readings import decode

# Bounds of a gain: beyond, the reading or the generator is wrong.
LEAST, MOST = 1 / 3, 3.0
# The level after clipping is not linear in the gain.
_ITERATIONS = 3


class Calibration(NamedTuple):
    """How generated noise is scaled.

    Attributes:
      gain: float32 [N, 3], factor of each channel's noise.
      wanted: float32 [N, 3], what they would be without bounds.
    """

    gain: Array
    wanted: Array


def calibrate(
    networks: Networks,
    generator: Tree,
    patches: Array,
    vectors: Array,
    embedding: Array,
    key: Array,
) -> Calibration:
    """Finds the gains of noise generated for references.

    Args:
      networks: the modules.
      generator: its parameters, spectrally normalised.
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
    noise = generate_noise(networks, generator, pseudo_clean, repeated, maps)
    pseudo_clean, noise = (x.reshape(patches.shape) for x in (pseudo_clean, noise))

    aimed = jnp.sqrt(jnp.square(levels).mean(0))
    wanted = jnp.ones_like(aimed)
    for _ in range(_ITERATIONS):
        gain = jnp.clip(wanted, LEAST, MOST)[None, :, None, None]
        made = jnp.clip(pseudo_clean + gain * noise, 0, 1) - pseudo_clean
        variance = made.var((2, 3)).mean(0)
        wanted = gain[0, :, 0, 0] * aimed / jnp.maximum(jnp.sqrt(variance), 1e-4)
    return Calibration(jnp.clip(wanted, LEAST, MOST), wanted)

"""Computes what a loaded NoiseTransfer model does, compiled: one program per array size."""

from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import jax

from nt_jax import spectra
from nt_jax.compilation import Program
from nt_jax.inference.checks import fitting_parameters
from nt_jax.inference.tiles import full_float32, stacked_maps, unstack
from nt_jax.models.discriminator import Discriminator
from nt_jax.models.generator import Generator, sample_maps
from nt_jax.models.networks import Networks, embed_and_read
from nt_jax.models.noise_reader import NoiseReader, read_noise
from nt_jax.models.parameters import Array, Tree


def _apply(network: Any, params: Tree, *inputs: Any) -> Any:
    return network.apply({"params": params}, *inputs)


@Program
@fitting_parameters()
@full_float32
def look_at(
    networks: Networks, params: Mapping[str, Tree], images: Array
) -> tuple[Array, Array | None]:
    """Embeds and reads images [N, h, w, 3]: embeddings [N, E] and vectors [N, SIZE].

    See `networks.embed_and_read`.
    """
    return embed_and_read(networks, params, images)


@Program
@fitting_parameters()
@full_float32
def read_spectrum(reader: NoiseReader, params: Tree, noisy: Array) -> Array:
    """Reads crops [K, h, w, 3] in [0, 1]: vectors [K, SIZE] for `spectra.decode`."""
    return read_noise(reader, params, noisy).values


measure_spectrum = jax.jit(spectra.measure)
amplify = Program(spectra.amplify)


@partial(jax.jit, static_argnums=0)
@fitting_parameters()
@full_float32
def generate(
    generator: Generator, params: Tree, clean: Array, embedding: Array, maps: tuple[Array, ...]
) -> Array:
    """Runs the generator: noise [B, H, W, 3] of clean images, embeddings [B, E] and maps."""
    return _apply(generator, params, clean, embedding, maps)


@Program
def tile_maps(
    size: tuple[int, int, tuple[int, int, int]], seed: Array, origin: tuple[Array, Array]
) -> Any:
    """Draws `tiles.stacked_maps` by (height, width, blocks), seed and first pixel's position."""
    return stacked_maps(seed, origin, *size)


@cache
def tile_function() -> Program:
    """Compiles (generator, params, clean, embedding, stacked maps) -> noise for one tile."""

    @fitting_parameters()
    @full_float32
    def generate(
        generator: Generator, params: Tree, clean: Array, embedding: Array, stacks: Any
    ) -> Array:
        return _apply(generator, params, clean, embedding, unstack(stacks, generator.blocks))

    # On a CPU, XLA computes all modulations, which do not wait for each other, early by default:
    # at width 64 a tile would need 3.2 GB in place of 0.4 GB.
    low_memory = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    options = low_memory if jax.default_backend() == "cpu" else None
    return Program(generate, compiler_options=options)


@partial(jax.jit, static_argnums=0)
@fitting_parameters()
@full_float32
def discriminate(
    discriminator: Discriminator, params: Tree, clean: Array, embedding: Array, noisy: Array
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Runs the discriminator: features and logits of each level, see `Model.discriminate`."""
    _, outputs = _apply(discriminator, params, None, clean, embedding, noisy[:, None])
    return tuple(f[:, 0] for f in outputs.features), tuple(m[:, 0] for m in outputs.logits)


@partial(jax.jit, static_argnums=(1, 2, 3, 4))
def draw_maps(
    key: Array, batch: int, height: int, width: int, blocks: tuple[int, int, int]
) -> tuple[Array, ...]:
    """Draws random maps of the generator, in call order: see `models.generator.sample_maps`."""
    return sample_maps(key, batch, height, width, blocks)

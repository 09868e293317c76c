"""The pair of networks a NoiseTransfer model consists of, built from a model config."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nt_jax.models.discriminator import Discriminator
from nt_jax.models.generator import Generator, map_shapes
from nt_jax.models.layers import Array, SpectralVectors, Tree, init_params, init_spectral

# Any multiple of 4 serves: parameters do not depend on the image size.
_INIT_SIZE = 16


class Networks(NamedTuple):
    """Modules; their parameters are arguments of every call."""

    generator: Generator
    discriminator: Discriminator


class Variables(NamedTuple):
    """Parameters of one network with their spectral vectors."""

    params: Tree
    spectral: SpectralVectors


def make_networks(model: Any, dtype: Any = jnp.float32) -> Networks:
    """Networks of a model config (fields as in `configs/noisetransfer.py`, `config.model`)."""
    blocks = tuple(model.blocks)
    return Networks(
        Generator(model.width, blocks, dtype),
        Discriminator(
            model.width,
            model.embedding_size,
            tuple(model.discriminator_blocks),
            model.embedding_bound,
            model.gan_trunk,
            dtype,
        ),
    )


def init_networks(key: Array, networks: Networks) -> tuple[Variables, Variables]:
    """Fresh variables of the generator and the discriminator."""
    generator, discriminator = networks
    size = _INIT_SIZE
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    images = jax.ShapeDtypeStruct((1, 1, size, size, 3), jnp.float32)
    embedding = jax.ShapeDtypeStruct((1, discriminator.embedding_size), jnp.float32)
    maps = tuple(
        jax.ShapeDtypeStruct(shape, jnp.float32)
        for shape in map_shapes(1, size, size, generator.blocks)
    )
    keys = jax.random.split(key, 4)
    generator_params = init_params(keys[0], generator, image, embedding, maps)
    discriminator_params = init_params(keys[1], discriminator, images, image, embedding, images)
    return (
        Variables(generator_params, init_spectral(keys[2], generator_params)),
        Variables(discriminator_params, init_spectral(keys[3], discriminator_params)),
    )


def embed(networks: Networks, params: Tree, images: Array) -> Array:
    """Noise embeddings [B, E] of images [B, H, W, 3]; `params` are spectrally normalised."""
    outputs, _ = networks.discriminator.apply({"params": params}, images[:, None])
    return outputs.embedding[:, 0]

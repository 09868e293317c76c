"""The pair of networks a NoiseTransfer model consists of, built from a model config."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from nt_jax import prng, readings, spectra
from nt_jax.models.discriminator import Discriminator, Reader
from nt_jax.models.generator import Generator, map_shapes
from nt_jax.models.noise_reader import NoiseReader, read_noise
from nt_jax.models.parameters import Array, Layout, Stacks, Tree, init_params, module_layout
from nt_jax.models.spectral import SpectralVectors, init_spectral

# Parameters do not depend on the image size; any multiple of 4 serves to find their shapes.
_SIZE = 16


class Networks(NamedTuple):
    """Modules; their parameters are arguments of every call.

    Attributes:
      generator, discriminator: NoiseTransfer's.
      reader: what a noise is read by, in place of the discriminator's head; None for that or none.
      spectrum_reader: what its power spectrum is read by; None of a model that cannot.
    """

    generator: Generator
    discriminator: Discriminator
    reader: NoiseReader | None = None
    spectrum_reader: NoiseReader | None = None


class Variables(NamedTuple):
    """Parameters of one network with their spectral vectors."""

    params: Stacks
    spectral: SpectralVectors


def make_networks(model: Any, dtype: Any = jnp.float32) -> Networks:
    """Networks of a model config (fields as in `configs/common.py`, `config.model`)."""
    # Readers join a model when it is released; they are no part of its training.
    reader, spectrum_reader = (
        NoiseReader(width, size) if width else None
        for width, size in (
            (getattr(model, "noise_reader", 0), readings.SIZE),
            (getattr(model, "spectrum_reader", 0), spectra.SIZE),
        )
    )
    return Networks(
        Generator(model.width, tuple(model.blocks), dtype),
        Discriminator(
            model.width,
            model.embedding_size,
            tuple(model.discriminator_blocks),
            model.embedding_bound,
            model.gan_trunk,
            # Models of before have no such fields.
            getattr(model, "log_squares", False),
            readings.SIZE if getattr(model, "reader", False) else 0,
            dtype,
        ),
        reader,
        spectrum_reader,
    )


def layouts(networks: Networks) -> tuple[Layout, Layout]:
    """Computes the parameter layouts of the generator and the discriminator."""
    generator, discriminator = networks.generator, networks.discriminator
    image, images = (1, _SIZE, _SIZE, 3), (1, 1, _SIZE, _SIZE, 3)
    embedding = (1, discriminator.embedding_size)
    maps = map_shapes(1, _SIZE, _SIZE, generator.blocks)
    return (
        module_layout(generator, image, embedding, maps),
        module_layout(discriminator, images, image, embedding, images),
    )


def init_networks(key: Array, networks: Networks) -> tuple[Variables, Variables]:
    """Draws fresh variables of the generator and the discriminator."""
    variables = []
    for layout, network_key in zip(layouts(networks), prng.split(key), strict=True):
        params_key, spectral_key = prng.split(network_key)
        params = init_params(params_key, layout)
        variables.append(Variables(params, init_spectral(spectral_key, params)))
    generator, discriminator = variables
    return generator, discriminator


def embed(networks: Networks, params: Tree, images: Array) -> Array:
    """Embeds the noise of images: [B, H, W, 3] -> [B, E]; `params` are spectrally normalised."""
    outputs, _ = networks.discriminator.apply({"params": params}, images[:, None])
    return outputs.embedding[:, 0]


def read(networks: Networks, params: Tree, embeddings: Array) -> Array:
    """Reads embeddings [..., E] with the head: standardised vectors for `readings.decode`.

    `params` are the encoder's, spectrally normalised.
    """
    reader = Reader(networks.discriminator.readings)
    return jnp.asarray(reader.apply({"params": params["reader"]}, embeddings))


def embed_and_read(
    networks: Networks, params: Mapping[str, Tree], images: Array
) -> tuple[Array, Array | None]:
    """Embeds images and reads their noise.

    Args:
      networks: the modules.
      params: `key_encoder`, spectrally normalised, and `noise_reader` where there is one.
      images: [B, H, W, 3] in [0, 1], sides multiples of 4.

    Returns:
      (embeddings [B, E], standardised vectors [B, N] for `readings.decode`; None of a model that
      cannot read).
    """
    encoder = params["key_encoder"]
    embeddings = embed(networks, encoder, images)
    if networks.reader is not None:
        return embeddings, read_noise(networks.reader, params["noise_reader"], images).values
    if networks.discriminator.readings:
        return embeddings, read(networks, encoder, embeddings)
    return embeddings, None


def generate_noise(
    networks: Networks, params: Tree, clean: Array, embedding: Array, maps: tuple[Array, ...]
) -> Array:
    """Makes unclipped noise [B, H, W, 3] for clean images; `params` are spectrally normalised."""
    return jnp.asarray(networks.generator.apply({"params": params}, clean, embedding, maps))

"""A NoiseTransfer model: from a checkpoint to a model folder's content, from that to a model."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp

from nt_jax.inference.embeddings import crop_of_trained
from nt_jax.inference.model import Model
from nt_jax.models.networks import layouts, make_networks
from nt_jax.models.parameters import Tree, unstack
from nt_jax.models.spectral import SpectralVectors, spectral_normalize

# Compiled whole: operation by operation, each of a kernel's shape would be a program.
_normalize = jax.jit(spectral_normalize)


def released(
    config: Mapping[str, Any], state: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Tree]]:
    """Normalises the networks spectrally; the generator is its moving average where one is kept."""
    generator, discriminator = layouts(make_networks(SimpleNamespace(**config["model"])))

    def effective(params: str, vectors: str, layout: Any) -> Tree:
        normalized = _normalize(state[params], SpectralVectors(**state[vectors]))
        return unstack(jax.device_get(normalized), layout)

    average = state.get("generator_average") is not None
    variables = {
        "generator": effective(
            "generator_average" if average else "generator", "generator_spectral", generator
        ),
        "key_encoder": effective("key_encoder", "key_spectral", discriminator),
        "discriminator": effective("discriminator", "discriminator_spectral", discriminator),
    }
    reference_crop = crop_of_trained(config["data"]["patch_size"])
    return {"model": config["model"], "reference_crop": reference_crop}, variables


def load(metadata: Mapping[str, Any], variables: Mapping[str, Tree], dtype: str) -> Model:
    """Builds the model; without the discriminator where the folder has none."""
    networks = make_networks(SimpleNamespace(**metadata["model"]), jnp.dtype(dtype))
    params = {key: variables[key] for key in ("generator", "key_encoder")}
    if "discriminator" in variables:
        params["discriminator"] = variables["discriminator"]
    if networks.reader is not None:
        params["noise_reader"] = variables["noise_reader"]
    if networks.spectrum_reader is not None:
        params["spectrum_reader"] = variables["spectrum_reader"]
    return Model(networks, jax.device_put(params), metadata)

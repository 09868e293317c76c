"""A training workdir as the content of a model folder."""

import os
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nt_jax.checkpointing import CONFIG_FILE, load_state
from nt_jax.inference.embeddings import crop_of_trained
from nt_jax.models.denoisers import layout_of, make_denoiser
from nt_jax.models.networks import layouts, make_networks
from nt_jax.models.parameters import Tree, unstack
from nt_jax.models.spectral import SpectralVectors, spectral_normalize
from nt_jax.paths import expand


def is_workdir(folder: str | os.PathLike) -> bool:
    """Whether a folder looks like that of a training run."""
    return (expand(folder) / CONFIG_FILE).is_file()


def load_workdir(workdir: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Tree]]:
    """Reads the newest checkpoint of a workdir: (metadata, parameter trees by network name).

    Trees are float32 NumPy arrays, a NoiseTransfer model's spectrally normalised; the generator,
    and the denoiser, is its moving average where the run keeps one.

    Raises:
      InputError: no workdir, or one without a readable checkpoint.
    """
    config, step, state = load_state(workdir)
    # A run may have been packed with 16 bits, in which a spectral norm would be off.
    state = jax.tree.map(lambda leaf: _wide(np.asarray(leaf)), state)
    if "denoiser" in config:
        kind = config["model"].get("kind", "ridnet")  # older runs do not say
        model = {"features": config["model"]["width"], "blocks": config["model"]["blocks"]}
        params = state["params"] if state.get("average") is None else state["average"]
        tree = unstack(params, layout_of(make_denoiser(kind, **model)))
        metadata = {"kind": kind, "model": model, "step": step, "recipe": config}
        return metadata, {"denoiser": jax.tree.map(np.asarray, tree)}

    generator, discriminator = layouts(make_networks(SimpleNamespace(**config["model"])))

    def effective(params: str, vectors: str, layout: Any) -> Tree:
        pair = SpectralVectors(**state[vectors])
        return jax.tree.map(np.asarray, unstack(spectral_normalize(state[params], pair), layout))

    average = state.get("generator_average") is not None
    variables = {
        "generator": effective(
            "generator_average" if average else "generator", "generator_spectral", generator
        ),
        "key_encoder": effective("key_encoder", "key_spectral", discriminator),
        "discriminator": effective("discriminator", "discriminator_spectral", discriminator),
    }
    metadata = {
        "kind": "noisetransfer",
        "model": config["model"],
        "reference_crop": crop_of_trained(config["data"]["patch_size"]),
        "step": step,
        "recipe": config,
    }
    return metadata, variables


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if jnp.issubdtype(array.dtype, jnp.floating) else array

"""A model with random weights, loaded as a user's: time does not depend on the weights."""

import tempfile
from typing import Any

import jax

from nt_jax import Model, load, prng
from nt_jax.checkpointing import save_model
from nt_jax.models.networks import init_networks, layouts, make_networks
from nt_jax.models.parameters import unstack
from nt_jax.models.spectral import spectral_normalize, update_spectral


def random_model(sizes: Any) -> Model:
    """Makes a model of a training config's sizes (`config.model`)."""
    networks = make_networks(sizes)

    @jax.jit
    def params() -> list[Any]:
        parts = zip(init_networks(prng.key(0), networks), layouts(networks), strict=True)
        return [
            unstack(spectral_normalize(p, update_spectral(p, s, 5)), layout)
            for (p, s), layout in parts
        ]

    generator, key_encoder = params()
    metadata = {"kind": "noisetransfer", "model": sizes.to_dict()}
    with tempfile.TemporaryDirectory() as folder:
        save_model(folder, metadata, {"generator": generator, "key_encoder": key_encoder})
        return load(folder)

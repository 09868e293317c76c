"""NoiseTransfer as a task of the training loop."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from nt_jax.families.noisetransfer.state import TrainState, init_state
from nt_jax.families.noisetransfer.step import effective, jit_train_step
from nt_jax.inference.embeddings import crop_of_trained, embed_by_crops
from nt_jax.models.generator import sample_maps
from nt_jax.models.networks import Networks, generate_noise, layouts, make_networks
from nt_jax.models.parameters import Array, Stacks, Tree
from nt_jax.models.spectral import SpectralVectors
from nt_jax.training.task import Batch, GeneratorTask, Step


class NoiseTransferTask(GeneratorTask):
    """Generator and discriminator."""

    shown = ("loss_g", "loss_d", "recon", "contrastive_accuracy", "d_real", "d_fake")
    inherits: ClassVar = {
        "generator": "generator",
        "generator_average": "generator",
        "generator_spectral": "generator_spectral",
        "discriminator": "discriminator",
        "discriminator_spectral": "discriminator_spectral",
        "key_encoder": "key_encoder",
        "key_spectral": "key_spectral",
        "queue": "queue",
    }

    def __init__(self, config: Any) -> None:
        """Reads the held-out patches; raises InputError."""
        super().__init__(config)
        self._networks = make_networks(config.model, jnp.dtype(config.model.dtype))
        self._generate = make_generate(self._networks, crop_of_trained(config.data.patch_size))

    def init(self, key: Array) -> TrainState:
        """Makes the state before the first step."""
        return init_state(self.config, self._networks, key)

    def parameters(self, state: TrainState) -> dict[str, Tree]:
        """Gives the trained parameters by network name."""
        return {"generator": state.generator, "discriminator": state.discriminator}

    def make_step(self, mesh: Mesh) -> Step:
        """Compiles the step."""
        return jit_train_step(self.config, self._networks, mesh)

    def generate(self, state: TrainState, batch: Batch, key: Array) -> Array:
        """Makes noisy patches by the reference's embedding."""
        return self._generate(state, batch["clean"], batch["reference"], key)


def make_generate(
    networks: Networks, reference_crop: int
) -> Callable[[TrainState, Array, Array, Array], Array]:
    """Compiles (state, clean, reference, key) -> generated images in [0, 1], all [N, P, P, 3].

    The generator is the state's moving average where it keeps one. References are embedded by crops
    of `reference_crop` pixels a side, as by the model that is released.
    """

    def of_state(state: TrainState, clean: Array, reference: Array, key: Array) -> Array:
        average = state.generator_average
        params = state.generator if average is None else average
        return _generate(
            networks,
            reference_crop,
            (params, state.generator_spectral),
            (state.key_encoder, state.key_spectral),
            clean,
            reference,
            key,
        )

    return of_state


@partial(jax.jit, static_argnums=(0, 1))
def _generate(
    networks: Networks,
    reference_crop: int,
    generator: tuple[Stacks, SpectralVectors],
    key_encoder: tuple[Stacks, SpectralVectors],
    clean: Array,
    reference: Array,
    key: Array,
) -> Array:
    generator_layout, discriminator_layout = layouts(networks)
    encoder = effective(*key_encoder, discriminator_layout)
    embedding = embed_by_crops(networks, encoder, reference, reference_crop)
    count, height, width, _ = clean.shape
    maps = sample_maps(key, count, height, width, networks.generator.blocks)
    params = effective(*generator, generator_layout)
    return jnp.clip(clean + generate_noise(networks, params, clean, embedding, maps), 0, 1)

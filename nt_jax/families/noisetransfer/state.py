"""Everything a training run carries from step to step."""

from typing import Any

import flax
import jax
import jax.numpy as jnp

from nt_jax import prng
from nt_jax.families.noisetransfer import moco
from nt_jax.models.networks import Networks, init_networks
from nt_jax.models.parameters import Array, Stacks
from nt_jax.models.spectral import SpectralVectors
from nt_jax.training.optimizer import make_optimizer


class TrainState(flax.struct.PyTreeNode):
    """State of the two networks, the key encoder, the queue and both optimizers.

    Attributes:
      step: int32 scalar, updates done.
      generator, discriminator, key_encoder: raw parameters, float32, stacked.
      generator_spectral, discriminator_spectral, key_spectral: their spectral vectors.
      generator_optimizer, discriminator_optimizer: optax states.
      queue: [Q, E] keys, the oldest at `queue_pointer`.
      queue_pointer: int32 scalar.
      generator_average: moving average of `generator`, or None when `train.ema_decay` is 0.
    """

    step: Array
    generator: Stacks
    discriminator: Stacks
    key_encoder: Stacks
    generator_spectral: SpectralVectors
    discriminator_spectral: SpectralVectors
    key_spectral: SpectralVectors
    generator_optimizer: Any
    discriminator_optimizer: Any
    queue: Array
    queue_pointer: Array
    generator_average: Stacks | None


def init_state(config: Any, networks: Networks, key: Array) -> TrainState:
    """Makes the state before the first step; the key encoder starts as the discriminator's copy."""
    network_key, queue_key = prng.split(key)
    generator, discriminator = init_networks(network_key, networks)
    optimizer = make_optimizer(config.train)
    copy = lambda tree: jax.tree.map(jnp.copy, tree)  # noqa: E731  donated buffers must differ
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        generator=generator.params,
        discriminator=discriminator.params,
        key_encoder=copy(discriminator.params),
        generator_spectral=generator.spectral,
        discriminator_spectral=discriminator.spectral,
        key_spectral=copy(discriminator.spectral),
        generator_optimizer=optimizer.init(generator.params),
        discriminator_optimizer=optimizer.init(discriminator.params),
        queue=moco.init_queue(queue_key, config.model.queue_length, config.model.embedding_size),
        queue_pointer=jnp.zeros((), jnp.int32),
        generator_average=copy(generator.params) if config.train.ema_decay else None,
    )

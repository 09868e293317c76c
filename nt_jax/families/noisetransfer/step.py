"""The training step: one pure function of state, batch and key."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from nt_jax.families.noisetransfer import losses, moco
from nt_jax.families.noisetransfer.state import TrainState
from nt_jax.models.generator import sample_maps
from nt_jax.models.networks import Networks, embed, generate_noise, layouts
from nt_jax.models.parameters import Array, Layout, Stacks, Tree, unstack
from nt_jax.models.spectral import SpectralVectors, spectral_normalize, update_spectral
from nt_jax.training.optimizer import JitStep, averaged, descend, make_optimizer

Batch = dict[str, Array]
Metrics = dict[str, Array]


def joint_losses(
    config: Any,
    networks: Networks,
    generator: Tree,
    discriminator: Tree,
    batch: Batch,
    key: Array,
    queue: Array,
    maps: tuple[Array, ...],
) -> tuple[Array, Metrics]:
    """Computes L_G + L_D (eq. 7): one forward pass of G, one of D over real and generated images.

    The gradient of the sum by the generator's parameters is that of L_G, and by the
    discriminator's that of L_D: in L_G the discriminator is frozen, in L_D the generated image is
    a constant. So one backward pass serves both networks, and carries through D only what each
    loss needs of each image.

    Args:
      config: training config; a loss whose weight is 0 is not computed.
      networks: the modules.
      generator, discriminator: spectrally normalised parameters.
      batch: `clean` and `noisy`, [B, H, W, 3] in [0, 1].
      key: [B, E], Dk of the reference, which is the positive and the generator's embedding.
      queue: [Q, E] negatives.
      maps: the generator's random maps.

    Returns:
      (L_G + L_D, {name: float32 scalar}).
    """
    clean, noisy = batch["clean"], batch["noisy"]
    noise = generate_noise(networks, generator, clean, key, maps)
    generated = clean + noise
    contrast, gan = _judged(config, networks, discriminator, clean, noisy, generated, key)
    seen = losses.Seen(config, clean, noisy, noise, generated, key, queue, contrast, gan)
    loss_g, metrics_g = losses.add_up(losses.GENERATOR, seen)
    loss_d, metrics_d = losses.add_up(losses.DISCRIMINATOR, seen)
    return loss_g + loss_d, metrics_g | metrics_d | {"loss_g": loss_g, "loss_d": loss_d}


def _judged(
    config: Any,
    networks: Networks,
    discriminator: Tree,
    clean: Array,
    noisy: Array,
    generated: Array,
    key: Array,
) -> tuple[Any, Any]:
    """Runs the discriminator once, on the images that a term with a weight asks for."""
    weights = config.losses
    noise_images, gan_images = [], []
    generator_noise = bool(weights.noise_g or weights.noise_fm)
    generator_gan = bool(weights.gan_g or weights.gan_fm)
    if generator_noise:
        noise_images.append(generated)
    if weights.noise_d or weights.noise_fm or weights.get("reading"):
        noise_images.append(noisy)
    if weights.gan_d or weights.gan_fm:
        gan_images.append(noisy)
    if weights.gan_d:
        gan_images.append(jax.lax.stop_gradient(generated))
    if generator_gan:
        gan_images.append(generated)
    if not noise_images and not gan_images:
        return None, None
    return networks.discriminator.apply(
        {"params": discriminator},
        jnp.stack(noise_images, axis=1) if noise_images else None,
        *((clean, key, jnp.stack(gan_images, axis=1)) if gan_images else (None, None, None)),
        frozen=(int(generator_noise), int(generator_gan)),
    )


def train_step(
    config: Any, networks: Networks, state: TrainState, batch: Batch, key: Array
) -> tuple[TrainState, Metrics]:
    """Updates both networks, the key encoder and the queue once (spec: paper section 3).

    Args:
      config: training config.
      networks: the modules.
      state: state before the step.
      batch: `clean`, `noisy`, `reference`, [B, H, W, 3] float32 in [0, 1].
      key: PRNG key of the random maps.

    Returns:
      (state after the step, {name: float32 scalar}); both gradients are at the state before.
    """
    iterations = config.variant.power_iterations
    generator_spectral = update_spectral(state.generator, state.generator_spectral)
    discriminator_spectral = update_spectral(
        state.discriminator, state.discriminator_spectral, iterations
    )
    key_spectral = update_spectral(state.key_encoder, state.key_spectral)

    generator_layout, discriminator_layout = layouts(networks)
    key_params = effective(state.key_encoder, key_spectral, discriminator_layout)
    keys = jax.lax.stop_gradient(embed(networks, key_params, batch["reference"]))
    count, height, width, _ = batch["clean"].shape
    maps = sample_maps(key, count, height, width, networks.generator.blocks)

    def forward(generator: Stacks, discriminator: Stacks) -> tuple[Array, Metrics]:
        return joint_losses(
            config,
            networks,
            effective(generator, generator_spectral, generator_layout),
            effective(discriminator, discriminator_spectral, discriminator_layout),
            batch,
            keys,
            state.queue,
            maps,
        )

    gradient = jax.grad(forward, argnums=(0, 1), has_aux=True)
    (generator_gradient, discriminator_gradient), metrics = gradient(
        state.generator, state.discriminator
    )
    metrics["gradient_norm_g"] = optax.tree.norm(generator_gradient)
    metrics["gradient_norm_d"] = optax.tree.norm(discriminator_gradient)

    optimizer = make_optimizer(config.train)
    generator, generator_optimizer = descend(
        optimizer, generator_gradient, state.generator_optimizer, state.generator
    )
    discriminator, discriminator_optimizer = descend(
        optimizer, discriminator_gradient, state.discriminator_optimizer, state.discriminator
    )
    queue, queue_pointer = moco.enqueue(state.queue, state.queue_pointer, keys)
    average = state.generator_average
    if average is not None:
        average = averaged(average, generator, config.train.ema_decay, state.step)
    state = TrainState(
        step=state.step + 1,
        generator=generator,
        discriminator=discriminator,
        key_encoder=optax.incremental_update(
            discriminator, state.key_encoder, 1 - config.model.momentum
        ),
        generator_spectral=generator_spectral,
        discriminator_spectral=discriminator_spectral,
        key_spectral=key_spectral,
        generator_optimizer=generator_optimizer,
        discriminator_optimizer=discriminator_optimizer,
        queue=queue,
        queue_pointer=queue_pointer,
        generator_average=average,
    )
    return state, metrics


def effective(stacks: Stacks, vectors: SpectralVectors, layout: Layout) -> Tree:
    """Makes the parameter tree a network is applied to: spectrally normalised, one leaf a layer."""
    return unstack(spectral_normalize(stacks, vectors), layout)


def jit_train_step(config: Any, networks: Networks, mesh: Mesh) -> Callable[..., Any]:
    """Compiles `train_step` over the mesh's `data` axis, the state donated and replicated."""
    return JitStep(train_step, config, (networks,), mesh)

"""DANet as a task of the training loop."""

from functools import partial
from typing import Any, ClassVar, NamedTuple

import flax
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from nt_jax import prng
from nt_jax.families.danet import losses
from nt_jax.families.danet.networks import Critic, UNet, make_noise, restore
from nt_jax.models.parameters import Array, Tree
from nt_jax.models.plain import gradient_penalty, init_plain
from nt_jax.training.optimizer import descend, make_optimizer
from nt_jax.training.task import Batch, Functions, FunctionsTask, Metrics


class DANetState(flax.struct.PyTreeNode):
    """State that training carries from step to step.

    Attributes:
      step: int32 scalar, updates done.
      generator, denoiser, critic: parameters, float32.
      optimizers: optax state of each by name.
    """

    step: Array
    generator: Tree
    denoiser: Tree
    critic: Tree
    optimizers: dict[str, Any]


class Networks(NamedTuple):
    """The modules; the denoiser is a U-Net of three channels in place of four."""

    unet: UNet
    critic: Critic


def make_networks(config: Any) -> Networks:
    """Makes the networks of a training config."""
    return Networks(UNet(config.model.width), Critic(config.model.critic_width))


def make_optimizers(train: Any) -> dict[str, optax.GradientTransformation]:
    """Makes Adam for each network: the denoiser's moments are Adam's usual ones."""
    usual = ConfigDict({**train, "adam_b1": 0.9, "adam_b2": 0.999})
    fast = ConfigDict({**train, "learning_rate": train.critic_learning_rate})
    return {
        "generator": make_optimizer(train),
        "denoiser": make_optimizer(usual),
        "critic": make_optimizer(fast),
    }


def init_state(config: Any, networks: Networks, key: Array) -> DANetState:
    """Makes the state before the first step."""
    side = config.data.patch_size
    keys = prng.split(key, 3)
    params = {
        "generator": init_plain(keys[0], networks.unet, ((1, 16, 16, 4),)),
        "denoiser": init_plain(keys[1], networks.unet, ((1, 16, 16, 3),)),
        "critic": init_plain(keys[2], networks.critic, ((1, side, side, 6),)),
    }
    optimizers = make_optimizers(config.train)
    moments = {name: optimizers[name].init(tree) for name, tree in params.items()}
    return DANetState(step=jnp.zeros((), jnp.int32), optimizers=moments, **params)


def train_step(
    config: Any, networks: Networks, state: DANetState, batch: Batch, key: Array
) -> tuple[DANetState, Metrics]:
    """Makes one update of generator and denoiser, after `train.critic_steps` of the critic.

    All of them see the same batch, each with random numbers of its own.

    Args:
      config: training config.
      networks: the modules.
      state: state before the step.
      batch: `clean` and `noisy`, [B, P, P, 3] float32 in [0, 1].
      key: PRNG key.

    Returns:
      (state after the step, {name: float32 scalar}).
    """
    clean, noisy = batch["clean"], batch["noisy"]
    optimizers, moments = make_optimizers(config.train), dict(state.optimizers)
    generate = partial(make_noise, networks.unet)

    def score(params: Tree, clean: Array, noisy: Array) -> Array:
        pair = jnp.concatenate([clean, noisy], axis=-1)
        return jnp.asarray(networks.critic.apply({"params": params}, pair))

    def update(name: str, params: Tree, gradient: Tree) -> Tree:
        params, moments[name] = descend(optimizers[name], gradient, moments[name], params)
        return params

    true_pair = jnp.concatenate([clean, noisy], axis=-1)
    restored = jax.lax.stop_gradient(restore(networks.unet, state.denoiser, noisy))
    critic, loss_critic, distance = state.critic, jnp.float32(0), jnp.float32(0)
    for i in range(config.train.critic_steps):
        noise_key, *penalty_keys = prng.split(prng.fold_in(key, i + 1), 3)
        generated = clean + jax.lax.stop_gradient(generate(state.generator, batch, noise_key))
        fakes = [
            jnp.concatenate([clean, generated], axis=-1),
            jnp.concatenate([restored, noisy], axis=-1),
        ]

        def loss_of_critic(
            params: Tree, fakes: list[Array] = fakes, keys: list[Array] = penalty_keys
        ) -> tuple[Array, Array]:
            apply = partial(networks.critic.apply, {"params": params})
            scores = [jnp.asarray(apply(pair)) for pair in (true_pair, *fakes)]
            penalties = [
                losses.SHARE * gradient_penalty(apply, true_pair, fake, key)
                for fake, key in zip(fakes, keys, strict=True)
            ]
            wasserstein = losses.critic_loss(*scores)
            return wasserstein + config.losses.penalty * sum(penalties), -wasserstein

        (loss_critic, distance), gradient = jax.value_and_grad(loss_of_critic, has_aux=True)(critic)
        critic = update("critic", critic, gradient)

    def loss_of_generator(params: Tree) -> tuple[Array, Array]:
        noise = generate(params, batch, prng.fold_in(key, 0))
        difference = losses.blurred_difference(noisy - clean, noise)
        judged = losses.adversarial(score(critic, clean, clean + noise))
        return judged + config.losses.generated * difference, difference

    def loss_of_denoiser(params: Tree) -> tuple[Array, Array]:
        image = restore(networks.unet, params, noisy)
        difference = jnp.abs(image - clean).mean()
        judged = losses.adversarial(score(critic, image, noisy))
        return judged + config.losses.restored * difference, difference

    differentiate = partial(jax.value_and_grad, has_aux=True)
    (loss_g, blurred), gradient_g = differentiate(loss_of_generator)(state.generator)
    (loss_r, l1), gradient_r = differentiate(loss_of_denoiser)(state.denoiser)
    values = {
        "loss_g": loss_g,
        "loss_r": loss_r,
        "loss_critic": loss_critic,
        "distance": distance,
        "blurred_difference": blurred,
        "l1": l1,
    }
    after = DANetState(
        step=state.step + 1,
        generator=update("generator", state.generator, gradient_g),
        denoiser=update("denoiser", state.denoiser, gradient_r),
        critic=critic,
        optimizers=moments,
    )
    return after, values


def noise_of(networks: Networks, state: DANetState, batch: Batch, key: Array) -> Array:
    """Makes unclipped noise of clean patches, [N, P, P, 3]."""
    return make_noise(networks.unet, state.generator, batch, key)


class DANetTask(FunctionsTask):
    """Generator, denoiser and critic; the generator is scored and released."""

    shown = ("loss_g", "loss_r", "distance")
    inputs = ("clean", "noisy")
    inherits: ClassVar = {name: name for name in ("generator", "denoiser", "critic")}
    functions = Functions(make_networks, init_state, train_step, noise_of)

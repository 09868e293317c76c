"""NeCA as a task of the training loop."""

from functools import partial
from typing import Any, ClassVar, NamedTuple

import flax
import jax
import jax.numpy as jnp

from nt_jax import prng
from nt_jax.families.neca import losses
from nt_jax.families.neca.networks import Critic, Generator, make, make_generator, make_noise
from nt_jax.models.parameters import Array, Tree
from nt_jax.models.plain import adversarial, gradient_penalty, init_plain, wasserstein
from nt_jax.training.optimizer import descend, make_optimizer
from nt_jax.training.task import Batch, Functions, FunctionsTask, Metrics


class NeCAState(flax.struct.PyTreeNode):
    """State that training carries from step to step.

    Attributes:
      step: int32 scalar, updates done.
      generator: parameters of `Generator`'s networks by name, float32.
      critics: parameters of the critics of `noise` and of `plain` noise, float32.
      optimizers: optax state of each of the two by name.
    """

    step: Array
    generator: dict[str, Tree]
    critics: dict[str, Tree]
    optimizers: dict[str, Any]


class Networks(NamedTuple):
    """The modules; the critics of noise and of plain noise are one module of two sizes."""

    generator: Generator
    critic: Critic


def make_networks(config: Any) -> Networks:
    """Makes the networks of a training config."""
    return Networks(make_generator(config.model), Critic(config.model.critic_width))


def init_state(config: Any, networks: Networks, key: Array) -> NeCAState:
    """Makes the state before the first step."""
    keys, image = prng.split(key, 5), (1, 16, 16, 3)
    side = config.data.patch_size
    generator = {
        "gain": init_plain(keys[0], networks.generator.gain, (image,)),
        "level": init_plain(keys[1], networks.generator.level, (image, (1, 1, 1, 1))),
        "correlation": init_plain(keys[2], networks.generator.correlation, (image,)),
    }
    critics = {
        "noise": init_plain(keys[3], networks.critic, ((1, side, side, 3),)),
        "plain": init_plain(keys[4], networks.critic, ((1, *[-(-side // losses.CELL)] * 2, 3),)),
    }
    optimizer = make_optimizer(config.train)
    moments = {"generator": optimizer.init(generator), "critics": optimizer.init(critics)}
    return NeCAState(jnp.zeros((), jnp.int32), generator, critics, moments)


def train_step(
    config: Any, networks: Networks, state: NeCAState, batch: Batch, key: Array
) -> tuple[NeCAState, Metrics]:
    """Makes one update of the generator's networks and one of the critics.

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
    weights, noise = config.losses, noisy - clean
    real = {"noise": noise, "plain": losses.cells(noise)}
    noise_key, *penalty_keys = prng.split(key, 3)
    optimizer, moments = make_optimizer(config.train), {}

    def score(critics: Tree, name: str, images: Array) -> Array:
        return jnp.asarray(networks.critic.apply({"params": critics[name]}, images))

    def update(name: str, params: Tree, gradient: Tree) -> Tree:
        params, moments[name] = descend(optimizer, gradient, state.optimizers[name], params)
        return params

    judged = (state.step + 1) % config.train.adversarial_every == 0

    def loss_of_generator(params: Tree) -> tuple[Array, tuple[dict[str, Array], Metrics]]:
        made = make(networks.generator, params, clean, noisy, noise_key)
        fake = {"noise": made.noise, "plain": losses.cells(made.plain)}
        named = {
            "gain": losses.squared_error(made.gain, losses.global_level(noise)),
            "level": losses.squared_error(made.level, losses.local_level(noise)),
            "evenness": losses.squared_error(made.level, made.gain),
        }
        total = sum(weights[name] * value for name, value in named.items())
        scores = sum(adversarial(score(state.critics, name, fake[name])) for name in fake)
        total += jnp.where(judged, weights.adversarial, 0.0) * scores
        return total, (fake, named)

    differentiate = partial(jax.value_and_grad, has_aux=True)
    (loss_g, (fake, named)), gradient_g = differentiate(loss_of_generator)(state.generator)

    def loss_of_critics(critics: Tree) -> tuple[Array, Array]:
        total, distance = jnp.float32(0), jnp.float32(0)
        for name, penalty_key in zip(real, penalty_keys, strict=True):
            apply = partial(score, critics, name)
            loss = wasserstein(apply(real[name]), apply(fake[name]))
            penalty = gradient_penalty(apply, real[name], fake[name], penalty_key)
            total += loss + weights.penalty * penalty
            distance -= loss
        return total, distance

    (loss_critics, distance), gradient = differentiate(loss_of_critics)(state.critics)
    values = {"loss_g": loss_g, "loss_critics": loss_critics, "distance": distance, **named}
    after = NeCAState(
        step=state.step + 1,
        generator=update("generator", state.generator, gradient_g),
        critics=update("critics", state.critics, gradient),
        optimizers=moments,
    )
    return after, values


def noise_of(networks: Networks, state: NeCAState, batch: Batch, key: Array) -> Array:
    """Makes unclipped noise of clean patches, as strong as the references': [N, P, P, 3]."""
    return make_noise(networks.generator, state.generator, batch, key)


class NeCATask(FunctionsTask):
    """The networks of gain, level and correlation, and two critics; one model for all cameras."""

    shown = ("loss_g", "gain", "level", "distance")
    inputs = ("clean", "noisy")
    inherits: ClassVar = {name: name for name in ("generator", "critics")}
    functions = Functions(make_networks, init_state, train_step, noise_of)

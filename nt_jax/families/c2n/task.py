"""C2N as a task of the training loop."""

from functools import partial
from typing import Any, ClassVar, NamedTuple

import flax
import jax
import jax.numpy as jnp

from nt_jax import prng
from nt_jax.families.c2n import losses
from nt_jax.families.c2n.networks import Critic, Generator, make_noise, shapes_of
from nt_jax.models.parameters import Array, Tree
from nt_jax.models.plain import adversarial, gradient_penalty, init_plain, wasserstein
from nt_jax.training.optimizer import descend, make_optimizer
from nt_jax.training.task import Batch, Functions, FunctionsTask, Metrics


class C2NState(flax.struct.PyTreeNode):
    """State that training carries from step to step.

    Attributes:
      step: int32 scalar, updates done.
      generator, critic: parameters, float32.
      optimizers: optax state of each by name.
    """

    step: Array
    generator: Tree
    critic: Tree
    optimizers: dict[str, Any]


class Networks(NamedTuple):
    """The modules."""

    generator: Generator
    critic: Critic


def make_networks(config: Any) -> Networks:
    """Makes the networks of a training config."""
    return Networks(Generator(config.model.width), Critic(config.model.width))


def init_state(config: Any, networks: Networks, key: Array) -> C2NState:
    """Makes the state before the first step."""
    keys, shape = prng.split(key), (1, 8, 8, 3)
    params = {
        "generator": init_plain(keys[0], networks.generator, shapes_of(networks.generator, shape)),
        "critic": init_plain(keys[1], networks.critic, (shape,)),
    }
    optimizer = make_optimizer(config.train)
    moments = {name: optimizer.init(tree) for name, tree in params.items()}
    return C2NState(step=jnp.zeros((), jnp.int32), optimizers=moments, **params)


def train_step(
    config: Any, networks: Networks, state: C2NState, batch: Batch, key: Array
) -> tuple[C2NState, Metrics]:
    """Makes one update of the critic and one of the generator.

    Args:
      config: training config.
      networks: the modules.
      state: state before the step.
      batch: `clean` and `reference`, noisy patches of other images; [B, P, P, 3] float32 in [0, 1].
      key: PRNG key.

    Returns:
      (state after the step, {name: float32 scalar}).
    """
    clean, real = batch["clean"], batch["reference"]
    noise_key, penalty_key, generator_key = prng.split(key, 3)
    optimizer, moments = make_optimizer(config.train), {}

    def score(params: Tree, noisy: Array) -> Array:
        return jnp.asarray(networks.critic.apply({"params": params}, noisy))

    def update(name: str, params: Tree, gradient: Tree) -> Tree:
        params, moments[name] = descend(optimizer, gradient, state.optimizers[name], params)
        return params

    generated = clean + make_noise(networks.generator, state.generator, batch, noise_key)

    def loss_of_critic(params: Tree) -> tuple[Array, Array]:
        loss = wasserstein(score(params, real), score(params, generated))
        penalty = gradient_penalty(partial(score, params), real, generated, penalty_key)
        return loss + config.losses.penalty * penalty, -loss

    differentiate = partial(jax.value_and_grad, has_aux=True)
    (loss_critic, distance), gradient = differentiate(loss_of_critic)(state.critic)
    critic = update("critic", state.critic, gradient)

    def loss_of_generator(params: Tree) -> tuple[Array, Array]:
        noise = make_noise(networks.generator, params, batch, generator_key)
        mean = losses.squared_mean(noise)
        judged = adversarial(score(critic, clean + noise))
        return judged + config.losses.mean * mean, mean

    (loss_g, mean), gradient = differentiate(loss_of_generator)(state.generator)
    generator = update("generator", state.generator, gradient)
    values = {
        "loss_g": loss_g,
        "loss_critic": loss_critic,
        "distance": distance,
        "squared_mean": mean,
    }
    return C2NState(state.step + 1, generator, critic, moments), values


def noise_of(networks: Networks, state: C2NState, batch: Batch, key: Array) -> Array:
    """Makes unclipped noise of clean patches, [N, P, P, 3]."""
    return make_noise(networks.generator, state.generator, batch, key)


class C2NTask(FunctionsTask):
    """Generator and critic, of clean and noisy images that are no pairs."""

    shown = ("loss_g", "loss_critic", "distance")
    inputs = ("clean", "reference")
    inherits: ClassVar = {name: name for name in ("generator", "critic")}
    functions = Functions(make_networks, init_state, train_step, noise_of)

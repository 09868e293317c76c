"""N2G as a task of the training loop."""

from typing import Any, ClassVar

import flax
import jax
import jax.numpy as jnp

from nt_jax.families.n2g import losses
from nt_jax.families.n2g.networks import Extractor, make_noise, random_signs
from nt_jax.models.parameters import Array, Tree
from nt_jax.models.plain import init_plain
from nt_jax.training.optimizer import descend, make_optimizer
from nt_jax.training.task import Batch, Functions, FunctionsTask, Metrics


class N2GState(flax.struct.PyTreeNode):
    """State that training carries from step to step.

    Attributes:
      step: int32 scalar, updates done.
      generator: parameters of the network, float32.
      optimizer: optax state.
    """

    step: Array
    generator: Tree
    optimizer: Any


def make_network(config: Any) -> Extractor:
    """Makes the network of a training config."""
    return Extractor(config.model.width)


def init_state(config: Any, network: Extractor, key: Array) -> N2GState:
    """Makes the state before the first step."""
    params = init_plain(key, network, ((1, 8, 8, 3),))
    optimizer = make_optimizer(config.train).init(params)
    return N2GState(jnp.zeros((), jnp.int32), params, optimizer)


def train_step(
    config: Any, network: Extractor, state: N2GState, batch: Batch, key: Array
) -> tuple[N2GState, Metrics]:
    """Makes one update of the network.

    Args:
      config: training config.
      network: the module.
      state: state before the step.
      batch: `clean` and `reference`, noisy patches of other images; [B, P, P, 3] float32 in [0, 1].
      key: PRNG key of the signs.

    Returns:
      (state after the step, {name: float32 scalar}).
    """
    clean, noisy = batch["clean"], batch["reference"]
    number = state.step + 1
    rarity = number // config.train.rarer_after + 1

    def loss_of(params: Tree) -> tuple[Array, Metrics]:
        def apply(images: Array) -> Any:
            return network.apply({"params": params}, images)

        _, noise = apply(noisy)
        made = clean + random_signs(key, clean.shape) * jax.lax.stop_gradient(noise)
        restored, _ = apply(jnp.clip(made, 0, 1))
        named = {
            "gradient_difference": losses.gradient_difference(noise, noisy),
            "squared_error": losses.squared_error(restored, clean),
        }
        counted = jnp.where(number % rarity == 0, named["gradient_difference"], 0)
        return counted + named["squared_error"], named

    (loss, named), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.generator)
    optimizer = make_optimizer(config.train)
    params, moments = descend(optimizer, gradient, state.optimizer, state.generator)
    return N2GState(number, params, moments), {"loss": loss, **named}


def noise_of(network: Extractor, state: N2GState, batch: Batch, key: Array) -> Array:
    """Takes the references' noise for the clean patches, [N, P, P, 3], unclipped."""
    return make_noise(network, state.generator, batch, key)


class N2GTask(FunctionsTask):
    """The network that takes noise out, of noisy and clean images that are no pairs."""

    shown = ("loss", "gradient_difference", "squared_error")
    inputs = ("clean", "reference")
    inherits: ClassVar = {"generator": "generator"}
    functions = Functions(make_network, init_state, train_step, noise_of)

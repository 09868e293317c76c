"""NAFlow as a task of the training loop."""

from typing import Any, ClassVar

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from nt_jax import prng
from nt_jax.families.naflow.flow import Flow, init_params, jittered, make_noise, nats
from nt_jax.families.settings import count_settings, no_settings
from nt_jax.models.parameters import Array, Tree
from nt_jax.training.optimizer import make_optimizer
from nt_jax.training.task import Batch, Functions, FunctionsTask, Metrics


class NAFlowState(flax.struct.PyTreeNode):
    """State that training carries from step to step.

    Attributes:
      step: int32 scalar, updates done.
      params: of `flow` and `prior`, float32.
      counts: int32 [CLASSES], images seen of each camera and ISO.
      optimizer: optax state.
    """

    step: Array
    params: dict[str, Tree]
    counts: Array
    optimizer: Any


def make_flow(config: Any) -> Flow:
    """Makes the flow of a training config."""
    return Flow(config.model.levels, config.model.width)


def init_state(config: Any, flow: Flow, key: Array) -> NAFlowState:
    """Makes the state before the first step."""
    params = init_params(key, flow)
    optimizer = make_optimizer(config.train).init(params)
    return NAFlowState(jnp.zeros((), jnp.int32), params, no_settings(), optimizer)


def train_step(
    config: Any, flow: Flow, state: NAFlowState, batch: Batch, key: Array
) -> tuple[NAFlowState, Metrics]:
    """Makes one update of the flow and of the cameras' and ISOs' Gaussians.

    Args:
      config: training config.
      flow: the flow.
      state: state before the step.
      batch: `clean` and `noisy`, [B, P, P, 3] float32 in [0, 1]; `setting` int32 [B].
      key: PRNG key.

    Returns:
      (state after the step, {name: float32 scalar}); the loss is in nats by channel of a pixel.
    """
    clean, settings = batch["clean"], batch["setting"]
    spread_key, jitter_key = prng.split(key)
    spread = prng.uniform(spread_key, clean.shape, -0.5, 0.5) / 255
    noise, seen = batch["noisy"] - clean + spread, jittered(clean, jitter_key)
    loss, gradient = jax.value_and_grad(lambda p: nats(flow, p, noise, seen, settings))(
        state.params
    )
    optimizer = make_optimizer(config.train)
    updates, moments = optimizer.update(gradient, state.optimizer, state.params)
    values = {
        "loss": loss,
        "bits_per_dimension": loss / np.float32(np.log(2)),
        "gradient_norm": optax.tree.norm(gradient),
    }
    params = optax.apply_updates(state.params, updates)
    counts = count_settings(state.counts, settings)
    return NAFlowState(state.step + 1, params, counts, moments), values


def noise_of(flow: Flow, state: NAFlowState, batch: Batch, key: Array) -> Array:
    """Makes unclipped noise of clean patches, of latents like the references': [N, P, P, 3]."""
    return make_noise(flow, {**state.params, "counts": state.counts}, batch, key)


class NAFlowTask(FunctionsTask):
    """The flow and its Gaussians, by maximum likelihood."""

    shown = ("bits_per_dimension",)
    inputs = ("clean", "noisy", "setting")
    inherits: ClassVar = {"params": "params"}
    functions = Functions(make_flow, init_state, train_step, noise_of)

"""sRGB Flow as a task of the training loop."""

from typing import Any, ClassVar

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from nt_jax import prng
from nt_jax.families.settings import count_settings, no_settings
from nt_jax.families.srgbflow.flow import Flow, init_flow, nats
from nt_jax.families.srgbflow.model import SRGBFlow
from nt_jax.models.parameters import Array, Tree
from nt_jax.training.optimizer import make_optimizer
from nt_jax.training.task import Batch, Functions, FunctionsTask, Metrics


class FlowState(flax.struct.PyTreeNode):
    """State that the flow's training carries from step to step.

    Attributes:
      step: int32 scalar, updates done.
      params: of the flow, float32.
      counts: int32 [26], images seen of each of `sources.SETTINGS` and of others.
      optimizer: optax state.
    """

    step: Array
    params: Tree
    counts: Array
    optimizer: Any


def make_flow(config: Any) -> Flow:
    """Makes the flow of a training config."""
    return Flow(config.model.blocks, config.model.width)


def init_state(config: Any, flow: Flow, key: Array) -> FlowState:
    """Makes the state before the first step."""
    params = init_flow(key, flow)
    optimizer = make_optimizer(config.train).init(params)
    return FlowState(jnp.zeros((), jnp.int32), params, no_settings(), optimizer)


def train_step(
    config: Any, flow: Flow, state: FlowState, batch: Batch, key: Array
) -> tuple[FlowState, Metrics]:
    """Makes one update of the flow.

    Args:
      config: training config.
      flow: the flow.
      state: state before the step.
      batch: `clean` and `noisy`, [B, H, W, 3] float32 in [0, 1]; `setting` int32 [B].
      key: PRNG key of the dequantisation.

    Returns:
      (state after the step, {name: float32 scalar}); the loss is in nats by channel of a pixel.
    """
    clean, settings = batch["clean"], batch["setting"]
    spread = prng.uniform(key, clean.shape, -0.5, 0.5) / 255
    noise = batch["noisy"] - clean + spread
    loss, gradient = jax.value_and_grad(lambda p: nats(flow, p, noise, clean, settings))(
        state.params
    )
    optimizer = make_optimizer(config.train)
    updates, moments = optimizer.update(gradient, state.optimizer, state.params)
    counts = count_settings(state.counts, settings)
    values = {
        "loss": loss,
        "bits_per_dimension": loss / np.float32(np.log(2)),
        "gradient_norm": optax.tree.norm(gradient),
    }
    params = optax.apply_updates(state.params, updates)
    return FlowState(state.step + 1, params, counts, moments), values


def noise_of(flow: Flow, state: FlowState, batch: Batch, key: Array) -> Array:
    """Makes unclipped noise of cameras and ISOs drawn as training saw them, [N, P, P, 3]."""
    params = {"flow": state.params, "counts": state.counts}
    return SRGBFlow(flow, params, {}).noise(params, batch, key)


class SRGBFlowTask(FunctionsTask):
    """The flow, by maximum likelihood."""

    shown = ("bits_per_dimension",)
    inputs = ("clean", "noisy", "setting")
    inherits: ClassVar = {"params": "params"}
    functions = Functions(make_flow, init_state, train_step, noise_of)

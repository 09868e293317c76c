"""sRGB Flow as a task of the training loop."""

from typing import Any, ClassVar

from nt_jax import prng
from nt_jax.families import flows
from nt_jax.families.flows import FlowState
from nt_jax.families.srgbflow.flow import Flow, init_flow, nats
from nt_jax.families.srgbflow.model import SRGBFlow
from nt_jax.models.parameters import Array
from nt_jax.training.task import Batch, Functions, FunctionsTask, Metrics


def make_flow(config: Any) -> Flow:
    """Makes the flow of a training config."""
    return Flow(config.model.blocks, config.model.width)


def init_state(config: Any, flow: Flow, key: Array) -> FlowState:
    """Makes the state before the first step."""
    return flows.start(config, init_flow(key, flow))


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
    return flows.update(
        config, state, lambda params: nats(flow, params, noise, clean, settings), settings
    )


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

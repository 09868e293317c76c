"""Trains flows by maximum likelihood: their state, its start and its update."""

from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from nt_jax.families.settings import count_settings, no_settings
from nt_jax.models.parameters import Array, Tree
from nt_jax.training.optimizer import descend, make_optimizer
from nt_jax.training.task import Metrics


class FlowState(flax.struct.PyTreeNode):
    """State that a flow's training carries from step to step.

    Attributes:
      step: int32 scalar, updates done.
      params: float32.
      counts: int32 [26], images seen of each of `sources.SETTINGS` and of others.
      optimizer: optax state.
    """

    step: Array
    params: Tree
    counts: Array
    optimizer: Any


def start(config: Any, params: Tree) -> FlowState:
    """Makes the state before the first step."""
    moments = make_optimizer(config.train).init(params)
    return FlowState(jnp.zeros((), jnp.int32), params, no_settings(), moments)


def update(
    config: Any, state: FlowState, nats: Callable[[Tree], Array], settings: Array
) -> tuple[FlowState, Metrics]:
    """Makes one update.

    Args:
      config: training config.
      state: state before the step.
      nats: parameters -> negative log likelihood by channel of a pixel, float32 scalar.
      settings: cameras and ISOs of the batch, int32 [B].

    Returns:
      (state after the step, {name: float32 scalar}); the loss is `nats`.
    """
    loss, gradient = jax.value_and_grad(nats)(state.params)
    optimizer = make_optimizer(config.train)
    params, moments = descend(optimizer, gradient, state.optimizer, state.params)
    values = {
        "loss": loss,
        "bits_per_dimension": loss / np.float32(np.log(2)),
        "gradient_norm": optax.tree.norm(gradient),
    }
    counts = count_settings(state.counts, settings)
    return FlowState(state.step + 1, params, counts, moments), values

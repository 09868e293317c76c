"""Everything a denoiser's training carries from step to step."""

from typing import Any

import flax
import jax
import jax.numpy as jnp

from nt_jax import spectra
from nt_jax.models.biased import init_biased
from nt_jax.models.denoisers import DenoiserNetwork, layout_of, make_denoiser
from nt_jax.models.parameters import Array, Stacks, stack
from nt_jax.training.optimizer import make_optimizer


class DenoiserState(flax.struct.PyTreeNode):
    """State that a denoiser's training carries from step to step.

    Attributes:
      step: int32 scalar, updates done.
      params: parameters, float32, stacked.
      optimizer: optax state.
      average: moving average of `params`, or None when `train.ema_decay` is 0.
    """

    step: Array
    params: Stacks
    optimizer: Any
    average: Stacks | None


def make_network(config: Any) -> DenoiserNetwork:
    """Makes the denoiser of a training config."""
    model = config.model
    conditions = spectra.CONDITIONS if model.conditioned else 0
    return make_denoiser(
        model.kind,
        model.width,
        model.blocks,
        jnp.dtype(model.dtype),
        conditions,
        model.finest_blocks,
    )


def init_state(config: Any, network: DenoiserNetwork, key: Array) -> DenoiserState:
    """Makes the state before the first step."""
    params = stack(init_biased(key, network), layout_of(network))
    return DenoiserState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        optimizer=make_optimizer(config.train).init(params),
        average=jax.tree.map(jnp.copy, params) if config.train.ema_decay else None,
    )

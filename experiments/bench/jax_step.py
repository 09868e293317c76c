"""Our training step as benchmarks run it: compiled, on random images, advancing its own state."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from nt_jax import prng
from nt_jax.families.noisetransfer.state import init_state
from nt_jax.families.noisetransfer.step import jit_train_step
from nt_jax.models.networks import make_networks


class JaxStep(NamedTuple):
    """`run` makes one step and returns the generator's loss.

    Attributes:
      run: see above.
      lowered, compiled: the program before and after XLA.
      compile_s: seconds that tracing and compiling took.
    """

    run: Callable[[], jax.Array]
    lowered: jax.stages.Lowered
    compiled: jax.stages.Compiled
    compile_s: float


def jax_step(config: Any, images: np.ndarray, dtype: Any = jnp.float32) -> JaxStep:
    """Compiles the step of a training config on the first device.

    Args:
      config: training config.
      images: clean, noisy and reference of every step, [3, B, H, W, 3] float32 in [0, 1].
      dtype: compute type of the networks.
    """
    networks = make_networks(config.model, dtype)
    state = jax.jit(lambda key: init_state(config, networks, key))(prng.key(0))
    batch = dict(zip(("clean", "noisy", "reference"), images, strict=True))
    begun = time.perf_counter()
    step = jit_train_step(config, networks, Mesh(np.array(jax.devices()[:1]), ("data",)))
    lowered = step.lower(state, batch, prng.key(1))
    compiled = lowered.compile()
    compile_s = time.perf_counter() - begun
    batch = jax.device_put(batch)

    def run() -> jax.Array:
        nonlocal state
        state, metrics = step(state, batch, prng.key(1))
        return metrics["loss_g"]

    return JaxStep(run, lowered, compiled, compile_s)

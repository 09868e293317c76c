"""C2N's loss beside Wasserstein's: noise that has no colour cast (Jang et al., ICCV 2021)."""

import jax.numpy as jnp

from nt_jax.models.layers import Array


def squared_mean(noise: Array) -> Array:
    """Squares the batch's mean noise [N, H, W, 3], on average over channels."""
    return jnp.square(noise.mean(axis=(0, 1, 2))).mean()

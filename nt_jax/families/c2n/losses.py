"""C2N's losses (Jang et al., ICCV 2021): Wasserstein's, and noise that has no colour cast.

Scores are maps [N, H, W, 1], noise [N, H, W, 3].
"""

import jax.numpy as jnp

from nt_jax.models.layers import Array


def critic_loss(real: Array, generated: Array) -> Array:
    """Wasserstein loss of the critic, less its gradient penalty."""
    return generated.mean() - real.mean()


def adversarial(scores: Array) -> Array:
    """Adversarial loss of the generator, by the critic's scores of its images."""
    return -scores.mean()


def squared_mean(noise: Array) -> Array:
    """Square of the batch's mean noise, on average over channels."""
    return jnp.square(noise.mean(axis=(0, 1, 2))).mean()

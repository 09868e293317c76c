"""N2G's losses (Lin et al., IJCAI 2021): the gradient of noise, and what is restored of it.

Images are [N, H, W, 3].
"""

import jax.numpy as jnp

from nt_jax.models.layers import Array


def gradient(images: Array) -> Array:
    """Halves the sum of differences to the right and down: [N, H, W, 3] -> [N, H - 1, W - 1, 3]."""
    here = images[:, :-1, :-1]
    return (images[:, :-1, 1:] + images[:, 1:, :-1]) / 2 - here


def gradient_difference(noise: Array, noisy: Array) -> Array:
    """Computes the mean squared difference of the noise's gradient to that of the noisy image.

    In an image's smooth parts, which are most of it, its gradient is that of its noise.
    """
    return jnp.square(gradient(noise - noisy)).mean()


def squared_error(restored: Array, clean: Array) -> Array:
    """Computes the mean squared difference."""
    return jnp.square(restored - clean).mean()

"""DANet's losses (Yue et al., ECCV 2020): a critic of pairs, and what binds each network to pairs.

Images are [N, P, P, 3] in [0, 1] or near it; scores [N].
"""

import jax
import jax.numpy as jnp
import numpy as np

from nt_jax.models.layers import Array

# Half of the critic's attention is the generator's, half the denoiser's.
SHARE = 0.5
_BLUR_SIZE = 5
# OpenCV's rule for that size.
_BLUR_SIGMA = 0.3 * ((_BLUR_SIZE - 1) / 2 - 1) + 0.8


def critic_loss(real: Array, generated: Array, restored: Array) -> Array:
    """Computes the critic's Wasserstein loss: of true, of generated, of restored pairs' scores."""
    return SHARE * (generated.mean() + restored.mean()) - real.mean()


def adversarial(scores: Array) -> Array:
    """Computes the adversarial loss of generator or denoiser, by the critic's scores of pairs."""
    return -SHARE * scores.mean()


def blurred_difference(noise: Array, generated_noise: Array) -> Array:
    """Averages the absolute difference of 5x5 Gaussian means of the noises, where they fit."""
    return jnp.abs(_blur(noise - generated_noise)).mean()


def _blur(images: Array) -> Array:
    positions = np.arange(_BLUR_SIZE) - _BLUR_SIZE // 2
    taps = np.exp(-0.5 * (positions / _BLUR_SIGMA) ** 2)
    kernel = np.outer(taps, taps) / taps.sum() ** 2
    each = np.broadcast_to(kernel[:, :, None, None], (_BLUR_SIZE, _BLUR_SIZE, 1, 3))
    return jax.lax.conv_general_dilated(
        images,
        jnp.asarray(each, jnp.float32),
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=3,
    )

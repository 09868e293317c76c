"""ZS-N2N: a denoiser that learns from the one noisy image it is to denoise, and from nothing else.

Source: Mansour and Heckel, Zero-Shot Noise2Noise (CVPR 2023). Of each square of 2x2 pixels the mean
of one diagonal goes into one small image, that of the other into a second: the same scene with
other noise, as long as the noise of neighbours is independent. That of most cameras' files is not.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from nt_jax import prng
from nt_jax.adam import scale_by_adam
from nt_jax.images import to_float
from nt_jax.inference.tiles import full_float32
from nt_jax.models.biased import BiasedConv, init_biased
from nt_jax.models.layers import Array, Tree

# The authors': so many steps of Adam, the rate halved for the last quarter.
STEPS = 2000
_RATE, _HALVED_AFTER = 1e-3, 0.75
_FEATURES, _SLOPE = 48, 0.2


class _Network(nn.Module):
    """Predicts the noise of an image: [N, H, W, C] -> the same shape."""

    @nn.compact
    def __call__(self, noisy: Array) -> Array:
        x = noisy
        for _ in range(2):
            x = nn.leaky_relu(BiasedConv(_FEATURES)(x), _SLOPE)
        return BiasedConv(noisy.shape[-1], kernel_size=1)(x)


def halves(image: Array) -> Array:
    """Averages both diagonals of each 2x2 square.

    From [H, W, C] of even sides to [2, H/2, W/2, C].
    """
    upper_left, upper_right = image[::2, ::2], image[::2, 1::2]
    lower_left, lower_right = image[1::2, ::2], image[1::2, 1::2]
    return jnp.stack([upper_right + lower_left, upper_left + lower_right]) / 2


def _denoised(params: Tree, images: Array) -> Array:
    return images - jnp.asarray(_Network().apply({"params": params}, images))


def _loss(params: Tree, noisy: Array) -> Array:
    """Computes the paper's loss: one half predicts the other; halving commutes with denoising."""
    of_halves = _denoised(params, halves(noisy))
    residual = jnp.square(of_halves - halves(noisy)[::-1]).mean()
    consistency = jnp.square(of_halves - halves(_denoised(params, noisy[None])[0])).mean()
    return residual + consistency


def _optimizer(steps: int) -> optax.GradientTransformation:
    rate = optax.piecewise_constant_schedule(_RATE, {round(_HALVED_AFTER * steps): 0.5})
    return optax.chain(scale_by_adam(0.9, 0.999), optax.scale_by_learning_rate(rate))


# A step is a call: inside a loop of the compiler convolutions miss the fast kernels of CPUs.
@jax.jit(static_argnames="steps", donate_argnames=("params", "state"))
@full_float32
def _step(params: Tree, state: optax.OptState, noisy: Array, steps: int) -> tuple[Tree, Tree]:
    gradient = jax.grad(_loss)(params, noisy)
    updates, state = _optimizer(steps).update(gradient, state)
    return optax.apply_updates(params, updates), state


_apply = jax.jit(full_float32(_denoised))


def denoise(noisy: np.ndarray, steps: int = STEPS, seed: int = 0) -> np.ndarray:
    """Denoises an image by a network trained on it: [H, W, 3] -> float32 [H, W, 3] in [0, 1].

    Args:
      noisy: uint8, or float in [0, 1]; 2 pixels a side or more.
      steps: of training.
      seed: of the network's first parameters, 0 to 2**32 - 1.
    """
    image = jnp.asarray(to_float(noisy))
    even = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
    params = init_biased(prng.key(seed), _Network())
    state = _optimizer(steps).init(params)
    for _ in range(steps):
        params, state = _step(params, state, even, steps)
    return np.clip(np.asarray(_apply(params, image[None])[0]), 0, 1)

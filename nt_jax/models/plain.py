"""Plain convolutions of the peers, differentiable twice as a penalty needs, and WGAN-GP."""

import functools
import math
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from nt_jax import prng
from nt_jax.models.layers import Array, Tree

# Parameters that are not drawn.
_CONSTANT = {"slope": 0.25, "condition": 0.0, "gain": 0.0}


class Conv(nn.Module):
    """Convolution; its values come from `init_plain`.

    Attributes:
      features: channels of the output.
      size: of the kernel.
      stride: in both directions.
      pad: pixels on each side.
      reflect: whether these are reflected, and not 0.
      biased: whether it adds a bias.
      dtype: compute type.
    """

    features: int
    size: int = 3
    stride: int = 1
    pad: int = 1
    reflect: bool = False
    biased: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Convolves [N, H, W, C] -> [N, h, w, features]."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.zeros, shape, jnp.float32)
        pad = (self.pad, self.pad)
        if self.reflect and self.pad:
            x, pad = jnp.pad(x, ((0, 0), pad, pad, (0, 0)), mode="reflect"), (0, 0)
        y = jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            window_strides=(self.stride, self.stride),
            padding=(pad, pad),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        if not self.biased:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return y + bias.astype(self.dtype)


class Doubling(nn.Module):
    """Transposed convolution of 2x2 with stride 2; its values come from `init_plain`."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Doubles the sides: [N, H, W, C] -> [N, 2 H, 2 W, features]."""
        count, height, width, channels = x.shape
        shape = (2, 2, channels, self.features)
        kernel = self.param("kernel", nn.initializers.zeros, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        y = jnp.einsum("nhwc,abcf->nhawbf", x.astype(self.dtype), kernel.astype(self.dtype))
        y = y.reshape(count, 2 * height, 2 * width, self.features)
        return y + bias.astype(self.dtype)


@functools.partial(jax.jit, static_argnums=(1, 2))
def init_plain(key: Array, module: nn.Module, shapes: tuple[tuple[int, ...], ...]) -> Tree:
    """Makes fresh parameters: kernels and biases U(-1, 1) / sqrt(fan_in), PyTorch's default.

    Slopes of PReLU are 1/4, and a condition changes nothing yet.

    Args:
      key: PRNG key.
      module: all of whose parameters are named `kernel`, `bias`, `slope`, `condition` or `gain`.
      shapes: of the arguments it is called with.
    """
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    found = jax.eval_shape(module.init, key, *arguments)["params"]
    flat = dict(sorted(flax.traverse_util.flatten_dict(found).items()))
    fan_ins = {
        path[:-1]: math.prod(leaf.shape[:-1]) for path, leaf in flat.items() if path[-1] == "kernel"
    }
    params = {
        path: jnp.full(draw.shape, _CONSTANT[path[-1]], jnp.float32)
        if path[-1] in _CONSTANT
        else draw * fan_ins[path[:-1]] ** -0.5
        for path, draw in _uniform(key, flat).items()
    }
    return flax.traverse_util.unflatten_dict(params)


def _uniform(key: Array, leaves: dict[tuple[str, ...], Any]) -> dict[tuple[str, ...], Array]:
    """Draws U(-1, 1) of each leaf's shape, float32."""
    sizes = [math.prod(leaf.shape) for leaf in leaves.values()]
    # One draw for all: a random generator of each shape would take long to compile.
    draws = jax.lax.split(prng.uniform(key, (sum(sizes),), -1.0), sizes)
    parts = zip(leaves.items(), draws, strict=True)
    return {path: draw.reshape(leaf.shape) for (path, leaf), draw in parts}


def init_idle(key: Array, module: nn.Module, *arguments: Any) -> Tree:
    """Makes parameters of networks that give 0: kernels U(-1, 1) / sqrt(fan_in), all else 0.

    Args:
      key: PRNG key.
      module: kernels of layers named `last` are 0 too.
      arguments: `jax.ShapeDtypeStruct`s of what it is called with.
    """
    found = jax.eval_shape(module.init, key, *arguments)["params"]
    flat = flax.traverse_util.flatten_dict(found)
    params = {path: jnp.zeros(leaf.shape, jnp.float32) for path, leaf in flat.items()}
    drawn = sorted(path for path in flat if path[-1] == "kernel" and path[-2] != "last")
    for path, draw in _uniform(key, {path: flat[path] for path in drawn}).items():
        params[path] = draw * math.prod(draw.shape[:-1]) ** -0.5
    return flax.traverse_util.unflatten_dict(params)


def wasserstein(real: Array, fake: Array) -> Array:
    """Computes a critic's Wasserstein loss by scores of any number, less its gradient penalty."""
    return fake.mean() - real.mean()


def adversarial(scores: Array) -> Array:
    """Loss of what a critic judges, by its scores."""
    return -scores.mean()


def gradient_penalty(critic: Any, real: Array, fake: Array, key: Array) -> Array:
    """WGAN-GP's penalty: mean (|gradient| - 1)² between real and fake (Gulrajani et al. 2017).

    Args:
      critic: function [N, H, W, C] -> any number of scores of each image, which are averaged.
      real, fake: [N, H, W, C].
      key: PRNG key of the places between them.
    """
    share = prng.uniform(key, (len(real), 1, 1, 1))
    between = share * real + (1 - share) * fake

    def scores(images: Array) -> Array:
        return critic(images).reshape(len(images), -1).mean(axis=1).sum()

    squares = jnp.square(jax.grad(scores)(between)).sum(axis=(1, 2, 3))
    return jnp.square(jnp.sqrt(squares + 1e-12) - 1).mean()

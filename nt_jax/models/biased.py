"""Parts of denoisers: convolutions with bias and no norm, and their initialisation."""

import functools
import math
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from nt_jax import prng
from nt_jax.models.layers import Array, Tree, convolve, kernel_of


class BiasedConv(nn.Module):
    """Convolution with bias; its values come from `init_biased`.

    Zero padding of (kernel_size - stride + 1) // 2 on each side, times the dilation.
    """

    features: int
    kernel_size: int = 3
    dilation: int = 1
    dtype: Any = jnp.float32
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> [N, H / stride, W / stride, features]."""
        size, channels = self.kernel_size, x.shape[-1]
        kernel = kernel_of(self, size, size, channels, self.features).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        x = x.astype(self.dtype)
        if self.dilation == 1:
            y = convolve(x, kernel, self.stride)
        else:
            pad = self.dilation * (size // 2)
            y = jax.lax.conv_general_dilated(
                x,
                kernel,
                window_strides=(1, 1),
                padding=((pad, pad), (pad, pad)),
                rhs_dilation=(self.dilation, self.dilation),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        return y + bias.astype(self.dtype).reshape(1, 1, 1, -1)


def space_to_depth(x: Array) -> Array:
    """[N, H, W, C] -> [N, H / 2, W / 2, 4 C]: each square of 2x2 pixels becomes one."""
    count, height, width, channels = x.shape
    x = x.reshape(count, height // 2, 2, width // 2, 2, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(count, height // 2, width // 2, 4 * channels)


def depth_to_space(x: Array) -> Array:
    """[N, H, W, 4 C] -> [N, 2 H, 2 W, C], the inverse of `space_to_depth`."""
    count, height, width, channels = x.shape
    x = x.reshape(count, height, width, 2, 2, channels // 4)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(count, 2 * height, 2 * width, channels // 4)


@functools.partial(jax.jit, static_argnums=1)
def init_biased(key: Array, network: nn.Module) -> Tree:
    """Fresh parameters: kernels and biases U(-1, 1) / sqrt(fan_in), PyTorch's default.

    Args:
      key: PRNG key.
      network: a denoiser, all of whose parameters are those of `BiasedConv`.
    """
    image = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    shapes = jax.eval_shape(network.init, key, image)["params"]
    flat = sorted(flax.traverse_util.flatten_dict(shapes).items())
    sizes = [math.prod(leaf.shape) for _, leaf in flat]
    # One draw for all: a random generator of each shape would take long to compile.
    draws = jax.lax.split(prng.uniform(key, (sum(sizes),), -1.0), sizes)
    fan_ins = {path[:-1]: math.prod(leaf.shape[:-1]) for path, leaf in flat if path[-1] == "kernel"}
    params = {
        path: draw.reshape(leaf.shape) * fan_ins[path[:-1]] ** -0.5
        for (path, leaf), draw in zip(flat, draws, strict=True)
    }
    return flax.traverse_util.unflatten_dict(params)

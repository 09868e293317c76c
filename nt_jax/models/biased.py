"""Parts of denoisers: convolutions with bias and no norm, and their initialisation."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nt_jax.models.layers import Array, Tree, convolve, kernel_of
from nt_jax.models.plain import init_plain


class BiasedConv(nn.Module):
    """Convolution with bias; its values come from `init_biased`.

    Zero padding of (kernel_size - stride + 1) // 2 on each side, times the dilation.

    Attributes:
      conditions: how many numbers of an image's condition scale its result and shift its bias, by
        channel; 0 for none.
    """

    features: int
    kernel_size: int = 3
    dilation: int = 1
    dtype: Any = jnp.float32
    stride: int = 1
    conditions: int = 0

    @nn.compact
    def __call__(self, x: Array, condition: Array | None = None) -> Array:
        """Convolves [N, H, W, C] -> [N, H / stride, W / stride, features].

        The condition is [N, conditions]; rows of zeros, or None, change nothing.
        """
        size, channels = self.kernel_size, x.shape[-1]
        kernel = kernel_of(self, size, size, channels, self.features).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        if self.conditions:
            sizes = (self.conditions, self.features)
            shift = self.param("condition", nn.initializers.zeros, sizes, jnp.float32)
            gain = self.param("gain", nn.initializers.zeros, sizes, jnp.float32)
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
        if self.conditions and condition is not None:
            # Of logarithms of amplitude: products of powers of amplitudes.
            scale = jnp.exp(condition @ gain)
            y = y * scale.astype(self.dtype).reshape(-1, 1, 1, self.features)
            bias = bias + condition @ shift
        return y + bias.astype(self.dtype).reshape(-1, 1, 1, self.features)


def init_biased(key: Array, network: nn.Module) -> Tree:
    """Makes fresh parameters of a denoiser, all of whose layers are `BiasedConv`."""
    return init_plain(key, network, ((1, 16, 16, 3),))

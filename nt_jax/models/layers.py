"""Layers shared by the networks: convolutions and linear layers without bias, instance norm.

Spectral norm is a transformation of the parameters (`spectral.py`), not of a layer: the networks
are applied to kernels already divided by their spectral norm.

Layout: images NHWC, convolution kernels [kh, kw, in, out], dense kernels [in, out].

Equal blocks are unrolled: on CPU a convolution inside a loop misses the fast kernels, and a step
scanned over blocks takes 15 times as long.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array
Tree = Any

NEGATIVE_SLOPE = 0.01
NORM_EPSILON = 1e-5
_PLANE = (-3, -2)


def leaky_relu(x: Array) -> Array:
    """LeakyReLU with slope 0.01, the activation of every network but the denoiser."""
    return nn.leaky_relu(x, NEGATIVE_SLOPE)


def kernel_of(module: nn.Module, *shape: int) -> Array:
    """The module's kernel; its values come from `parameters.init_params`."""
    return module.param("kernel", nn.initializers.zeros, shape)


class Conv(nn.Module):
    """Convolution without bias, zero padding of (kernel_size - stride + 1) // 2 on each side."""

    features: int
    kernel_size: int = 3
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., H, W, C] -> [..., H / stride, W / stride, features]."""
        size, channels = self.kernel_size, x.shape[-1]
        kernel = kernel_of(self, size, size, channels, self.features)
        pad = (size - self.stride + 1) // 2
        y = jax.lax.conv_general_dilated(
            x.astype(self.dtype).reshape(-1, *x.shape[-3:]),
            kernel.astype(self.dtype),
            window_strides=(self.stride, self.stride),
            padding=((pad, pad), (pad, pad)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y.reshape(*x.shape[:-3], *y.shape[-3:])


class UpConv(nn.Module):
    """Transposed 4x4 convolution, stride 2, padding 1, without bias: doubles height and width.

    The kernel is stored as that of the equivalent convolution over the dilated input, i.e. flipped
    in both spatial axes against PyTorch's.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[N, H, W, C] -> [N, 2H, 2W, features]."""
        kernel = kernel_of(self, 4, 4, x.shape[-1], self.features)
        return jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            window_strides=(1, 1),
            padding=((2, 2), (2, 2)),
            lhs_dilation=(2, 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class Dense(nn.Module):
    """Linear layer without bias; on [N, H, W, C] it is a 1x1 convolution."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., C] -> [..., features]."""
        kernel = kernel_of(self, x.shape[-1], self.features)
        return x.astype(self.dtype) @ kernel.astype(self.dtype)


class Bottleneck(nn.Module):
    """Two dense layers with a LeakyReLU between: what turns an embedding into a modulation."""

    hidden: int
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., C] -> [..., features]."""
        x = leaky_relu(Dense(self.hidden, self.dtype, name="reduce")(x))
        return Dense(self.features, self.dtype, name="expand")(x)


@jax.custom_vjp
def instance_norm(x: Array, scale: Array, shift: Array) -> Array:
    """Instance norm: per sample and channel, biased variance, epsilon 1e-5, then scale and shift.

    Args:
      x: [..., H, W, C]; statistics are float32 whatever its dtype.
      scale, shift: float32 [..., 1, 1, C], one value for each sample and channel.

    Returns:
      x's shape and dtype.
    """
    return _instance_norm_forward(x, scale, shift)[0]


def _instance_norm_forward(x: Array, scale: Array, shift: Array) -> tuple[Array, tuple]:
    wide = x.astype(jnp.float32)
    mean = wide.mean(_PLANE, keepdims=True)
    inverse = jax.lax.rsqrt(wide.var(_PLANE, keepdims=True) + NORM_EPSILON)
    y = (wide - mean) * (inverse * scale) + shift
    return y.astype(x.dtype), (x, mean, inverse, scale)


def _instance_norm_backward(residuals: tuple, gradient: Array) -> tuple[Array, Array, Array]:
    # The closed form reads x and the gradient twice; what autodiff derives takes many more passes
    # and ten times the kernels to compile.
    x, mean, inverse, scale = residuals
    wide = gradient.astype(jnp.float32)
    normalised = (x.astype(jnp.float32) - mean) * inverse
    shift_gradient = wide.sum(_PLANE, keepdims=True)
    scale_gradient = (wide * normalised).sum(_PLANE, keepdims=True)
    pixels = x.shape[-3] * x.shape[-2]
    centred = wide - (shift_gradient + normalised * scale_gradient) / pixels
    return (centred * (inverse * scale)).astype(x.dtype), scale_gradient, shift_gradient


instance_norm.defvjp(_instance_norm_forward, _instance_norm_backward)

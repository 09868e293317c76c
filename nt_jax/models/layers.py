"""Layers shared by the networks: convolutions and linear layers without bias, instance norm.

Spectral norm is a transformation of the parameters (`spectral.py`), not of a layer: the networks
are applied to kernels already divided by their spectral norm.

Layout: images NHWC, convolution kernels [kh, kw, in, out], dense kernels [in, out].

Equal blocks are unrolled: on CPU a convolution inside a loop misses the fast kernels, and a step
scanned over blocks takes 15 times as long.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array
Tree = Any
# Images of axis 1 (the first so many, the last so many) whose gradient stops at the parameters.
Frozen = tuple[int, int]

NEGATIVE_SLOPE = 0.01
NORM_EPSILON = 1e-5
_PLANE = (-3, -2)
# Pixels of images that one product of a kernel's gradient takes, on CPU.
_PIXELS_TOGETHER = 4096


def leaky_relu(x: Array) -> Array:
    """Applies LeakyReLU with slope 0.01, the activation of NoiseTransfer's networks."""
    return nn.leaky_relu(x, NEGATIVE_SLOPE)


def kernel_of(module: nn.Module, *shape: int) -> Array:
    """Declares the module's kernel; its values come from `parameters.init_params`."""
    return module.param("kernel", nn.initializers.zeros, shape, jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def apply_kernel(
    operation: Callable[[Array, Array], Array], x: Array, kernel: Array, frozen: Frozen
) -> Array:
    """Computes operation(x, kernel), where some images give the kernel no gradient.

    That lets one backward pass serve two losses: the images of the one that does not train these
    parameters are frozen, and pass their gradient on to x all the same.

    Args:
      operation: linear in each argument.
      x: [B, ...], or [B, R, ...] with R images of each example where `frozen` is not (0, 0).
      kernel: the parameters.
      frozen: how many first and how many last of the R images.
    """
    return operation(x, kernel)


def _apply_kernel_forward(
    operation: Callable[[Array, Array], Array], x: Array, kernel: Array, frozen: Frozen
) -> tuple[Array, tuple[Array, Array]]:
    return operation(x, kernel), (x, kernel)


def _apply_kernel_backward(
    operation: Callable[[Array, Array], Array],
    frozen: Frozen,
    residuals: tuple[Array, Array],
    gradient: Array,
) -> tuple[Array, Array]:
    x, kernel = residuals
    if frozen == (0, 0):
        return jax.vjp(operation, x, kernel)[1](gradient)
    (x_gradient,) = jax.vjp(lambda x: operation(x, kernel), x)[1](gradient)
    trained = slice(frozen[0], x.shape[1] - frozen[1])
    x, gradient = x[:, trained], gradient[:, trained]
    (kernel_gradient,) = jax.vjp(lambda k: operation(x, k), kernel)[1](gradient)
    return x_gradient, kernel_gradient


apply_kernel.defvjp(_apply_kernel_forward, _apply_kernel_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: Array, kernel: Array, stride: int) -> Array:
    """Convolves [..., H, W, C], [k, k, C, F] -> [..., h, w, F].

    Zero padding is (k - stride + 1) // 2.
    """
    pad = (kernel.shape[0] - stride + 1) // 2
    features = kernel.shape[-1]
    x, kernel = _widened(x, -1), _widened(_widened(kernel, -1), -2)
    y = jax.lax.conv_general_dilated(
        x.reshape(-1, *x.shape[-3:]),
        kernel,
        window_strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )[..., :features]
    return y.reshape(*x.shape[:-3], *y.shape[-3:])


def _widened(array: Array, axis: int) -> Array:
    """Adds a channel of zeros to three: XLA's CPU convolutions take up to eight times as long on
    three as on four.
    """
    if array.shape[axis] != 3:
        return array
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, 1)
    return jnp.pad(array, widths)


def _convolve_forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return convolve(x, kernel, stride), (x, kernel)


def _convolve_backward(
    stride: int, residuals: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    return _gradients(*residuals, gradient, stride)


# Jitted, so that equal layers are traced once.
@functools.partial(jax.jit, static_argnums=3)
def _gradients(x: Array, kernel: Array, gradient: Array, stride: int) -> tuple[Array, Array]:
    by_convolutions = functools.partial(_gradients_by_convolutions, stride=stride)
    if kernel.shape[0] % stride:
        return by_convolutions(x, kernel, gradient)
    by_products = functools.partial(_gradients_by_products, stride=stride)
    gradients = jax.lax.platform_dependent(
        x, kernel, gradient, cpu=by_products, default=by_convolutions
    )
    return gradients[0], gradients[1]


convolve.defvjp(_convolve_forward, _convolve_backward)


def _gradients_by_convolutions(
    x: Array, kernel: Array, gradient: Array, stride: int
) -> tuple[Array, Array]:
    plain = functools.partial(convolve.fun, stride=stride)
    (x_gradient,) = jax.linear_transpose(lambda x: plain(x, kernel), x)(gradient)
    (kernel_gradient,) = jax.linear_transpose(lambda kernel: plain(x, kernel), kernel)(gradient)
    return x_gradient, kernel_gradient


def _gradients_by_products(
    x: Array, kernel: Array, gradient: Array, stride: int
) -> tuple[Array, Array]:
    """Computes both gradients with no convolution that has a stride, holes, or an image for kernel.

    CPU libraries are slow at all of these.
    """
    if stride == 1:
        (x_gradient,) = jax.linear_transpose(lambda x: convolve.fun(x, kernel, 1), x)(gradient)
        return x_gradient, _kernel_gradient_by_product(x, gradient, kernel.shape[0])
    size = kernel.shape[0]
    fold = functools.partial(_fold, stride=stride, pad=(size - stride + 1) // 2)
    fold_kernel = functools.partial(_fold_kernel, stride=stride)

    def unstrided(x: Array) -> Array:
        y = jax.lax.conv_general_dilated(
            fold(x),
            fold_kernel(kernel),
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y.reshape(*x.shape[:-3], *y.shape[-3:])

    (x_gradient,) = jax.linear_transpose(unstrided, x)(gradient)
    folded = _kernel_gradient_by_product(fold(x), gradient, size // stride)
    (kernel_gradient,) = jax.linear_transpose(fold_kernel, kernel)(folded)
    return x_gradient, kernel_gradient


def _fold(x: Array, stride: int, pad: int) -> Array:
    """Makes channels of the `stride` phases of rows and columns: [..., H, W, C] ->
    [N, (H + 2 pad) / stride, (W + 2 pad) / stride, stride^2 C].
    """
    x = x.reshape(-1, *x.shape[-3:])
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    height, width = (side // stride * stride for side in x.shape[1:3])
    return space_to_depth(x[:, :height, :width], stride)  # without what a convolution leaves over


def space_to_depth(x: Array, factor: int = 2) -> Array:
    """Turns each square of f x f pixels into one: [N, H, W, C] -> [N, H / f, W / f, f^2 C]."""
    count, height, width, channels = x.shape
    height, width = height // factor, width // factor
    x = x.reshape(count, height, factor, width, factor, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(count, height, width, factor**2 * channels)


def depth_to_space(x: Array) -> Array:
    """Inverts `space_to_depth`: [N, H, W, 4 C] -> [N, 2 H, 2 W, C]."""
    count, height, width, channels = x.shape
    x = x.reshape(count, height, width, 2, 2, channels // 4)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(count, 2 * height, 2 * width, channels // 4)


def _fold_kernel(kernel: Array, stride: int) -> Array:
    """Makes the kernel of stride 1 that does on folded images what `kernel` [k, k, C, F] does."""
    size, _, channels, features = kernel.shape
    taps = kernel.reshape(size // stride, stride, size // stride, stride, channels, features)
    return taps.transpose(0, 2, 1, 3, 4, 5).reshape(
        size // stride, size // stride, stride**2 * channels, features
    )


def _kernel_gradient_by_product(x: Array, gradient: Array, size: int) -> Array:
    """Computes the gradient of a kernel [size, size, C, F] of stride 1.

    With the column shifts of x and the row shifts of the gradient side by side as channels, one
    matrix product gives all taps. A few images at a time, as the shifted copies of all would not
    fit a processor's cache.
    """
    x, gradient = (a.reshape(-1, *a.shape[-3:]) for a in (x, gradient))
    count, height, width, features = gradient.shape
    channels, pad = x.shape[-1], (width + size - 1 - x.shape[2]) // 2

    def product(x: Array, gradient: Array) -> Array:
        x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        x = jnp.concatenate([x[:, :, i : i + width] for i in range(size)], axis=-1)
        gradient = jnp.pad(gradient, ((0, 0), (size - 1, size - 1), (0, 0), (0, 0)))
        rows = height + size - 1
        gradient = jnp.concatenate(
            [gradient[:, size - 1 - i : size - 1 - i + rows] for i in range(size)], axis=-1
        )
        return jnp.einsum(
            "pc,pf->cf", x.reshape(-1, size * channels), gradient.reshape(-1, size * features)
        )

    together = max(1, min(count, _PIXELS_TOGETHER // (height * width)))
    together = next(n for n in range(together, 0, -1) if count % n == 0)
    groups = [a.reshape(-1, together, *a.shape[1:]) for a in (x, gradient)]
    total, _ = jax.lax.scan(
        lambda total, group: (total + product(*group), None),
        jnp.zeros((size * channels, size * features), x.dtype),
        groups,
    )
    return total.reshape(size, channels, size, features).transpose(2, 0, 1, 3)


class Conv(nn.Module):
    """Convolution without bias, zero padding of (kernel_size - stride + 1) // 2 on each side.

    `frozen` is that of `apply_kernel`.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    dtype: Any = jnp.float32
    frozen: Frozen = (0, 0)

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Convolves [..., H, W, C] -> [..., H / stride, W / stride, features]."""
        size = self.kernel_size
        kernel = kernel_of(self, size, size, x.shape[-1], self.features)
        operation = functools.partial(convolve, stride=self.stride)
        return apply_kernel(operation, x.astype(self.dtype), kernel.astype(self.dtype), self.frozen)


class UpConv(nn.Module):
    """Transposed 4x4 convolution, stride 2, padding 1, without bias: doubles height and width.

    The kernel is stored as that of the equivalent convolution over the dilated input, i.e. flipped
    in both spatial axes against PyTorch's. Each of the four phases of the output is a 2x2
    convolution; all run as one, without the zeros of a dilated input.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Doubles the sides: [N, H, W, C] -> [N, 2H, 2W, features]."""
        count, height, width, channels = x.shape
        kernel = kernel_of(self, 4, 4, channels, self.features).astype(self.dtype)
        taps = kernel.reshape(2, 2, 2, 2, channels, self.features)  # tap, phase of rows, columns
        taps = taps.transpose(0, 2, 4, 1, 3, 5).reshape(2, 2, channels, -1)
        y = convolve(x.astype(self.dtype), taps, 1)
        y = y.reshape(count, height + 1, width + 1, 2, 2, self.features)
        y = jnp.stack([_phase(y, 0, 1, 3), _phase(y, 1, 1, 3)], axis=2)
        y = jnp.stack([_phase(y, 0, 3, 4), _phase(y, 1, 3, 4)], axis=4)
        return y.reshape(count, 2 * height, 2 * width, self.features)


def _phase(y: Array, phase: int, side: int, phases: int) -> Array:
    """Takes a phase, of the axis `phases`, without the row or column of `side` that it lacks.

    Of an image of any size, brackets would gather, which jax2onnx cannot write each time.
    """
    y = jax.lax.index_in_dim(y, phase, phases, keepdims=False)
    return jax.lax.slice_in_dim(y, phase, y.shape[side] - 1 + phase, axis=side)


class Dense(nn.Module):
    """Linear layer without bias; on [N, H, W, C] it is a 1x1 convolution.

    `frozen` is that of `apply_kernel`.
    """

    features: int
    dtype: Any = jnp.float32
    frozen: Frozen = (0, 0)

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Multiplies features by the kernel: [..., C] -> [..., features]."""
        kernel = kernel_of(self, x.shape[-1], self.features).astype(self.dtype)
        return apply_kernel(jnp.matmul, x.astype(self.dtype), kernel, self.frozen)


class Bottleneck(nn.Module):
    """Two dense layers with a LeakyReLU between: what turns an embedding into a modulation."""

    hidden: int
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Applies both layers: [..., C] -> [..., features]."""
        x = leaky_relu(Dense(self.hidden, self.dtype, name="reduce")(x))
        return Dense(self.features, self.dtype, name="expand")(x)


@jax.custom_vjp
def instance_norm(x: Array, scale: Array, shift: Array) -> Array:
    """Normalises each sample and channel: biased variance, epsilon 1e-5, then scale and shift.

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

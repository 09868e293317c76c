"""Layers shared by the networks: convolutions without bias, instance norm, spectral norm.

Spectral norm is a transformation of the parameter tree, not of a layer: `spectral_normalize`
divides every kernel by its spectral norm once, and the networks are applied to the result. The
vectors u and v live in a tree of their own, so applying a network changes nothing.

Layout: images NHWC, convolution kernels [kh, kw, in, out], dense kernels [in, out].

Equal blocks are unrolled: on CPU a convolution inside a loop misses the fast kernels, and a step
scanned over blocks takes 15 times as long.
"""

import math
from collections.abc import Callable
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Tree = Any

NEGATIVE_SLOPE = 0.01
NORM_EPSILON = 1e-5


def leaky_relu(x: Array) -> Array:
    """LeakyReLU with slope 0.01, the activation of every network but the denoiser."""
    return nn.leaky_relu(x, NEGATIVE_SLOPE)


def kernel_bound(fan_in: int):
    """Initialiser of kernels that returns their bound 1 / sqrt(fan_in), PyTorch's default.

    `init_params` draws the kernels of a whole network at once from these bounds: a random draw for
    each of its 160 kernels would take half a minute to compile.
    """

    def init(_: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jnp.full(shape, fan_in**-0.5, dtype)

    return init


def init_params(key: Array, module: nn.Module, *args: Any, **kwargs: Any) -> Tree:
    """Parameters of `module`, every kernel from U(-bound, bound), all else as initialised.

    Args:
      key: PRNG key.
      module: a module of this package.
      *args, **kwargs: what the module is called with, arrays or `jax.ShapeDtypeStruct`s.
    """
    shapes = jax.eval_shape(module.init, key, *args, **kwargs)["params"]
    sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)]
    draws = jnp.split(jax.random.uniform(key, (sum(sizes),), minval=-1.0), np.cumsum(sizes)[:-1])
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (args, kwargs))
    bounds = jax.jit(module.init)(key, *zeros[0], **zeros[1])["params"]
    flat, structure = jax.tree.flatten_with_path(bounds)
    leaves = [
        bound * draw.reshape(bound.shape) if path[-1].key == "kernel" else bound
        for (path, bound), draw in zip(flat, draws, strict=True)
    ]
    return jax.tree.unflatten(structure, leaves)


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
        kernel = self.param(
            "kernel",
            kernel_bound(size * size * channels),
            (size, size, channels, self.features),
        )
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
        # PyTorch counts the fan-in of a transposed convolution over its output channels.
        kernel = self.param(
            "kernel", kernel_bound(16 * self.features), (4, 4, x.shape[-1], self.features)
        )
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
        kernel = self.param(
            "kernel", kernel_bound(x.shape[-1]), (x.shape[-1], self.features)
        )
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


def instance_norm(x: Array, scale: Array, shift: Array) -> Array:
    """Instance norm: per sample and channel, biased variance, epsilon 1e-5, then scale and shift.

    Args:
      x: [..., H, W, C]; statistics are float32 whatever its dtype.
      scale, shift: broadcast against [..., 1, 1, C].

    Returns:
      x's shape and dtype.
    """
    wide = x.astype(jnp.float32)
    mean = wide.mean((-3, -2), keepdims=True)
    variance = jnp.square(wide - mean).mean((-3, -2), keepdims=True)
    factor = jax.lax.rsqrt(variance + NORM_EPSILON) * scale
    return ((wide - mean) * factor + shift).astype(x.dtype)


class SpectralVectors(flax.struct.PyTreeNode):
    """Left and right singular vectors of every kernel, as last estimated.

    Both trees have the parameters' paths, kernels only; u is [out] and v is [kh * kw * in].
    """

    u: Tree
    v: Tree


def _matrix(kernel: Array) -> Array:
    """[..., out] -> [prod(...), out]: the transpose of spectral norm's weight matrix W."""
    return kernel.reshape(-1, kernel.shape[-1])


# Products with u and v are written as sums: each of a network's 160 matrix products would cost
# compile time of its own, sums fuse, and these sizes gain nothing from a matrix product.
def _unit(x: Array) -> Array:
    return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)


def _map_kernels(function: Callable[..., Array], params: Tree, *others: Tree) -> Tree:
    """Maps `function` over the kernels of trees with equal paths."""
    rest = [flax.traverse_util.flatten_dict(other) for other in others]
    result = {
        path: function(kernel, *(tree[path] for tree in rest))
        for path, kernel in _kernels(params).items()
    }
    return flax.traverse_util.unflatten_dict(result)


def _kernels(params: Tree) -> dict[tuple[str, ...], Array]:
    flat = flax.traverse_util.flatten_dict(params)
    return {path: leaf for path, leaf in flat.items() if path[-1] == "kernel"}


def init_spectral(key: Array, params: Tree, iterations: int = 15) -> SpectralVectors:
    """Spectral vectors of freshly initialised parameters.

    Args:
      key: PRNG key of the starting vectors.
      params: parameter tree; every leaf named `kernel` has a spectral norm.
      iterations: power iterations from the random start.
    """
    kernels = _kernels(params)
    sizes = [kernel.shape[-1] for kernel in kernels.values()]
    draws = jnp.split(jax.random.normal(key, (sum(sizes),)), np.cumsum(sizes)[:-1])
    u = flax.traverse_util.unflatten_dict(dict(zip(kernels, map(_unit, draws), strict=True)))
    # v is overwritten by the first iteration.
    v = _map_kernels(lambda kernel: jnp.zeros(_matrix(kernel).shape[0]), params)
    vectors = SpectralVectors(u, v)
    update = jax.jit(update_spectral)
    for _ in range(iterations):
        vectors = update(params, vectors)
    return vectors


def update_spectral(params: Tree, vectors: SpectralVectors, iterations: int = 1) -> SpectralVectors:
    """Power iterations of every kernel's vectors: v <- W^T u / |.|, then u <- W v / |.|."""
    u = vectors.u
    for _ in range(iterations):
        v = _map_kernels(lambda k, u: _unit((_matrix(k) * u).sum(1)), params, u)
        u = _map_kernels(lambda k, v: _unit((_matrix(k) * v[:, None]).sum(0)), params, v)
    return SpectralVectors(u, v)


def spectral_normalize(params: Tree, vectors: SpectralVectors) -> Tree:
    """Divides every kernel by sigma = u^T W v; u and v are constants of the gradient.

    Args:
      params: raw parameters, float32.
      vectors: their spectral vectors.

    Returns:
      The tree the networks are applied to: kernels W / sigma, all other leaves as they are.
    """
    vectors = jax.lax.stop_gradient(vectors)

    def divide(kernel: Array, u: Array, v: Array) -> Array:
        return kernel / (_matrix(kernel) * u * v[:, None]).sum()

    normalized = _map_kernels(divide, params, vectors.u, vectors.v)
    flat = flax.traverse_util.flatten_dict(params) | flax.traverse_util.flatten_dict(normalized)
    return flax.traverse_util.unflatten_dict(flat)

"""Spectral norm as a transformation of parameters.

`spectral_normalize` divides every kernel by its spectral norm once, and the networks are applied
to the result; the vectors u and v are values of their own, so applying a network changes nothing.

All functions take a tree of parameters or a `Stacks` (see `parameters.py`), where one leaf holds
all kernels of one shape: a kernel of odd rank is such a stack.
"""

import math
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp

from nt_jax import prng

Array = jax.Array
Tree = Any


class SpectralVectors(flax.struct.PyTreeNode):
    """Left and right singular vectors of every kernel, as last estimated.

    Both trees have the parameters' paths, kernels only; u is [out] and v is [kh * kw * in], with
    the kernels' leading axis where they are stacked.
    """

    u: Tree
    v: Tree


def _matrices(kernel: Array) -> Array:
    """Reshapes [..., out] -> [S, prod(...), out]: transposes of spectral norm's weight matrices W.

    S is 1 for a kernel that is no stack.
    """
    count = kernel.shape[0] if kernel.ndim % 2 else 1
    return kernel.reshape(count, -1, kernel.shape[-1])


# Products with u and v are written as sums: a matrix product of each kernel would cost compile
# time of its own, sums fuse, and these sizes gain nothing from a matrix product. A stack is an
# axis and not a `vmap`, which takes long to trace.
def _unit(x: Array) -> Array:
    return x / jnp.maximum(jnp.sqrt((x * x).sum(1, keepdims=True)), 1e-12)


def _map_kernels(function: Callable[..., Array], params: Tree, *others: Tree) -> Tree:
    """Maps `function` of matrices [S, in, out] over the kernels of trees with equal paths.

    The other trees' leaves reach it as [S, size]; what it returns loses S for a single kernel.
    """
    rest = [flax.traverse_util.flatten_dict(other) for other in others]
    result = {}
    for path, kernel in _kernels(params).items():
        matrices = _matrices(kernel)
        vectors = [tree[path].reshape(len(matrices), -1) for tree in rest]
        mapped = function(matrices, *vectors)
        result[path] = mapped if kernel.ndim % 2 else mapped[0]
    return flax.traverse_util.unflatten_dict(result)


def _kernels(params: Tree) -> dict[tuple[str, ...], Array]:
    flat = flax.traverse_util.flatten_dict(params)
    return {path: leaf for path, leaf in flat.items() if path[-1].startswith("kernel")}


def init_spectral(key: Array, params: Tree, iterations: int = 15) -> SpectralVectors:
    """Computes the spectral vectors of freshly initialised parameters.

    Args:
      key: PRNG key of the starting vectors.
      params: parameters; every leaf named `kernel` has a spectral norm.
      iterations: power iterations from the random start.
    """
    kernels = sorted(_kernels(params).items())
    shapes = [(*kernel.shape[: kernel.ndim % 2], kernel.shape[-1]) for _, kernel in kernels]
    sizes = [math.prod(shape) for shape in shapes]
    draws = jax.lax.split(prng.normal(key, (sum(sizes),)), sizes)
    u = {
        path: draw.reshape(shape)
        for (path, _), draw, shape in zip(kernels, draws, shapes, strict=True)
    }
    # v is overwritten by the first iteration.
    v = _map_kernels(lambda matrices: jnp.zeros(matrices.shape[:2], jnp.float32), params)
    vectors = SpectralVectors(flax.traverse_util.unflatten_dict(u), v)
    return jax.lax.fori_loop(0, iterations, lambda _, w: update_spectral(params, w), vectors)


def update_spectral(params: Tree, vectors: SpectralVectors, iterations: int = 1) -> SpectralVectors:
    """Updates every kernel's vectors by power iterations: v <- W^T u / |.|, then u <- W v / |.|."""
    u = vectors.u
    for _ in range(iterations):
        v = _map_kernels(lambda w, u: _unit((w * u[:, None]).sum(2)), params, u)
        u = _map_kernels(lambda w, v: _unit((w * v[:, :, None]).sum(1)), params, v)
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

    def divide(w: Array, u: Array, v: Array) -> Array:
        return w / (w * u[:, None] * v[:, :, None]).sum((1, 2), keepdims=True)

    normalized = flax.traverse_util.flatten_dict(_map_kernels(divide, params, vectors.u, vectors.v))
    flat = flax.traverse_util.flatten_dict(params)
    flat |= {path: kernel.reshape(flat[path].shape) for path, kernel in normalized.items()}
    return flax.traverse_util.unflatten_dict(flat)

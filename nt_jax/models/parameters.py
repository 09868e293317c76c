"""Parameters of a network as stacks: one array for all leaves of one name and shape.

A network has some 250 small arrays of some 30 shapes. Whatever treats them all alike (spectral
norm, Adam, moving averages, checkpoints) works on the stacks, which keeps the compiled step small.
"""

import functools
import math
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nt_jax import prng

Array = jax.Array
Tree = Any
Stacks = dict[str, Array]
Path = tuple[str, ...]


class Layout(tuple[tuple[str, tuple[int, ...], tuple[Path, ...]], ...]):
    """(stack name, shape of one leaf, paths of its leaves in order) of every stack; hashable."""


def layout_of(params: Tree) -> Layout:
    """Computes the layout of a parameter tree of arrays or `jax.ShapeDtypeStruct`s.

    A stack is named after its leaves, `kernel_3x3x16x16` for example.
    """
    stacks: dict[str, tuple[tuple[int, ...], list[Path]]] = {}
    for path, leaf in sorted(flax.traverse_util.flatten_dict(params).items()):
        name = f"{path[-1]}_{'x'.join(map(str, leaf.shape))}"
        stacks.setdefault(name, (leaf.shape, []))[1].append(path)
    return Layout((name, shape, tuple(paths)) for name, (shape, paths) in sorted(stacks.items()))


def stack(params: Tree, layout: Layout) -> Stacks:
    """Stacks of a parameter tree: {name: [n, ...]}.

    Arrays of NumPy stay there: each operation of JAX is a program to compile.
    """
    flat = flax.traverse_util.flatten_dict(params)
    on_host = all(isinstance(leaf, np.ndarray) for leaf in flat.values())
    join: Any = np.stack if on_host else jnp.stack
    return {name: join([flat[path] for path in paths]) for name, _, paths in layout}


def unstack(stacks: Stacks, layout: Layout) -> Tree:
    """Splits `stacks` into the parameter tree the network takes; its gradient comes stacked.

    Arrays of NumPy stay there, too.
    """
    flat: dict[Path, Array] = {}
    for name, shape, paths in layout:
        pieces: Any
        if isinstance(stacks[name], np.ndarray):
            pieces = np.split(stacks[name], len(paths))
        else:
            # The slicing whose gradient is one concatenation, not a sum of paddings.
            pieces = jax.lax.split(stacks[name], [1] * len(paths))
        flat |= {path: p.reshape(shape) for path, p in zip(paths, pieces, strict=True)}
    return flax.traverse_util.unflatten_dict(flat)


def mean(one: Tree, other: Tree) -> Tree:
    """Averages two trees of arrays, float32; whole numbers, which are counts, stay the first's."""

    def of_leaves(a: Any, b: Any) -> np.ndarray:
        if np.issubdtype(a.dtype, np.integer):
            return np.asarray(a)
        return (np.asarray(a, np.float32) + np.asarray(b, np.float32)) / 2

    return jax.tree.map(of_leaves, one, other)


@functools.lru_cache
def module_layout(module: nn.Module, *shapes: Any) -> Layout:
    """Computes the parameter layout of `module` called with arrays of `shapes` (tuples, nested)."""
    is_shape = lambda x: isinstance(x, tuple) and all(isinstance(n, int) for n in x)  # noqa: E731
    args = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32), shapes, is_leaf=is_shape
    )
    return layout_of(jax.eval_shape(module.init, prng.key(0), *args)["params"])


def init_params(key: Array, layout: Layout) -> Stacks:
    """Draws fresh parameters: kernels U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)) as PyTorch's default.

    Scales are 1 and shifts 0.

    Args:
      key: PRNG key.
      layout: the network's layout; leaves are named `kernel`, `scale` or `shift`.
    """
    sizes = [len(paths) * math.prod(shape) for _, shape, paths in layout]
    # One draw for all: a random generator of each shape would take long to compile.
    draws = jax.lax.split(prng.uniform(key, (sum(sizes),), -1.0), sizes)
    stacks = {}
    for draw, (name, shape, paths) in zip(draws, layout, strict=True):
        stacked = (len(paths), *shape)
        kind = paths[0][-1]
        if kind == "kernel":
            bounds = np.array([_fan_in(path, shape) ** -0.5 for path in paths], np.float32)
            stacks[name] = draw.reshape(stacked) * bounds.reshape(-1, *[1] * len(shape))
        else:
            stacks[name] = jnp.full(stacked, {"scale": 1.0, "shift": 0.0}[kind], jnp.float32)
    return stacks


def _fan_in(path: Path, shape: tuple[int, ...]) -> int:
    # PyTorch counts the fan-in of a transposed convolution over its output channels.
    if path[-2].startswith("up"):
        return math.prod(shape[:-2]) * shape[-1]
    return math.prod(shape[:-1])

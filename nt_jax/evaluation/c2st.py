"""Classifier two-sample test: can a small network tell generated noise from real?

Lopez-Paz and Oquab, Revisiting Classifier Two-Sample Tests (ICLR 2017). Unlike a metric of one
property, it finds whatever differs: level, colour, grain, dependence on the image. 0.5 is chance:
nothing was found. It is a lower bound on what can be told apart, and it depends on the network, its
training and the size of the patches, all fixed here: hold it only against values of this program.

Two-fold cross-validation over photographs: each half of them is judged by a network trained on the
other half, so no photograph is on both sides and each image has an accuracy. What both noises of a
place look like, divided by the root mean square of the image's real noise, and the clean patch are
the network's input. Patches are mirrored at random but not turned: that would hide a direction.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from nt_jax import prng
from nt_jax.adam import scale_by_adam
from nt_jax.errors import InputError
from nt_jax.evaluation import statistics

FEWEST_IMAGES = 4
NEEDED = f"{FEWEST_IMAGES} images or more, of two photographs at least"
PATCH_SIZES = (32, 16)
# Of one image, and of a set.
MAX_PATCHES, MAX_TOTAL = 32, 8192
_STEPS = 300
_PLACES = 16
_LEARNING_RATE = 3e-3
_JUDGED_AT_ONCE = 64

# Indices of patches [n] -> the network's inputs [n, 2, P, P, 6].
_Inputs = Callable[[np.ndarray], np.ndarray]


class _Classifier(nn.Module):
    """Two convolutions, their mean, two dense layers: [N, P, P, 6] -> logit [N], > 0: generated."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Dense(16)(_neighbourhoods(x)))
        n, size, _, channels = x.shape
        x = x.reshape(n, size // 2, 2, size // 2, 2, channels).mean(axis=(2, 4))
        x = nn.relu(nn.Dense(32)(_neighbourhoods(x)))
        x = nn.relu(nn.Dense(32)(x.mean(axis=(1, 2))))
        return nn.Dense(1)(x)[:, 0]


def _neighbourhoods(x: jax.Array) -> jax.Array:
    """Gathers the 3x3 pixels around each, where they fit: [N, P, P, C] -> [N, P - 2, P - 2, 9 C].

    A dense layer on them is a convolution, as matrix products, which are many times as fast on a
    CPU as the gradients of small convolutions.
    """
    size = x.shape[1] - 2
    corners = [(i, j) for i in range(3) for j in range(3)]
    return jnp.concatenate([x[:, i : i + size, j : j + size] for i, j in corners], axis=-1)


_NETWORK = _Classifier()


def _rate(step: jax.Array, steps: int = _STEPS) -> jax.Array:
    """Falls from the learning rate to 0 as half a cosine, float32."""
    share = jnp.minimum(step.astype(jnp.float32) / steps, 1)
    return _LEARNING_RATE * (1 + jnp.cos(jnp.pi * share)) / 2


_OPTIMIZER = optax.chain(
    scale_by_adam(0.9, 0.999),
    optax.add_decayed_weights(1e-3),
    optax.scale_by_learning_rate(_rate),
)


def patch_size(shortest_side: int) -> int:
    """Chooses the side of the patches for images of that shortest side, 16 pixels or more."""
    return next(size for size in PATCH_SIZES if size <= shortest_side)


def patches_of(image: np.ndarray, size: int, most: int = MAX_PATCHES) -> np.ndarray:
    """Patches on a grid without overlap, at most `most` evenly over it: [n, size, size, C]."""
    rows, columns = (side // size for side in image.shape[:2])
    grid = image[: rows * size, : columns * size].reshape(rows, size, columns, size, -1)
    patches = grid.swapaxes(1, 2).reshape(rows * columns, size, size, -1)
    count = min(most, len(patches))
    return patches[np.linspace(0, len(patches) - 1, count).round().astype(int)]


def can_fold(photographs: Sequence[str]) -> bool:
    """Tells whether there are enough images for the test, by what each is a crop of."""
    return len(photographs) >= FEWEST_IMAGES and len(set(photographs)) > 1


def c2st(
    clean: np.ndarray,
    noisy: np.ndarray,
    generated: np.ndarray,
    image: np.ndarray,
    photographs: Sequence[str],
    seed: int = 0,
) -> np.ndarray:
    """Measures the accuracy of telling real from generated noise on each image: float64 [images].

    Args:
      clean, noisy, generated: patches, uint8 [N, P, P, 3], P of 16 or more.
      image: int [N], the image a patch is of, 0 to images - 1, each with a patch or more.
      photographs: what each image is a crop of: those of one are judged by one network.
      seed: of the split, the network and its training, which it fully determines.

    Raises:
      InputError: there are fewer than 4 images, or all are of one photograph.
    """
    if not can_fold(photographs):
        raise InputError(f"c2st needs {NEEDED}; got {len(photographs)}")
    count = len(photographs)
    power = [np.mean(_noise(clean, noisy, image == i) ** 2) for i in range(count)]
    scale = 1 / np.sqrt(np.maximum(power, 1.0)).astype(np.float32)

    def inputs(places: np.ndarray) -> np.ndarray:
        """Stacks real and generated noise, each beside its clean patch: [n, 2, P, P, 6]."""
        factor = scale[image[places]][:, None, None, None]
        seen = 2 * clean[places].astype(np.float32) / 255 - 1
        return np.stack(
            [
                np.concatenate([factor * _noise(clean, side, places), seen], axis=-1)
                for side in (noisy, generated)
            ],
            axis=1,
        )

    photograph = statistics.numbered(photographs, count)
    order = np.random.default_rng(seed).permutation(photograph.max() + 1)
    first_half = np.isin(photograph[image], order[: len(order) // 2])
    right = np.empty((len(image), 2))
    for fold, judged in enumerate((first_half, ~first_half)):
        rng = np.random.default_rng((seed, fold))
        params = _train(inputs, np.flatnonzero(~judged), rng)
        right[judged] = (_judge(params, inputs, np.flatnonzero(judged)) > 0) == [False, True]
    return np.array([right[image == i].mean() for i in range(count)])


def _noise(clean: np.ndarray, noisy: np.ndarray, places: np.ndarray) -> np.ndarray:
    return noisy[places].astype(np.float32) - clean[places]


def _train(inputs: _Inputs, places: np.ndarray, rng: np.random.Generator) -> Any:
    """Parameters after training on both noises of these patches."""
    params = _init(prng.key(int(rng.integers(2**32))), inputs(places[:1]))
    state = _OPTIMIZER.init(params)
    for _ in range(_STEPS):
        batch = inputs(rng.choice(places, _PLACES))
        for axis in (2, 3):
            mirrored = rng.random(_PLACES) < 0.5
            batch[mirrored] = np.flip(batch[mirrored], axis)
        params, state = _step(params, state, batch)
    return params


@jax.jit
def _init(key: jax.Array, inputs: jax.Array) -> Any:
    with prng.counting():  # Flax draws by itself
        return _NETWORK.init(key, inputs[0])


@partial(jax.jit, donate_argnums=(0, 1))
def _step(params: Any, state: Any, batch: jax.Array) -> tuple[Any, Any]:
    labels = jnp.tile(jnp.array([0.0, 1.0], jnp.float32), len(batch))

    def loss(params: Any) -> jax.Array:
        logits = _NETWORK.apply(params, batch.reshape(-1, *batch.shape[2:]))
        return optax.sigmoid_binary_cross_entropy(logits, labels).mean()

    updates, state = _OPTIMIZER.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state


def _judge(params: Any, inputs: _Inputs, places: np.ndarray) -> np.ndarray:
    """Logits [n, 2] of both noises of these patches."""
    padded = np.resize(places, -(-len(places) // _JUDGED_AT_ONCE) * _JUDGED_AT_ONCE)
    parts = [inputs(part) for part in np.split(padded, len(padded) // _JUDGED_AT_ONCE)]
    flat = [np.asarray(_apply(params, part.reshape(-1, *part.shape[2:]))) for part in parts]
    return np.concatenate(flat).reshape(-1, 2)[: len(places)]


_apply = jax.jit(_NETWORK.apply)

"""A network that reads numbers of the noise off a noisy patch, and says how sure it is of each.

Which numbers is a matter of its training: `readings.measure`, or the spectrum's `spectra.measure`.

Not in the paper. The head on the embedding (`discriminator.Reader`) sees 128 numbers made for
telling noises apart, and takes fine texture for noise; this network is made for reading alone.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nt_jax.models.biased import BiasedConv
from nt_jax.models.layers import Array, Tree
from nt_jax.readings import SIZE

# Channels of the three scales, in units of the width, and residual blocks of each.
_SCALES = ((1, 1), (2, 2), (3, 2))
_HIDDEN = 8
_POOLED = "hidden"  # name of the layer that sees what is pooled
LAST = "last"  # name of the layer that depends on what is read
# Of the logarithm of a spread: from exact to no idea.
_SURE, _UNSURE = -5.0, 2.0


class NoiseReaderOutputs(NamedTuple):
    """Numbers read off N patches.

    Attributes:
      values: float32 [N, size], standardised as `readings.decode` or `spectra.decode` takes them.
      spread: float32 [N, size], mean absolute error that the network expects of each.
    """

    values: Array
    spread: Array


class NoiseReader(nn.Module):
    """Convolutions at three scales, each pooled, and two layers on what is pooled.

    Attributes:
      width: channels of the first scale.
      size: how many numbers it reads.
    """

    width: int = 32
    size: int = SIZE

    @nn.compact
    def __call__(self, noisy: Array) -> NoiseReaderOutputs:
        """Reads images [N, H, W, 3] in [0, 1], sides multiples of 4 -> what is read.

        Of K crops of each, [N, K, H, W, 3], all are pooled together: one that is flat tells more of
        the noise than many that are not.
        """
        images = noisy.reshape(-1, *noisy.shape[-3:])
        x = BiasedConv(self.width, name="first")(jnp.concatenate(_views(images), axis=-1))
        pooled = []
        for scale, (channels, blocks) in enumerate(_SCALES):
            if scale:
                name = f"halve_{scale}"
                x = BiasedConv(channels * self.width, 4, stride=2, name=name)(_activate(x))
            for block in range(blocks):
                y = x
                for index in (1, 2):
                    name = f"conv_{scale}_{block}_{index}"
                    y = BiasedConv(x.shape[-1], name=name)(_activate(y))
                x = x + y
            scores = BiasedConv(_HIDDEN, 1, name=f"attend_{scale}")(_activate(x))
            pooled += _pool(x, scores, len(noisy))
        x = jnp.concatenate(pooled, axis=-1)[:, None, None]
        x = _activate(BiasedConv(_HIDDEN * self.width, 1, name=_POOLED)(x))
        x = BiasedConv(2 * self.size, 1, name=LAST)(x)[:, 0, 0]
        values, spread = jnp.split(x, 2, axis=-1)
        return NoiseReaderOutputs(values, jnp.exp(jnp.clip(spread, _SURE, _UNSURE)))


def widened(params: Tree, width: int, fresh: Tree, fresh_width: int) -> Tree:
    """Puts a reader's parameters into those of a wider one, which then reads the same.

    What the wider one has more begins as fresh, but changes nothing that the other computes: its
    channels see all, and are seen by none of the other's.

    Args:
      params: of a reader of `width`, as arrays of NumPy.
      fresh: of one of `fresh_width`, likewise, that reads as many numbers.

    Returns:
      Of the shapes of `fresh`.
    """
    wide = jax.tree.map(np.array, fresh)
    for name, layer in wide.items():
        kernel = params[name]["kernel"]
        inputs, outputs = kernel.shape[2:]
        rows = _pooled_rows(width, fresh_width) if name == _POOLED else np.arange(inputs)
        layer["kernel"][..., :outputs] = 0
        layer["kernel"][:, :, rows, :outputs] = kernel
        layer["bias"][:outputs] = params[name]["bias"]
    return wide


def _pooled_rows(width: int, fresh_width: int) -> np.ndarray:
    """Lists where a wider reader has what another pools: by scale and by `_pool`'s parts."""
    rows, start = [], 0
    for channels, _ in _SCALES:
        for _ in range(2 + _HIDDEN):  # mean, deviation, and each map of scores
            rows.append(start + np.arange(channels * width))
            start += channels * fresh_width
    return np.concatenate(rows)


def _views(noisy: Array) -> list[Array]:
    """Lists the image, and its fine detail in grey levels, compressed so that weak noise shows."""
    padded = jnp.pad(noisy, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    around = padded[:, 2:, 1:-1] + padded[:, :-2, 1:-1] + padded[:, 1:-1, 2:] + padded[:, 1:-1, :-2]
    detail = np.float32(255) * (noisy - around / 4)
    return [2 * noisy - 1, jnp.arcsinh(detail) / 2]


def _activate(x: Array) -> Array:
    return nn.leaky_relu(x, 0.1)


def _pool(x: Array, scores: Array, count: int) -> list[Array]:
    """Means over planes, and where each of some maps of scores looks: texture or flat parts.

    Args:
      x, scores: float32 [N * K, H, W, ...].
      count: N, of the images.
    """
    weights = jax.nn.softmax(scores.reshape(count, -1, scores.shape[-1]), axis=1)
    values = x.reshape(count, -1, x.shape[-1])
    attended = jnp.einsum("npk,npc->nkc", weights, values).reshape(count, -1)
    return [values.mean(1), jnp.sqrt(jnp.square(values).mean(1) + np.float32(1e-6)), attended]


def read_noise(network: NoiseReader, params: Tree, noisy: Array) -> NoiseReaderOutputs:
    """Reads noisy patches [N, H, W, 3] in [0, 1], or crops of images [N, K, H, W, 3]."""
    outputs = network.apply({"params": params}, noisy)
    assert isinstance(outputs, NoiseReaderOutputs)
    return outputs

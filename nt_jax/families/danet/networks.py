"""DANet's networks: one U-Net as generator and as denoiser, and the critic (Yue et al., ECCV 2020).

Parameters at full size: generator 9,153,859, denoiser 9,153,571 (its first convolution lacks the
random map), critic 44,707,777.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from nt_jax import prng
from nt_jax.models.layers import Array, Tree
from nt_jax.models.plain import Conv, Doubling

_LEVELS = 5
# Side of the critic's last map, whatever the patch.
_LAST_SIDE = 4


def _leaky_relu(x: Array) -> Array:
    return nn.leaky_relu(x, 0.2)


class UNet(nn.Module):
    """U-Net of five levels: two convolutions each, halved by a convolution, doubled by another's
    transpose.

    Attributes:
      width: channels of the first level; twice as many at each further one.
      dtype: compute type; the output is float32.
    """

    width: int = 32
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Applies the network: [N, H, W, C], sides of any length -> [N, H, W, 3]."""
        _, height, width, _ = x.shape
        to_16 = [(0, -side % 2 ** (_LEVELS - 1)) for side in (height, width)]
        x = jnp.pad(x, ((0, 0), *to_16, (0, 0)), mode="edge")
        kept = []
        for level in range(_LEVELS):
            x = self._two(x, level, "down")
            if level < _LEVELS - 1:
                kept.append(x)
                halve = Conv(
                    x.shape[-1], 4, stride=2, biased=False, dtype=self.dtype, name=f"halve_{level}"
                )
                x = halve(x)
        for level in reversed(range(_LEVELS - 1)):
            x = Doubling(self.width * 2**level, self.dtype, name=f"double_{level}")(x)
            x = self._two(jnp.concatenate([x, kept[level]], axis=-1), level, "up")
        x = Conv(3, dtype=self.dtype, name="last")(x)
        return x[:, :height, :width].astype(jnp.float32)

    def _two(self, x: Array, level: int, way: str) -> Array:
        for i in range(2):
            name = f"{way}_{level}_{i}"
            x = _leaky_relu(Conv(self.width * 2**level, dtype=self.dtype, name=name)(x))
        return x


class Critic(nn.Module):
    """Scores pairs of a clean and a noisy patch.

    Attributes:
      width: channels of the first convolution; twice as many after each halving.
    """

    width: int = 64

    @nn.compact
    def __call__(self, pair: Array) -> Array:
        """Scores pairs: [N, P, P, 6], P = 16, 32, 64, ... -> [N]."""
        x, features, i = pair, self.width, 0
        while x.shape[1] > _LAST_SIDE:
            x = _leaky_relu(Conv(features, 4, stride=2, name=f"halve_{i}")(x))
            features, i = 2 * features, i + 1
        x = _leaky_relu(Conv(features, _LAST_SIDE, pad=0, name="whole")(x))
        return Conv(1, 1, pad=0, name="score")(x).reshape(-1)


def make_noise(generator: UNet, params: Tree, batch: Mapping[str, Array], key: Array) -> Array:
    """Makes unclipped noise of `clean` images and one random map: [N, H, W, 3]."""
    clean = batch["clean"]
    random_map = prng.normal(key, (*clean.shape[:3], 1))
    seen = jnp.concatenate([clean, random_map], axis=-1)
    return jnp.asarray(generator.apply({"params": params}, seen))


def restore(denoiser: UNet, params: Tree, noisy: Array) -> Array:
    """Denoises images, unclipped: [N, H, W, 3] -> the same shape."""
    return noisy + jnp.asarray(denoiser.apply({"params": params}, noisy))

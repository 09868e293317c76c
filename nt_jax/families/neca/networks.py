"""NeCA's networks: gain, level and correlation of noise, and two critics (Fu et al., CVPR 2023).

Parameters at full size: gain 263,425, level 42,435, correlation 7,790,723; the critics of 96x96
and of 32x32 pixels have 14,145,801 and 2,165,001.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from nt_jax import prng
from nt_jax.models.layers import Array, Tree
from nt_jax.models.plain import Conv

_LEVELS = 4
# Convolutions after the first, of 3x3 in the network of the gain, of 1x1 in that of the level.
_FURTHER = 3
# Added to deviations that are divided by.
_LEAST = 1e-5
# The critics halve their map until it has at most that side, with at most so many times their
# width; then there is a hidden layer.
_LAST_SIDE, _MOST, _HIDDEN = 4, 8, 100


class Gain(nn.Module):
    """One number that tells how strong an image's noise is.

    Attributes:
      width: channels.
      dtype: compute type; the output is float32.
    """

    width: int = 96
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, noisy: Array) -> Array:
        """Estimates the gain: [N, H, W, 3] in [0, 1] -> [N, 1, 1, 1]."""
        x = nn.relu(Conv(self.width, 7, pad=3, dtype=self.dtype, name="first")(noisy))
        for i in range(_FURTHER):
            x = nn.relu(Conv(self.width, dtype=self.dtype, name=f"conv_{i}")(x))
        # The mean is over many pixels: in 16 bits it would be off.
        x = x.astype(jnp.float32).mean(axis=(1, 2), keepdims=True)
        return Conv(1, 1, pad=0, name="last")(x)


class Level(nn.Module):
    """Deviation of the noise at each pixel, by the clean image and the gain.

    Attributes:
      width: channels.
      dtype: compute type; the output is float32.
    """

    width: int = 96
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, clean: Array, gain: Array) -> Array:
        """Predicts deviations: [N, H, W, 3] in [0, 1], [N, 1, 1, 1] -> [N, H, W, 3], at least 0."""
        x = Conv(self.width, 7, pad=3, reflect=True, dtype=self.dtype, name="first")(clean)
        for i in range(_FURTHER):
            x = Conv(self.width, 1, pad=0, dtype=self.dtype, name=f"pixel_{i}")(x)
            # Over the whole image: without the gain its level would be lost here.
            x = x.astype(jnp.float32)
            mean, deviation = (f(x, axis=(1, 2, 3), keepdims=True) for f in (jnp.mean, jnp.std))
            x = nn.leaky_relu((x - mean) / (deviation + _LEAST) * gain)
        x = Conv(3, 1, pad=0, dtype=self.dtype, name="last")(x)
        return jnp.square(x.astype(jnp.float32))


class Correlation(nn.Module):
    """U-Net of four levels that makes grain of noise without any.

    Attributes:
      width: channels of the first level; twice as many at each further one.
      dtype: compute type; the output is float32.
    """

    width: int = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, noise: Array) -> Array:
        """Makes grain to add: [N, H, W, 3], sides of any length -> [N, H, W, 3] in (-1, 1)."""
        _, height, width, _ = noise.shape
        aligned = [(0, -side % 2 ** (_LEVELS - 1)) for side in (height, width)]
        x = jnp.pad(noise, ((0, 0), *aligned, (0, 0)), mode="edge")
        kept = []
        for level in range(_LEVELS):
            size, stride = (3, 2) if level else (7, 1)
            x = self._conv(x, level, "down", 0, size, stride)
            x = self._conv(x, level, "down", 1)
            kept.append(x)
        for level in reversed(range(_LEVELS - 1)):
            x = x.repeat(2, axis=1).repeat(2, axis=2)
            x = jnp.concatenate([x, kept[level]], axis=-1)
            for i in range(2):
                x = self._conv(x, level, "up", i)
        x = Conv(3, 1, pad=0, dtype=self.dtype, name="last")(x)
        return jnp.tanh(x[:, :height, :width].astype(jnp.float32))

    def _conv(
        self, x: Array, level: int, way: str, i: int, size: int = 3, stride: int = 1
    ) -> Array:
        features, name = self.width * 2**level, f"{way}_{level}_{i}"
        conv = Conv(features, size, stride, pad=size // 2, dtype=self.dtype, name=name)
        return nn.relu(conv(x))


class Critic(nn.Module):
    """Scores noise.

    Attributes:
      width: channels of the first convolution; twice as many after each halving but the first.
    """

    width: int = 64

    @nn.compact
    def __call__(self, noise: Array) -> Array:
        """Scores noise: [N, P, P, 3] -> [N]."""
        x = Conv(self.width, 7, pad=3, name="first")(noise)
        halvings = 0
        while x.shape[1] > _LAST_SIDE:
            features = self.width * min(2**halvings, _MOST)
            if halvings:
                x = _leaky_relu(Conv(features, name=f"conv_{halvings}")(x))
            x = _leaky_relu(Conv(features, 4, stride=2, name=f"halve_{halvings}")(x))
            halvings += 1
        x = _leaky_relu(Conv(_HIDDEN, x.shape[1], pad=0, name="whole")(x))
        return Conv(1, 1, pad=0, name="score")(x).reshape(-1)


def _leaky_relu(x: Array) -> Array:
    return nn.leaky_relu(x, 0.2)


class Generator(NamedTuple):
    """The modules that make noise; their parameters are a dict of these names."""

    gain: Gain
    level: Level
    correlation: Correlation


class Made(NamedTuple):
    """Noise and what it is made of.

    Attributes:
      gain: [N, 1, 1, 1], by the reference.
      level: [N, H, W, 3], deviation at each pixel.
      plain: [N, H, W, 3], noise of that level without grain.
      noise: [N, H, W, 3], with grain; unclipped.
    """

    gain: Array
    level: Array
    plain: Array
    noise: Array


def make_generator(model: Any, dtype: Any = jnp.float32) -> Generator:
    """Makes the modules of `config.model` or of a model folder's `model`."""
    levels = model["level_width"]
    return Generator(Gain(levels, dtype), Level(levels, dtype), Correlation(model["width"], dtype))


def make(
    generator: Generator, params: Mapping[str, Tree], clean: Array, noisy: Array, key: Array
) -> Made:
    """Makes noise of clean images, as strong as that of noisy ones of any other size."""

    def apply(name: str, *inputs: Array) -> Array:
        return jnp.asarray(getattr(generator, name).apply({"params": params[name]}, *inputs))

    gain = apply("gain", noisy)
    level = apply("level", clean, gain)
    plain = level * prng.normal(key, clean.shape)
    return Made(gain, level, plain, apply("correlation", plain) + plain)


def make_noise(
    generator: Generator, params: Mapping[str, Tree], batch: Mapping[str, Array], key: Array
) -> Array:
    """Makes unclipped noise of `clean` images, as strong as the `reference`'s: [N, H, W, 3]."""
    return make(generator, params, batch["clean"], batch["reference"], key).noise

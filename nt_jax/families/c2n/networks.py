"""C2N's networks: a generator of two kinds of noise and a critic (Jang et al., ICCV 2021).

Parameters at full size: generator 2,154,068, critic 445,512.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from nt_jax import prng
from nt_jax.models.layers import Array, Tree
from nt_jax.models.plain import Conv

# Residual blocks of the features, of noise that depends on the signal and of noise that does not.
_FEATURE_BLOCKS, _DEPENDENT_BLOCKS, _INDEPENDENT_BLOCKS = 5, 2, 3
_CRITIC_BLOCKS = 6
# Least scale of the features' normal draw.
_LEAST = 1e-6


class PReLU(nn.Module):
    """ReLU with one learned slope below 0."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Scales negative values by the slope: [...] -> the same shape."""
        slope = self.param("slope", nn.initializers.constant(0.25), (1,), jnp.float32)
        return jnp.where(x >= 0, x, slope.astype(x.dtype) * x)


class Residual(nn.Module):
    """Two convolutions with a PReLU between, added to their input; channels stay.

    Attributes:
      size: of the kernels, 1 or 3.
      biased: whether the convolutions add a bias.
      dtype: compute type.
    """

    size: int = 3
    biased: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Adds the residual: [N, H, W, C] -> the same shape."""

        def conv(name: str) -> Conv:
            return Conv(
                x.shape[-1],
                self.size,
                pad=self.size // 2,
                reflect=True,
                biased=self.biased,
                dtype=self.dtype,
                name=name,
            )

        return x + conv("second")(PReLU(name="slope")(conv("first")(x)))


class Generator(nn.Module):
    """Noise of an image: one draw whose mean and scale the image tells, one of its own.

    Attributes:
      width: channels of the noise features; twice as many of the image's.
      dtype: compute type; the output is float32.
    """

    width: int = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, clean: Array, image_code: Array, normal: Array, uniform: Array) -> Array:
        """Makes noise.

        Args:
          clean: [N, H, W, 3] in [0, 1].
          image_code: [N, width / 2], standard normal, one for an image.
          normal: [N, H, W, width], standard normal.
          uniform: [N, H, W, width] in [0, 1).

        Returns:
          [N, H, W, 3], not clipped.
        """
        x = PReLU(name="head_slope")(self._conv("head", self.width)(clean))
        x = self._conv("image", 2 * self.width)(x)
        code = jnp.broadcast_to(
            image_code[:, None, None].astype(x.dtype), (*x.shape[:3], image_code.shape[-1])
        )
        x = self._conv("merge", 2 * self.width)(jnp.concatenate([x, code], axis=-1))
        x = PReLU(name="merge_slope")(x)
        for i in range(_FEATURE_BLOCKS):
            x = Residual(dtype=self.dtype, name=f"feature_{i}")(x)
        mean, scale = jnp.split(x, 2, axis=-1)
        dependent = mean + (nn.relu(scale) + _LEAST) * normal.astype(x.dtype)
        noise = self._transform("dependent", dependent, _DEPENDENT_BLOCKS)
        noise += self._transform("independent", uniform.astype(x.dtype), _INDEPENDENT_BLOCKS)
        last = Conv(3, 1, pad=0, dtype=self.dtype, name="last")
        return last(noise).astype(jnp.float32)

    def _conv(self, name: str, features: int) -> Conv:
        return Conv(features, reflect=True, dtype=self.dtype, name=name)

    def _transform(self, name: str, features: Array, blocks: int) -> Array:
        """Sums a chain pixel by pixel and one that correlates neighbours."""
        first = Conv(self.width, 1, pad=0, dtype=self.dtype, name=f"{name}_first")(features)
        chains = []
        for size in (1, 3):
            x = first
            for i in range(blocks):
                x = Residual(size, biased=False, dtype=self.dtype, name=f"{name}_{size}_{i}")(x)
            chains.append(x)
        return chains[0] + chains[1]


class Critic(nn.Module):
    """Scores noisy images at every pixel.

    Attributes:
      width: channels.
    """

    width: int = 64

    @nn.compact
    def __call__(self, noisy: Array) -> Array:
        """Scores images: [N, H, W, 3] -> [N, H, W, 1]."""
        x = PReLU(name="head_slope")(Conv(self.width, reflect=True, name="head")(noisy))
        for i in range(_CRITIC_BLOCKS):
            x = Residual(name=f"block_{i}")(x)
        return Conv(1, reflect=True, name="score")(x)


def shapes_of(generator: Generator, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Shapes of the generator's arguments for clean images of `shape`, [N, H, W, 3]."""
    each = (*shape[:3], generator.width)
    return shape, (shape[0], generator.width // 2), each, each


def make_noise(generator: Generator, params: Tree, batch: Mapping[str, Array], key: Array) -> Array:
    """Makes unclipped noise of `clean` images, its kind drawn anew: [N, H, W, 3]."""
    keys, clean = prng.split(key, 3), batch["clean"]
    _, code, each, _ = shapes_of(generator, clean.shape)
    draws = prng.normal(keys[0], code), prng.normal(keys[1], each), prng.uniform(keys[2], each)
    return jnp.asarray(generator.apply({"params": params}, clean, *draws))

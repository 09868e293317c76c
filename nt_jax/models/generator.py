"""The noise generator: a U-Net whose blocks are modulated by a noise embedding and random maps.

Source: NoiseTransfer, section 3.2 and supplement figure 1.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nt_jax import prng
from nt_jax.models.layers import (
    Array,
    Bottleneck,
    Conv,
    Dense,
    UpConv,
    kernel_of,
    leaky_relu,
)

# Levels in call order: down 1, down 2, bottom, up 2, up 1; each runs at full size / LEVEL_SCALES.
LEVEL_SCALES = (1, 2, 4, 2, 1)


def blocks_of_levels(blocks: tuple[int, int, int]) -> tuple[int, ...]:
    """Blocks of the five levels in call order, from those of levels 1, 2 and 3."""
    first, second, third = blocks
    return first, second, third, second, first


def map_shapes(batch: int, height: int, width: int, blocks: tuple[int, int, int] = (4, 3, 2)):
    """Shapes [B, h, w, 1] of the random maps, two a block, in call order; 32 at full depth."""
    return tuple(
        (batch, height // scale, width // scale, 1)
        for scale, count in zip(LEVEL_SCALES, blocks_of_levels(blocks), strict=True)
        for _ in range(2 * count)
    )


def sample_maps(
    key: Array, batch: int, height: int, width: int, blocks: tuple[int, int, int] = (4, 3, 2)
) -> tuple[Array, ...]:
    """Draws the generator's random maps, N(0, 1), as `map_shapes` says; sizes multiples of 4."""
    shapes = map_shapes(batch, height, width, blocks)
    sizes = [math.prod(shape) for shape in shapes]
    # One draw for all maps: compiling a random generator for each would take seconds.
    draws = jax.lax.split(prng.normal(key, (sum(sizes),)), sizes)
    return tuple(draw.reshape(shape) for draw, shape in zip(draws, shapes, strict=True))


class SFT(nn.Module):
    """Spatial feature transform x * (1 + gamma) + beta with r = (E + C) // 4 hidden channels.

    gamma depends on the embedding only, so it is computed at 1x1. beta's first layer acts on the
    embedding joined with the map z; it splits into a 1x1 part and a rank-one map.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, embedding: Array, z: Array) -> Array:
        """Modulates features: [B, H, W, C], [B, E], [B, H, W, 1] -> [B, H, W, C]."""
        channels, size = x.shape[-1], embedding.shape[-1]
        hidden = (size + channels) // 4
        plane = embedding[:, None, None, :].astype(self.dtype)
        gamma = Bottleneck(hidden, channels, self.dtype, name="gamma")(plane)
        beta = BetaBottleneck(hidden, channels, self.dtype, name="beta")(plane, z)
        return x * (1 + gamma) + beta


class BetaBottleneck(nn.Module):
    """The bottleneck of beta: its first kernel is [E + 1, r], the last row is that of z."""

    hidden: int
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, plane: Array, z: Array) -> Array:
        """Computes beta: [B, 1, 1, E], [B, H, W, 1] -> [B, H, W, features]."""
        size = plane.shape[-1]
        kernel = ReduceKernel(size + 1, self.hidden, name="reduce")().astype(self.dtype)
        row = kernel[size].reshape(1, 1, 1, -1)
        hidden = plane @ kernel[:size] + z.astype(self.dtype) * row
        return Dense(self.features, self.dtype, name="expand")(leaky_relu(hidden))


class ReduceKernel(nn.Module):
    """Owns a dense kernel that its parent applies piecewise."""

    inputs: int
    features: int

    @nn.compact
    def __call__(self) -> Array:
        """Declares the kernel, [inputs, features]."""
        return kernel_of(self, self.inputs, self.features)


# Jitted, so that equal blocks are traced once.
@nn.jit
class SFTBlock(nn.Module):
    """Residual block: twice SFT, LeakyReLU, convolution."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, embedding: Array, maps: tuple[Array, Array]) -> Array:
        """Adds the residual: [B, H, W, C], [B, E], two [B, H, W, 1] -> [B, H, W, C]."""
        y = x
        for index, z in enumerate(maps, start=1):
            y = SFT(self.dtype, name=f"sft{index}")(y, embedding, z)
            y = Conv(x.shape[-1], dtype=self.dtype, name=f"conv{index}")(leaky_relu(y))
        return x + y


class Generator(nn.Module):
    """G(X, e, z): noise for a clean image, from a noise embedding and random maps.

    Attributes:
      width: channels F of the first level; the next have 2F and 4F.
      blocks: residual blocks of levels 1, 2 and 3.
      dtype: compute type; parameters are float32 and so is the output.
    """

    width: int = 64
    blocks: tuple[int, int, int] = (4, 3, 2)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, clean: Array, embedding: Array, maps: tuple[Array, ...]) -> Array:
        """Makes noise for clean images.

        Args:
          clean: [B, H, W, 3] in [0, 1], H and W multiples of 4.
          embedding: [B, E].
          maps: as `map_shapes` says.

        Returns:
          Noise [B, H, W, 3], float32, unbounded; the noisy image is clean + noise.
        """
        counts = blocks_of_levels(self.blocks)
        remaining = iter(maps)

        def level(index: int, x: Array) -> Array:
            for block in range(counts[index]):
                name = f"level{index + 1}_block{block + 1}"
                pair = next(remaining), next(remaining)
                x = SFTBlock(self.dtype, name=name)(x, embedding, pair)
            return x

        first, second, third = self.width, 2 * self.width, 4 * self.width
        x = Conv(first, dtype=self.dtype, name="first")(2 * clean - 1)
        skip1 = level(0, x)
        skip2 = level(1, Conv(second, 4, 2, self.dtype, name="down1")(skip1))
        x = level(2, Conv(third, 4, 2, self.dtype, name="down2")(skip2))
        x = jnp.concatenate([UpConv(second, self.dtype, name="up2")(x), skip2], axis=-1)
        x = level(3, Conv(second, dtype=self.dtype, name="skip2")(leaky_relu(x)))
        x = jnp.concatenate([UpConv(first, self.dtype, name="up1")(x), skip1], axis=-1)
        x = level(4, Conv(first, dtype=self.dtype, name="skip1")(leaky_relu(x)))
        return Dense(3, self.dtype, name="last")(leaky_relu(x)).astype(jnp.float32)

"""Denoisers of plain convolutions: DnCNN, and at half the image's size as FFDNet does.

Sources: Zhang et al., Beyond a Gaussian Denoiser (TIP 2017), in its later form without batch norm
and with biases, which other programs know; Zhang et al., FFDNet (TIP 2018), here without its map of
noise levels: blind, and predicting the noise.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from nt_jax.models.biased import BiasedConv
from nt_jax.models.layers import Array, depth_to_space, space_to_depth


class DnCNN(nn.Module):
    """Predicts the noise of an image and takes it away.

    Attributes:
      features: channels of every layer but the last.
      blocks: convolutions of 3x3, the first and the last included; ReLU between them.
      dtype: compute type; parameters are float32 and so is the output.
    """

    features: int = 64
    blocks: int = 17
    dtype: Any = jnp.float32

    alignment: ClassVar[int] = 1
    conditions: ClassVar[int] = 0

    @property
    def radius(self) -> int:
        """How many pixels away the image can change the output."""
        return self.blocks

    @nn.compact
    def __call__(self, noisy: Array) -> Array:
        """Denoises images: [N, H, W, 3] in [0, 1] -> the same shape, float32, not clipped."""
        return noisy - self._convolutions(noisy).astype(jnp.float32)

    def _convolutions(self, x: Array) -> Array:
        channels = x.shape[-1]
        for layer in range(1, self.blocks):
            x = nn.relu(BiasedConv(self.features, dtype=self.dtype, name=f"conv{layer}")(x))
        return BiasedConv(channels, dtype=self.dtype, name=f"conv{self.blocks}")(x)


class FFDNet(DnCNN):
    """A DnCNN on squares of 2x2 pixels: a quarter of the work for twice the reach."""

    features: int = 96
    blocks: int = 12

    alignment: ClassVar[int] = 2

    @property
    def radius(self) -> int:
        """How many pixels away the image can change the output."""
        return 2 * self.blocks + 1

    @nn.compact
    def __call__(self, noisy: Array) -> Array:
        """Denoises images: [N, H, W, 3] in [0, 1] -> the same shape, float32, not clipped."""
        noise = depth_to_space(self._convolutions(space_to_depth(noisy)))
        return noisy - noise.astype(jnp.float32)

"""The denoiser RIDNet, in the variant behind the published tables.

Source: Anwar and Barnes, Real Image Denoising with Feature Attention (ICCV 2019); NoiseTransfer
trains it on generated pairs (section 4.3). Convolutions have biases and no spectral norm.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from nt_jax.errors import InputError
from nt_jax.models.biased import BiasedConv
from nt_jax.models.layers import Array, Tree

SQUEEZE = 16
# How far a block and the two outer convolutions look: dilations 3 + 4 of the wider path, then five
# convolutions of 3x3; attention, which averages over the image, apart.
_BLOCK_RADIUS = 12
_OUTER_RADIUS = 2


class EnhancedAttentionBlock(nn.Module):
    """EAM: two dilated paths merged, two residual blocks, channel attention."""

    dtype: Any = jnp.float32
    pooled_axes: tuple[int, ...] = (1, 2)

    @nn.compact
    def __call__(self, x: Array, mean: Array | None = None) -> Array:
        """Applies the block: [N, H, W, C] -> [N, H, W, C].

        `mean` stands in for the average that attention takes.
        """
        channels = x.shape[-1]

        def conv(name: str, y: Array, features: int = channels, size: int = 3, dilation: int = 1):
            return BiasedConv(features, size, dilation, self.dtype, name=name)(y)

        near = nn.relu(conv("near2", nn.relu(conv("near1", x)), dilation=2))
        far = nn.relu(conv("far2", nn.relu(conv("far1", x, dilation=3)), dilation=4))
        x = x + nn.relu(conv("merge", jnp.concatenate([near, far], axis=-1)))

        y = conv("residual2", nn.relu(conv("residual1", x)))
        x = nn.relu(x + y)

        y = nn.relu(conv("enhanced2", nn.relu(conv("enhanced1", x))))
        x = nn.relu(x + conv("enhanced3", y, size=1))

        if mean is None:
            mean = x.astype(jnp.float32).mean(self.pooled_axes, keepdims=True)
            self.sow("attention", "mean", mean)
        y = nn.relu(conv("squeeze", mean, features=channels // SQUEEZE, size=1))
        return x * nn.sigmoid(conv("excite", y, size=1))


class RIDNet(nn.Module):
    """Predicts the residual between a noisy image and its clean version.

    Attributes:
      features: channels of every layer, a multiple of 16, the factor attention squeezes by.
      blocks: enhanced attention blocks.
      dtype: compute type; parameters are float32 and so is the output.
      pooled_axes: what attention averages over; (0, 1, 2) pools the images of a batch.
    """

    features: int = 64
    blocks: int = 4
    dtype: Any = jnp.float32
    pooled_axes: tuple[int, ...] = (1, 2)

    alignment: ClassVar[int] = 1
    conditions: ClassVar[int] = 0

    @property
    def radius(self) -> int:
        """How many pixels away the image can change the output other than by attention."""
        return _BLOCK_RADIUS * self.blocks + _OUTER_RADIUS

    @nn.compact
    def __call__(self, noisy: Array, means: Sequence[Array] | None = None) -> Array:
        """Denoises images; with `means` given, a pixel depends on its neighbourhood only.

        Args:
          noisy: [N, H, W, 3] in [0, 1].
          means: for each block, what its attention takes for the average of its channels,
            [1 or N, 1, 1, features]; see `attention_means`.

        Returns:
          [N, H, W, 3], float32, not clipped.
        """
        if self.features % SQUEEZE:
            raise InputError(f"RIDNet has {self.features} features: use a multiple of {SQUEEZE}")
        head = BiasedConv(self.features, dtype=self.dtype, name="head")(noisy)
        x = nn.relu(head)
        for index in range(self.blocks):
            block = EnhancedAttentionBlock(self.dtype, self.pooled_axes, name=f"block{index + 1}")
            x = block(x, means[index] if means is not None else None)
        residual = BiasedConv(3, dtype=self.dtype, name="tail")(x + head)
        return noisy + residual.astype(jnp.float32)


def attention_means(network: RIDNet, params: Tree, noisy: Array) -> tuple[Array, ...]:
    """Averages over all pixels of all images that each block's attention sees, [1, 1, 1, features].

    Args:
      network: the module.
      params: its parameters.
      noisy: [N, H, W, 3] in [0, 1], pooled together.
    """
    pooled = network.clone(pooled_axes=(0, 1, 2))
    _, sown = pooled.apply({"params": params}, noisy, mutable=["attention"])
    return tuple(
        sown["attention"][f"block{index + 1}"]["mean"][0] for index in range(network.blocks)
    )

"""A small U-Net that denoises: residual blocks of plain convolutions at 1/2, 1/4 and 1/8 size.

In the manner of DRUNet (Zhang et al., Plug-and-Play Image Restoration with Deep Denoiser Prior,
2021), but with biases, and with half the image's size at its finest level, where most of the work
is. It is blind, or conditioned on numbers of an image's noise, which scale each convolution and
shift its biases: under one condition it is a blind one with other parameters. No norm and no
attention: a pixel depends on its neighbourhood only.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from nt_jax.models.biased import BiasedConv
from nt_jax.models.layers import Array, depth_to_space, space_to_depth

LEVELS = 3


class UNet(nn.Module):
    """Predicts the noise of an image and takes it away.

    Attributes:
      features: channels at half size; twice and four times as many at a quarter and an eighth.
      blocks: residual blocks at each level, on the way down and on the way up.
      finest_blocks: those at half size, where they are another number; 0 for `blocks` there too.
      dtype: compute type; parameters are float32 and so is the output.
      conditions: how many numbers of an image's noise it is conditioned on; 0 for a blind one.
    """

    features: int = 48
    blocks: int = 2
    finest_blocks: int = 0
    dtype: Any = jnp.float32
    conditions: int = 0

    @property
    def alignment(self) -> int:
        """Tells what height and width must be multiples of, and a tile's position too."""
        return 2**LEVELS

    @property
    def radius(self) -> int:
        """How many pixels away the image can change the output.

        Walks from the output back to the input, as intervals at each level's own resolution, for
        each of the eight positions an output pixel can have in its cell.
        """
        radius, convolutions = 0, [2 * self._blocks(level) for level in range(1, LEVELS + 1)]
        for position in range(self.alignment):
            low = high = position // 2
            low, high = low - 1 - convolutions[0], high + 1 + convolutions[0]
            for count in convolutions[1:]:
                low, high = low // 2 - count, high // 2 + count
            for count in convolutions[-2::-1]:
                low, high = 2 * low - count, 2 * high + 1 + count
            low, high = 2 * (low - 1), 2 * (high + 1) + 1
            radius = max(radius, position - low, high - position)
        return radius

    def _blocks(self, level: int) -> int:
        return (self.finest_blocks if level == 1 else 0) or self.blocks

    @nn.compact
    def __call__(self, noisy: Array, condition: Array | None = None) -> Array:
        """Denoises images: [N, H, W, 3] in [0, 1] -> the same shape, float32, not clipped.

        Args:
          noisy: the images.
          condition: of each, float32 [N, conditions]; of an image that nothing is known of, zeros.
            None is that of all.
        """

        def convolve(name: str, x: Array, features: int, size: int = 3, stride: int = 1) -> Array:
            settings = {"dtype": self.dtype, "stride": stride, "conditions": self.conditions}
            return BiasedConv(features, size, name=name, **settings)(x, condition)

        def residual(way: str, level: int, x: Array) -> Array:
            for block in range(1, self._blocks(level) + 1):
                name = f"{way}{level}_block{block}"
                y = nn.relu(convolve(f"{name}_conv1", x, x.shape[-1]))
                x = x + convolve(f"{name}_conv2", y, x.shape[-1])
            return x

        x = convolve("head", space_to_depth(noisy), self.features)
        kept = []
        for level in range(1, LEVELS):
            x = residual("down", level, x)
            kept.append(x)
            x = convolve(f"halve{level}", x, 2 * x.shape[-1], size=2, stride=2)
        x = residual("down", LEVELS, x)
        for level in range(LEVELS - 1, 0, -1):
            # As many channels as four pixels of half as many: a transposed convolution of 2x2.
            x = depth_to_space(convolve(f"double{level}", x, 2 * x.shape[-1], size=1))
            x = residual("up", level, x + kept.pop())
        noise = depth_to_space(convolve("tail", x, 12))
        return noisy - noise.astype(jnp.float32)

"""N2G's network: takes the noise out of an image (Lin et al., IJCAI 2021).

A U-Net restores the image; what it takes off, by a 1x1 convolution, is the noise. 841,359
parameters at full size.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nt_jax import prng
from nt_jax.models.layers import Array, Tree
from nt_jax.models.plain import Conv

# How often the size is halved.
_HALVINGS = 3


class Extractor(nn.Module):
    """Restores an image, and tells its noise.

    Attributes:
      width: channels at full size; twice, four and four times as many at each halved one.
      dtype: compute type; the outputs are float32.
    """

    width: int = 32
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, noisy: Array) -> tuple[Array, Array]:
        """Splits [N, H, W, 3] of any sides into (restored, noise), [N, H, W, 3] each, unclipped."""
        _, height, width, _ = noisy.shape
        aligned = [(0, -side % 2**_HALVINGS) for side in (height, width)]
        noisy = jnp.pad(noisy, ((0, 0), *aligned, (0, 0)), mode="edge")
        x = self._two(noisy, self.width, "first")
        kept = []
        for i, factor in enumerate((2, 4, 4), 1):
            kept.append(x)
            x = nn.max_pool(x, (2, 2), (2, 2))
            x = self._two(x, factor * self.width, f"down_{i}")
        for i, factor in enumerate((2, 1, 1), 1):
            x = jnp.concatenate([kept.pop(), doubled(x)], axis=-1)
            x = self._two(x, factor * self.width, f"up_{i}")
        restored = Conv(3, dtype=self.dtype, name="last")(x).astype(jnp.float32)
        noise = Conv(3, 1, pad=0, dtype=self.dtype, name="noise")(noisy - restored)
        return restored[:, :height, :width], noise[:, :height, :width].astype(jnp.float32)

    def _two(self, x: Array, features: int, name: str) -> Array:
        for i in range(2):
            x = nn.relu(Conv(features, dtype=self.dtype, name=f"{name}_{i}")(x))
        return x


def doubled(x: Array) -> Array:
    """Doubles the size by linear interpolation that leaves the corners where they are.

    [N, H, W, C] -> [N, 2 H, 2 W, C].
    """
    for axis in (1, 2):
        side = x.shape[axis]
        place = jnp.arange(2 * side, dtype=jnp.float32) * ((side - 1) / (2 * side - 1))
        below = jnp.floor(place).astype(jnp.int32)
        above = jnp.minimum(below + 1, side - 1)
        share = (place - below).astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1 - axis))
        x = jnp.take(x, below, axis) * (1 - share) + jnp.take(x, above, axis) * share
    return x


def random_signs(key: Array, shape: tuple[int, ...]) -> Array:
    """Draws -1 or 1 for each element, float32."""
    return jnp.where(prng.uniform(key, shape) < 0.5, jnp.float32(-1), jnp.float32(1))


def make_noise(extractor: Extractor, params: Tree, batch: Mapping[str, Array], key: Array) -> Array:
    """Takes the noise of the `reference` for the `clean` images: [N, H, W, 3], unclipped.

    It is moved by a quarter of the reference or more, so that no pixel gets its own noise, and
    repeated where the reference is smaller; then each element has a random sign.
    """
    extracted: Any = extractor.apply({"params": params}, batch["reference"])
    shape, (move_key, sign_key) = batch["clean"].shape, prng.split(key)

    def move(noise: Array, moves: Array) -> Array:
        for axis in (0, 1):
            side = noise.shape[axis]
            quarter = side // 4
            moved = quarter + jnp.floor(moves[axis] * (side - 2 * quarter)).astype(jnp.int32)
            places = (jnp.arange(shape[1 + axis], dtype=jnp.int32) + moved) % side
            noise = jnp.take(noise, places, axis)
        return noise

    moves = prng.uniform(move_key, (shape[0], 2))
    return jax.vmap(move)(extracted[1], moves) * random_signs(sign_key, shape)

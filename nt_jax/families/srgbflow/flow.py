"""sRGB Flow: a likelihood of noise by pixel (Kousha et al., CVPR 2022).

A normalising flow from noise to white Gaussian latents. Each of its 4 blocks is a linear map by
camera and ISO and two conditional affine couplings, each behind an invertible 1x1 convolution. All
of it is pixel by pixel: generated noise has no correlation between neighbours.

The published 6,160 parameters are met exactly by what the paper does not tell apart: the couplings
split the channels 1 to 2 and 2 to 1 in turn, scale and shift have a network each, and the 25
cameras and ISOs enter its first layer one by one.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nt_jax import prng
from nt_jax.data.catalogue.sources import SETTINGS
from nt_jax.models.parameters import Array, Tree
from nt_jax.models.plain import init_idle

# Noise is given to the flow in units of so many grey levels, near which a fresh flow has it.
UNIT = 10.0
_RESIDUAL_BLOCKS = 3


class Flow(nn.Module):
    """The flow; `encode` and `decode` are each other's inverse.

    Noise and latents are float32 [B, H, W, 3], noise in units of `UNIT` grey levels; clean images
    [B, H, W, 3] in [0, 1]; settings int32 [B], numbers of `sources.SETTINGS`, their count for a
    camera and ISO that are none of these.

    Attributes:
      blocks: of the flow.
      width: of the couplings' networks.
    """

    blocks: int = 4
    width: int = 5

    def setup(self) -> None:
        self.layers = [
            layer
            for _ in range(self.blocks)
            for layer in (ConditionalLinear(), Coupling(1, self.width), Coupling(2, self.width))
        ]

    def __call__(self, noise: Array, clean: Array, settings: Array) -> tuple[Array, Array]:
        """Encodes noise: (latents, float32 [B, H, W]: log determinant of each pixel)."""
        known = jax.nn.one_hot(settings, len(SETTINGS), dtype=jnp.float32)
        log_determinant = jnp.zeros(noise.shape[:3], jnp.float32)
        for layer in self.layers:
            noise, more = layer(noise, clean, known)
            log_determinant += more
        return noise, log_determinant

    def decode(self, latents: Array, clean: Array, settings: Array) -> Array:
        """Makes noise of latents."""
        known = jax.nn.one_hot(settings, len(SETTINGS), dtype=jnp.float32)
        for layer in reversed(self.layers):
            latents = layer.inverse(latents, clean, known)
        return latents


class ConditionalLinear(nn.Module):
    """A scale and a bias for each channel of each camera and ISO; for others the identity."""

    def setup(self) -> None:
        shape = (len(SETTINGS), 3)
        self.log_scale = self.param("log_scale", nn.initializers.zeros, shape, jnp.float32)
        self.bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)

    def _of(self, known: Array) -> tuple[Array, Array]:
        """Looks up (log scale, bias), [B, 1, 1, 3] each."""
        tables = (self.log_scale, self.bias)
        log_scale, bias = (jnp.matmul(known, t, precision="highest") for t in tables)
        return log_scale[:, None, None], bias[:, None, None]

    def __call__(self, x: Array, clean: Array, known: Array) -> tuple[Array, Array]:
        """Computes (output, log determinant); `known` [B, 25] is one-hot, or 0 for others."""
        log_scale, bias = self._of(known)
        return x * jnp.exp(log_scale) + bias, log_scale.sum(axis=-1)

    def inverse(self, y: Array, clean: Array, known: Array) -> Array:
        """Undoes it."""
        log_scale, bias = self._of(known)
        return (y - bias) * jnp.exp(-log_scale)


class Coupling(nn.Module):
    """A 1x1 convolution by its LU parts, then an affine map of channels that the others tell.

    Attributes:
      kept: channels that stay as they are.
      width: of the networks that tell scale and shift.
    """

    kept: int
    width: int

    def setup(self) -> None:
        # Lower and upper triangle, logarithm of the diagonal, bias; channels are rotated first.
        self.lower, self.upper, self.log_diagonal, self.bias = (
            self.param(name, nn.initializers.zeros, (3,), jnp.float32)
            for name in ("lower", "upper", "log_diagonal", "bias")
        )
        self.log_scale = ResNet(3 - self.kept, self.width)
        self.shift = ResNet(3 - self.kept, self.width)

    def _affine(self, kept: Array, clean: Array, known: Array) -> tuple[Array, Array]:
        """Computes (log scale in (-1, 1), shift), [B, H, W, 3 - kept] each."""
        seen = jnp.concatenate([kept, clean], axis=-1)
        return jnp.tanh(self.log_scale(seen, known)), self.shift(seen, known)

    def __call__(self, x: Array, clean: Array, known: Array) -> tuple[Array, Array]:
        """Computes (output, log determinant)."""
        mixed = self._mix(x)
        kept, changed = mixed[..., : self.kept], mixed[..., self.kept :]
        log_scale, shift = self._affine(kept, clean, known)
        y = jnp.concatenate([kept, changed * jnp.exp(log_scale) + shift], axis=-1)
        return y, log_scale.sum(axis=-1) + self.log_diagonal.sum()

    def inverse(self, y: Array, clean: Array, known: Array) -> Array:
        """Undoes it."""
        kept, changed = y[..., : self.kept], y[..., self.kept :]
        log_scale, shift = self._affine(kept, clean, known)
        changed = (changed - shift) * jnp.exp(-log_scale)
        return self._unmix(jnp.concatenate([kept, changed], axis=-1))

    def _mix(self, x: Array) -> Array:
        """Applies the 1x1 convolution, channel by channel."""
        b, c, a = (x[..., i] for i in range(3))
        scale, upper, lower = jnp.exp(self.log_diagonal), self.upper, self.lower
        a = scale[0] * a + upper[0] * b + upper[1] * c
        b = scale[1] * b + upper[2] * c
        c = scale[2] * c
        mixed = (a, b + lower[0] * a, c + lower[1] * a + lower[2] * b)
        return jnp.stack(mixed, axis=-1) + self.bias

    def _unmix(self, y: Array) -> Array:
        y = y - self.bias
        a, b, c = (y[..., i] for i in range(3))
        scale, upper, lower = jnp.exp(-self.log_diagonal), self.upper, self.lower
        b = b - lower[0] * a
        c = c - lower[1] * a - lower[2] * b
        c = scale[2] * c
        b = scale[1] * (b - upper[2] * c)
        a = scale[0] * (a - upper[0] * b - upper[1] * c)
        return jnp.stack([b, c, a], axis=-1)


class ResNet(nn.Module):
    """Residual network of each pixel by itself, told the camera and ISO; at first 0."""

    features: int
    width: int

    @nn.compact
    def __call__(self, seen: Array, known: Array) -> Array:
        """Applies the network: [B, H, W, C], [B, 25] -> [B, H, W, features]."""
        told = PixelLinear(self.width, biased=False, name="setting")(known)
        x = PixelLinear(self.width, name="first")(seen) + told[:, None, None]
        for i in range(_RESIDUAL_BLOCKS):
            y = PixelLinear(self.width, name=f"inner_{i}")(nn.relu(x))
            x = x + PixelLinear(self.width, name=f"outer_{i}")(nn.relu(y))
        return PixelLinear(self.features, name="last")(nn.relu(x))


class PixelLinear(nn.Module):
    """Linear map of the last axis; its values come from `init_idle`."""

    features: int
    biased: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Multiplies each pixel by the kernel: [..., C] -> [..., features]."""
        shape = (x.shape[-1], self.features)
        y = jnp.matmul(x, self.param("kernel", nn.initializers.zeros, shape, jnp.float32))
        if not self.biased:
            return y
        return y + self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)


def init_flow(key: Array, flow: Flow) -> Tree:
    """Makes fresh parameters, of a flow that changes nothing but the order of channels."""
    image = jax.ShapeDtypeStruct((1, 4, 4, 3), jnp.float32)
    settings = jax.ShapeDtypeStruct((1,), jnp.int32)
    return init_idle(key, flow, image, image, settings)


def nats(flow: Flow, params: Tree, noise: Array, clean: Array, settings: Array) -> Array:
    """Computes the mean negative log likelihood of noise by channel of a pixel, in nats.

    The density is over grey levels: of 8-bit images whose noise is spread by one level (uniform
    dequantisation), the mean is an upper bound of that of the levels themselves.

    Args:
      flow: the flow.
      params: its parameters.
      noise: [B, H, W, 3], noisy minus clean, of images in [0, 1].
      clean: [B, H, W, 3] in [0, 1].
      settings: int32 [B], see `Flow`.
    """
    encoded: Any = flow.apply({"params": params}, noise * (255 / UNIT), clean, settings)
    latents, log_determinant = encoded
    log_normal = -0.5 * (jnp.square(latents) + np.float32(np.log(2 * np.pi)))
    return np.float32(np.log(UNIT)) - (log_normal.sum(axis=-1) + log_determinant).mean() / 3


def sample(flow: Flow, params: Tree, clean: Array, settings: Array, key: Array) -> Array:
    """Draws noise, unclipped float32 [B, H, W, 3] for images in [0, 1]; arguments as of `nats`."""
    latents = prng.normal(key, clean.shape)
    noise = flow.apply({"params": params}, latents, clean, settings, method="decode")
    return jnp.asarray(noise) * np.float32(UNIT / 255)

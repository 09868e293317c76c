"""The discriminator, which is also the noise encoder: two branches over one set of trunks.

Source: NoiseTransfer, section 3 and supplement figure 2. The convolutions of the residual trunks
serve both branches, so both run through them in one pass; only the norms differ.

Shapes: B examples, R images of each. The images of one example that go through a branch together
(the real and the generated one, say) share its clean image and embedding.
"""

from typing import Any, Literal

import flax
import flax.linen as nn
import jax.numpy as jnp

from nt_jax.models.layers import (
    Array,
    Bottleneck,
    Conv,
    Dense,
    instance_norm,
    leaky_relu,
)


class NoiseOutputs(flax.struct.PyTreeNode):
    """What the noise branch returns.

    Attributes:
      features: m_noise of the three levels, [B, R, h, w, C] each.
      embedding: bounded noise embedding D_noise, [B, R, E], float32.
    """

    features: tuple[Array, ...]
    embedding: Array


class GanOutputs(flax.struct.PyTreeNode):
    """What the gan branch returns.

    Attributes:
      features: m_gan of the three levels, [B, R, h, w, C] each.
      logits: D_gan of the three levels, [B, R, h, w, 1] each, float32.
    """

    features: tuple[Array, ...]
    logits: tuple[Array, ...]


class AffineNorm(nn.Module):
    """Instance norm with learned scale and shift."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., H, W, C] -> the same."""
        shape = (*x.shape[:-3], 1, 1, x.shape[-1])
        return instance_norm(x, *(jnp.broadcast_to(p, shape) for p in _affine(self, shape[-1])))


class ConditionalNorm(nn.Module):
    """Instance norm whose scale 1 + gamma(e) and shift beta(e) come from the embedding."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, embedding: Array) -> Array:
        """[B, R, H, W, C], [B, E] -> [B, R, H, W, C]."""
        shape = (*x.shape[:-3], 1, 1, x.shape[-1])
        parts = _conditional(self, embedding, shape[-1])
        return instance_norm(x, *(jnp.broadcast_to(p, shape) for p in parts))


class BranchNorm(nn.Module):
    """Affine norm for the first `noise_count` images of each example, conditional for the rest."""

    noise_count: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, embedding: Array | None) -> Array:
        """[B, R, H, W, C], [B, E] -> [B, R, H, W, C]; no embedding when all are noise images."""
        batch, count, channels = x.shape[0], x.shape[1], x.shape[-1]
        parts = []
        if self.noise_count:
            shape = (batch, self.noise_count, 1, 1, channels)
            parts.append([jnp.broadcast_to(p, shape) for p in _affine(self, channels)])
        if embedding is not None:
            shape = (batch, count - self.noise_count, 1, 1, channels)
            parts.append(
                [jnp.broadcast_to(p, shape) for p in _conditional(self, embedding, channels)]
            )
        scale, shift = (jnp.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        return instance_norm(x, scale, shift)


def _affine(module: nn.Module, channels: int) -> tuple[Array, Array]:
    scale = module.param("scale", nn.initializers.ones, (channels,))
    return scale, module.param("shift", nn.initializers.zeros, (channels,))


def _conditional(module: Any, embedding: Array, channels: int) -> tuple[Array, Array]:
    plane = embedding[:, None, None, None, :]
    hidden = (plane.shape[-1] + channels) // 4
    gamma = Bottleneck(hidden, channels, module.dtype, name="gamma", parent=module)(plane)
    beta = Bottleneck(hidden, channels, module.dtype, name="beta", parent=module)(plane)
    return 1 + gamma.astype(jnp.float32), beta.astype(jnp.float32)


class TrunkBlock(nn.Module):
    """Residual block of the trunks: twice norm, LeakyReLU, convolution."""

    noise_count: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, embedding: Array | None) -> Array:
        """[B, R, H, W, C], [B, E] -> [B, R, H, W, C]."""
        y = x
        for index in range(2):
            y = BranchNorm(self.noise_count, self.dtype, name=f"norm{index + 1}")(y, embedding)
            y = Conv(x.shape[-1], dtype=self.dtype, name=f"conv{index + 1}")(leaky_relu(y))
        return x + y


class NoiseHead(nn.Module):
    """Features of the noise branch at one level."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, R, H, W, C] -> m_noise, [B, R, H, W, C]."""
        y = AffineNorm(name="norm")(Dense(x.shape[-1], self.dtype, name="project")(x))
        return Conv(x.shape[-1], dtype=self.dtype, name="features")(leaky_relu(y))


class GanHead(nn.Module):
    """Features and logits of the gan branch at one level."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, embedding: Array) -> tuple[Array, Array, Array]:
        """[B, R, H, W, C], [B, E] -> (normalised input, m_gan, logits [B, R, H, W, 1])."""
        y = Dense(x.shape[-1], self.dtype, name="project")(x)
        y = ConditionalNorm(self.dtype, name="norm")(y, embedding)
        features = Conv(x.shape[-1], dtype=self.dtype, name="features")(leaky_relu(y))
        logits = Dense(1, self.dtype, name="logits")(features)
        return y, features, logits.astype(jnp.float32)


class Discriminator(nn.Module):
    """D: noise embedding of an image, and logits of (clean, embedding, noisy).

    Attributes:
      width: channels F of the first level; the next have 2F and 4F.
      embedding_size: E.
      blocks: residual blocks of levels 1, 2 and 3.
      bound: how the embedding is bounded: `tanh` (paper) or `l2` (released program).
      gan_trunk: what the gan branch's next level reads: `block`, the last residual block (paper),
        or `head`, the head's normalised features (released program).
      dtype: compute type; parameters, norms, logits and embeddings are float32.
    """

    width: int = 64
    embedding_size: int = 128
    blocks: tuple[int, int, int] = (2, 3, 4)
    bound: Literal["tanh", "l2"] = "tanh"
    gan_trunk: Literal["block", "head"] = "block"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        noise_images: Array | None = None,
        clean: Array | None = None,
        embedding: Array | None = None,
        gan_images: Array | None = None,
    ) -> tuple[NoiseOutputs | None, GanOutputs | None]:
        """Runs one branch or both, over several images of each example.

        Args:
          noise_images: [B, R, H, W, 3] in [0, 1], what to embed; None leaves the noise branch out.
          clean: [B, H, W, 3] in [0, 1]; None leaves the gan branch out.
          embedding: [B, E] of the reference.
          gan_images: [B, S, H, W, 3], the noisy versions of `clean` to judge.

        Height and width are multiples of 4. Returns both branches' outputs, None where left out.
        """
        noise_count = 0 if noise_images is None else noise_images.shape[1]
        streams = []
        if noise_images is not None:
            streams.append(
                Conv(self.width, dtype=self.dtype, name="pre_noise")(2 * noise_images - 1)
            )
        if clean is not None and gan_images is not None:
            plane = jnp.broadcast_to(clean[:, None], gan_images.shape)
            pair = jnp.concatenate([2 * plane - 1, gan_images - plane], axis=-1)
            streams.append(Conv(self.width, dtype=self.dtype, name="pre_gan")(pair))
        x = jnp.concatenate(streams, axis=1)

        noise_features, gan_features, logits = [], [], []
        for level in range(len(self.blocks)):
            channels = self.width * 2**level
            if level:
                x = Conv(channels, 4, 2, self.dtype, name=f"down{level}")(x)
            for index in range(self.blocks[level]):
                name = f"level{level + 1}_block{index + 1}"
                x = TrunkBlock(noise_count, self.dtype, name=name)(x, embedding)
            noise_x, gan_x = x[:, :noise_count], x[:, noise_count:]
            if noise_images is not None:
                noise_head = NoiseHead(self.dtype, name=f"noise_head{level + 1}")
                noise_features.append(noise_head(noise_x))
            if clean is not None and embedding is not None:
                gan_head = GanHead(self.dtype, name=f"gan_head{level + 1}")
                normalised, features, level_logits = gan_head(gan_x, embedding)
                gan_features.append(features)
                logits.append(level_logits)
                if self.gan_trunk == "head":
                    x = jnp.concatenate([noise_x, normalised], axis=1)

        noise_outputs = gan_outputs = None
        if noise_images is not None:
            noise_outputs = NoiseOutputs(tuple(noise_features), self._embed(noise_features))
        if clean is not None:
            gan_outputs = GanOutputs(tuple(gan_features), tuple(logits))
        return noise_outputs, gan_outputs

    def _embed(self, features: list[Array]) -> Array:
        means = [f.astype(jnp.float32).mean((-3, -2)) for f in features]
        x = jnp.concatenate(means, axis=-1)
        x = leaky_relu(Dense(x.shape[-1], name="mlp1")(x))
        return bound_embedding(Dense(self.embedding_size, name="mlp2")(x), self.bound)


def bound_embedding(x: Array, bound: str) -> Array:
    """Bounds raw embeddings [..., E] by `tanh` or to unit length (`l2`)."""
    if bound == "tanh":
        return jnp.tanh(x)
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)

"""The discriminator, which is also the noise encoder: two branches over one set of trunks.

Source: NoiseTransfer, section 3 and supplement figure 2. The convolutions of the residual trunks
serve both branches, so both run through them in one pass; only the norms differ.

Shapes: B examples, R images of each. The images of one example that go through a branch together
(the real and the generated one, say) share its clean image and embedding.
"""

from typing import Any, Literal

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from nt_jax.models.layers import (
    Array,
    Bottleneck,
    Conv,
    Dense,
    Frozen,
    instance_norm,
    leaky_relu,
)


class NoiseOutputs(flax.struct.PyTreeNode):
    """Outputs of the noise branch.

    Attributes:
      features: m_noise of the three levels, [B, R, h, w, C] each.
      embedding: bounded noise embedding D_noise, [B, R, E], float32.
      readings: what the head reads off the embedding, [B, R, N], float32; None without one.
    """

    features: tuple[Array, ...]
    embedding: Array
    readings: Array | None


class GanOutputs(flax.struct.PyTreeNode):
    """Outputs of the gan branch.

    Attributes:
      features: m_gan of the three levels, [B, R, h, w, C] each.
      logits: D_gan of the three levels, [B, R, h, w, 1] each, float32.
    """

    features: tuple[Array, ...]
    logits: tuple[Array, ...]


class BranchNorm(nn.Module):
    """Instance norm of both branches' images: affine, and conditional on the embedding.

    Attributes:
      noise_count: how many first images of each example are normalised by a learned scale and
        shift; those of the others, 1 + gamma(e) and beta(e), come from the embedding.
      frozen: as in `layers.apply_kernel`, of all images.
    """

    noise_count: int
    frozen: Frozen = (0, 0)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, embedding: Array | None = None) -> Array:
        """Normalises [B, R, H, W, C], [B, E] -> [B, R, H, W, C].

        There is no embedding when all are noise images.
        """
        batch, count, channels = x.shape[0], x.shape[1], x.shape[-1]
        scales, shifts = [], []
        if self.noise_count:
            scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
            shift = self.param("shift", nn.initializers.zeros, (channels,), jnp.float32)
            plane = (batch, 1, 1, 1, channels)
            scales += [jnp.broadcast_to(scale, plane)] * self.noise_count
            shifts += [jnp.broadcast_to(shift, plane)] * self.noise_count
        if count > self.noise_count:
            assert embedding is not None
            gamma, beta = self._modulation(embedding, channels)
            scales += [1 + gamma] * (count - self.noise_count)
            shifts += [beta] * (count - self.noise_count)
        first, last = self.frozen
        scale, shift = (
            jnp.concatenate(
                [
                    part if first <= index < count - last else jax.lax.stop_gradient(part)
                    for index, part in enumerate(parts)
                ],
                axis=1,
            )
            for parts in (scales, shifts)
        )
        return instance_norm(x, scale, shift)

    def _modulation(self, embedding: Array, channels: int) -> tuple[Array, ...]:
        plane = embedding[:, None, None, None, :]
        hidden = (plane.shape[-1] + channels) // 4
        return tuple(
            Bottleneck(hidden, channels, self.dtype, name=name)(plane).astype(jnp.float32)
            for name in ("gamma", "beta")
        )


# Jitted, so that equal blocks are traced once.
@nn.jit
class TrunkBlock(nn.Module):
    """Residual block of the trunks: twice norm, LeakyReLU, convolution."""

    noise_count: int
    frozen: Frozen = (0, 0)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, embedding: Array | None) -> Array:
        """Adds the residual: [B, R, H, W, C], [B, E] -> [B, R, H, W, C]."""
        y = x
        for index in (1, 2):
            norm = BranchNorm(self.noise_count, self.frozen, self.dtype, name=f"norm{index}")
            conv = Conv(x.shape[-1], dtype=self.dtype, frozen=self.frozen, name=f"conv{index}")
            y = conv(leaky_relu(norm(y, embedding)))
        return x + y


class NoiseHead(nn.Module):
    """Features of the noise branch at one level."""

    frozen: Frozen = (0, 0)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Computes m_noise: [B, R, H, W, C] -> [B, R, H, W, C]."""
        y = Dense(x.shape[-1], self.dtype, self.frozen, name="project")(x)
        y = leaky_relu(BranchNorm(x.shape[1], self.frozen, self.dtype, name="norm")(y))
        return Conv(x.shape[-1], dtype=self.dtype, frozen=self.frozen, name="features")(y)


class GanHead(nn.Module):
    """Features and logits of the gan branch at one level."""

    frozen: Frozen = (0, 0)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, embedding: Array) -> tuple[Array, Array, Array]:
        """Computes (normalised input, m_gan, logits [B, R, H, W, 1]) of [B, R, H, W, C], [B, E]."""
        y = Dense(x.shape[-1], self.dtype, self.frozen, name="project")(x)
        y = BranchNorm(0, self.frozen, self.dtype, name="norm")(y, embedding)
        conv = Conv(x.shape[-1], dtype=self.dtype, frozen=self.frozen, name="features")
        features = conv(leaky_relu(y))
        logits = Dense(1, self.dtype, self.frozen, name="logits")(features)
        return y, features, logits.astype(jnp.float32)


class Reader(nn.Module):
    """Numbers of the noise, read off an embedding; not in the paper.

    Attributes:
      count: of numbers.
    """

    count: int
    frozen: Frozen = (0, 0)

    @nn.compact
    def __call__(self, embedding: Array) -> Array:
        """Reads numbers off embeddings: [..., E] -> [..., count]."""
        hidden = Dense(embedding.shape[-1], frozen=self.frozen, name="mlp1")(embedding)
        numbers = Dense(self.count, frozen=self.frozen, name="mlp2")(leaky_relu(hidden))
        # Spectral norms let a network's output vary no more than its input.
        return _READER_GAIN * numbers


_READER_GAIN = 4.0
# Where squares of features of [-1, 1] images no longer count: noise of half a grey level.
_LEAST_SQUARE = 1e-4


def log_squares(x: Array) -> Array:
    """Means over the plane of the logarithms of squared features, about standardised.

    Geometric means: edges, of which a photo has few, weigh little against noise, which is
    everywhere. [..., H, W, C] -> float32 [..., C].
    """
    wide = x.astype(jnp.float32)
    return 0.3 * (jnp.log(jnp.square(wide) + _LEAST_SQUARE).mean((-3, -2)) + 5)


class Discriminator(nn.Module):
    """D: noise embedding of an image, and logits of (clean, embedding, noisy).

    Attributes:
      width: channels F of the first level; the next have 2F and 4F.
      embedding_size: E.
      blocks: residual blocks of levels 1, 2 and 3.
      bound: how the embedding is bounded: `tanh` (paper) or `l2` (released program).
      gan_trunk: what the gan branch's next level reads: `block`, the last residual block (paper),
        or `head`, the head's normalised features (released program).
      log_squares: whether the embedding also sees how strong the noise branch's features are,
        before the instance norms that hide it; not in the paper.
      readings: how many numbers a head reads off the embedding; 0 for no such head (paper).
      dtype: compute type; parameters, norms, logits and embeddings are float32.
    """

    width: int = 64
    embedding_size: int = 128
    blocks: tuple[int, int, int] = (2, 3, 4)
    bound: Literal["tanh", "l2"] = "tanh"
    gan_trunk: Literal["block", "head"] = "block"
    log_squares: bool = False
    readings: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        noise_images: Array | None = None,
        clean: Array | None = None,
        embedding: Array | None = None,
        gan_images: Array | None = None,
        frozen: Frozen = (0, 0),
    ) -> tuple[NoiseOutputs | None, GanOutputs | None]:
        """Runs one branch or both, over several images of each example.

        Args:
          noise_images: [B, R, H, W, 3] in [0, 1], what to embed; None leaves the noise branch out.
          clean: [B, H, W, 3] in [0, 1]; None leaves the gan branch out.
          embedding: [B, E] of the reference.
          gan_images: [B, S, H, W, 3], the noisy versions of `clean` to judge.
          frozen: how many first noise images and last gan images of each example give the
            parameters no gradient.

        Height and width are multiples of 4. Returns both branches' outputs, None where left out.
        """
        noise_frozen, gan_frozen = (frozen[0], 0), (0, frozen[1])
        noise_count = 0 if noise_images is None else noise_images.shape[1]
        streams = []
        if noise_images is not None:
            pre = Conv(self.width, dtype=self.dtype, frozen=noise_frozen, name="pre_noise")
            streams.append(pre(2 * noise_images - 1))
        if clean is not None and gan_images is not None:
            plane = jnp.broadcast_to(clean[:, None], gan_images.shape)
            pair = jnp.concatenate([2 * plane - 1, gan_images - plane], axis=-1)
            pre = Conv(self.width, dtype=self.dtype, frozen=gan_frozen, name="pre_gan")
            streams.append(pre(pair))
        x = jnp.concatenate(streams, axis=1)

        noise_features, gan_features, logits = [], [], []
        strengths = [log_squares(x[:, :noise_count])] if self.log_squares else []
        for level in range(len(self.blocks)):
            channels = self.width * 2**level
            if level:
                x = Conv(channels, 4, 2, self.dtype, frozen, name=f"down{level}")(x)
            for index in range(self.blocks[level]):
                name = f"level{level + 1}_block{index + 1}"
                x = TrunkBlock(noise_count, frozen, self.dtype, name=name)(x, embedding)
            noise_x, gan_x = x[:, :noise_count], x[:, noise_count:]
            if self.log_squares:
                strengths.append(log_squares(noise_x))
            if noise_images is not None:
                noise_head = NoiseHead(noise_frozen, self.dtype, name=f"noise_head{level + 1}")
                noise_features.append(noise_head(noise_x))
            if clean is not None and embedding is not None:
                gan_head = GanHead(gan_frozen, self.dtype, name=f"gan_head{level + 1}")
                normalised, features, level_logits = gan_head(gan_x, embedding)
                gan_features.append(features)
                logits.append(level_logits)
                if self.gan_trunk == "head":
                    x = jnp.concatenate([noise_x, normalised], axis=1)

        noise_outputs = gan_outputs = None
        if noise_images is not None:
            vector = self._embed(noise_features, strengths, noise_frozen)
            readings = None
            if self.readings:
                readings = Reader(self.readings, noise_frozen, name="reader")(vector)
            noise_outputs = NoiseOutputs(tuple(noise_features), vector, readings)
        if clean is not None:
            gan_outputs = GanOutputs(tuple(gan_features), tuple(logits))
        return noise_outputs, gan_outputs

    def _embed(self, features: list[Array], strengths: list[Array], frozen: Frozen) -> Array:
        means = [f.astype(jnp.float32).mean((-3, -2)) for f in features]
        x = jnp.concatenate([*means, *strengths], axis=-1)
        x = leaky_relu(Dense(x.shape[-1], frozen=frozen, name="mlp1")(x))
        x = Dense(self.embedding_size, frozen=frozen, name="mlp2")(x)
        return bound_embedding(x, self.bound)


def bound_embedding(x: Array, bound: str) -> Array:
    """Bounds raw embeddings [..., E] by `tanh` or to unit length (`l2`)."""
    if bound == "tanh":
        return jnp.tanh(x)
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)

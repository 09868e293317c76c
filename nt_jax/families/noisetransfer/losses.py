"""The loss terms of NoiseTransfer, each a float32 scalar (spec: paper section 3, equations 1-7)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nt_jax import readings
from nt_jax.filters import gaussian_blur
from nt_jax.models.parameters import Array


def info_nce(
    query: Array, key: Array, queue: Array, temperature: float, batch_negatives: bool
) -> tuple[Array, Array]:
    """Computes InfoNCE (eq. 1) with cosine similarity, and how often the positive wins.

    Args:
      query: [N, E].
      key: [N, E], row n is the positive of query n.
      queue: [Q, E] negatives.
      temperature: tau.
      batch_negatives: whether the other keys of the batch are negatives too (released program).

    Returns:
      (mean loss, share of queries most similar to their own key).
    """
    query, key, queue = (x / _norm(x) for x in (query, key, queue))
    positive = (query * key).sum(-1, keepdims=True)  # [N, 1]
    negative = query @ queue.T  # [N, Q]
    if batch_negatives:
        others = query @ key.T  # [N, N]
        others = jnp.where(jnp.eye(len(query), dtype=bool), -jnp.inf, others)
        negative = jnp.concatenate([negative, others], axis=1)
    logits = jnp.concatenate([positive, negative], axis=1) / temperature
    loss = (jax.nn.logsumexp(logits, axis=1) - logits[:, 0]).mean()
    accuracy = (positive[:, 0] > negative.max(1)).mean(dtype=jnp.float32)
    return loss, accuracy


def _norm(x: Array) -> Array:
    return jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-8)


def adversarial_discriminator(real: Sequence[Array], fake: Sequence[Array], halved: bool) -> Array:
    """Computes the binary cross-entropy of D over logit maps, mean over levels (eq. 5).

    Args:
      real, fake: logits of each level.
      halved: mean of the two terms (released program) instead of their sum (paper).
    """
    terms = [
        jax.nn.softplus(-r).mean() + jax.nn.softplus(f).mean()
        for r, f in zip(real, fake, strict=True)
    ]
    return jnp.stack(terms).mean() * (0.5 if halved else 1.0)


def adversarial_generator(fake: Sequence[Array]) -> Array:
    """Computes G's non-saturating binary cross-entropy on logit maps, mean over levels (eq. 5)."""
    return jnp.stack([jax.nn.softplus(-f).mean() for f in fake]).mean()


def feature_matching(real: Sequence[Array], fake: Sequence[Array]) -> Array:
    """Averages over levels the mean absolute difference; the real side is constant (eqs. 4, 6)."""
    terms = [
        jnp.abs(jax.lax.stop_gradient(r).astype(jnp.float32) - f.astype(jnp.float32)).mean()
        for r, f in zip(real, fake, strict=True)
    ]
    return jnp.stack(terms).mean()


def reconstruction(noisy: Array, generated: Array) -> Array:
    """Computes L_recon: mean |GF(Y) - GF(Y~)| of [N, H, W, 3] images (section 3.2)."""
    return jnp.abs(gaussian_blur(noisy - generated)).mean()


def noise_level(noise: Array, generated_noise: Array) -> Array:
    """Computes mean |log GF(n^2) - log GF(n~^2)| of [N, H, W, 3] noise: local variances agree.

    Not in the paper, off in its preset.
    """
    real, fake = (jnp.log(gaussian_blur(jnp.square(n)) + 1e-6) for n in (noise, generated_noise))
    return jnp.abs(real - fake).mean()


def wasserstein(noise: Array, generated_noise: Array) -> Array:
    """Computes the Wasserstein-1 distance of [N, H, W, 3] noise's values: their histograms agree.

    Of each image and channel, in units of the true noise's standard deviation (at least one grey
    level), and averaged: 0.1 is a mean that is off by a tenth of it, or a level by an eighth.

    Not in the paper, off in its preset.
    """
    count, _, _, channels = noise.shape
    real, fake = (jnp.sort(n.reshape(count, -1, channels), 1) for n in (noise, generated_noise))
    deviation = jnp.maximum(real.std(1), 1 / 255)
    return (jnp.abs(real - fake).mean(1) / deviation).mean()


def reading(read: Array, measured: readings.Measured) -> Array:
    """Computes mean |read - measured| over the known numbers [N, SIZE] of an image's own noise.

    Not in the paper, off in its preset.
    """
    difference = jnp.where(measured.known, jnp.abs(read - measured.values), 0.0)
    return difference.sum() / measured.known.sum(dtype=jnp.float32)


def autocorrelation(noise: Array, generated_noise: Array) -> Array:
    """Averages differences of correlations, in space and between channels, of [N, H, W, 3] noise.

    In space those of the three channels and of the two colour differences, which cameras smooth
    most, at `readings.LAGS`.

    Not in the paper, off in its preset.
    """
    in_space, between = [], []
    for n in (noise, generated_noise):
        colours = jnp.stack([n[..., 0] - n[..., 1], n[..., 2] - n[..., 1]], axis=-1)
        in_space.append(readings.autocorrelation(jnp.concatenate([n, colours], axis=-1)))
        between.append(readings.channel_correlation(n))
    return (jnp.abs(in_space[0] - in_space[1]).mean() + jnp.abs(between[0] - between[1]).mean()) / 2


# --- The terms of a step --------------------------------------------------------------------------


class Seen(NamedTuple):
    """Values of a step that the terms look at.

    Attributes:
      config: training config.
      clean, noisy: [B, H, W, 3] in [0, 1].
      noise: generated, [B, H, W, 3].
      generated: clean + noise.
      key, queue: [B, E] and [Q, E], of the contrast.
      contrast: the discriminator's outputs of the generated image, first, and the true one, last,
        as far as a term asks for them.
      gan: its outputs of the true image, first; the generated one as L_D sees it, second; and as
        L_G sees it, last.
    """

    config: Any
    clean: Array
    noisy: Array
    noise: Array
    generated: Array
    key: Array
    queue: Array
    contrast: Any
    gan: Any


# A term, and numbers to log beside it.
Term = tuple[Array, dict[str, Array]]


def _image(levels: Sequence[Array], index: int) -> list[Array]:
    """Takes one image's part of [B, R, H, W, C] arrays."""
    return [level[:, index] for level in levels]


def _contrast(seen: Seen, index: int, name: str) -> Term:
    query = seen.contrast.embedding[:, index]
    options = seen.config.losses.temperature, seen.config.variant.batch_negatives
    loss, accuracy = info_nce(query, seen.key, seen.queue, *options)
    return loss, {name: accuracy}


def _gan_d(seen: Seen) -> Term:
    real, fake = _image(seen.gan.logits, 0), _image(seen.gan.logits, 1)
    found_real, found_fake = (
        jnp.stack([jax.nn.sigmoid(level).mean() for level in levels]).mean()
        for levels in (real, fake)
    )
    loss = adversarial_discriminator(real, fake, seen.config.variant.halved_gan_d)
    return loss, {"d_real": found_real, "d_fake": found_fake}


def _matching(features: Sequence[Array], real: int, fake: int) -> Term:
    return feature_matching(_image(features, real), _image(features, fake)), {}


def _reading(seen: Seen) -> Term:
    measured = readings.measure(seen.noisy - seen.clean, seen.clean)
    return reading(seen.contrast.readings[:, -1], measured), {}


def of_noise(loss: Callable[[Array, Array], Array]) -> Callable[[Seen], Term]:
    """Makes a term of a loss of (true noise, generated noise), [B, H, W, 3] each."""
    return lambda seen: (loss(seen.noisy - seen.clean, seen.noise), {})


# By the name of the weight, a field of config.losses; a new loss is one more entry. Of L_G:
GENERATOR: dict[str, Callable[[Seen], Term]] = {
    "noise_g": lambda seen: _contrast(seen, 0, "contrastive_accuracy_generated"),
    "noise_fm": lambda seen: _matching(seen.contrast.features, -1, 0),
    "gan_g": lambda seen: (adversarial_generator(_image(seen.gan.logits, -1)), {}),
    "gan_fm": lambda seen: _matching(seen.gan.features, 0, -1),
    "recon": lambda seen: (reconstruction(seen.noisy, seen.generated), {}),
    "noise_level": of_noise(noise_level),
    "wasserstein": of_noise(wasserstein),
    "autocorrelation": of_noise(autocorrelation),
}
# Of L_D:
DISCRIMINATOR: dict[str, Callable[[Seen], Term]] = {
    "noise_d": lambda seen: _contrast(seen, -1, "contrastive_accuracy"),
    "reading": _reading,
    "gan_d": _gan_d,
}


def add_up(terms: Mapping[str, Callable[[Seen], Term]], seen: Seen) -> tuple[Array, dict]:
    """Adds up the terms with a weight: (float32 scalar, {name: float32 scalar})."""
    weights = seen.config.losses
    values: dict[str, Array] = {}
    logged: dict[str, Array] = {}
    for name, term in terms.items():
        if weights.get(name):  # weights of before some terms have no such field
            values[name], beside = term(seen)
            logged |= beside
    total = sum((weights[name] * value for name, value in values.items()), jnp.float32(0))
    return total, logged | values

"""NAFlow: a likelihood of noise over several scales (Kim et al., ICLR 2024).

A normalising flow from noise to latents of 192 channels at an eighth of the size, by the clean
image. The latents of each camera and ISO have a Gaussian of their own. Noise is made of a pair: how
likely its latents are of each camera and ISO says how to blend their Gaussians.

Parameters at full size: 879,758 of the flow, 384 of each camera and ISO.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nt_jax import prng
from nt_jax.families.settings import CLASSES, draw_settings
from nt_jax.models.layers import depth_to_space, space_to_depth
from nt_jax.models.parameters import Array, Tree
from nt_jax.models.plain import Conv, init_idle

# Noise is given to the flow in units of so many grey levels, near which a fresh flow has it.
UNIT = 10.0
# Deviation of what is added to the clean image that the flow sees, in [0, 1] units.
JITTER = 3 / 255
# Channels of the clean image's features at each scale.
_FEATURES = 128
# Of each scale: linear maps alone, and those followed by an affine map that the image tells.
_LINEAR, _TOLD = 2, 2
# Logarithm of the likelihood of a camera and ISO that training has not seen.
_NEVER = -1e9


class Flow(nn.Module):
    """The flow; `encode` (a call) and `decode` are each other's inverse.

    Noise is float32 [B, H, W, 3] in units of `UNIT` grey levels, clean images [B, H, W, 3] in
    [0, 1], sides multiples of 2**levels; latents [B, h, w, 3 * 4**levels].

    Attributes:
      levels: how often the size is halved.
      width: of the networks that tell scales and shifts.
    """

    levels: int = 3
    width: int = 64

    def setup(self) -> None:
        self.lift = Conv(_FEATURES, 1, pad=0)
        self.halve = [Conv(_FEATURES // 4, 1, pad=0) for _ in range(self.levels)]
        # Nothing of the image is told at its full size.
        self.steps = [self._steps(3, _LINEAR + 1, 0)] + [
            self._steps(3 * 4**level, _LINEAR, _TOLD) for level in range(1, self.levels + 1)
        ]

    def _steps(self, channels: int, linear: int, told: int) -> list[Any]:
        """Lists linear maps alone, then those followed by an affine map."""
        steps: list[Any] = [Linear(channels) for _ in range(linear)]
        for _ in range(told):
            steps += [Linear(channels), Told(channels, self.width)]
        return steps

    def __call__(self, noise: Array, clean: Array) -> tuple[Array, Array]:
        """Encodes noise: (latents, float32 [B]: log determinant)."""
        log_determinant = jnp.zeros(len(noise), jnp.float32)
        x = noise
        for level, (features, steps) in enumerate(
            zip(self._features(clean), self.steps, strict=True)
        ):
            x = space_to_depth(x) if level else x
            for step in steps:
                x, more = step(x, features)
                log_determinant += more
        return x, log_determinant

    def decode(self, latents: Array, clean: Array) -> Array:
        """Makes noise of latents."""
        x = latents
        levels = list(zip(self._features(clean), self.steps, strict=True))
        for level, (features, steps) in reversed(list(enumerate(levels))):
            for step in reversed(steps):
                x = step.inverse(x, features)
            x = depth_to_space(x) if level else x
        return x

    def _features(self, clean: Array) -> list[Array]:
        """Features of the clean image at each scale, linear in it."""
        features = [self.lift(clean)]
        for halve in self.halve:
            features.append(space_to_depth(halve(features[-1])))
        return features


class Linear(nn.Module):
    """A scale and a bias of each channel, and a 1x1 convolution by its LU parts.

    Attributes:
      channels: of input and output.
    """

    channels: int

    def setup(self) -> None:
        square, zeros = (self.channels, self.channels), nn.initializers.zeros
        # The lower triangle is L's, the upper one U's; the diagonal has no part in it.
        self.triangles = self.param("triangles", zeros, square, jnp.float32)
        self.log_diagonal, self.log_scale, self.bias = (
            self.param(name, zeros, (self.channels,), jnp.float32)
            for name in ("log_diagonal", "log_scale", "bias")
        )

    def _parts(self) -> tuple[Array, Array]:
        lower = jnp.tril(self.triangles, -1) + jnp.eye(self.channels, dtype=jnp.float32)
        return lower, jnp.triu(self.triangles, 1) + jnp.diag(jnp.exp(self.log_diagonal))

    def __call__(self, x: Array, features: Array) -> tuple[Array, Array]:
        """Gives (output, log determinant []), channels turned round for the halves of `Told`."""
        del features
        lower, upper = self._parts()
        x = (x * jnp.exp(self.log_scale) + self.bias)[..., ::-1]
        log = (self.log_scale + self.log_diagonal).sum()
        return _times(x, _times(lower, upper)), log * (x.shape[1] * x.shape[2])

    def inverse(self, y: Array, features: Array) -> Array:
        """Undoes it."""
        del features
        lower, upper = self._parts()
        solve = partial(jax.scipy.linalg.solve_triangular, b=jnp.eye(self.channels))
        inverse = _times(solve(upper), solve(lower, lower=True, unit_diagonal=True))
        return (_times(y, inverse)[..., ::-1] - self.bias) * jnp.exp(-self.log_scale)


class Told(nn.Module):
    """An affine map of half of the channels, by the others and the image, and one by the image.

    Attributes:
      channels: of input and output.
      width: of the networks.
    """

    channels: int
    width: int

    def setup(self) -> None:
        self.by_others = Network(self.channels, self.width)
        self.by_image = Network(2 * self.channels, self.width)

    def _affine(self, network: "Network", *seen: Array) -> tuple[Array, Array]:
        """Computes (log scale in (-1, 1), shift), half of the network's channels each."""
        log_scale, shift = jnp.split(network(jnp.concatenate(seen, axis=-1)), 2, axis=-1)
        return jnp.tanh(log_scale), shift

    def __call__(self, x: Array, features: Array) -> tuple[Array, Array]:
        """Computes (output, log determinant [B])."""
        kept, changed = jnp.split(x, 2, axis=-1)
        log_scale, shift = self._affine(self.by_others, kept, features)
        x = jnp.concatenate([kept, changed * jnp.exp(log_scale) + shift], axis=-1)
        log_of_all, shift = self._affine(self.by_image, features)
        log = log_scale.sum(axis=(1, 2, 3)) + log_of_all.sum(axis=(1, 2, 3))
        return x * jnp.exp(log_of_all) + shift, log

    def inverse(self, y: Array, features: Array) -> Array:
        """Undoes it."""
        log_scale, shift = self._affine(self.by_image, features)
        kept, changed = jnp.split((y - shift) * jnp.exp(-log_scale), 2, axis=-1)
        log_scale, shift = self._affine(self.by_others, kept, features)
        return jnp.concatenate([kept, (changed - shift) * jnp.exp(-log_scale)], axis=-1)


class Network(nn.Module):
    """Network of scales and shifts that looks one place around; at first 0.

    Attributes:
      features: channels of the output.
      width: channels inside.
    """

    features: int
    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Applies the network: [B, h, w, C] -> [B, h, w, features]."""
        x = nn.relu(Conv(self.width, 1, pad=0, name="first")(x))
        y = nn.relu(Conv(self.width, name="around")(x))
        x = x + Conv(self.width, 1, pad=0, name="pixel")(y)
        return Conv(self.features, 1, pad=0, name="last")(x)


def _times(a: Array, b: Array) -> Array:
    """Multiplies matrices, exactly enough on all devices to be undone."""
    return jnp.matmul(a, b, precision="highest")


def init_params(key: Array, flow: Flow) -> Tree:
    """Makes fresh parameters of `flow` and `prior`: the flow only sorts, latents are standard."""
    side = 2**flow.levels
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    latents = (CLASSES, 3 * 4**flow.levels)
    prior = {name: jnp.zeros(latents, jnp.float32) for name in ("mean", "log_deviation")}
    return {"flow": init_idle(key, flow, image, image), "prior": prior}


def class_likelihoods(prior: Mapping[str, Array], latents: Array) -> Array:
    """Computes the log likelihood of a place's latents by camera and ISO, on average over places.

    Args:
      prior: `mean` and `log_deviation` of each, [CLASSES, C].
      latents: [B, h, w, C].

    Returns:
      float32 [B, CLASSES].
    """
    mean, log_deviation = prior["mean"], prior["log_deviation"]
    weight = jnp.exp(-2 * log_deviation)
    first, second = latents.mean(axis=(1, 2)), jnp.square(latents).mean(axis=(1, 2))  # [B, C]
    squares = _times(second, weight.T) - 2 * _times(first, (mean * weight).T)
    squares += (jnp.square(mean) * weight).sum(axis=1)
    constant = np.float32(np.log(2 * np.pi) * latents.shape[-1])
    return -0.5 * (squares + constant) - log_deviation.sum(axis=1)


def jittered(clean: Array, key: Array) -> Array:
    """Gives the clean image as the flow sees it: with a little noise, clipped."""
    return jnp.clip(clean + np.float32(JITTER) * prng.normal(key, clean.shape), 0, 1)


def nats(
    flow: Flow, params: Mapping[str, Tree], noise: Array, clean: Array, settings: Array
) -> Array:
    """Computes the mean negative log likelihood of noise by channel of a pixel, in nats.

    The density is over grey levels: of 8-bit images whose noise is spread by one level (uniform
    dequantisation), the mean is an upper bound of that of the levels themselves.

    Args:
      flow: the flow.
      params: of `flow` and `prior`.
      noise: [B, H, W, 3], noisy minus clean, of images in [0, 1]; sides multiples of 2**levels.
      clean: [B, H, W, 3] in [0, 1].
      settings: int32 [B], numbers of `sources.SETTINGS`, their count for all others.
    """
    encoded: Any = flow.apply({"params": params["flow"]}, noise * (255 / UNIT), clean)
    latents, log_determinant = encoded
    of_each = class_likelihoods(params["prior"], latents)
    places = latents.shape[1] * latents.shape[2]
    own = jnp.take_along_axis(of_each, settings[:, None], axis=1)[:, 0] * places
    return np.float32(np.log(UNIT)) - (own + log_determinant).mean() / np.prod(noise.shape[1:])


def shares_of_classes(
    flow: Flow, params: Mapping[str, Any], batch: Mapping[str, Array], key: Array
) -> Array:
    """Says which cameras' and ISOs' latents to make noise of: float32 [B, CLASSES], sums 1.

    By the likelihood of the `reference`'s noise if the batch has `reference_clean`; else it is one
    for each image, drawn as often as training saw it.
    """
    if "reference_clean" not in batch:
        drawn = draw_settings(params["counts"], key, len(batch["clean"]))
        return jax.nn.one_hot(drawn, CLASSES, dtype=jnp.float32)
    clean, noisy = (_aligned(flow, batch[name]) for name in ("reference_clean", "reference"))
    variables, noise = {"params": params["flow"]}, (noisy - clean) * (255 / UNIT)
    encoded: Any = flow.apply(variables, noise, jittered(clean, key))
    likelihoods = class_likelihoods(params["prior"], encoded[0])
    return jax.nn.softmax(jnp.where(params["counts"] > 0, likelihoods, _NEVER))


def make_noise(
    flow: Flow, params: Mapping[str, Any], batch: Mapping[str, Array], key: Array
) -> Array:
    """Makes unclipped noise of `clean` images, of latents like the reference's: [B, H, W, 3].

    Args:
      flow: the flow.
      params: of `flow`, `prior` and `counts`.
      batch: `clean`; and a `reference` with its `reference_clean`, of any size, if these are known.
      key: PRNG key.
    """
    shares_key, jitter_key, latent_key = prng.split(key, 3)
    shares = shares_of_classes(flow, params, batch, shares_key)
    mean = _times(shares, params["prior"]["mean"])[:, None, None]
    deviation = _times(shares, jnp.exp(params["prior"]["log_deviation"]))[:, None, None]
    _, height, width, _ = batch["clean"].shape
    clean = _aligned(flow, batch["clean"])
    count, rows, columns, _ = clean.shape
    cell = 2**flow.levels
    shape = (count, rows // cell, columns // cell, mean.shape[-1])
    latents = mean + deviation * prng.normal(latent_key, shape)
    variables, seen = {"params": params["flow"]}, jittered(clean, jitter_key)
    noise: Any = flow.apply(variables, latents, seen, method="decode")
    return noise[:, :height, :width] * np.float32(UNIT / 255)


def _aligned(flow: Flow, images: Array) -> Array:
    """Repeats the last pixels until the sides are multiples of 2**levels."""
    _, height, width, _ = images.shape
    down, right = (-side % 2**flow.levels for side in (height, width))
    return jnp.pad(images, ((0, 0), (0, down), (0, right), (0, 0)), mode="edge")

"""The synthetic noise of training and of the synthetic study, defined once (paper §4).

Images are float32 in [0, 1]. A noise setting is drawn once per batch element and put on two
different clean patches, so drawing the setting and applying it are separate functions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nt_jax import prng
from nt_jax.noise import camera

# The index of a name is its integer id, in batches and in `NoiseSetting.kind`. "real" is no
# synthetic noise: `add_noise` leaves such an image as it is.
KINDS = ("real", "gaussian", "poisson", "poisson_gaussian", "camera")

_GAUSSIAN_KINDS = (KINDS.index("gaussian"), KINDS.index("poisson_gaussian"))
_POISSON_KINDS = (KINDS.index("poisson"), KINDS.index("poisson_gaussian"))
_CAMERA = KINDS.index("camera")
# Largest lambda: above, `poisson` loses the probability of its mode to rounding.
MOST_PHOTONS = 1e4


class NoiseSetting(NamedTuple):
    """One noise distribution. `sigma` and `lam` are 0 where the kind has no such part.

    Attributes:
      kind: int32 [], index into `KINDS`.
      sigma: float32 [], standard deviation of the Gaussian part, in [0, 1] units.
      lam: float32 [], photon count at white of the Poisson part.
      camera_setting: what only the kind "camera" has; None where no setting of the batch is of that
        kind, so that nothing of it is computed.
    """

    kind: jax.Array
    sigma: jax.Array
    lam: jax.Array
    camera_setting: camera.CameraSetting | None = None


def _is_any(kind: jax.Array, ids: Sequence[int]) -> jax.Array:
    return jnp.isin(kind, jnp.asarray(ids, jnp.int32))


def sample_setting(
    key: jax.Array,
    kind_weights: Sequence[float],
    sigma_range: tuple[float, float],
    lam_range: tuple[float, float],
    camera_options: camera.Options = camera.PUBLISHED,
) -> NoiseSetting:
    """Draws a kind in proportion to its weight, then its parameters uniformly.

    Args:
      key: a JAX random key.
      kind_weights: one weight for each of `KINDS`, not all 0.
      sigma_range: bounds of sigma on the 0..255 scale, as published tables give them.
      lam_range: bounds of lambda.
      camera_options: what settings of the kind "camera" are drawn from.
    """
    u = prng.uniform(key, (3,))
    shares = np.cumsum(np.asarray(kind_weights, np.float64))
    bounds = (shares / shares[-1])[:-1].astype(np.float32)
    kind = (u[:1] >= bounds).sum(dtype=jnp.int32)
    sigma = (sigma_range[0] + u[1] * (sigma_range[1] - sigma_range[0])) / 255
    lam = lam_range[0] + u[2] * (lam_range[1] - lam_range[0])
    return NoiseSetting(
        kind=kind,
        sigma=jnp.where(_is_any(kind, _GAUSSIAN_KINDS), sigma, 0.0),
        lam=jnp.where(_is_any(kind, _POISSON_KINDS), lam, 0.0),
        camera_setting=(
            camera.sample_setting(prng.fold_in(key, _CAMERA), camera_options)
            if kind_weights[_CAMERA]
            else None
        ),
    )


def poisson(key: jax.Array, rate: jax.Array) -> jax.Array:
    """Draws Poisson counts by inversion, searching outward from the mode.

    One uniform number decides each count; the steps are as many as the largest count lies off its
    mode, about five standard deviations. `jax.random.poisson` draws anew until all are accepted
    and takes ten times as long on a CPU.

    Args:
      key: a JAX random key.
      rate: float32, any shape, at least 0.

    Returns:
      Counts as float32, the shape of `rate`.
    """
    safe = jnp.maximum(rate, 1e-30)
    mode = jnp.floor(rate)
    at_mode = jnp.exp(mode * jnp.log(safe) - rate - jax.lax.lgamma(mode + 1))
    left = prng.uniform(key, rate.shape) - at_mode

    State = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]

    def undecided(state: State) -> jax.Array:
        _, left, above, below, _ = state
        # The probabilities add up to 1 but for rounding, so the search also ends where they do.
        return ((left >= 0) & (above + below > 1e-9)).any()

    def search(state: State) -> State:
        distance, left, above, below, count = state
        above = above * safe / (mode + distance)
        below = below * jnp.maximum(mode - distance + 1, 0) / safe
        for probability, value in ((above, mode + distance), (below, mode - distance)):
            count = jnp.where((left >= 0) & (left < probability), value, count)
            left = left - probability
        return distance + 1, left, above, below, count

    start = (jnp.float32(1), left, at_mode, at_mode, mode)
    return jax.lax.while_loop(undecided, search, start)[4]


def add_noise(key: jax.Array, clean: jax.Array, setting: NoiseSetting) -> jax.Array:
    """Puts noise of one setting on one image (paper §4).

    Gaussian: X + sigma n. Poisson: poisson(X lambda) / lambda. Poisson-Gaussian: the Gaussian
    part on top of the Poisson part. Camera noise, not in the paper: see camera.py.

    Args:
      key: a JAX random key.
      clean: float32 [H, W, 3] in [0, 1].
      setting: scalars; map over a batch with `jax.vmap`.

    Returns:
      float32 [H, W, 3], clipped to [0, 1].
    """
    poisson_key, gaussian_key = prng.split(key)
    shot = _is_any(setting.kind, _POISSON_KINDS)
    counts = poisson(poisson_key, jnp.where(shot, clean * setting.lam, 0.0))
    noisy = jnp.where(shot, counts / jnp.where(shot, setting.lam, 1.0), clean)
    sigma = jnp.where(_is_any(setting.kind, _GAUSSIAN_KINDS), setting.sigma, 0.0)
    noisy += sigma * prng.normal(gaussian_key, clean.shape)
    noisy = jnp.clip(noisy, 0.0, 1.0)
    if setting.camera_setting is None:
        return noisy
    developed = camera.add_noise(prng.fold_in(key, _CAMERA), clean, setting.camera_setting)
    return jnp.where(setting.kind == _CAMERA, developed, noisy)

"""Simple noises that know the true one: what a score is worth, beside a generator's.

AKLD and KS see local variance and the histogram, which white noise can have right while it looks
nothing like a camera's. An oracle that beats a generator on a metric says what that metric misses.
Each takes the pair that is scored and gives uint8 [H, W, 3]: the true noise, which it imitates, was
clipped and rounded by the camera.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from nt_jax import metrics, prng
from nt_jax.evaluation.samples import Images
from nt_jax.noise import camera

Generate = Callable[[Images, jax.Array], np.ndarray]


def true_noise(images: Images, key: jax.Array) -> np.ndarray:
    """Adds the scored noise itself, which no generator can know; a second draw scores the floor."""
    return images.noisy


def white(images: Images, key: jax.Array) -> np.ndarray:
    """Adds white Gaussian noise with the true noise's standard deviation in each channel."""
    noise = images.noisy.astype(np.float32) - images.clean
    return _add(images.clean, noise.std(axis=(0, 1)), key)


def level_curve(images: Images, key: jax.Array) -> np.ndarray:
    """Adds white Gaussian noise with the true noise's standard deviation at each clean intensity.

    By the bins of `metrics.noise_level_curve`, channels pooled, without interpolation.
    """
    curve = np.asarray(metrics.noise_level_curve(images.clean, images.noisy)[0])[0]
    bins = len(curve)
    index = np.minimum(images.clean.astype(np.int32) * bins // 255, bins - 1)
    return _add(images.clean, 255 * curve[index], key)


def camera_model(images: Images, key: jax.Array) -> np.ndarray:
    """Adds noise of a random camera at the true noise's level, as in `nt_jax.noise.camera`."""
    level = (images.noisy.astype(np.float32) - images.clean).std() / 255
    return to_bytes(255 * np.asarray(_camera_noise(key, images.clean, level)))


@jax.jit
def _camera_noise(key: jax.Array, clean: jax.Array, level: jax.Array) -> jax.Array:
    camera_key, match_key, noise_key = prng.split(key, 3)
    image = clean.astype(jnp.float32) / 255
    setting = camera.sample_setting(camera_key, camera.PUBLISHED)
    setting = camera.match_level(match_key, image, setting, level)
    return camera.add_noise(noise_key, image, setting)


def to_bytes(image: np.ndarray) -> np.ndarray:
    """Converts an image of values around [0, 255] to a file's: clipped, rounded, uint8."""
    return np.rint(np.clip(image, 0, 255)).astype(np.uint8)


def _add(clean: np.ndarray, sigma: np.ndarray, key: jax.Array) -> np.ndarray:
    return to_bytes(clean + sigma * np.asarray(prng.normal(key, clean.shape)))


CEILING = "true noise itself, the ceiling"

# By the name of their row.
ORACLES: dict[str, Generate] = {
    "oracle: white, true level of each channel": white,
    "oracle: white, true noise-level curve": level_curve,
    "oracle: camera model, true level": camera_model,
}

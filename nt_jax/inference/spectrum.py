"""Brings noise that a model has generated to the power spectrum that it reads off a photo."""

import jax.numpy as jnp
import numpy as np

from nt_jax import spectra
from nt_jax.inference import programs
from nt_jax.inference.embeddings import reference_crops
from nt_jax.inference.model import Model
from nt_jax.models.parameters import Array
from nt_jax.readings import Measured


def match_spectrum(
    model: Model, clean: np.ndarray, noise: np.ndarray, noisy: np.ndarray
) -> np.ndarray:
    """Filters noise so that luma and colour have the amplitude of a photo's, ring by ring.

    That of what is left of the noise when the image with it is clipped, as the photo was. It is
    found for this one image and this piece of the photo, while the gains of `reference_noise` are
    the same for all images.

    Args:
      model: what reads the photo.
      clean: what the noise is for, float32 [H, W, 3] in [0, 1].
      noise: float32 of that shape, in [0, 1] units, not clipped; sides of 64 pixels or more.
      noisy: piece of the photo, float32 [h, w, 3] in [0, 1]: best of the noise's size and place.

    Returns:
      float32 [H, W, 3], not clipped; the noise itself of a model that reads no spectrum.
    """
    if model.networks.spectrum_reader is None:
        return noise

    def amplify(gains: Array) -> np.ndarray:
        return np.asarray(programs.amplify("same", noise[None], gains[None]))[0]

    def measure_left(gains: Array) -> Measured:
        return _measure(model, np.clip(clean + amplify(gains), 0, 1) - clean)

    return amplify(spectra.fit_gains(_read(model, noisy), measure_left))


def spectrum_error(model: Model, noise: np.ndarray, noisy: np.ndarray) -> float:
    """Measures how far the spectrum that a model reads off a photo is off its noise's own.

    Args:
      model: one with a `spectrum_reader`.
      noise: noisy minus clean, float32 [H, W, 3], in [0, 1] units.
      noisy: float32 of that shape in [0, 1].

    Returns:
      The mean absolute error over the rings of luma and colour, dB.
    """
    measured = _measure(model, noise)
    read = spectra.together(_read(model, noisy))
    true = spectra.together(measured.values)
    known = measured.known.all(0)
    return float(spectra.DECIBELS * jnp.abs(read - true)[known].mean())


def _read(model: Model, noisy: np.ndarray) -> Array:
    reader, params = model.networks.spectrum_reader, model.params["spectrum_reader"]
    read: Array = programs.read_spectrum(reader, params, _crops(model, noisy))
    return read


def _measure(model: Model, noise: np.ndarray) -> Measured:
    return programs.measure_spectrum(_crops(model, noise))


def _crops(model: Model, image: np.ndarray) -> np.ndarray:
    return np.stack(reference_crops(image, model.reference_crop))

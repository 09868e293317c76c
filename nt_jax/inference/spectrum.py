"""Brings noise that a model has generated to the power spectrum that it reads off a photo."""

import numpy as np

from nt_jax import spectra
from nt_jax.inference import programs
from nt_jax.inference.embeddings import reference_crops
from nt_jax.inference.model import Model
from nt_jax.readings import Measured

# What clipping leaves is not linear in the gains.
_ITERATIONS = 3


def match_spectrum(
    model: Model, clean: np.ndarray, noise: np.ndarray, noisy: np.ndarray
) -> np.ndarray:
    """Filters noise so that luma and colour have the amplitude of a photo's, ring by ring.

    That of what is left of the noise when the image with it is clipped, as the photo was. So far
    this is for training denoisers, and `transfer` leaves noise as it is (docs/noise.md).

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
    read = _read(model, noisy)
    gains, filtered = np.ones(spectra.SIZE, np.float32), noise
    for _ in range(_ITERATIONS):
        left = np.clip(clean + filtered, 0, 1) - clean
        gains = spectra.find_gains(read, _measure(model, left), gains)
        filtered = spectra.amplify(noise, gains)
    return filtered


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
    true = spectra.together(np.asarray(measured.values))
    known = np.asarray(measured.known).all(0)
    return float(spectra.DECIBELS * np.abs(read - true)[known].mean())


def _read(model: Model, noisy: np.ndarray) -> np.ndarray:
    reader, params = model.networks.spectrum_reader, model.params["spectrum_reader"]
    return np.asarray(programs.read_spectrum(reader, params, _crops(model, noisy)))


def _measure(model: Model, noise: np.ndarray) -> Measured:
    return programs.measure_spectrum(_crops(model, noise))


def _crops(model: Model, image: np.ndarray) -> np.ndarray:
    return np.stack(reference_crops(image, model.reference_crop))

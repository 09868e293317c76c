"""Brings noise that a model has generated to the power spectrum that it reads off a photo."""

import numpy as np

from nt_jax import spectra
from nt_jax.inference import programs
from nt_jax.inference.embeddings import reference_crops
from nt_jax.inference.model import Model


def match_spectrum(model: Model, noise: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """Filters noise so that luma and colour have the amplitude of a photo's, ring by ring.

    A filter undoes what clipping at black and white makes of strong noise, so this is for training
    denoisers; `transfer` leaves noise as it is.

    Args:
      model: what reads the photo.
      noise: float32 [H, W, 3], in [0, 1] units, sides of 64 pixels or more.
      noisy: piece of the photo, float32 [h, w, 3] in [0, 1]: best of the noise's size and place.

    Returns:
      float32 [H, W, 3]; the noise itself of a model that reads no spectrum.
    """
    reader = model.networks.spectrum_reader
    if reader is None:
        return noise
    crops = (np.stack(reference_crops(image, model.reference_crop)) for image in (noisy, noise))
    gains = programs.spectrum_gains(reader, model.params["spectrum_reader"], *crops)
    return spectra.amplify(noise, np.asarray(gains))

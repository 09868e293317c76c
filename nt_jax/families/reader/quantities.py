"""Lists what readers of noise can learn: how it is measured, and how an error of it is told."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from nt_jax import readings, spectra
from nt_jax.models.parameters import Array

# {name of `ReaderTask.titles`: [N]}
Errors = dict[str, Array]


class Quantity(NamedTuple):
    """Numbers of a noise.

    Attributes:
      part: name of the network in a model that reads them by it.
      size: how many they are.
      measure: of known noise and clean images [N, H, W, 3]: standardised, float32 [N, size].
      errors: of two batches of such vectors [N, size], by name.
    """

    part: str
    size: int
    measure: Callable[[Array, Array], readings.Measured]
    errors: Callable[[Array, readings.Measured], Errors]


def _errors_of_readings(found: Array, true: readings.Measured) -> Errors:
    ours, theirs = readings.decode(found), readings.decode(true.values)
    lags = jnp.abs(ours.autocorrelation - theirs.autocorrelation)[:, :2]
    return {
        "level_error": jnp.abs(ours.log_level - theirs.log_level).mean(-1),
        "lag1_error": lags.mean(-1),
    }


def _errors_of_spectra(found: Array, true: readings.Measured) -> Errors:
    apart = jnp.abs(spectra.decode(found) - spectra.decode(true.values))
    known = jnp.where(true.known, apart, 0.0).sum(-1) / true.known.sum(-1, dtype=jnp.float32)
    return {"spectrum_error": spectra.DECIBELS * known}


QUANTITIES = {
    "readings": Quantity("noise_reader", readings.SIZE, readings.measure, _errors_of_readings),
    "spectrum": Quantity(
        "spectrum_reader",
        spectra.SIZE,
        lambda noise, clean: spectra.measure(noise),
        _errors_of_spectra,
    ),
}

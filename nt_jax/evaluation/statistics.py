"""Means over images with bootstrap intervals."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

_RESAMPLES = 2000
_LEVEL = 95.0


class Estimate(NamedTuple):
    """A number with its 95 % interval; the interval is None where there is too little to tell."""

    value: float
    interval: tuple[float, float] | None


def mean(values: Sequence[float], seed: int = 0) -> Estimate:
    """Averages values over images, with an interval by resampling the images.

    Args:
      values: one an image; at least one.
      seed: of the resampling.
    """
    array = np.asarray(values, np.float64)
    if len(array) < 2:
        return Estimate(float(array.mean()), None)
    means = array[_draws(len(array), seed, _RESAMPLES)].mean(axis=1)
    return Estimate(float(array.mean()), _interval(means))


def bootstrap(
    statistic: Callable[[np.ndarray], float],
    images: int,
    seed: int = 0,
    resamples: int = _RESAMPLES,
) -> Estimate:
    """Computes a statistic of images, with the percentile bootstrap (Efron, 1979) over them.

    Args:
      statistic: indices of images, int [images] -> number; NaN where those tell nothing.
      images: how many there are.
      seed: of the resampling.
      resamples: how many sets are drawn.
    """
    value = statistic(np.arange(images))
    if images < 2:
        return Estimate(value, None)
    values = np.array([statistic(rows) for rows in _draws(images, seed, resamples)])
    return Estimate(value, _interval(values))


def _draws(images: int, seed: int, resamples: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, images, (resamples, images))


def _interval(values: np.ndarray) -> tuple[float, float]:
    tail = (100 - _LEVEL) / 2
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return float(low), float(high)

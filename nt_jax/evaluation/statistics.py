"""Means over images with bootstrap intervals over photographs."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

_RESAMPLES = 2000
_LEVEL = 95.0


class Estimate(NamedTuple):
    """A number with its 95 % interval; the interval is None where there is too little to tell."""

    value: float
    interval: tuple[float, float] | None


def mean(values: Sequence[float], photographs: Sequence[str] = (), seed: int = 0) -> Estimate:
    """Averages values over images, with an interval by resampling the photographs they are of.

    Crops of one photograph share light, content and ISO, so they are drawn together: as if
    independent, they would make the interval too narrow.

    Args:
      values: one an image; at least one.
      photographs: what each image is a crop of; none where every image is its own.
      seed: of the resampling.
    """
    of_image = numbered(photographs, len(values))
    sums, counts = np.bincount(of_image, np.asarray(values, np.float64)), np.bincount(of_image)
    return bootstrap(
        lambda rows: sums[rows].sum(axis=-1) / counts[rows].sum(axis=-1), len(sums), seed
    )


def numbered(photographs: Sequence[str], images: int) -> np.ndarray:
    """Numbers photographs from 0 on in the order they first come: int [images].

    Args:
      photographs: what each image is a crop of; none where every image is its own.
      images: how many there are.
    """
    if not photographs:
        return np.arange(images)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(photographs))}
    return np.array([numbers[name] for name in photographs])


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray],
    images: int,
    seed: int = 0,
    resamples: int = _RESAMPLES,
) -> Estimate:
    """Computes a statistic of images, with the percentile bootstrap (Efron, 1979) over them.

    Args:
      statistic: sets of indices of images, int [..., images] -> a number each, float [...]; NaN
        where those tell nothing.
      images: how many there are.
      seed: of the resampling.
      resamples: how many sets are drawn.
    """
    value = float(statistic(np.arange(images)))
    if images < 2:
        return Estimate(value, None)
    draws = np.random.default_rng(seed).integers(0, images, (resamples, images))
    tail = (100 - _LEVEL) / 2
    low, high = np.nanpercentile(statistic(draws), [tail, 100 - tail])
    return Estimate(value, (float(low), float(high)))

"""Means and gaps of a table over seeds and images, with their intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nt_jax.evaluation import statistics
from nt_jax.evaluation.statistics import Estimate

_RESAMPLES = 2000


def mean(values: Sequence[Sequence[float]], photographs: Sequence[str] = ()) -> Estimate:
    """Averages [seeds or trials, images], with the interval of `statistics.mean`."""
    return statistics.mean(np.mean(values, axis=0).tolist(), photographs)


def gap(
    ours: Sequence[Sequence[float]],
    true: Sequence[Sequence[float]],
    photographs: Sequence[str] = (),
) -> Estimate:
    """Averages ours - true, [seeds, images] each, pair by pair.

    The interval is of 95 %, by drawing seeds and photographs anew (both, as both are samples of
    what could have been); of one seed, photographs alone.

    Args:
      ours, true: what is compared.
      photographs: what each image is a crop of; none where every image is its own.
    """
    difference = np.asarray(ours, np.float64) - np.asarray(true, np.float64)
    of_image = statistics.numbered(photographs, difference.shape[1])
    counts = np.bincount(of_image)
    sums = np.stack([np.bincount(of_image, row) for row in difference])
    seeds, different = sums.shape
    if different < 2:
        return Estimate(float(difference.mean()), None)
    rng = np.random.default_rng(0)

    def draw(count: int) -> np.ndarray:
        return rng.integers(count, size=count)

    def drawn() -> float:
        rows, columns = draw(seeds), draw(different)
        return sums[np.ix_(rows, columns)].sum() / (seeds * counts[columns].sum())

    draws = [drawn() for _ in range(_RESAMPLES)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(float(difference.mean()), (float(low), float(high)))


def as_json(estimate: Estimate | None) -> dict[str, Any] | None:
    """Writes an estimate as in results.json."""
    if estimate is None:
        return None
    return {"mean": estimate.value, "interval": estimate.interval}

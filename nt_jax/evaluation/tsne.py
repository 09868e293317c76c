"""t-SNE (van der Maaten and Hinton, JMLR 2008), exact, for the pictures of embeddings."""

import numpy as np

_STEPS, _EXAGGERATED_STEPS, _EXAGGERATION = 500, 125, 12.0


def tsne(points: np.ndarray, perplexity: float = 30.0) -> np.ndarray:
    """Maps points [N, D] to the plane, neighbours near each other: float64 [N, 2].

    Starts from the first two principal components, so it is deterministic. Memory and time grow
    with N². The perplexity is lowered to (N - 1) / 3 where there are few points.
    """
    count = len(points)
    squares = _squared_distances(points)
    affinity = _affinities(squares, min(perplexity, (count - 1) / 3))
    affinity = np.maximum((affinity + affinity.T) / (2 * count), 1e-12)
    placed = pca(points)
    placed = 1e-4 * placed / max(placed[:, 0].std(), 1e-12)
    velocity, gains = np.zeros_like(placed), np.ones_like(placed)
    rate = max(count / _EXAGGERATION / 4, 10.0)
    for step in range(_STEPS):
        early = step < _EXAGGERATED_STEPS
        closeness = 1 / (1 + _squared_distances(placed))
        np.fill_diagonal(closeness, 0)
        pull = (_EXAGGERATION if early else 1.0) * affinity - closeness / closeness.sum()
        weights = pull * closeness
        gradient = 4 * (weights.sum(axis=1, keepdims=True) * placed - weights @ placed)
        agree = (gradient > 0) == (velocity > 0)
        gains = np.maximum(np.where(agree, 0.8 * gains, gains + 0.2), 0.01)
        velocity = (0.5 if early else 0.8) * velocity - rate * gains * gradient
        placed = placed + velocity
    return placed - placed.mean(axis=0)


def pca(points: np.ndarray) -> np.ndarray:
    """First two principal components of points [N, D], D of 2 or more: float64 [N, 2]."""
    centred = points.astype(np.float64) - points.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2]
    # The sign of an axis is arbitrary: its largest entry shall be positive.
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    return centred @ axes.T


def _squared_distances(points: np.ndarray) -> np.ndarray:
    points = points.astype(np.float64)
    norms = (points**2).sum(axis=1)
    return np.maximum(norms[:, None] + norms - 2 * points @ points.T, 0)


def _affinities(squares: np.ndarray, perplexity: float) -> np.ndarray:
    """Rows of neighbour probabilities, each of the wanted perplexity, by halving on its width."""
    wanted = np.log(max(perplexity, 1.0))
    nearest = squares + np.where(np.eye(len(squares), dtype=bool), np.inf, 0)
    nearest = nearest - nearest.min(axis=1, keepdims=True)
    finite = np.where(np.isfinite(nearest), nearest, 0)
    scale = finite.mean() or 1.0
    low, high = np.full(len(squares), -50.0), np.full(len(squares), 50.0)
    for _ in range(60):
        middle = (low + high) / 2
        rows = np.exp(-nearest * (np.exp(middle) / scale)[:, None])
        rows /= rows.sum(axis=1, keepdims=True)
        entropy = -(rows * np.log(np.maximum(rows, 1e-300))).sum(axis=1)
        wide = entropy > wanted
        low, high = np.where(wide, middle, low), np.where(wide, high, middle)
    return rows

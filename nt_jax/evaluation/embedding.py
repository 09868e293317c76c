"""Knowledge in noise embeddings: the camera and ISO, or the kind of noise, and the noise level."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

from nt_jax.broken import Broken
from nt_jax.data.catalogue.references import photograph
from nt_jax.data.catalogue.sources import Pair
from nt_jax.errors import InputError
from nt_jax.evaluation import figures, report, statistics
from nt_jax.evaluation.samples import usable_pairs, whole_windows
from nt_jax.evaluation.statistics import Estimate
from nt_jax.files import progress
from nt_jax.images import read_rgb

FEWEST_IMAGES = 4
# Rank correlations of all pairs of images, drawn anew for each, take long.
_RESAMPLES = 200
_MOST_IMAGES = 2000


class Embedded(NamedTuple):
    """Noisy images and their embeddings.

    Attributes:
      names: N of them.
      groups: camera and ISO, or the sub-folder, such as one named by a kind of noise; "" where
        neither is known.
      levels: standard deviation of the noise, 0 to 255 scale, [N].
      embeddings: [N, E].
      photographs: what each is a tile or crop of, N names.
    """

    names: list[str]
    groups: list[str]
    levels: np.ndarray
    embeddings: np.ndarray
    photographs: list[str]


def embed_pairs(model: Any, pairs: Sequence[Pair], broken: Broken) -> Embedded:
    """Embeds the noisy image of each pair.

    Raises:
      InputError: an image cannot be read and `broken` does not go on; fewer than 4 are left.
    """
    windows = whole_windows([pair.noisy for pair in pairs])
    names, groups, levels, embeddings, photographs = [], [], [], [], []
    for index, pair in progress(pairs, len(pairs), "image"):
        try:
            clean, noisy = (read_rgb(path)[windows[index]] for path in (pair.clean, pair.noisy))
        except InputError as error:
            broken.note(error)
            continue
        names.append(pair.name)
        groups.append(_group(pair))
        levels.append(float((noisy.astype(np.float32) - clean).std()))
        embeddings.append(np.asarray(model.embed(noisy)))
        photographs.append(photograph(pair))
    if not FEWEST_IMAGES <= len(names) <= _MOST_IMAGES:
        raise InputError(
            f"this evaluation needs {FEWEST_IMAGES} to {_MOST_IMAGES} images; got {len(names)}"
        )
    return Embedded(names, groups, np.array(levels), np.stack(embeddings), photographs)


def _group(pair: Pair) -> str:
    """Names the pair's camera and ISO, or its sub-folder."""
    return pair.group if pair.iso is not None else pair.name.rpartition("/")[0]


def distances(embeddings: np.ndarray) -> np.ndarray:
    """Computes 1 - cosine similarity, as the contrastive loss has it: [N, E] -> [N, N]."""
    unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    return 1 - unit @ unit.T


def retrieval(
    distance: np.ndarray, groups: Sequence[str], photographs: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Is the nearest image of another photograph of the same group? Where the group has another.

    Args:
      distance: [N, N].
      groups: N names; "" where it is not known.
      photographs: N names, what each image is a tile or crop of: none is looked for among its own.
        None: each is of its own.

    Returns:
      Whether it is [n], the share of the others that are, which is chance [n], and which images
      these are, int [n]; None where no group has two photographs or only one group is known.
    """
    labels = np.array(groups)
    owners = np.arange(len(labels)) if photographs is None else np.array(photographs)
    known = np.flatnonzero(labels != "")
    other = owners[known][:, None] != owners[known]
    same = labels[known][:, None] == labels[known]
    asked = np.flatnonzero((same & other).any(axis=1))
    if len(asked) == 0 or same.all():
        return None
    apart = np.where(other, distance[np.ix_(known, known)], np.inf)
    hits = same[asked, apart[asked].argmin(axis=1)].astype(float)
    chance = (same & other)[asked].sum(axis=1) / other[asked].sum(axis=1)
    return hits, chance, known[asked]


def level_correlation(
    distance: np.ndarray,
    levels: np.ndarray,
    photographs: Sequence[str] = (),
    seed: int = 0,
) -> Estimate | None:
    """Spearman's rank correlation of embedding distance and noise-level distance over all pairs.

    The interval resamples photographs; pairs of an image with itself are left out. None where
    levels or embeddings are all equal.

    Args:
      distance: [N, N].
      levels: [N].
      photographs: N names, what each image is a crop of; none where every image is its own.
      seed: of the resampling.
    """
    apart = np.abs(levels[:, None] - levels)
    of_image = statistics.numbered(photographs, len(levels))
    crops = [np.flatnonzero(of_image == number) for number in range(of_image.max() + 1)]

    def statistic(drawn: np.ndarray) -> float:
        rows = np.concatenate([crops[number] for number in drawn])
        i, j = np.triu_indices(len(rows), k=1)
        i, j = rows[i], rows[j]
        different = i != j
        x, y = distance[i, j][different], apart[i, j][different]
        if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
            return float("nan")
        return float(scipy.stats.spearmanr(x, y).statistic)

    if np.isnan(statistic(np.arange(len(crops)))):
        return None
    each = np.vectorize(statistic, signature="(n)->()")
    return statistics.bootstrap(each, len(crops), seed, _RESAMPLES)


def pca(points: np.ndarray) -> np.ndarray:
    """Projects points [N, D], D of 2 or more, on their first two principal axes: float64 [N, 2]."""
    centred = points.astype(np.float64) - points.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2]
    # The sign of an axis is arbitrary: its largest entry shall be positive.
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    return centred @ axes.T


def tsne(points: np.ndarray) -> np.ndarray:
    """Maps points [N, D], N of 4 or more, to the plane, neighbours near each other: float [N, 2].

    t-SNE (van der Maaten and Hinton, JMLR 2008) of perplexity 30, or (N - 1) / 3 where there are
    few points. Starts from the first two principal components, so it is deterministic.
    """
    from sklearn.manifold import TSNE

    start = pca(points)
    start = 1e-4 * start / max(start[:, 0].std(), 1e-12)  # where all are alike, zeros
    perplexity = min(30.0, (len(points) - 1) / 3)
    return TSNE(perplexity=perplexity, init=start.astype(np.float32), random_state=0).fit_transform(
        points
    )


def _check_installed() -> None:
    if not importlib.util.find_spec("sklearn"):
        raise InputError("scikit-learn is missing: pip install 'nt_jax[train]'")


def run(model_name: str, pairs: Path, output: Path, seed: int, skip_broken: bool) -> str:
    """Runs `eval embedding`; returns the table.

    Raises:
      InputError: a wrong argument, model or image.
    """
    _check_installed()
    report.check_output(output, [pairs])
    broken = Broken(skip_broken)
    found = usable_pairs(pairs, broken)
    from nt_jax.inference.loading import load_noisetransfer

    embedded = embed_pairs(load_noisetransfer(model_name), found, broken)
    distance = distances(embedded.embeddings)
    answers = retrieval(distance, embedded.groups, embedded.photographs)
    photographs = embedded.photographs
    estimates = {
        "level_correlation": level_correlation(distance, embedded.levels, photographs, seed),
        "retrieval": None,
        "retrieval_chance": None,
    }
    if answers:
        hits, chance, asked = answers
        of_asked = [photographs[image] for image in asked]
        estimates["retrieval"] = statistics.mean(hits.tolist(), of_asked, seed)
        estimates["retrieval_chance"] = Estimate(float(chance.mean()), None)
    titles = {
        "level_correlation": "embedding distance and noise-level distance, Spearman's correlation",
        "retrieval": "nearest neighbour (no tile of the photograph) is of the same camera and ISO",
        "retrieval_chance": "the same by chance",
    }
    rows = [[titles[name], report.cell(value, 3)] for name, value in estimates.items()]
    arguments = {"model": model_name, "pairs": str(pairs), "seed": seed}
    notes = [report.describe(photographs, arguments), f"Brackets: {report.INTERVALS}"]
    if answers is None:
        notes.append(
            "No two groups of images, by camera and ISO or by folder, or no group with two"
            " photographs: no retrieval."
        )
    notes += [f"Skipped: {error}" for error in broken.skipped]
    text = report.markdown_table(["embedding", ""], rows) + "\n" + "\n\n".join(notes) + "\n"
    maps = {"PCA": pca(embedded.embeddings), "t-SNE": tsne(embedded.embeddings)}
    results = (
        {"arguments": arguments}
        | report.as_json(estimates)
        | {
            "images": [
                {"name": name, "group": group, "noise_level": level}
                | {"pca": maps["PCA"][i].tolist(), "tsne": maps["t-SNE"][i].tolist()}
                for i, (name, group, level) in enumerate(
                    zip(embedded.names, embedded.groups, embedded.levels.tolist(), strict=True)
                )
            ],
            "skipped": broken.skipped,
        }
    )
    figure = figures.scatter(maps, embedded.levels, f"embeddings of {len(embedded.names)} images")
    report.write_results(output, results, text, {"embedding": figure})
    return text

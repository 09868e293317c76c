"""Says what AKLD and KS a generator can reach on a set of pairs that knows a part of the truth.

  python -m experiments.metric_limits PAIRS [PAIRS...]

Of each image the real noise is replaced by surrogates: Gaussian noise with the real noise's own
power spectrum (phases drawn anew; Theiler et al., Physica D 1992), mean and, as far as the row's
name says, local level:

  second draw              the level of each 7x7 window, which AKLD compares (metrics.akld_floor)
  level within 16 pixels   of a Gaussian window with that standard deviation
  by brightness            the level in each of 16 bins of the clean image's brightness
  by brightness and edges  in 8 bins of brightness by 8 of the gradient's magnitude
  level alone              one level for each channel

The last three are what a generator that sees the clean image could do if it knew the image's own
level curves exactly. Two more rows are the real noise itself, for KS:

  not rounded              spread evenly over half a grey level to both sides: a generator makes
                           any number, a camera's 8-bit file whole grey levels only
  not rounded, mean 0      and less each channel's mean: the light or the exposure changed a little
                           between the shots of the pair, which no reference tells

Prints the means over images, 32 of a set at most, with 95 % intervals over photographs.
"""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter, sobel

from nt_jax import metrics, prng
from nt_jax.broken import Broken
from nt_jax.errors import ArgumentParser, parse_seed, run_command
from nt_jax.evaluation import report, statistics
from nt_jax.evaluation.samples import read_images, samples_of_pairs, usable_pairs
from nt_jax.paths import parse_path

MOST_IMAGES = 32
_WINDOW = 16.0  # standard deviation of the wide window, pixels
_FLOOR = 0.05  # variance that rounding leaves, on the 0 to 255 scale


def surrogate(rng: np.random.Generator, noise: np.ndarray) -> np.ndarray:
    """Draws Gaussian noise with the amplitudes of `noise` [H, W, 3], between channels too."""
    spectrum = np.fft.rfft2(noise, axes=(0, 1))
    phases = np.fft.rfft2(rng.standard_normal(noise.shape[:2]))
    phases = np.exp(1j * (np.angle(phases) - np.angle(spectrum[..., 1])))
    return np.fft.irfft2(spectrum * phases[..., None], s=noise.shape[:2], axes=(0, 1))


def variance_by(features: list[np.ndarray], square: np.ndarray, bins: int) -> np.ndarray:
    """Averages `square` [H, W, 3] over pixels of the same quantiles of all features [H, W]."""
    index = np.zeros(square.shape[:2], int)
    for feature in features:
        edges = np.quantile(feature, np.linspace(0, 1, bins + 1)[1:-1])
        index = index * bins + np.searchsorted(edges, feature)
    count = np.maximum(np.bincount(index.ravel()), 1)
    return np.stack(
        [
            np.bincount(index.ravel(), c.ravel())[index] / count[index]
            for c in square.transpose(2, 0, 1)
        ],
        axis=-1,
    )


class Limit(NamedTuple):
    """Scores of a row on an image; None where a metric says nothing of it."""

    akld: float | None
    ks: float | None


def limits(rng: np.random.Generator, clean: np.ndarray, noisy: np.ndarray) -> dict[str, Limit]:
    """Computes the rows of an image, uint8 [H, W, 3] each."""
    clean, noisy = clean.astype(np.float64), noisy.astype(np.float64)
    noise = noisy - clean
    mean = noise.mean((0, 1))
    square = np.square(noise - mean)
    light = gaussian_filter(clean.mean(-1), 1)
    edges = np.sqrt(gaussian_filter(sobel(light, 0) ** 2 + sobel(light, 1) ** 2, 2))
    variances = {
        "level within 16 pixels": gaussian_filter(square, (_WINDOW, _WINDOW, 0)),
        "by brightness": variance_by([light], square, 16),
        "by brightness and edges": variance_by([light, edges], square, 8),
        "level alone": np.broadcast_to(square.mean((0, 1)), square.shape),
    }

    def unit(image: np.ndarray) -> np.ndarray:
        return np.clip(image, 0, 255)[None].astype(np.float32) / 255

    def score(generated: np.ndarray) -> Limit:
        images = unit(clean), unit(noisy), unit(generated)
        return Limit(float(metrics.akld(*images)[0]), float(metrics.ks(*images)[0]))

    key = prng.key(int(rng.integers(2**31)))
    second = float(metrics.akld_floor(unit(clean), unit(noisy), key)[0])
    found = {"second draw": Limit(second, None)}
    for name, variance in variances.items():
        level = np.sqrt(variance + _FLOOR)
        found[name] = score(clean + mean + level * surrogate(rng, (noise - mean) / level))
    spread = noisy + rng.uniform(-0.5, 0.5, noisy.shape)
    found["not rounded"] = Limit(None, score(spread).ks)
    found["not rounded, mean 0"] = Limit(None, score(spread - mean).ks)
    return found


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        "pairs", nargs="+", type=parse_path, help="folders of clean and noisy images"
    )
    parser.add_argument("--seed", type=parse_seed, default=0, help="of the surrogates")
    args = parser.parse_args()
    for folder in args.pairs:
        rng = np.random.default_rng(args.seed)
        first = {}
        for sample in samples_of_pairs(usable_pairs(folder, Broken(skip=False))):
            first.setdefault(sample.image, sample)
        rows = []
        samples = list(first.values())[:MOST_IMAGES]
        photographs = [sample.photograph for sample in samples]
        for sample in samples:
            images = read_images(sample, None)
            rows.append(limits(rng, images.clean, images.noisy))
        print(f"{folder}, images: {len(rows)}")
        for name in rows[0]:
            cells = []
            for metric in Limit._fields:
                values = [getattr(row[name], metric) for row in rows]
                told = None not in values
                mean = statistics.mean(values, photographs) if told else None
                cells.append(report.cell(mean, 3))
            print(f"  {name:24} AKLD {cells[0]:20} KS {cells[1]}")


if __name__ == "__main__":
    run_command(main)

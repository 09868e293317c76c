"""Pictures of an evaluation: examples, histograms, noise-level curves, spectra, embeddings."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from nt_jax import metrics
from nt_jax.evaluation.samples import Images
from nt_jax.images import cut_middle
from nt_jax.readings import NoiseReading

_GAIN = 4
_SIDE = 256
_LEVEL_BINS = 16
_SPECTRUM_BINS = 32
_LAGS = range(1, 7)
# Too few values in a bin give a curve's point that means nothing.
_FEWEST_VALUES = 200


class Noisy(NamedTuple):
    """A noisy image and its clean version, float32 [H, W, 3] in [0, 1], with a name for legends."""

    clean: np.ndarray
    noisy: np.ndarray
    label: str

    @property
    def noise(self) -> np.ndarray:
        """noisy - clean."""
        return self.noisy - self.clean


class Look:
    """Looks of one kind of noise over a whole set of images, added up one by one."""

    def __init__(self) -> None:
        """Starts with no image."""
        self._histogram = np.zeros(511, np.int64)  # of the values -255 ... 255
        self._moments = np.zeros((3, 256))  # count, sum, sum of squares by clean intensity
        self._spectra: list[np.ndarray] = []

    def add(self, clean: np.ndarray, noisy: np.ndarray, bins: int) -> None:
        """Adds an image, uint8 [H, W, 3], its spectrum with that many bins."""
        noise = noisy.astype(np.int32) - clean
        self._histogram += np.bincount((noise + 255).ravel(), minlength=511)
        values = noise.ravel().astype(np.float64)
        for moment, weights in zip(self._moments, (None, values, values**2), strict=True):
            moment += np.bincount(clean.ravel(), weights, 256)
        spectrum = metrics.radial_power_spectrum(noise.astype(np.float32), bins)
        self._spectra.append(np.asarray(spectrum)[0])

    def histogram(self) -> tuple[np.ndarray, np.ndarray]:
        """Lists noise values, 0 to 255 scale, and the share of each."""
        return np.arange(-255, 256), self._histogram / self._histogram.sum()

    def level_curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Lists clean intensities and the standard deviation there, both on the 0 to 255 scale."""
        count, total, squares = self._moments.reshape(3, _LEVEL_BINS, -1).sum(axis=2)
        known = count >= _FEWEST_VALUES
        intensity = (np.arange(_LEVEL_BINS) + 0.5) * 256 / _LEVEL_BINS - 0.5
        mean = total[known] / count[known]
        variance = squares[known] / count[known] - mean**2
        return intensity[known], np.sqrt(np.maximum(variance, 0))

    def spectrum(self) -> tuple[np.ndarray, np.ndarray]:
        """Frequencies in cycles per pixel and the mean power, 0 to 255 scale squared."""
        power = np.mean(self._spectra, axis=0)
        return (np.arange(len(power)) + 0.5) / len(power) / 2, power


def spectrum_bins(sizes: Iterable[tuple[int, int]]) -> int:
    """As many bins as images of all these sizes can fill."""
    return min(_SPECTRUM_BINS, *(max(size) // 2 for size in sizes))


def examples(pictures: Sequence[tuple[Images, np.ndarray]]) -> Figure:
    """Draws clean, reference, generated, true; below the latter two their noises, times 4."""
    figure = Figure(figsize=(11, 5.6 * len(pictures)), layout="constrained")
    axes = figure.subplots(2 * len(pictures), 4, squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for index, (images, generated) in enumerate(pictures):
        above, below = axes[2 * index : 2 * index + 2]
        titles = {
            "clean": images.clean,
            "reference": images.reference,
            "generated": generated,
            "true": images.noisy,
        }
        for ax, (title, pixels) in zip(above, titles.items(), strict=True):
            ax.imshow(cut_middle(pixels, _SIDE))
            ax.set_title(title, fontsize=10)
        for ax, pixels in zip(below[2:], (generated, images.noisy), strict=True):
            noise = cut_middle(pixels, _SIDE).astype(np.float32) - cut_middle(images.clean, _SIDE)
            ax.imshow(np.clip(0.5 + _GAIN * noise / 255, 0, 1))
            ax.set_title(f"its noise ×{_GAIN}", fontsize=10)
    return figure


def restorations(pictures: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Figure:
    """Draws clean, noisy and denoised images."""
    figure = Figure(figsize=(10, 3.6 * len(pictures)), layout="constrained")
    axes = figure.subplots(len(pictures), 3, squeeze=False)
    for row, images in zip(axes, pictures, strict=True):
        for ax, title, pixels in zip(row, ("clean", "noisy", "denoised"), images, strict=True):
            ax.imshow(cut_middle(pixels, _SIDE))
            ax.set_title(title, fontsize=10)
            ax.axis("off")
    return figure


def histograms(looks: Mapping[str, Look]) -> Figure:
    """Draws the histogram of all noise values, a line a row."""
    figure, ax = _axes("histogram of the noise", "noise, 0 to 255 scale", "share of values")
    furthest = 1
    for name, look in looks.items():
        values, share = look.histogram()
        inside = np.flatnonzero(share > 1e-5)
        furthest = max(furthest, *np.abs(values[inside[[0, -1]]]))
        ax.semilogy(values, np.where(share > 0, share, np.nan), _style(name), lw=1, label=name)
    ax.set_xlim(-furthest, furthest)
    ax.set_ylim(1e-5, None)
    ax.legend(fontsize=9)
    return figure


def noise_levels(looks: Mapping[str, Look]) -> Figure:
    """Draws noise-level curves, a line a row."""
    figure, ax = _axes(
        "noise-level curve", "clean intensity, 0 to 255 scale", "standard deviation, 0 to 255 scale"
    )
    for name, look in looks.items():
        ax.plot(*look.level_curve(), _style(name), marker=".", label=name)
    ax.set_ylim(0, None)
    ax.legend(fontsize=9)
    return figure


def readings(read: Sequence[NoiseReading], true: Sequence[NoiseReading]) -> Figure:
    """Draws the level and the correlation with the next pixel that are read off photos.

    Args:
      read: in any order.
      true: of the same photos, for the other axis; empty where it is not known, for which each
        photo's level is drawn over its correlation.
    """
    figure = Figure(figsize=(10, 5), layout="constrained")
    if not true:
        ax = figure.subplots()
        ax.plot([r.lag1 for r in read], [r.total_level for r in read], "o")
        _label(ax, "noise that is read", "correlation with the next pixel", "level, of 255")
        return figure
    both = zip(figure.subplots(1, 2), ("total_level", "lag1"), strict=True)
    for (ax, name), title in zip(both, ("level, of 255", "correlation, next pixel"), strict=True):
        x, y = ([float(getattr(r, name)) for r in numbers] for numbers in (true, read))
        ax.plot(x, y, "o")
        ends = min(*x, *y), max(*x, *y)
        ax.plot(ends, ends, "k-", linewidth=0.8)
        _label(ax, title, "true", "read")
    return figure


def spectra(looks: Mapping[str, Look]) -> Figure:
    """Draws radial power spectra, a line a row."""
    figure, ax = _axes("power spectrum of the noise", "cycles per pixel", "power, 0 to 255 scale²")
    for name, look in looks.items():
        frequency, power = look.spectrum()
        ax.semilogy(frequency, np.maximum(power, 1e-4), _style(name), label=name)
    ax.legend(fontsize=9)
    return figure


def scatter(maps: Mapping[str, np.ndarray], level: np.ndarray, title: str) -> Figure:
    """Points [N, 2] of each map, coloured by noise level [N] on the 0 to 255 scale."""
    figure = Figure(figsize=(6 * len(maps), 5.2), layout="constrained")
    axes = figure.subplots(1, len(maps), squeeze=False)[0]
    for ax, (name, points) in zip(axes, maps.items(), strict=True):
        drawn = ax.scatter(*points.T, c=level, s=24)
        ax.set(title=name, xticks=[], yticks=[])
    figure.colorbar(drawn, ax=axes, label="standard deviation of the noise, 0 to 255 scale")
    figure.suptitle(title)
    return figure


def comparison(pictures: Mapping[str, np.ndarray], real: Noisy, fake: Noisy) -> Figure:
    """Draws two noises of one pair of images: pictures, both noises, and four curves of them.

    Args:
      pictures: three images [H, W, 3] in [0, 1] by title.
      real, fake: the noise wanted and the noise made.
    """
    figure = Figure(figsize=(13, 13.5), layout="constrained")
    axes = figure.subplots(3, 3)
    noises = {f"noise ×{_GAIN}, {item.label}": 0.5 + _GAIN * item.noise for item in (real, fake)}
    for ax, (title, image) in zip(axes.flat, {**pictures, **noises}.items(), strict=False):
        ax.imshow(np.clip(image, 0, 1))
        ax.set_title(title, fontsize=10, parse_math=False)  # a file's name is no formula
        ax.axis("off")
    histogram, level, correlation, spectrum = axes.flat[5:]
    # Bins hold whole 8-bit steps, of which some would else fall twice in a bin.
    for item, style in ((real, "k-"), (fake, "C1-")):
        steps = max(1, round(32 * max(real.noise.std(), fake.noise.std())))
        edges = (np.arange(-40.5, 41) * steps) / 255
        density, _ = np.histogram(item.noise, edges)
        width = (edges[1] - edges[0]) * item.noise.size
        middles = (edges[1:] + edges[:-1]) / 2
        histogram.plot(middles, density / width, style, label=item.label)
        deviation, counts = (
            np.asarray(v)[0] for v in metrics.noise_level_curve(item.clean, item.noisy, _LEVEL_BINS)
        )
        middles = (np.arange(_LEVEL_BINS) + 0.5) / _LEVEL_BINS
        known = counts >= _FEWEST_VALUES
        level.plot(middles[known], deviation[known], style, marker=".", label=item.label)
        lags = [lag for lag in _LAGS if lag <= min(item.noise.shape[:2]) - 2]
        values = [float(metrics.lag_autocorrelation(item.noise, lag)[0]) for lag in lags]
        correlation.plot(lags, values, style, marker=".", label=item.label)
        bins = min(2 * _SPECTRUM_BINS, min(item.noise.shape[:2]) // 2)
        power = np.asarray(metrics.radial_power_spectrum(item.noise, bins))[0]
        frequency = (np.arange(len(power)) + 0.5) / len(power) / 2
        spectrum.semilogy(frequency, np.maximum(power, 1e-12), style, label=item.label)
    _label(histogram, "histogram of the noise", "noise", "density")
    _label(level, "noise-level curve", "clean intensity", "standard deviation")
    _label(correlation, "autocorrelation", "distance in pixels", "correlation")
    _label(spectrum, "power spectrum", "cycles per pixel", "power")
    for ax in (histogram, level, correlation, spectrum):
        ax.legend(fontsize=9)
    return figure


def _style(name: str) -> str:
    return "k-" if name == "true" else "--" if name.startswith("oracle") else "-"


def _axes(title: str, x: str, y: str):
    # One panel needs no layout engine, which takes longer than the drawing.
    figure = Figure(figsize=(8, 5))
    ax = figure.subplots(gridspec_kw={"left": 0.12, "right": 0.98, "bottom": 0.1, "top": 0.93})
    _label(ax, title, x, y)
    return figure, ax


def _label(ax, title: str, x: str, y: str) -> None:
    ax.set(title=title, xlabel=x, ylabel=y)
    ax.grid(alpha=0.3)

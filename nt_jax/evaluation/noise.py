"""Readings of noisy photos: numbers of each, and how far they are off the truth.

Levels are compared by the absolute difference of their logarithms, mean over channels: .10 is 10 %.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from skimage.restoration import estimate_sigma

from nt_jax import metrics
from nt_jax.broken import Broken
from nt_jax.data.catalogue.references import photograph
from nt_jax.data.catalogue.sources import ImageFile, read_rgb
from nt_jax.errors import InputError
from nt_jax.evaluation import figures, report, statistics
from nt_jax.evaluation.samples import usable_images, usable_pairs
from nt_jax.files import progress
from nt_jax.images import to_float
from nt_jax.readings import NoiseReading

# Columns of the table of images, and of the table of errors.
_NUMBERS = ("red", "green", "blue", "lag 1", "lag 2", "R-G", "R-B", "G-B", "estimate_sigma")
_ERRORS = {
    "level_error": ("level, log", 3),
    "lag1_error": ("lag 1", 3),
    "lag2_error": ("lag 2", 3),
    "channel_correlation_error": ("channels", 3),
    "bias_error": ("bias, of 255", 2),
    "spectrum_error": ("spectrum, dB", 2),  # of models that read it
    "estimate_sigma_error": ("estimate_sigma, log", 3),
}
_LEAST_LEVEL = 0.25
_MOST_ROWS = 40


class Read(NamedTuple):
    """One photo.

    Attributes:
      name: of the photo.
      photograph: what it is a crop of, itself where it is none.
      reading: what the model reads.
      estimated: scikit-image's `estimate_sigma` of each channel, 0 to 255 scale, [3].
      true: measured on noisy minus clean; None without the clean image.
      spectrum_error: see `inference.spectrum`; None without the clean image, too, and of a model
        that reads no spectrum.
    """

    name: str
    photograph: str
    reading: NoiseReading
    estimated: np.ndarray
    true: NoiseReading | None
    spectrum_error: float | None


def true_noise(clean: np.ndarray, noisy: np.ndarray) -> NoiseReading:
    """Measures the numbers of a reading where the clean image is known: uint8 [H, W, 3] each."""
    noise = (noisy.astype(np.float32) - clean) / np.float32(255)
    correlation = np.asarray(metrics.channel_correlation(noise))[0]
    return NoiseReading(
        level=255 * noise.std((0, 1)),
        lag1=np.asarray(metrics.lag_autocorrelation(noise, 1))[0],
        lag2=np.asarray(metrics.lag_autocorrelation(noise, 2))[0],
        channel_correlation=correlation[[0, 0, 1], [1, 2, 2]],
        bias=255 * noise.mean((0, 1)),
    )


def _estimated(channel: np.ndarray) -> float:
    # Where all is black it takes the median of nothing.
    return float(estimate_sigma(channel.astype(np.float32))) if channel.any() else 0.0


def errors(read: Read) -> dict[str, float]:
    """Measures how far a reading is off the truth; see `_ERRORS`."""
    assert read.true is not None
    reading, true = read.reading, read.true

    def of_level(level: np.ndarray) -> float:
        ratio = np.maximum(level, _LEAST_LEVEL) / np.maximum(true.level, _LEAST_LEVEL)
        return float(np.abs(np.log(ratio)).mean())

    of_spectrum = {} if read.spectrum_error is None else {"spectrum_error": read.spectrum_error}
    between = np.abs(reading.channel_correlation - true.channel_correlation)
    return {
        "level_error": of_level(reading.level),
        "lag1_error": float(abs(reading.lag1 - true.lag1)),
        "lag2_error": float(abs(reading.lag2 - true.lag2)),
        "channel_correlation_error": float(between.mean()),
        "bias_error": float(np.abs(reading.bias - true.bias).mean()),
        "estimate_sigma_error": of_level(read.estimated),
    } | of_spectrum


def run(
    model_name: str,
    images: Path | None,
    pairs: Path | None,
    output: Path,
    skip_broken: bool,
) -> str:
    """Runs `eval noise` on photos or on pairs, one of the two; returns the table.

    Raises:
      InputError: a wrong argument, model or image.
    """
    folder = images if images is not None else pairs
    assert folder is not None
    report.check_output(output, [folder])
    broken = Broken(skip_broken)
    files: list[tuple[str, str, ImageFile, ImageFile | None]]
    if pairs is not None:
        usable = usable_pairs(pairs, broken)
        files = [(pair.name, photograph(pair), pair.noisy, pair.clean) for pair in usable]
    else:
        files = [(path.stem, str(path), path, None) for path in usable_images(folder, broken)]
    from nt_jax.inference.loading import load_noisetransfer
    from nt_jax.inference.spectrum import spectrum_error

    model = load_noisetransfer(model_name)
    if not model.can_read:
        raise InputError(f"{model_name} cannot read noise: it was trained without a head for it")
    found = []
    for _, (name, crop_of, noisy_file, clean_file) in progress(files, len(files), "image"):
        try:
            noisy = read_rgb(noisy_file)
            clean = None if clean_file is None else read_rgb(clean_file)
        except InputError as error:
            broken.note(error)
            continue
        true = None if clean is None else true_noise(clean, noisy)
        estimated = np.array([_estimated(channel) for channel in noisy.transpose(2, 0, 1)])
        of_spectrum = None
        if clean is not None and model.networks.spectrum_reader:
            of_spectrum = spectrum_error(model, to_float(noisy) - to_float(clean), to_float(noisy))
        reading = model.read_noise(noisy)
        found.append(Read(name, crop_of, reading, estimated, true, of_spectrum))
    if not found:
        raise InputError("no usable image is left")
    asked = {"model": model_name, "pairs" if pairs else "images": str(folder)}
    return _write(found, output, asked, broken)


def _write(found: list[Read], output: Path, asked: dict[str, Any], broken: Broken) -> str:
    rows = [row for read in found[:_MOST_ROWS] for row in _rows(read)]
    tables = [report.markdown_table(["photo", *_NUMBERS], rows)]
    if len(found) > _MOST_ROWS:
        tables.append(f"The first {_MOST_ROWS} of {len(found)}; all are in results.json.\n")
    photographs = [read.photograph for read in found]
    each = [errors(read) if read.true else {} for read in found]
    results: dict[str, Any] = {"arguments": asked}
    estimates: dict[str, statistics.Estimate | None]
    if each[0]:
        estimates = {
            name: statistics.mean([e[name] for e in each], photographs)
            for name in _ERRORS
            if name in each[0]
        }
        cells = [report.cell(estimates[name], _ERRORS[name][1]) for name in estimates]
        titles = [_ERRORS[name][0] for name in estimates]
        tables.append(report.markdown_table(["mean error", *titles], [["read", *cells]]))
    else:
        estimates = {
            name: statistics.mean(
                [float(getattr(read.reading, name)) for read in found], photographs
            )
            for name in ("total_level", "lag1", "lag2")
        }
    results |= report.as_json(estimates)
    results |= {
        "images": [
            {"name": read.name}
            | _as_json(read.reading)
            | {"estimate_sigma": read.estimated.tolist()}
            | ({"true": _as_json(read.true)} if read.true else {})
            | error
            for read, error in zip(found, each, strict=True)
        ],
        "skipped": broken.skipped,
    }
    notes = [
        report.describe(photographs, asked),
        "Levels are standard deviations on the 0 to 255 scale, of each channel; lag 1 and 2: "
        "correlation with the next pixel and the one after. estimate_sigma (scikit-image, mean "
        "over channels) takes noise for white.",
        *(f"Skipped: {error}" for error in broken.skipped),
    ]
    text = "\n".join(tables) + "\n" + "\n\n".join(notes) + "\n"
    trues = [read.true for read in found if read.true]
    drawn = figures.readings([read.reading for read in found], trues)
    report.write_results(output, results, text, {"readings": drawn})
    return text


def _rows(read: Read) -> list[list[str]]:
    """Writes the photo's row, and the truth below it where it is known."""
    rows = []
    for name, numbers in ((read.name, read.reading), ("  true", read.true)):
        if numbers is None:
            continue
        cells = [f"{value:.1f}" for value in numbers.level]
        cells += [f"{value:.2f}" for value in (numbers.lag1, numbers.lag2)]
        cells += [f"{value:.2f}" for value in numbers.channel_correlation]
        cells.append(f"{read.estimated.mean():.1f}" if numbers is read.reading else "")
        rows.append([name, *cells])
    return rows


def _as_json(reading: NoiseReading) -> dict[str, Any]:
    return {name: np.asarray(value).tolist() for name, value in reading._asdict().items()}

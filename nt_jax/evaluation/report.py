"""The folder an evaluation writes: results.json, results.md and figures, all or nothing."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from nt_jax.errors import InputError
from nt_jax.evaluation import statistics
from nt_jax.evaluation.figures import Look
from nt_jax.evaluation.statistics import Estimate
from nt_jax.files import scratch_beside
from nt_jax.metrics import Metric
from nt_jax.paths import exists, is_folder, printable

# What every score of an image is computed on, in evaluations and while training.
PROTOCOL = "Scored as floats, clipped to [0, 1] and not rounded to 8 bits."

INTERVALS = "95 % bootstrap intervals over images, crops of one photograph drawn together."


class Evaluation(NamedTuple):
    """Scores of a set of images.

    Attributes:
      images: names, in order.
      photographs: what each image is a crop of, itself where it is none.
      scores: metric -> one value an image, by row; one that needs more images may be missing.
      skipped: what is wrong with each image that was left out.
      examples: a few images for a picture, as `figures` takes them.
      floor: of generated noise, the AKLD that a perfect generator would score, one an image.
      looks: of generated noise, what the figures draw by row, the true noise first.
    """

    images: list[str]
    photographs: list[str]
    scores: dict[str, dict[str, list[float]]]
    skipped: tuple[str, ...]
    examples: list[Any]
    floor: Sequence[float] = ()
    looks: Mapping[str, Look] = {}


def summarize(
    evaluation: Evaluation, columns: Mapping[str, Metric]
) -> dict[str, dict[str, Estimate | None]]:
    """Gives mean and interval of each metric by row, None where it is missing."""
    return {
        row: {
            name: statistics.mean(found[name], evaluation.photographs) if name in found else None
            for name in columns
        }
        for row, found in evaluation.scores.items()
    }


def table(
    head: str,
    evaluation: Evaluation,
    columns: Mapping[str, Metric],
    last: Sequence[Sequence[str]] = (),
) -> str:
    """Writes the Markdown table: `head` above the rows' names, `last` below the rows."""
    rows = [
        [row, *(cell(estimates[name], metric.digits) for name, metric in columns.items())]
        for row, estimates in summarize(evaluation, columns).items()
    ]
    titles = [metric.title for metric in columns.values()]
    return markdown_table([head, *titles], [*rows, *last])


def check_output(output: Path, inputs: Sequence[Path]) -> None:
    """Checks that results can go there, before the work.

    Raises:
      InputError: `output` is a file or in an input folder, or nothing can be written there.
    """
    if exists(output) and not is_folder(output):
        raise InputError(f"--output={output} is a file; name a folder")
    for path in inputs:  # where its pictures would be scored the next time
        if is_folder(path) and output.resolve().is_relative_to(path.resolve()):
            raise InputError(f"--output={output} is in the input folder {path}; choose another")
    with _writing(output), scratch_beside(output):
        if is_folder(output):
            tempfile.TemporaryFile(dir=output).close()


@contextlib.contextmanager
def _writing(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"--output={output} cannot be written: {error.strerror or error}; choose another"
        ) from error


def write_results(
    output: Path, results: Mapping[str, Any], text: str, figures: Mapping[str, Figure]
) -> None:
    """Writes `results` as results.json, `text` as results.md and each figure as NAME.png.

    Files of an earlier evaluation in `output` are replaced.

    Raises:
      InputError: they cannot be written.
    """
    with _writing(output), scratch_beside(output) as folder:
        content = json.dumps(results, indent=2, allow_nan=False)
        (folder / "results.json").write_text(content + "\n", encoding="utf-8")
        (folder / "results.md").write_text(printable(text), encoding="utf-8")
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.png", dpi=110)
        output.mkdir(exist_ok=True)
        for path in sorted(folder.iterdir()):
            os.replace(path, output / path.name)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Writes a Markdown table whose columns also line up on a screen; the first is left-aligned."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "| " + " | ".join([first, *rest]) + " |"

    rule = "|" + "|".join(
        "-" * (width + 2) if i == 0 else "-" * (width + 1) + ":" for i, width in enumerate(widths)
    )
    return "\n".join([line(cells[0]), rule + "|", *map(line, cells[1:])]) + "\n"


def cell(estimate: Estimate | None, digits: int) -> str:
    """Writes an estimate for a table: 0.123 [0.110, 0.140]; a dash where there is none."""
    if estimate is None:
        return "–"
    text = f"{estimate.value:.{digits}f}"
    if estimate.interval is None:
        return text
    low, high = estimate.interval
    return f"{text} [{low:.{digits}f}, {high:.{digits}f}]"


def as_json(estimates: Mapping[str, Estimate | None]) -> dict[str, dict[str, Any]]:
    """Estimates as two objects by name, `mean` and `interval`; null where there is none."""
    return {
        "mean": {name: e.value if e else None for name, e in estimates.items()},
        "interval": {
            name: list(e.interval) if e and e.interval else None for name, e in estimates.items()
        },
    }


def describe(photographs: Sequence[str], arguments: Mapping[str, Any]) -> str:
    """Writes the line below a table that says what it was made from.

    Args:
      photographs: what each image is a crop of.
      arguments: of the command.
    """
    images, different = len(photographs), len(set(photographs))
    of = f" of {different} photographs" if different < images else ""
    asked = ", ".join(f"{name} {value}" for name, value in arguments.items())
    return f"{images} images{of}; {asked}."

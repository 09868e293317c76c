"""Files of a run for people: metrics.jsonl, TensorBoard, progress and sample pictures."""

import importlib.util
import json
import os
import pathlib
from typing import Any

import jax
import numpy as np

from nt_jax.files import Progress, replace_text


def say(text: str) -> None:
    """Prints a line, once however many processes train."""
    if jax.process_index() == 0:
        print(text, flush=True)


class MetricsFile:
    """metrics.jsonl: one object a line with `step` and named numbers, a step at most once.

    It holds nothing that differs between two runs of the same config, so no times.

    Attributes:
      newest: the newest line, {} while there is none.
    """

    newest: dict[str, Any]

    def __init__(self, path: pathlib.Path, resume_step: int) -> None:
        """Keeps the lines up to `resume_step`, none if that is 0; the others are written again."""
        self._path = path
        lines = read_metrics(path) if resume_step else []
        self._replace([line for line in lines if line["step"] <= resume_step])

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes named numbers; those of the newest line's step join that line."""
        if self.newest.get("step") == step:
            self._file.close()
            self._replace([*read_metrics(self._path)[:-1], self.newest | values])
        else:
            self.newest = {"step": step} | values
            self._file.write(_line(self.newest))
            self._file.flush()

    def sync(self) -> None:
        """Returns when the lines are on disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _replace(self, lines: list[dict[str, Any]]) -> None:
        replace_text(self._path, "".join(map(_line, lines)))
        self.newest = lines[-1] if lines else {}
        self._file = self._path.open("a")


def read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    """Reads the lines of a metrics.jsonl, but for one that was cut off while being written."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            lines.append(line)
    return lines


def _line(values: dict[str, Any]) -> str:
    return json.dumps(values) + "\n"


class TensorBoard:
    """TensorBoard events through clu; without clu, which needs TensorFlow, none are written."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Takes the folder of the events file."""
        self._writer = None
        if importlib.util.find_spec("clu") and importlib.util.find_spec("tensorflow"):
            from clu import metric_writers

            self._writer = metric_writers.SummaryWriter(str(folder))
        else:
            print("clu or TensorFlow is not installed: no TensorBoard events", flush=True)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes named numbers."""
        if self._writer:
            self._writer.write_scalars(step, values)

    def images(self, step: int, images: dict[str, np.ndarray]) -> None:
        """Writes named images, [N, H, W, 3] in [0, 1]."""
        if self._writer:
            self._writer.write_images(step, images)

    def flush(self) -> None:
        """Writes what is held back."""
        if self._writer:
            self._writer.flush()

    def close(self) -> None:
        """Flushes and closes."""
        if self._writer:
            self._writer.close()


class Records:
    """All that a run records of its steps.

    Attributes:
      waited_s: seconds that steps waited for their data, since `restart`.
    """

    def __init__(self, workdir: pathlib.Path, start: int, stop: int) -> None:
        """Takes the folder of the run, and the first and last step."""
        self.metrics_file = MetricsFile(workdir / "metrics.jsonl", start)
        self.tensorboard = TensorBoard(workdir)
        self.waited_s = 0.0
        self._progress = Progress(stop, "step", start=start)

    def restart(self, step: int) -> None:
        """Counts rate and waiting from here: what came before was compilation."""
        self._progress.restart(step)
        self.waited_s = 0.0

    def show(self, step: int, text: str) -> None:
        """Reports that `step` is done, with a few numbers as `text`."""
        waited = 100 * self.waited_s / self._progress.elapsed
        self._progress.show(step, f"data {waited:.1f} %  {text}")

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes named numbers to metrics.jsonl and TensorBoard; nothing when there are none."""
        if values:
            self.metrics_file.write(step, values)
            self.tensorboard.scalars(step, values)

    def sync(self) -> None:
        """Returns when all of it is on disk, so that a checkpoint never has steps without it."""
        self.metrics_file.sync()
        self.tensorboard.flush()

    def close(self) -> None:
        """Flushes and closes everything."""
        self.metrics_file.close()
        self.tensorboard.close()
        self._progress.close()


def log_parameters(path: pathlib.Path, networks: dict[str, Any]) -> None:
    """Prints each network's parameter count and writes clu's table of all arrays to `path`."""
    tables = []
    for name, params in networks.items():
        total = sum(leaf.size for leaf in jax.tree.leaves(params))
        say(f"{name}: {total:,} parameters")
        if importlib.util.find_spec("clu"):
            from clu import parameter_overview

            table = parameter_overview.get_parameter_overview(params, include_stats=False)
            tables.append(f"{name}\n{table}\n")
    if tables:
        path.write_text("\n".join(tables))


def save_curves(path: pathlib.Path, lines: list[dict[str, Any]], names: list[str]) -> None:
    """Draws numbers of the lines of a metrics.jsonl over the steps, one panel each.

    Without step 0: an untrained network's numbers would set the scale.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(names), 3.2))
    axes = figure.subplots(1, len(names), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        points = [(line["step"], line[name]) for line in lines if name in line and line["step"]]
        axis.plot(*zip(*points, strict=True), marker=".")
        axis.set(xlabel="step", title=name)
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def save_grid(path: pathlib.Path, columns: dict[str, np.ndarray]) -> None:
    """Writes a labelled picture: a column an entry, a row an image, [N, P, P, 3] in [0, 1]."""
    from matplotlib.figure import Figure

    # One image of all: an axis for each would take longer to draw than the evaluation.
    images = np.stack([np.clip(images, 0, 1) for images in columns.values()], axis=1)
    size = images.shape[2]
    gap = max(1, size // 20)
    tiles = np.pad(images, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=1)
    rows = [np.concatenate(list(row), axis=1) for row in tiles]
    picture = np.concatenate(rows)[:-gap, :-gap]
    figure = Figure(figsize=(1.7 * len(columns), 1.7 * len(images)))
    axes = figure.subplots()
    axes.imshow(picture, interpolation="nearest")
    axes.set_xticks(np.arange(len(columns)) * (size + gap) + size / 2, columns, fontsize=8)
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=110)

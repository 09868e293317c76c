"""Measures the noise of a data set, and shows what a training batch of it looks like.

  python -m experiments.dataset_statistics --pairs=DIR[,DIR...] --output=DIR [--photos=DIR[,DIR...]]
    [--world=SAMPLES]

Folders as in `config.data`: of images, or written by `nt_jax.prepare` (data/sidd/train). Writes
statistics.md (a line a data set and one for each of its ISO settings: means over images),
statistics.png (standard deviation by intensity) and, of each data set, batch_NAME.png: real rows
for pairs, synthetic ones for photographs. With `--world`, as many samples of camera noise on the
photographs: world.jpg and world.md say whether the pairs' noise is among them (noise_world.py).
"""

from pathlib import Path

import jax
import matplotlib
import numpy as np
from jax.sharding import Mesh
from matplotlib.figure import Figure

from configs.common import base_config
from experiments import noise_world, row_names
from experiments.camera_noise import COLUMNS, LEVEL_BINS, statistics
from nt_jax.data.catalogue import sources
from nt_jax.data.sampling import pipeline
from nt_jax.errors import ArgumentParser, InputError, run_command
from nt_jax.evaluation.report import check_output
from nt_jax.files import progress, replacing
from nt_jax.training.logs import save_grid

ROWS = 8  # of a batch picture
GAIN = 4  # of the noise in it
_DECIMALS = (*[1] * 7, *[2] * 5, *[1] * LEVEL_BINS)


def measure(folder: str) -> dict[str, np.ndarray]:
    """Measures the statistics of a folder of pairs: [images, columns] of all and each ISO known."""
    rows: dict[str, list[np.ndarray]] = {"all": []}
    pairs = sources.find_pairs(folder)
    pairs.sort(key=lambda pair: pair.iso or 0)
    for _, pair in progress(pairs, len(pairs), "pair", folder):
        clean, noisy = (
            sources.read_rgb(image) / np.float32(255) for image in (pair.clean, pair.noisy)
        )
        values = statistics(clean, noisy)
        rows["all"].append(values)
        if pair.iso:
            rows.setdefault(f"ISO {pair.iso}", []).append(values)
    return {name: np.stack(values) for name, values in rows.items()}


def means(values: np.ndarray) -> np.ndarray:
    """Averages over images, [images, columns] -> [columns]; NaN where none has that intensity."""
    count = (~np.isnan(values)).sum(axis=0)
    return np.where(count, np.nansum(values, axis=0) / np.maximum(count, 1), np.nan)


def table(measured: dict[str, dict[str, np.ndarray]]) -> str:
    """Writes the table in Markdown."""
    lines = [
        "Noise on the 0-255 scale, means over images; columns 0.06 to 0.94: standard deviation by",
        "clean intensity.",
        "",
        "| data set | part | images | " + " | ".join(COLUMNS) + " |",
        "|---|---|---:|" + "---:|" * len(COLUMNS),
    ]
    for name, parts in measured.items():
        for part, values in parts.items():
            cells = [
                "–" if np.isnan(value) else f"{value:.{decimals}f}"
                for value, decimals in zip(means(values), _DECIMALS, strict=True)
            ]
            lines.append(f"| {name} | {part} | {len(values)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(measured: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    """Draws the standard deviation by intensity: a panel a data set, a line an ISO."""
    centres = (np.arange(LEVEL_BINS) + 0.5) / LEVEL_BINS
    figure = Figure(figsize=(4.2 * len(measured), 3.4), layout="constrained")
    axes = figure.subplots(1, len(measured), squeeze=False)
    for axis, (name, parts) in zip(axes[0], measured.items(), strict=True):
        colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, max(len(parts) - 1, 1)))
        for part, colour in zip(parts, ["black", *colours], strict=False):
            levels = means(parts[part])[-LEVEL_BINS:]
            axis.plot(centres, levels, color=colour, marker=".", label=part)
        axis.set(xlabel="clean intensity", title=name, xlim=(0, 1), ylim=(0, None))
        axis.legend(fontsize=7, frameon=False)
    axes[0, 0].set_ylabel("noise std, 0-255")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def draw_batch(path: Path, **fields: str | float) -> None:
    """Draws a picture of the first rows of one training batch."""
    config = base_config().data
    config.update({"photos": "", "loader": "device"} | fields)
    mesh = Mesh(np.asarray(jax.devices()[:1]), ("data",))
    batch = next(pipeline.make_loader(config, batch_size=ROWS, seed=0, mesh=mesh)(0))
    images = {name: np.asarray(batch[name]) for name in ("clean", "noisy", "reference")}
    noise = 0.5 + GAIN * (images["noisy"] - images["clean"])
    save_grid(path, images | {f"noise ×{GAIN}": noise})


def main(argv: list[str] | None = None) -> None:
    """Runs it.

    Raises:
      InputError: a wrong flag, folder or image.
    """
    parser = ArgumentParser(prog="python -m experiments.dataset_statistics", description=__doc__)
    parser.add_argument("--pairs", default="", help="folders of pairs, comma-separated")
    parser.add_argument("--photos", default="", help="folders of photographs, for batch pictures")
    parser.add_argument("--world", type=int, help="samples of camera noise")
    parser.add_argument("--output", required=True, type=Path, help="folder to write to")
    args = parser.parse_args(argv)
    pairs, photos = ([f for f, _ in sources.parse_spec(s)] for s in (args.pairs, args.photos))
    if not pairs and not photos:
        raise InputError("--pairs or --photos: name a folder")
    if args.world is not None and not (pairs and photos):
        raise InputError("--world needs --photos to put noise on and --pairs to compare with")
    folders = [*pairs, *photos]
    titles = dict(zip(folders, row_names.titles_of_folders(folders), strict=True))
    check_output(args.output, [Path(folder) for folder in folders])
    if args.world is not None:  # before anything is written
        real = {titles[folder]: noise_world.describe_pairs(folder) for folder in pairs}
        world = noise_world.sample_world(photos, args.world)
    measured = {titles[folder]: measure(folder) for folder in pairs}
    args.output.mkdir(parents=True, exist_ok=True)
    if measured:
        markdown = table(measured)
        with replacing(args.output / "statistics.md") as temporary:
            temporary.write_text(markdown, encoding="utf-8")
        draw(measured, args.output / "statistics.png")
        print(markdown)
    if args.world is not None:
        markdown = noise_world.table(world, real)
        (args.output / "world.md").write_text(markdown, encoding="utf-8")
        noise_world.draw(world, real, args.output / "world.jpg")
        print(markdown)
    for folder, title in titles.items():
        fields = {"photos": folder} if folder in photos else {"pairs": folder, "real_fraction": 1.0}
        draw_batch(args.output / f"batch_{title.replace('/', '_')}.png", **fields)
    print(f"written to {args.output}")


if __name__ == "__main__":
    run_command(main)

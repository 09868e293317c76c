"""Shows noise between references and along the noise level: pictures and measured levels.

  python -m experiments.embedding_tools --output=DIR [--model=small] [--references=A,B[,...]]

Interpolates from the first reference to the second; shifts the average of all references along the
direction of the level, and scales its noise by strength; and takes each reference alone and all
together. Without --references they are four photographs that scikit-image brings, with synthetic
noise. Writes OUTPUT/results.md and .json (the level of each) and tools.png. Levels are standard
deviations of what was added to one photograph, on the 0 to 255 scale, after clipping: over all of
it, where it is dark and where it is bright.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure
from skimage import data

from nt_jax import prng
from nt_jax.compilation import use_compilation_cache
from nt_jax.errors import ArgumentParser, InputError, run_command
from nt_jax.evaluation import denoising, report
from nt_jax.images import cut_middle, read_rgb
from nt_jax.inference.loading import load_noisetransfer
from nt_jax.inference.model import Model

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
AMOUNTS = (-20.0, -10.0, 0.0, 10.0, 20.0)
STRENGTHS = (0.25, 0.5, 1.0, 1.5, 2.0)
SEED = 0
ALONE = "reference"
# Clean intensities; within bounds that little noise is clipped at.
PARTS = {"level": (0.0, 1.0), "dark": (0.2, 0.4), "bright": (0.6, 0.8)}
_SIDE = 256
_SHOWN = 96  # pixels a side of a picture, small enough to see single ones
_MOST_REFERENCES = 16


class Cell(NamedTuple):
    """One setting of a tool.

    Attributes:
      label: its name.
      noisy: the photograph with that noise, float32 [H, W, 3].
      levels: standard deviation of what was added, 0 to 255 scale, by `PARTS`.
    """

    label: str
    noisy: np.ndarray
    levels: dict[str, float]


def default_references() -> dict[str, np.ndarray]:
    """Adds noise from weak to strong to photographs.

    They are uint8 or float [256, 256, 3], by name.
    """
    noises = {
        "Gaussian 8": (data.coffee(), denoising.Noise("gaussian", (8, 8), (1, 1))),
        "Gaussian 45": (data.chelsea(), denoising.Noise("gaussian", (45, 45), (1, 1))),
        "Poisson 60": (data.rocket(), denoising.Noise("poisson", (0, 0), (60, 60))),
        "Poisson 15": (data.astronaut()[_SIDE:], denoising.Noise("poisson", (0, 0), (15, 15))),
    }
    keys = prng.split(prng.key(SEED), len(noises))
    return {
        name: denoising.add_noise(photo[:_SIDE, :_SIDE], noise, key)
        for (name, (photo, noise)), key in zip(noises.items(), keys, strict=True)
    }


def read_references(names: str) -> dict[str, np.ndarray]:
    """Reads images by file name.

    Raises:
      InputError: fewer than two, too many for a row of pictures, or one that cannot be read.
    """
    paths = [Path(name) for name in names.split(",")]
    if not 2 <= len(paths) <= _MOST_REFERENCES:
        raise InputError(f"--references: expected 2 to {_MOST_REFERENCES} images; got {len(paths)}")
    return {f"{number} {path.stem}": read_rgb(str(path)) for number, path in enumerate(paths, 1)}


def run_tools(
    model: Model, references: dict[str, np.ndarray], clean: np.ndarray
) -> dict[str, list[Cell]]:
    """Runs each tool's settings in order, by the tool's title.

    Args:
      model: any.
      references: noisy images; the first and the second are interpolated.
      clean: uint8 [H, W, 3].
    """
    embeddings = {name: model.embed(image) for name, image in references.items()}
    first, second = list(embeddings.values())[:2]
    middle = model.average(list(embeddings.values()))
    # Other parts than those of the default references.
    photos = [photo()[-_SIDE:, -_SIDE:] for photo in (data.coffee, data.chelsea, data.rocket)]
    direction = model.level_direction(photos, seed=SEED)

    image = clean / np.float32(255)

    def cell(label: str, embedding: jax.Array, strength: float = 1.0) -> Cell:
        noisy = model.transfer(clean, embedding=embedding, seed=SEED, strength=strength)
        noise = noisy - image
        levels = {
            name: float(255 * noise[(low <= image) & (image <= high)].std())
            for name, (low, high) in PARTS.items()
        }
        return Cell(label, noisy, levels)

    alone = embeddings | {"average": middle}
    return {
        "interpolation, weight": [
            cell(f"{w:g}", model.interpolate(first, second, w)) for w in WEIGHTS
        ],
        "level direction, amount": [
            cell(f"{t:+g}", model.shift(middle, direction, t)) for t in AMOUNTS
        ],
        "strength": [cell(f"{s:g}", middle, s) for s in STRENGTHS],
        ALONE: [cell(name, embedding) for name, embedding in alone.items()],
    }


def draw(tools: dict[str, list[Cell]]) -> Figure:
    """Draws a row a tool: the photograph with each setting, and the level against the setting."""
    columns = max(map(len, tools.values()))
    figure = Figure(figsize=(1.65 * columns + 2.8, 1.95 * len(tools)), layout="constrained")
    ratios = [1.0] * columns + [1.4]
    grid = figure.subplots(len(tools), columns + 1, squeeze=False, width_ratios=ratios)
    highest = max(cell.levels["level"] for cells in tools.values() for cell in cells)
    for (*pictures, chart), (title, cells) in zip(grid, tools.items(), strict=True):
        for axis in pictures:
            axis.set(xticks=[], yticks=[], frame_on=False)
        pictures[0].set_ylabel(title, fontsize=8)
        for axis, cell in zip(pictures, cells, strict=False):
            axis.imshow(cut_middle(cell.noisy, _SHOWN), interpolation="nearest")
            axis.set_title(f"{cell.label}: level {cell.levels['level']:.1f}", fontsize=8)
        levels = [cell.levels["level"] for cell in cells]
        if title == ALONE:  # in no order that a line could follow
            chart.barh([cell.label for cell in cells][::-1], levels[::-1])
            chart.set_xlim(0, 1.1 * highest)
        else:
            positions = [float(cell.label) for cell in cells]
            chart.plot(positions, levels, marker=".")
            chart.set_xticks(positions, [cell.label for cell in cells])
            chart.set_ylim(0, 1.1 * highest)
        chart.tick_params(labelsize=7)
        chart.set_title("level", fontsize=8)
        chart.grid(alpha=0.3)
    return figure


def table(tools: dict[str, list[Cell]]) -> str:
    """Writes Markdown, a line a setting."""
    rows = [
        [title, cell.label, *(f"{value:.1f}" for value in cell.levels.values())]
        for title, cells in tools.items()
        for cell in cells
    ]
    return report.markdown_table(["tool", "setting", *PARTS], rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs it.

    Raises:
      InputError: a wrong flag, model or image.
    """
    parser = ArgumentParser(prog="python -m experiments.embedding_tools", description=__doc__)
    parser.add_argument("--output", required=True, type=Path, help="folder to write to")
    parser.add_argument("--model", default="small", help="bundled name, workdir or model folder")
    parser.add_argument("--references", help="noisy IMAGE,IMAGE[,...]; default: made")
    args = parser.parse_args(argv)
    report.check_output(args.output, [])
    use_compilation_cache()
    model = load_noisetransfer(args.model)
    made = args.references is None
    references = default_references() if made else read_references(args.references)
    tools = run_tools(model, references, data.astronaut()[:_SIDE, 128 : 128 + _SIDE])
    asked = {"model": args.model, "references": ", ".join(references), "seed": SEED}
    step = model.metadata.get("step")
    asked |= {} if step is None else {"step": step}
    note = ", ".join(f"{name}: {value}" for name, value in asked.items())
    text = f"{table(tools)}\n{note}.\n"
    levels = {title: {cell.label: cell.levels for cell in cells} for title, cells in tools.items()}
    report.write_results(
        args.output, {"arguments": asked, "levels": levels}, text, {"tools": draw(tools)}
    )
    print(f"{text}\nresults: {args.output}")


if __name__ == "__main__":
    run_command(main)

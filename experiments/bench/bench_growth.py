"""How cost grows: a step with width, batch and patch; a transfer with megapixels; data with images.

python experiments/bench/bench_growth.py --json=growth.json --figure=docs/performance_cost.jpg

Each point is the fastest of `--repeats` runs, in processor seconds (of all threads), which other
work on the machine changes least; memory is the process's own, each point in a process of its own.
A slope is that of the logarithms: 1 where cost grows as its cause does.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from experiments.bench import measure
from nt_jax.compilation import use_compilation_cache

# What grows -> its values; the others stay at width 24, batch 4 and patch 64.
CURVES: dict[str, tuple[float, ...]] = {
    "width": (8, 16, 32),
    "batch": (1, 2, 4),
    "patch": (32, 48, 64),
    "megapixels": (0.25, 0.5, 1.0),
    "images": (100, 1000, 10_000),
}
_TILE = 64
_FIRST_START = """
import sys
from nt_jax.data.sampling.bank import load_bank
from nt_jax.data.catalogue.sources import find_photos
load_bank(find_photos(sys.argv[1]), [], 64, sys.argv[2])
"""


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--only", choices=sorted(CURVES), help="one of the curves")
    parser.add_argument("--point", type=float, help="one value of it, in this process")
    parser.add_argument("--figure", help="file of the curves")
    args = parser.parse_args()
    if args.point is not None:
        print(json.dumps(measure_point(args.only, args.point, args.repeats)))
        return
    rows = []
    for name, values in CURVES.items():
        for value in values if args.only in (None, name) else ():
            command = [f"--only={name}", f"--point={value}", f"--repeats={args.repeats}"]
            done = subprocess.run(
                [sys.executable, __file__, *command], check=True, stdout=subprocess.PIPE, text=True
            )
            rows.append({"cause": name, "value": value} | json.loads(done.stdout.splitlines()[-1]))
    slopes = {name: slope(rows, name) for name in CURVES if args.only in (None, name)}
    measure.report(rows, {"rows": rows, "slopes": slopes}, args.json)
    print("slopes:", ", ".join(f"{name} {value:.2f}" for name, value in slopes.items()))
    if args.figure:
        draw(rows, slopes, args.figure)


def slope(rows: list[dict[str, Any]], cause: str) -> float:
    """Computes the least-squares slope of the logarithm of seconds over that of the cause."""
    points = [(row["value"], row["processor s"]) for row in rows if row["cause"] == cause]
    return float(np.polyfit(*np.log(points).T, 1)[0])


def measure_point(cause: str, value: float, repeats: int) -> dict[str, Any]:
    """Measures processor seconds of one run and this process's memory at one point of a curve.

    The memory is in GB.
    """
    use_compilation_cache()
    if cause == "images":
        seconds, flop = start_up(int(value)), None
    else:
        run, flop = transfer(value) if cause == "megapixels" else step(cause, int(value))
        run()
        seconds = min(_processor(run) for _ in range(repeats))
    return {"processor s": seconds, "GFLOP": flop, "peak GB": measure.peak_memory() / 1e9}


def step(cause: str, value: int) -> tuple[Callable[[], Any], float]:
    """Makes a training step and reads its GFLOP by XLA's count."""
    import jax

    from experiments.bench.jax_step import jax_step

    sizes = {"width": 24, "batch": 4, "patch": 64} | {cause: value}
    config = measure.preset_config("small", sizes["batch"], sizes["patch"])
    config.model.width = sizes["width"]
    made = jax_step(config, measure.random_images(sizes["batch"], sizes["patch"]))
    flop = measure.cost(made.compiled)["flop"] / 1e9
    return lambda: jax.block_until_ready(made.run()), flop


def transfer(megapixels: float) -> tuple[Callable[[], Any], None]:
    """Makes a transfer by the bundled model."""
    from nt_jax.inference.loading import load

    model = load()
    side = round((megapixels * 1e6) ** 0.5)
    clean = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    embedding = np.zeros(model.embedding_size, np.float32)

    def run() -> None:
        for _ in model.transfer_tiles(clean, embedding):
            pass

    return run, None


def start_up(images: int) -> float:
    """Measures processor seconds of the second start with so many tiles.

    Their pixels are mapped from a file.
    """
    from nt_jax.data.catalogue.sources import find_photos
    from nt_jax.data.sampling.bank import load_bank

    with tempfile.TemporaryDirectory() as folder:
        tiles, cache = Path(folder) / "tiles", Path(folder) / "cache"
        tiles.mkdir()
        rng = np.random.default_rng(0)
        for index in range(images):
            pixels = rng.integers(0, 256, (_TILE, _TILE, 3), np.uint8)
            Image.fromarray(pixels).save(tiles / f"{index:05d}.png", compress_level=0)
        first = [sys.executable, "-c", _FIRST_START, str(tiles), str(cache)]
        subprocess.run(first, check=True)
        return _processor(lambda: load_bank(find_photos(tiles), [], _TILE, cache))


def _processor(run: Callable[[], Any]) -> float:
    begun = time.process_time()
    run()
    return time.process_time() - begun


def draw(rows: list[dict[str, Any]], slopes: dict[str, float], file: str) -> None:
    """Draws a panel for each curve, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 2.8), layout="constrained")
    panels = figure.subplots(1, len(slopes), squeeze=False)[0]
    for panel, (name, found) in zip(panels, slopes.items(), strict=True):
        points = [row for row in rows if row["cause"] == name]
        values = [row["value"] for row in points]
        panel.loglog(values, [row["processor s"] for row in points], "o-", color="tab:blue")
        panel.set(title=f"{name}: slope {found:.2f}", xlabel=name, ylabel="processor s")
        # Those of a logarithmic axis would lie on each other within one decade.
        panel.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        panel.set_xticks(values, [f"{value:g}" for value in values])
        memory = panel.twinx()
        memory.plot(values, [row["peak GB"] for row in points], "s:", color="tab:grey")
        memory.set_ylim(bottom=0)
        memory.set_ylabel("peak GB", color="tab:grey")
    figure.savefig(file, dpi=90)


if __name__ == "__main__":
    main()

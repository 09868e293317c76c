"""Seconds from the start of a command to its result on a small photo, by phase, with a warm cache.

python experiments/bench/bench_startup.py --repeats=5

Each phase ends where the next one begins; `again` is the last one's work once more, in the same
process: what of it is computing. Processor seconds are those of all threads.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import json
import os
import statistics
import subprocess
import tempfile
import time
from typing import Any

import numpy as np
from PIL import Image

from experiments.bench import measure

SIDE = 256

_START = """
import sys, time
marks = [("", 0.0, 0.0)]
begun = time.perf_counter()
def mark(name):
    marks.append((name, time.perf_counter() - begun, time.process_time()))
mark("python")
import jax
mark("import jax")
"""
_DENOISE = """
from nt_jax.images import read_photo
photo = read_photo(sys.argv[1]).pixels
from nt_jax.compilation import use_compilation_cache
from nt_jax.inference.loading import load_denoiser
mark("import nt_jax")
use_compilation_cache()
denoiser = load_denoiser()
mark("load")
def work():
    for tile in denoiser.denoise_tiles(photo):
        pass
work()
mark("denoise")
work()
mark("again")
"""
_TRANSFER = """
from nt_jax.images import read_photo
photo = read_photo(sys.argv[1])
from nt_jax.compilation import use_compilation_cache
from nt_jax.inference.files import noise_of_photos
from nt_jax.inference.loading import load
mark("import nt_jax")
use_compilation_cache()
model = load()
mark("load")
noise = noise_of_photos(model, [photo])
mark("reference")
def work():
    for tile in model.transfer_tiles(photo.pixels, noise.embedding, **noise.gains):
        pass
work()
mark("transfer")
noise_of_photos(model, [photo])
work()
mark("again")
"""
_END = """
import json
print(json.dumps(marks))
"""
_PHASES = {"denoise": _DENOISE, "transfer": _TRANSFER}
_FLAGS = {"denoise": "--input={photo}", "transfer": "--reference={photo} --clean={photo}"}


def main() -> None:
    args = measure.arguments(__doc__).parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.png"
        pixels = np.random.default_rng(0).normal(128, 20, (SIDE, SIDE, 3)).clip(0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(photo)
        environment = os.environ | {"XDG_CACHE_HOME": folder}
        for command, phases in _PHASES.items():
            flags = _FLAGS[command].format(photo=photo).split()
            whole = ["-m", f"nt_jax.{command}", *flags, f"--output={folder}/result.png"]
            runs, totals = [], []
            for index in range(args.repeats + 1):  # the first one fills the cache
                total = _seconds(whole, environment)
                marks = json.loads(_run(["-c", _START + phases + _END, str(photo)], environment))
                if index:
                    totals.append(total)
                    runs.append(marks)
            for place in range(1, len(runs[0])):
                spent = [
                    [run[place][clock] - run[place - 1][clock] for run in runs] for clock in (1, 2)
                ]
                rows.append(_row(command, runs[0][place][0], *spent))
            rows.append(_row(command, "the command", *map(list, zip(*totals, strict=True))))
    measure.report(rows, {"rows": rows, "side": SIDE}, args.json)


def _run(arguments: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.splitlines()[-1]


def _seconds(arguments: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Measures wall and processor seconds of a process, from its start to its end."""
    wall, before = time.perf_counter(), os.times()
    _run(arguments, environment)
    after = os.times()
    spent = sum(after[2:4]) - sum(before[2:4])  # of children
    return time.perf_counter() - wall, spent


def _row(command: str, phase: str, wall: list[float], processor: list[float]) -> dict[str, Any]:
    return {
        "command": command,
        "phase": phase,
        "processor s": statistics.median(processor),
        "wall s": statistics.median(wall),
        "fastest wall s": min(wall),
    }


if __name__ == "__main__":
    main()

"""Shared parts of the benchmarks: timing, the machine's own rate, tables and JSON."""

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.noisetransfer import get_config
from nt_jax import prng

# --preset -> (recipe, default batch, default patch)
PRESETS = {"full": ("paper", 4, 96), "small": ("small", 8, 48), "smoke": ("smoke", 8, 16)}


def arguments(description: str) -> argparse.ArgumentParser:
    """Makes a parser of the flags every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="small", help="networks")
    parser.add_argument("--repeats", type=int, default=10, help="timed runs after the warm-up")
    parser.add_argument("--json", help="file for the numbers, or - for a last line on the screen")
    return parser


def preset_config(preset: str, batch: int | None, patch: int | None) -> Any:
    """Makes the preset's training config with its batch and patch size, or those given."""
    recipe, default_batch, default_patch = PRESETS[preset]
    config = get_config(recipe)
    config.train.batch_size = batch or default_batch
    config.data.patch_size = patch or default_patch
    return config


def random_images(batch: int, patch: int) -> np.ndarray:
    """Draws clean, noisy and reference images of a batch, [3, B, H, W, 3] float32 in [0, 1]."""
    images = np.random.default_rng(0).uniform(size=(3, batch, patch, patch, 3))
    return images.astype(np.float32)


def seconds(function: Callable[[], Any], repeats: int, warm_up: int = 2) -> list[float]:
    """Measures the times of single calls, each until its result is there."""
    times = []
    for index in range(warm_up + repeats):
        begun = time.perf_counter()
        jax.block_until_ready(function())
        if index >= warm_up:
            times.append(time.perf_counter() - begun)
    return times


def interleaved(
    functions: dict[str, Callable[[], Any]], repeats: int, warm_up: int = 2
) -> dict[str, list[float]]:
    """Measures as `seconds`, several functions in turn, so that all meet the same machine."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for index in range(warm_up + repeats):
        for name, function in functions.items():
            once = seconds(function, repeats=1, warm_up=0)
            times[name] += once if index >= warm_up else []
    return times


def product_rate(dtype: Any = jnp.float32, size: int = 4096) -> float:
    """Measures FLOP/s of a matrix product on this machine, now: size x size, best of five."""
    # Random, as a GPU multiplies equal numbers faster than others.
    a = prng.normal(prng.key(0), (size, size)).astype(dtype)
    product = jax.jit(lambda a, b: a @ b)
    return 2 * size**3 / min(seconds(lambda: product(a, a), repeats=5, warm_up=1))


def peak_memory() -> int:
    """Reads the peak of memory in bytes: the accelerator's where it tells, else this process's."""
    stats = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def cost(stage: jax.stages.Lowered | jax.stages.Compiled) -> dict[str, float]:
    """Counts FLOP and bytes of a lowered or compiled function, by XLA's count."""
    analysis = stage.cost_analysis() or {}
    return {"flop": analysis.get("flops", 0.0), "bytes": analysis.get("bytes accessed", 0.0)}


def summary(times: list[float]) -> dict[str, float]:
    """Summarises some times: median, fastest and slowest."""
    return {"median_s": statistics.median(times), "min_s": min(times), "max_s": max(times)}


def machine() -> dict[str, Any]:
    """Describes what the numbers were measured on."""
    return {
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def report(rows: list[dict[str, Any]], result: dict[str, Any], destination: str | None) -> None:
    """Prints rows as a table, and writes `result` with the machine as JSON where asked."""
    names = list(rows[0])
    cells = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    text = json.dumps(result | {"machine": machine()})
    if destination == "-":
        sys.stdout.flush()
        print(text)
    elif destination:
        Path(destination).write_text(text + "\n")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)

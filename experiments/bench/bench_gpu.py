"""Our training step against PyTorch's in every number format, in turn, in one process.

python experiments/bench/bench_gpu.py --preset=full --json=gpu.json
python experiments/bench/bench_gpu.py --preset=smoke --batch=8     # tries the script on a CPU

Needs jax, flax, optax, ml_collections and torch, and neither TensorFlow nor clu. GFLOP: of ours by
XLA's count of the step before it is compiled, of PyTorch by its own count of products and
convolutions. `of product`: GFLOP/s as a share of a matrix product's in the same format. `memory`:
what the program takes by itself, in GB; PyTorch tells it on a GPU only.
"""

import os
import sys
from pathlib import Path

# JAX takes three quarters of a GPU's memory at its first use, and PyTorch needs its part.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from experiments.bench import measure
from experiments.bench.jax_step import jax_step
from experiments.bench.torch_model import torch_step

# Number format -> our compute type and the precision of its products: for float32 JAX's default
# is tf32 on a GPU, which is how training runs there.
_FORMATS = {
    "bf16": ("bfloat16", "default"),
    "tf32": ("float32", "default"),
    "fp32": ("float32", "highest"),
}
_BASE = "PyTorch fp32"


class Program(NamedTuple):
    """A step to time; `memory` in bytes, None where it is not known."""

    run: Callable[[], Any]
    number_format: str
    flop: float
    memory: int | None


def jax_program(config: Any, images: np.ndarray, number_format: str) -> Program:
    """Compiles our step."""
    dtype, precision = _FORMATS[number_format]
    with jax.default_matmul_precision(precision):
        step = jax_step(config, images, dtype)
    sizes = step.compiled.memory_analysis()
    memory = sizes.temp_size_in_bytes + sizes.argument_size_in_bytes
    memory += sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return Program(step.run, number_format, measure.cost(step.lowered)["flop"], memory)


def torch_program(
    config: Any, images: np.ndarray, device: str, number_format: str, flop: float, compiled: bool
) -> Program:
    """Makes the program of PyTorch's step.

    Its memory is the peak of the second step, after convolutions are chosen.
    """
    on_gpu = device == "cuda"
    before = torch.cuda.memory_allocated() if on_gpu else 0
    bf16 = number_format == "bf16"
    run = torch_step(config, images, device, number_format != "fp32", bf16, compiled)
    run()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    run()
    memory = torch.cuda.max_memory_allocated() - before if on_gpu else None
    return Program(run, number_format, flop, memory)


def torch_flop(config: Any, images: np.ndarray, device: str) -> float:
    """Counts the FLOP of PyTorch's products and convolutions in one step."""
    run = torch_step(config, images, device)
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def make_programs(
    config: Any, images: np.ndarray, device: str
) -> tuple[dict[str, Program], list[str]]:
    """Makes the programs to time, and a line on each that cannot run here."""
    formats, left_out = list(_FORMATS), []
    if device == "cpu":
        formats.remove("tf32")
        left_out.append("tf32 left out: only a GPU has it")
    programs = {f"nt_jax {name}": jax_program(config, images, name) for name in formats}
    flop = torch_flop(config, images, device)
    for name in reversed(formats):
        layout = " channels_last" if name == "bf16" else ""
        program = torch_program(config, images, device, name, flop, compiled=False)
        programs[f"PyTorch {name}{layout}"] = program
    try:
        program = torch_program(config, images, device, "bf16", flop, compiled=True)
        programs["PyTorch bf16 channels_last compiled"] = program
    except RuntimeError as error:
        # No C++ compiler, no Triton: torch has many errors for what its compiler lacks.
        reason = " ".join(str(error).split("\n")[:2])
        left_out.append(f"PyTorch compiled left out: {type(error).__name__}: {reason}")
    return programs, left_out


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--batch", type=int, default=32, help="examples in a batch")
    parser.add_argument("--patch", type=int, help="side of a patch in pixels")
    args = parser.parse_args()
    config = measure.preset_config(args.preset, args.batch, args.patch)
    patch = config.data.patch_size
    images = measure.random_images(args.batch, patch)
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    torch.backends.cudnn.benchmark = True  # tries its convolutions first, as XLA does

    programs, left_out = make_programs(config, images, device)
    rates = {}
    for name in dict.fromkeys(program.number_format for program in programs.values()):
        dtype, precision = _FORMATS[name]
        with jax.default_matmul_precision(precision):
            rates[name] = measure.product_rate(dtype, 16384 if device == "cuda" else 1024)
    steps = {name: program.run for name, program in programs.items()}
    times = measure.interleaved(steps, args.repeats, warm_up=3)
    medians = {name: measure.summary(values)["median_s"] for name, values in times.items()}
    rows = [
        {
            "program": name,
            "median s": medians[name],
            "steps/s": 1 / medians[name],
            "x PyTorch fp32": medians[_BASE] / medians[name],
            "GFLOP": program.flop / 1e9,
            "GFLOP/s": program.flop / medians[name] / 1e9,
            "of product": program.flop / medians[name] / rates[program.number_format],
            "memory": None if program.memory is None else program.memory / 1e9,
        }
        for name, program in programs.items()
    ]
    print(*left_out, sep="\n")
    result = {"median_s": rows[0]["median s"], "rows": rows, "left_out": left_out}
    result |= {"product_flop_s": rates, "torch": torch.__version__}
    result |= {"preset": args.preset, "batch": args.batch, "patch": patch}
    measure.report(rows, result, args.json)


if __name__ == "__main__":
    main()

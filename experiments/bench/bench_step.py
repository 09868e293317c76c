"""Time, FLOP and memory of one training step.

python experiments/bench/bench_step.py --preset=full
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax.numpy as jnp

from experiments.bench import measure
from experiments.bench.jax_step import jax_step


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--batch", type=int, help="examples in a batch")
    parser.add_argument("--patch", type=int, help="side of a patch in pixels")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    args = parser.parse_args()
    config = measure.preset_config(args.preset, args.batch, args.patch)
    batch, patch, dtype = config.train.batch_size, config.data.patch_size, jnp.dtype(args.dtype)
    step = jax_step(config, measure.random_images(batch, patch), dtype)
    times = measure.summary(measure.seconds(step.run, args.repeats))
    memory = measure.peak_memory()
    cost = measure.cost(step.compiled)
    product = measure.product_rate(dtype)
    rate = cost["flop"] / times["median_s"]
    row = {
        "preset": args.preset,
        "batch": batch,
        "patch": patch,
        "dtype": args.dtype,
        "compile s": step.compile_s,
        "median s": times["median_s"],
        "min s": times["min_s"],
        "steps/s": 1 / times["median_s"],
        "GFLOP": cost["flop"] / 1e9,
        "GB": cost["bytes"] / 1e9,
        "GFLOP/s": rate / 1e9,
        "of product": rate / product,
        "peak GB": memory / 1e9,
    }
    result = times | cost | {"compile_s": step.compile_s, "product_flop_s": product}
    measure.report([row], result | {"peak_bytes": memory}, args.json)


if __name__ == "__main__":
    main()

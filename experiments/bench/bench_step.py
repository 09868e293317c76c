"""Time, FLOP and memory of one training step.

python experiments/bench/bench_step.py --preset=full
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import measure
from nt_jax.models.networks import make_networks
from nt_jax.training.loop import data_mesh
from nt_jax.training.state import init_state
from nt_jax.training.steps import jit_train_step


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--batch", type=int, help="examples in a batch")
    parser.add_argument("--patch", type=int, help="side of a patch in pixels")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    args = parser.parse_args()
    config = measure.preset_config(args.preset, args.batch, args.patch)
    batch, patch, dtype = config.train.batch_size, config.data.patch_size, jnp.dtype(args.dtype)
    networks = make_networks(config.model, dtype)
    state = jax.jit(lambda key: init_state(config, networks, key))(jax.random.key(0))
    images = np.random.default_rng(0).uniform(size=(3, batch, patch, patch, 3)).astype(np.float32)
    inputs = dict(zip(("clean", "noisy", "reference"), images, strict=True))
    begun = time.perf_counter()
    step = jit_train_step(config, networks, data_mesh())
    compiled = step.lower(state, inputs, jax.random.key(1)).compile()
    compile_s = time.perf_counter() - begun
    inputs = jax.device_put(inputs, compiled.input_shardings[0][1])

    def run() -> jax.Array:
        nonlocal state
        state, metrics = compiled(state, inputs, jax.random.key(1))
        return metrics["loss_g"]

    times = measure.summary(measure.seconds(run, args.repeats))
    memory = measure.peak_memory()
    cost = measure.cost(compiled)
    product = measure.product_rate(dtype)
    rate = cost["flop"] / times["median_s"]
    row = {
        "preset": args.preset,
        "batch": batch,
        "patch": patch,
        "dtype": args.dtype,
        "compile s": compile_s,
        "median s": times["median_s"],
        "min s": times["min_s"],
        "steps/s": 1 / times["median_s"],
        "GFLOP": cost["flop"] / 1e9,
        "GB": cost["bytes"] / 1e9,
        "GFLOP/s": rate / 1e9,
        "of product": rate / product,
        "peak GB": memory / 1e9,
    }
    result = times | cost | {"compile_s": compile_s, "product_flop_s": product}
    measure.report([row], result | {"peak_bytes": memory}, args.json)


if __name__ == "__main__":
    main()

"""Seconds to compile the training step and a tile of a transfer, with an empty and a warm cache.

python experiments/bench/bench_compile.py --preset=full
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.bench import measure
from experiments.bench.random_model import random_model
from nt_jax import prng
from nt_jax.compilation import use_compilation_cache
from nt_jax.families.noisetransfer.state import init_state
from nt_jax.families.noisetransfer.step import jit_train_step
from nt_jax.models.networks import make_networks
from nt_jax.training.loop import data_mesh


def main() -> None:
    parser = measure.arguments(__doc__)
    args = parser.parse_args()
    config = measure.preset_config(args.preset, None, None)
    networks = make_networks(config.model)
    state = jax.jit(lambda key: init_state(config, networks, key))(prng.key(0))
    shape = (config.train.batch_size, *[config.data.patch_size] * 2, 3)
    batch = dict.fromkeys(("clean", "noisy", "reference"), np.zeros(shape, np.float32))
    model = random_model(config.model)
    image, embedding = np.zeros((512, 512, 3), np.uint8), np.zeros(model.embedding_size, np.float32)

    def step() -> None:
        lowered = jit_train_step(config, networks, data_mesh()).lower(state, batch, prng.key(0))
        lowered.compile()

    def transfer() -> None:
        for _ in model.transfer_tiles(image, embedding):
            pass

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
        jax.config.update("jax_compilation_cache_dir", folder)
        use_compilation_cache()
        for name, function in (("step", step), ("transfer 512x512", transfer)):
            cold = _timed(function)
            jax.clear_caches()
            rows.append({"what": name, "empty cache s": cold, "warm cache s": _timed(function)})
    result: dict[str, Any] = {"median_s": rows[0]["empty cache s"], "rows": rows}
    measure.report(rows, result | {"preset": args.preset}, args.json)


def _timed(function: Callable[[], None]) -> float:
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()

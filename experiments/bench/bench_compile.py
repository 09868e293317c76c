"""Seconds until the training step and a tile of a transfer run, with an empty and a warm cache.

python experiments/bench/bench_compile.py --preset=full

Of the first call in a new process, less those of a second call: tracing or reading what is kept,
and compiling.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
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
    parser.add_argument("--once", choices=_STARTS, help="measure this in this process, print it")
    args = parser.parse_args()
    if args.once:
        use_compilation_cache()
        print(json.dumps(_seconds_before(_STARTS[args.once](args.preset))))
        return
    rows = []
    for name in _STARTS:
        with tempfile.TemporaryDirectory() as folder:
            empty, warm = (_in_a_process(name, args.preset, folder) for _ in range(2))
        rows.append({"what": name, "empty cache s": empty, "warm cache s": warm})
    result: dict[str, Any] = {"median_s": rows[0]["empty cache s"], "rows": rows}
    measure.report(rows, result | {"preset": args.preset}, args.json)


def _in_a_process(name: str, preset: str, cache: str) -> float:
    command = [sys.executable, __file__, f"--preset={preset}", f"--once={name}"]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
    found = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(found.stdout.splitlines()[-1])


def _seconds_before(call: Callable[[], Any]) -> float:
    first, second = measure.seconds(call, repeats=2, warm_up=0)
    return first - second


def _start_step(preset: str) -> Callable[[], Any]:
    config = measure.preset_config(preset, None, None)
    networks = make_networks(config.model)
    state = jax.jit(lambda key: init_state(config, networks, key))(prng.key(0))
    images = measure.random_images(config.train.batch_size, config.data.patch_size)
    batch = dict(zip(("clean", "noisy", "reference"), images, strict=True))
    step = jit_train_step(config, networks, data_mesh())
    # Of a copy, as a step gives its state away.
    return lambda: step(jax.tree.map(jnp.copy, state), batch, prng.key(0))


def _start_transfer(preset: str) -> Callable[[], Any]:
    model = random_model(measure.preset_config(preset, None, None).model)
    image, embedding = np.zeros((512, 512, 3), np.uint8), np.zeros(model.embedding_size, np.float32)
    return lambda: [part.pixels for part in model.transfer_tiles(image, embedding)]


_STARTS = {"step": _start_step, "transfer": _start_transfer}


if __name__ == "__main__":
    main()

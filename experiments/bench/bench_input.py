"""Patches a second of each loader, and the share of a training step they cost.

python experiments/bench/bench_input.py --preset=small --photos=DIR --pairs=DIR

The share is measured as (time with the loader - time with one batch again and again) / time with
the loader, since a loader's work runs beside the step on the same cores.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import itertools
import os
import time
from collections.abc import Iterator
from typing import Any

import jax

from experiments.bench import measure
from nt_jax import prng
from nt_jax.data.sampling.pipeline import make_loader
from nt_jax.families.noisetransfer.state import init_state
from nt_jax.families.noisetransfer.step import jit_train_step
from nt_jax.models.networks import make_networks
from nt_jax.training.loop import data_mesh

_IMAGES = ("clean", "noisy", "reference")


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--photos", default="skimage", help="as config.data.photos")
    parser.add_argument("--pairs", default="", help="as config.data.pairs")
    parser.add_argument("--kinds", default="gaussian,poisson,poisson_gaussian", help="noise kinds")
    args = parser.parse_args()
    config = measure.preset_config(args.preset, None, None)
    config.data.photos, config.data.pairs = args.photos, args.pairs
    config.data.noise_kinds = tuple(args.kinds.split(","))
    config.data.noise_kind_weights = (1.0,) * len(config.data.noise_kinds)
    networks = make_networks(config.model)
    step = jit_train_step(config, networks, data_mesh())

    def trained(batches: Iterator[dict[str, Any]], steps: int) -> float:
        state = jax.jit(lambda key: init_state(config, networks, key))(prng.key(0))
        for index, batch in enumerate(itertools.islice(batches, steps + 2)):
            if index == 2:
                jax.block_until_ready(state)
                begun = time.perf_counter()
            state, _ = step(state, {name: batch[name] for name in _IMAGES}, prng.key(index))
        jax.block_until_ready(state)
        return time.perf_counter() - begun

    rows = []
    for name in ("tfdata", "device"):
        config.data.loader = name
        loader = make_loader(
            config.data, batch_size=config.train.batch_size, seed=0, mesh=data_mesh()
        )
        batches = loader(0)
        times = measure.summary(measure.seconds(lambda b=batches: next(b), 50, warm_up=5))
        patches = 3 * config.train.batch_size / times["median_s"]
        with_loader = trained(loader(0), args.repeats)
        without = trained(itertools.repeat(next(batches)), args.repeats)
        rows.append(
            {
                "loader": name,
                "batch s": times["median_s"],
                "patches/s": patches,
                "per core": patches / (os.cpu_count() or 1),
                "step s": with_loader / args.repeats,
                "share %": 100 * max(0.0, 1 - without / with_loader),
            }
        )
    measure.report(rows, {"median_s": rows[0]["batch s"], "rows": rows}, args.json)


if __name__ == "__main__":
    main()

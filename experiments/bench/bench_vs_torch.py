"""Our step and transfer against a PyTorch model of the same layers, in turn, in one process.

python experiments/bench/bench_vs_torch.py --preset=full

`bench_gpu.py` compares the step's number formats on a GPU.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch

from experiments.bench import measure
from experiments.bench.jax_step import jax_step
from experiments.bench.random_model import random_model
from experiments.bench.torch_model import Trainer, torch_step


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--batch", type=int, help="examples in a batch")
    parser.add_argument("--patch", type=int, help="side of a patch in pixels")
    parser.add_argument("--size", type=int, default=512, help="side of the transferred image")
    args = parser.parse_args()
    config = measure.preset_config(args.preset, args.batch, args.patch)
    batch, patch = config.train.batch_size, config.data.patch_size
    images = measure.random_images(batch, patch)
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    steps: dict[str, Callable[[], Any]] = {
        "ours": jax_step(config, images).run,
        "torch": torch_step(config, images, device),
    }
    times = measure.interleaved(steps, args.repeats)
    rows = _rows("step", times, "ours")

    model, trainer = random_model(config.model), Trainer(config, device)
    image = np.random.default_rng(1).integers(0, 256, (args.size, args.size, 3), np.uint8)
    embedding = np.tanh(np.random.default_rng(2).normal(size=model.embedding_size))
    plane = torch.from_numpy(image).permute(2, 0, 1)[None].to(device)
    vector = torch.from_numpy(embedding.astype(np.float32))[None].to(device)
    transfers: dict[str, Callable[[], Any]] = {
        "ours": lambda: list(model.transfer_tiles(image, embedding.astype(np.float32))),
        "torch": lambda: trainer.transfer(plane.float() / 255, vector).cpu(),
    }
    rows += _rows(f"transfer {args.size}", measure.interleaved(transfers, args.repeats), "ours")
    result = {"median_s": rows[0]["median s"], "rows": rows, "preset": args.preset}
    measure.report(rows, result | {"batch": batch, "patch": patch}, args.json)


def _rows(what: str, times: dict[str, list[float]], base: str) -> list[dict[str, Any]]:
    medians = {name: measure.summary(values)["median_s"] for name, values in times.items()}
    return [
        {"what": what, "program": name, "median s": s, "of ours": s / medians[base]}
        for name, s in medians.items()
    ]


if __name__ == "__main__":
    main()

"""Our step and transfer against a PyTorch model of the same layers, in turn, in one process.

python experiments/bench/bench_vs_torch.py --preset=full
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from experiments.bench import measure
from experiments.bench.random_model import random_model
from experiments.bench.torch_model import Trainer
from nt_jax.models.networks import make_networks
from nt_jax.training.loop import data_mesh
from nt_jax.training.state import init_state
from nt_jax.training.steps import jit_train_step

# PyTorch variants on a GPU: (name, tf32, bfloat16 with channels_last, compiled)
_GPU_VARIANTS = (
    ("torch fp32", False, False, False),
    ("torch tf32", True, False, False),
    ("torch bf16", True, True, False),
    ("torch bf16 compiled", True, True, True),
)


def our_step(config: Any, images: np.ndarray, dtype: Any) -> Callable[[], Any]:
    """Our training step as a function that advances its own state."""
    networks = make_networks(config.model, dtype)
    state = jax.jit(lambda key: init_state(config, networks, key))(jax.random.key(0))
    step = jit_train_step(config, networks, data_mesh())
    batch = jax.device_put(dict(zip(("clean", "noisy", "reference"), images, strict=True)))

    def run() -> jax.Array:
        nonlocal state
        state, metrics = step(state, batch, jax.random.key(1))
        return metrics["loss_g"]

    return run


def torch_step(
    config: Any,
    images: np.ndarray,
    device: str,
    tf32: bool = False,
    bf16: bool = False,
    compiled: bool = False,
) -> Callable[[], float]:
    """The same of the PyTorch model; reading the loss waits for the device."""
    trainer = Trainer(config, device, channels_last=bf16)
    if compiled:
        trainer.generator.compile()
        trainer.discriminator.embed = torch.compile(trainer.discriminator.embed)
        trainer.discriminator.judge = torch.compile(trainer.discriminator.judge)
    batch = torch.from_numpy(images).permute(0, 1, 4, 2, 3).contiguous().to(device)

    def run() -> float:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            return trainer.step(*batch)

    return run


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--batch", type=int, help="examples in a batch")
    parser.add_argument("--patch", type=int, help="side of a patch in pixels")
    parser.add_argument("--size", type=int, default=512, help="side of the transferred image")
    args = parser.parse_args()
    config = measure.preset_config(args.preset, args.batch, args.patch)
    batch, patch = config.train.batch_size, config.data.patch_size
    images = np.random.default_rng(0).uniform(size=(3, batch, patch, patch, 3)).astype(np.float32)

    steps: dict[str, Callable[[], Any]] = {"ours": our_step(config, images, jnp.float32)}
    if jax.default_backend() == "gpu":
        steps["ours bf16"] = our_step(config, images, jnp.bfloat16)
        for name, *variant in _GPU_VARIANTS:
            steps[name] = torch_step(config, images, "cuda", *variant)
    else:
        steps["torch"] = torch_step(config, images, "cpu")
    times = measure.interleaved(steps, args.repeats)
    rows = _rows("step", times, "ours")

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
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

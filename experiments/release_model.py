"""Writes the model of a training run as it is bundled: no optimizers, 16-bit weights.

python -m experiments.release_model --workdir=runs/small --output=nt_jax/pretrained/small

A NoiseTransfer model keeps its generator (the moving average where the run has one) and its key
encoder, which then judges in the discriminator's place. `model.json` tells the recipe, the step and
the held-out figures of the run's last evaluation.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from nt_jax.checkpointing import read_config, save_model
from nt_jax.errors import ArgumentParser, InputError, run_command
from nt_jax.inference.workdir import load_workdir
from nt_jax.training.logs import read_metrics

_RELEASED = ("generator", "key_encoder", "denoiser")


def release(workdir: Path, output: Path) -> dict[str, Any]:
    """Writes the model folder and returns its metadata.

    Raises:
      InputError: no workdir, or one without a checkpoint; `output` is something else.
    """
    metadata, variables = load_workdir(workdir)
    recipe = read_config(workdir)
    for section, field in (
        ("data", "photos"),
        ("data", "pairs"),
        ("eval", "photos"),
        ("eval", "pairs"),
        ("train", "init_from"),
    ):
        recipe[section][field] = _without_machine(recipe[section].get(field, ""))
    metadata |= {
        "weights": "float16",
        "recipe": recipe,
        "held_out": _held_out(workdir / "metrics.jsonl", metadata["step"]),
    }
    halved = {
        name: jax.tree.map(lambda leaf: leaf.astype(np.float16), tree)
        for name, tree in variables.items()
        if name in _RELEASED
    }
    save_model(output, metadata, halved)
    return metadata


def _without_machine(spec: str) -> str:
    """Folders of a config by their last two names: where they lay concerns nobody."""
    return ",".join("/".join(part.split("/")[-2:]) for part in spec.split(","))


def _held_out(metrics: Path, step: int) -> dict[str, Any]:
    """The last evaluation up to a step, with its own step."""
    found: dict[str, Any] = {}
    for record in read_metrics(metrics):
        if record["step"] <= step and any(name.startswith("eval/") for name in record):
            found = record
    return {name: found[name] for name in found if name == "step" or name.startswith("eval/")}


def main() -> None:
    """The command."""
    parser = ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True, help="training run")
    parser.add_argument("--output", type=Path, required=True, help="model folder to write")
    args = parser.parse_args()
    if not (args.workdir / "metrics.jsonl").is_file():
        raise InputError(f"{args.workdir} is no training workdir: it has no metrics.jsonl")
    metadata = release(args.workdir, args.output)
    size = sum(path.stat().st_size for path in args.output.rglob("*") if path.is_file())
    print(f"wrote {args.output}: step {metadata['step']}, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_command(main)

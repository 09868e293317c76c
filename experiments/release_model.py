"""Writes the model of a training run as it is bundled: no optimizers, 16-bit weights.

python -m experiments.release_model --workdir=runs/small --output=nt_jax/pretrained/small \
  [--networks=experiments/networks/small] [--mean_with=START] [--terms="data/photos=CC0" ...]
python -m experiments.release_model --model=small --reader=runs/reader --output=FOLDER
python -m experiments.release_model --denoiser=runs/denoiser --reader=small --output=FOLDER

A NoiseTransfer model keeps its generator (the moving average where the run has one) and its key
encoder, which then judges in the discriminator's place. `model.json` tells the recipe, the step and
the held-out figures of the run's last evaluation. --networks also writes all networks of the run as
a small workdir, averages in place of what they are averages of, for `config.train.init_from` to go
on from. With --mean_with all of these are the mean of the run's parameters and of those of the
networks it began from, half way between (docs/adapt.md); the figures stay those of the run's end.

--reader joins a run of `configs/reader.py`, or the readers of another model, to a model that is
there already: from then on noise is read, and calibrated, by that network; or its spectrum is, and
`nt_jax.adapt` brings the model's noise to it. --denoiser takes a conditioned denoiser in place of
--model, which from then on reads the noise's spectrum off each image.
"""

import copy
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from nt_jax import families
from nt_jax.checkpointing import (
    CONFIG_FILE,
    Checkpointer,
    checkpoint_steps,
    load_state,
    read_config,
    save_model,
)
from nt_jax.errors import ArgumentParser, InputError, run_command
from nt_jax.families.reader.quantities import QUANTITIES
from nt_jax.inference.denoiser import LINEAGE, READER
from nt_jax.inference.loading import load_denoiser, load_noisetransfer
from nt_jax.inference.workdir import is_workdir, load_workdir
from nt_jax.models.parameters import mean
from nt_jax.training.logs import read_metrics

# Judges only while training.
_NOT_RELEASED = "discriminator"


def release(
    workdir: Path,
    output: Path,
    terms: Mapping[str, str] | None = None,
    mean_with: Path | None = None,
) -> dict[str, Any]:
    """Writes the model folder and returns its metadata.

    Args:
      workdir: of the run.
      output: the model folder.
      terms: by folder of training images.
      mean_with: workdir of the networks that it began from, to go half way back to them.

    Raises:
      InputError: no workdir, or one without a checkpoint; `output` is something else; other
        networks than the run's in `mean_with`.
    """
    metadata, variables = load_workdir(workdir)
    if mean_with:
        variables = _mean(variables, load_workdir(mean_with)[1], mean_with)
        metadata["mean_with"] = _without_machine(str(mean_with))
    metadata |= {
        "weights": "float16",
        "recipe": _recipe(read_config(workdir)),
        "held_out": _held_out(workdir / "metrics.jsonl", metadata["step"]),
    }
    metadata |= _began_from(read_config(workdir))
    owed: dict[str, Any] | None = metadata
    while terms and owed:  # a model that it began from has its own already
        owed.setdefault("terms", dict(terms))
        owed = owed.get("began_from")
    released = {name: tree for name, tree in variables.items() if name != _NOT_RELEASED}
    save_model(output, metadata, _halved(released))
    return metadata


def _mean(trees: dict[str, Any], others: dict[str, Any], source: Path) -> dict[str, Any]:
    """Averages the networks of two runs, which must be the same ones."""
    sizes = [jax.tree.map(np.shape, dict(found)) for found in (trees, others)]
    if sizes[0] != sizes[1]:
        raise InputError(f"--mean_with={source}: its networks are not those of the run")
    return mean(trees, others)


def join_reader(model: str, reader: str, output: Path) -> dict[str, Any]:
    """Writes a NoiseTransfer model with readers of noise as its own, and returns its metadata.

    Args:
      model: bundled name, workdir or model folder.
      reader: workdir of a reader, or a model (named as `model` is) that has some already.
      output: the model folder.

    Raises:
      InputError: there is no such model or reader, or the reader was trained on patches of another
        size than the model's references are cut to.
    """
    loaded = load_noisetransfer(model)
    metadata = copy.deepcopy(dict(loaded.metadata))
    parts = dict(loaded.params)
    for name, found in _readers_of(reader).items():
        if found.patch_size != loaded.reference_crop:
            raise InputError(
                f"{reader} was trained on patches of {found.patch_size} pixels, but {model} cuts"
                f" references to {loaded.reference_crop}; train the reader with"
                f" --config.data.patch_size={loaded.reference_crop}"
            )
        metadata["model"] = dict(metadata["model"]) | {name: found.width}
        metadata[name] = found.about
        parts[name] = found.params
    save_model(output, metadata, _halved(jax.tree.map(np.asarray, parts)))
    return metadata


def join_denoiser(denoiser: str, reader: str, output: Path) -> dict[str, Any]:
    """Writes a conditioned denoiser with a reader of spectra, and returns its metadata.

    Args:
      denoiser: bundled name, workdir or model folder.
      reader: as `join_reader` takes it.
      output: the model folder.

    Raises:
      InputError: there is no such denoiser or reader, or the denoiser is not conditioned.
    """
    loaded = load_denoiser(denoiser)
    if not loaded.network.conditions:
        raise InputError(f"{denoiser} is blind: train it with --config.model.conditioned=True")
    found = _readers_of(reader).get(READER)
    if found is None:
        raise InputError(f"{reader} reads no spectrum; train it with configs/reader.py:spectrum")
    sizes = {"width": found.width, "patch_size": found.patch_size}
    metadata = dict(loaded.metadata) | {READER: sizes | found.about}
    variables = loaded.variables | {READER: found.params}
    save_model(output, metadata, _halved(jax.tree.map(np.asarray, variables)))
    return metadata


class _Reader(NamedTuple):
    """A reader as it joins a model; `about` is what `model.json` tells of it."""

    width: int
    patch_size: int
    about: Mapping[str, Any]
    params: Any


def _readers_of(source: str) -> dict[str, _Reader]:
    """Loads the readers of a model, or the one of a run, by the names of the networks."""
    names = [quantity.part for quantity in QUANTITIES.values()]
    workdir = Path(source)
    if not (workdir / CONFIG_FILE).is_file():
        model = load_noisetransfer(source)
        found = [name for name in names if name in model.params]
        if not found:
            raise InputError(f"{source} has no reader of its own")
        widths, crop = model.metadata["model"], model.reference_crop
        return {
            name: _Reader(widths[name], crop, model.metadata[name], model.params[name])
            for name in found
        }
    _trained(workdir)
    metadata, variables = load_workdir(workdir)
    about = {
        "step": metadata["step"],
        "recipe": _recipe(read_config(workdir)),
        "held_out": _held_out(workdir / "metrics.jsonl", metadata["step"]),
    } | _began_from(read_config(workdir))
    settings = metadata["model"]
    found = [name for name in names if name in variables]
    if not found:
        raise InputError(f"{workdir} is of kind {metadata['kind']}, not a reader of noise")
    return {
        name: _Reader(settings["width"], settings["patch_size"], about, variables[name])
        for name in found
    }


def _trained(workdir: Path) -> None:
    """Checks that a workdir has its figures, too, and not the networks alone."""
    if not (workdir / "metrics.jsonl").is_file():
        raise InputError(f"{workdir} is no training workdir: it has no metrics.jsonl")


def release_networks(workdir: Path, output: Path, mean_with: Path | None = None) -> None:
    """Writes all networks of a run as a workdir with nothing else in its checkpoint, in float16.

    Args:
      workdir: of the run.
      output: the workdir to write.
      mean_with: as `release` takes it.

    Raises:
      InputError: no workdir, or one without a checkpoint; `output` exists; as of `release`.
    """
    config, step, state = load_state(workdir)
    if output.exists():
        raise InputError(f"{output} exists; choose another output or remove it")
    networks = _networks(config, state)
    if mean_with:
        config_before, _, state_before = load_state(mean_with)
        networks = _mean(networks, _networks(config_before, state_before), mean_with)
    recipe = _recipe(config)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as scratch:
        made = Path(scratch) / "workdir"
        made.mkdir()
        (made / CONFIG_FILE).write_text(json.dumps(recipe, indent=2) + "\n")
        with Checkpointer(made, recipe, keep=1) as checkpointer:
            checkpointer.save(step, _halved(networks))
        for file in made.rglob("commit_success.txt"):  # names a folder of this machine
            file.unlink()
        shutil.move(made, output)


def _networks(config: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """Takes a run's networks as they are bundled, so that who goes on starts where it stands."""
    task = families.find(families.name_of(config)).task_class()
    networks = {name: state[name] for name in task.inherits.values()}
    for network, average in (("generator", "generator_average"), ("params", "average")):
        if network in networks and state.get(average) is not None:
            networks[network] = state[average]
    return networks


def _halved(trees: dict[str, Any]) -> dict[str, Any]:
    """Converts weights to 16 bits; counts, which would not fit, stay as they are."""

    def halved(leaf: np.ndarray) -> np.ndarray:
        return leaf if np.issubdtype(leaf.dtype, np.integer) else leaf.astype(np.float16)

    return jax.tree.map(halved, trees)


def _recipe(config: dict[str, Any]) -> dict[str, Any]:
    """Copies a run's config without where on this machine its data lay."""
    recipe = copy.deepcopy(config)
    for section, field in (
        ("data", "photos"),
        ("data", "pairs"),
        ("eval", "photos"),
        ("eval", "pairs"),
        ("train", "init_from"),
    ):
        recipe[section][field] = _without_machine(recipe[section].get(field, ""))
    return recipe


def _without_machine(spec: str) -> str:
    """Shortens folders of a config to their last two names: where they lay concerns nobody."""
    return ",".join("/".join(part.split("/")[-2:]) for part in spec.split(","))


def _began_from(config: dict[str, Any]) -> dict[str, Any]:
    """Says what the networks that a run began with were trained on; {} where nothing tells."""
    source = config["train"].get("init_from", "")
    if not source:
        return {}
    if is_workdir(source):
        before = read_config(Path(source))
        step = max(checkpoint_steps(Path(source)), default=0)
        told = {"step": step, "recipe": _recipe(before)} | _began_from(before)
    else:  # a denoiser may begin from a model
        try:
            metadata = load_denoiser(source).metadata
        except InputError:
            return {}
        told = {name: metadata[name] for name in ("step", *LINEAGE) if name in metadata}
    return {"began_from": {"name": _without_machine(source)} | told}


def _held_out(metrics: Path, step: int) -> dict[str, Any]:
    """Finds the last evaluation up to a step, with its own step."""
    found: dict[str, Any] = {}
    for record in read_metrics(metrics):
        if record["step"] <= step and any(name.startswith("eval/") for name in record):
            found = record
    return {name: found[name] for name in found if name == "step" or name.startswith("eval/")}


def main() -> None:
    """Runs the command.

    Raises:
      InputError: a wrong flag, run or model.
    """
    parser = ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workdir", type=Path, help="training run")
    parser.add_argument("--model", help="with --reader: bundled name, workdir or model folder")
    parser.add_argument("--denoiser", help="with --reader: the same, of a conditioned denoiser")
    parser.add_argument("--reader", help="run of a reader, or a model that has one, for these")
    parser.add_argument("--output", type=Path, required=True, help="model folder to write")
    parser.add_argument("--networks", type=Path, help="folder for all networks of the run")
    parser.add_argument(
        "--mean_with", type=Path, help="with --workdir: networks it began from, to average with"
    )
    parser.add_argument("--terms", action="append", default=[], help="FOLDER=TERMS; repeat it")
    args = parser.parse_args()
    if wrong := [given for given in args.terms if "=" not in given]:
        raise InputError(f"--terms={wrong[0]}: expected FOLDER=TERMS")
    terms = dict(given.split("=", 1) for given in args.terms)
    sources = [source for source in (args.workdir, args.model, args.denoiser) if source]
    if len(sources) != 1 or bool(args.workdir) == bool(args.reader):
        raise InputError("give --workdir, or --reader and --model or --denoiser")
    if args.mean_with and args.reader:
        raise InputError("--mean_with is of a run's own networks: give it with --workdir")
    if terms and args.reader:
        raise InputError("--terms are of a run's own data; --reader keeps those that are there")
    run = args.workdir or Path(args.reader)
    if args.workdir or args.networks:
        _trained(run)
    if args.denoiser:
        metadata = join_denoiser(args.denoiser, args.reader, args.output)
    elif args.reader:
        metadata = join_reader(args.model, args.reader, args.output)
    else:
        metadata = release(run, args.output, terms, args.mean_with)
    size = sum(path.stat().st_size for path in args.output.rglob("*") if path.is_file())
    print(f"wrote {args.output}: step {metadata['step']}, {size / 1e6:.1f} MB")
    if args.networks:
        release_networks(run, args.networks, args.mean_with)
        print(f"wrote {args.networks}")


if __name__ == "__main__":
    run_command(main)

"""What is spent on a table: budgets and their flags, denoisers trained once, the page written.

A training that is finished is not done again, and one that is not goes on: the same command with
the same --output resumes.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from configs import denoiser
from nt_jax import families
from nt_jax.checkpointing import CONFIG_FILE, read_config, read_summary
from nt_jax.errors import ArgumentParser, InputError
from nt_jax.evaluation import report
from nt_jax.training.logs import read_metrics
from nt_jax.training.loop import train_and_evaluate


class Budget(NamedTuple):
    """How much is spent on a table.

    Attributes:
      recipe: what is added to the argument of `configs/denoiser.py`.
      generator: argument of `configs/noisetransfer.py`.
      images: how many of a set are scored; None for all.
      trials: of random noise levels.
      draws: noisy versions of each clean image that a method outside of the training step makes.
    """

    recipe: str
    generator: str
    images: int | None
    trials: int
    draws: int


BUDGETS = {
    "smoke": Budget("-smoke", "smoke", images=3, trials=2, draws=1),
    "small": Budget("-small", "small", images=None, trials=10, draws=4),
    "paper": Budget("", "paper", images=None, trials=10, draws=8),
}

# Flags that change a budget.
CHANGES = {"steps": "of a training", "images": "scored of a set", "trials": "of random levels"}


class Options(NamedTuple):
    """Options of a table.

    Attributes:
      name: of the budget.
      budget: it.
      seeds: of the trainings, one each; the first is also that of everything else.
      steps: of a training; None for the recipe's.
      output: folder of the table.
      runs: folder of the workdirs.
    """

    name: str
    budget: Budget
    seeds: tuple[int, ...]
    steps: int | None
    output: Path
    runs: Path


def make_parser(
    module: str, doc: str, changes: Sequence[str] = tuple(CHANGES), *, trains: bool = True
) -> ArgumentParser:
    """Makes a parser with the flags that all tables have, and those of `CHANGES` that apply.

    --runs is there where the table trains anything.
    """
    parser = ArgumentParser(
        prog=f"python -m experiments.{module}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--budget", choices=tuple(BUDGETS), default="small")
    parser.add_argument("--output", required=True, type=Path, help="folder of the table")
    if trains:
        parser.add_argument("--runs", type=Path, help="of the trainings; by default in the output")
    parser.add_argument("--seeds", default="0", help="comma-separated, a training each")
    for name in changes:
        parser.add_argument(f"--{name}", type=int, help=f"{CHANGES[name]}, instead of the budget's")
    return parser


def parse_options(args: argparse.Namespace, inputs: Sequence[Path] = ()) -> Options:
    """Reads the shared flags and checks them.

    Raises:
      InputError: one is wrong, or nothing can be written to the output.
    """
    try:
        seeds = tuple(int(seed) for seed in args.seeds.split(","))
    except ValueError as error:
        raise InputError(f"--seeds={args.seeds}: give numbers such as 0,1,2") from error
    if len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**32 for seed in seeds):
        raise InputError(f"--seeds={args.seeds}: each once, from 0 to 2**32 - 1")
    budget = BUDGETS[args.budget]
    changes = {name: getattr(args, name, None) for name in CHANGES}
    for name, value in changes.items():
        if value is not None and value < 1:
            raise InputError(f"--{name}={value}: needs 1 or more")
        if value is not None and name != "steps":
            budget = budget._replace(**{name: value})
    report.check_output(args.output, inputs)
    runs = getattr(args, "runs", None) or args.output / "runs"
    return Options(args.budget, budget, seeds, changes["steps"], args.output, runs)


def denoiser_config(
    noise: str, options: Options, seed: int, fields: Mapping[str, Any]
) -> ConfigDict:
    """Makes the recipe of `configs/denoiser.py` for that noise at the budget.

    Some fields are changed.
    """
    config = denoiser.get_config(noise + options.budget.recipe)
    shorten(config, options.steps)
    config.seed = seed
    config.update_from_flattened_dict(dict(fields))
    return config


def shorten(config: ConfigDict, steps: int | None) -> None:
    """Sets the steps, where given, and the learning rate's schedule in proportion."""
    if steps is None:
        return
    if "halve_at" in config.train:
        halve_at = [max(1, round(at * steps / config.train.steps)) for at in config.train.halve_at]
        config.train.halve_at = tuple(halve_at)
    config.train.steps = steps


def check_same(config: ConfigDict, workdir: Path) -> None:
    """Raises InputError if the workdir was begun with another config."""
    if not (workdir / CONFIG_FILE).exists():
        return
    saved = read_config(workdir)
    saved["family"] = families.name_of(saved)  # which runs of before do not say
    before, now = _flat(saved), _flat(json.loads(config.to_json()))
    changed = [name for name in now if before.get(name) != now[name]]
    if changed:
        raise InputError(
            f"{workdir} was begun with config.{changed[0]}={before.get(changed[0])}, not "
            f"{now[changed[0]]}; choose another --output or --runs, or remove it"
        )


def train(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Trains a config, or goes on, unless the workdir is finished; returns its summary.

    Raises:
      InputError: the workdir was begun with another config, or the config cannot run.
      DivergedError: it became non-finite.
      PreemptedError: a signal stopped it, after saving.
    """
    check_same(config, workdir)
    summary = read_summary(workdir)
    if summary.get("steps") == config.train.steps:
        print(f"{workdir}: finished before, {config.train.steps} steps", flush=True)
        return summary
    print(f"{workdir}: training, {config.train.steps} steps", flush=True)
    return train_and_evaluate(config, workdir)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in config.items():
        inner = isinstance(value, Mapping)
        values |= _flat(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return values


def curve(workdir: Path, name: str) -> tuple[list[int], list[float]]:
    """Reads steps and values of a number from the workdir's metrics.jsonl."""
    rows = read_metrics(workdir / "metrics.jsonl")
    points = {row["step"]: row[name] for row in rows if name in row}
    return sorted(points), [points[step] for step in sorted(points)]


def describe(options: Options, config: ConfigDict | None = None, scored: bool = True) -> str:
    """Writes the line below a table that says what was spent on it.

    Args:
      options: of the table.
      config: of its trainings.
      scored: whether it is of the budget's images of a set; curves are of what trainings evaluate.
    """
    budget = options.budget
    devices = jax.devices()
    parts = [
        f"Budget `{options.name}`, seeds {', '.join(map(str, options.seeds))}, "
        f"{len(devices)} {devices[0].platform} device{'s' * (len(devices) > 1)}"
    ]
    if config:
        model, training = config.model, config.train
        parts.append(
            f"each network: width {model.width}, blocks {model.blocks}, {training.steps} steps of "
            f"{training.batch_size} patches of {config.data.patch_size} pixels a side"
        )
    if budget.images and scored:
        parts.append(f"at most {budget.images} images of a set")
    return f"{'; '.join(parts)}. {report.PROTOCOL}"


def write(
    options: Options,
    title: str,
    tables: Mapping[str, str],
    notes: Sequence[str],
    results: Mapping[str, Any],
    figures: Mapping[str, Any] | None = None,
) -> str:
    """Writes results.md, results.json and figures; returns the Markdown.

    Args:
      title: of the page.
      tables: Markdown by heading.
      notes: lines below.
      results: for the JSON file.
      figures: see `report.write_results`.
    """
    parts = [f"# {title}", *(f"## {name}\n\n{table}" for name, table in tables.items()), *notes]
    text = "\n\n".join(part.strip() for part in parts) + "\n"
    spent = {"budget": options.name, "seeds": options.seeds, "steps": options.steps}
    report.write_results(options.output, spent | dict(results), text, figures or {})
    return text

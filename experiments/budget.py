"""Shared parts of the paper's tables: budgets, denoisers trained once, scores kept, tables written.

A part that is finished is not done again: a denoiser's workdir, a score, a noisy image. The same
command with the same --output goes on where it was.
"""

import argparse
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from configs import denoiser
from nt_jax import families, prng
from nt_jax.broken import Broken
from nt_jax.checkpointing import CONFIG_FILE, read_config, read_summary
from nt_jax.data.catalogue.sources import ImageFile
from nt_jax.errors import ArgumentParser, InputError
from nt_jax.evaluation import denoising, generation, report, statistics
from nt_jax.evaluation.baselines import Method
from nt_jax.evaluation.statistics import Estimate
from nt_jax.families import Generator
from nt_jax.files import progress, replacing
from nt_jax.images import read_rgb
from nt_jax.inference.loading import load, load_denoiser
from nt_jax.paths import expand
from nt_jax.training.logs import read_metrics
from nt_jax.training.loop import train_and_evaluate

_CROP = 512
_RESAMPLES = 2000


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


def split(folders: str) -> list[Path]:
    """Splits a comma-separated list of folders."""
    return [Path(folder.strip()) for folder in folders.split(",") if folder.strip()]


def titles_of_folders(folders: Sequence[str | Path]) -> list[str]:
    """Titles sets by their folders' last two names, or as many as tell them from each other.

    They differ with "_" for "/", too, as files are named by them.

    Raises:
      InputError: a folder is given twice.
    """
    paths = [expand(folder) for folder in folders]
    # "skimage" is no folder.
    ends = [(path.resolve() if path.exists() else path).parts for path in paths]
    for count in range(2, max(map(len, ends), default=1) + 2):
        titles = ["/".join(end[-count:]).lstrip("/") for end in ends]
        if len({title.replace("/", "_") for title in titles}) == len(titles):
            return titles
    raise InputError(f"{', '.join(map(str, folders))}: name each folder once")


# --- Parts that are done once --------------------------------------------------------------------


def kept(path: Path, asked: Mapping[str, Any], compute: Callable[[], Any]) -> Any:
    """Gives what `compute` does, as JSON; read from `path` where it was asked the same before."""
    if not _is_kept(path, asked):
        answer = compute()
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            content = json.dumps({"asked": asked, "answer": answer}, allow_nan=False)
            temporary.write_text(content, encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))["answer"]


def _is_kept(path: Path, asked: Mapping[str, Any]) -> bool:
    if not path.is_file():
        return False
    found = json.loads(path.read_text(encoding="utf-8"))
    return found["asked"] == json.loads(json.dumps(asked))


def fingerprint(files: Iterable[ImageFile | None]) -> str:
    """Sums up which files these are and as of when: their places, sizes and times of change."""
    digest = hashlib.sha256()
    for path in sorted({Path(file).resolve() for file in files if file}):
        found = path.stat()
        digest.update(os.fsencode(f"{path} {found.st_size} {found.st_mtime_ns}\n"))
    return digest.hexdigest()


def claim(folder: Path, asked: Mapping[str, Any]) -> None:
    """Notes in a folder what its images are to be made of, before the first one.

    Raises:
      InputError: there it holds what was made of something else, or of nobody knows what.
    """
    note = folder / "made_of.json"
    unknown = not note.exists() and any(folder.rglob("*.png"))
    if unknown or kept(note, {}, lambda: asked) != asked:
        raise InputError(f"{folder} was made of other images; choose another --output or remove it")


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


def make_pairs(
    folder: Path,
    method: Method,
    photos: Sequence[ImageFile],
    reference_of: Callable[[int, np.random.Generator], np.ndarray],
    draws: int,
    seed: int,
) -> Path:
    """Writes pairs of clean images and a method's noisy ones.

    A denoiser is to be trained on them as on real pairs.

    Args:
      folder: gets `gt/NNNNN.png` and `noisy/NNNNN.png`; files that are there stay.
      method: see `nt_jax.evaluation.baselines`.
      photos: clean images; of larger ones a random 512x512 crop is used, another for each draw.
      reference_of: a photo's number and a generator -> noisy image, uint8 [H, W, 3].
      draws: noisy versions of each.
      seed: of crops, references and noise.

    Returns:
      The folder.

    Raises:
      InputError: there it holds what was made of other images.
    """
    claim(folder, {"photos": [str(photo) for photo in photos], "draws": draws, "seed": seed})
    for role in ("gt", "noisy"):
        (folder / role).mkdir(exist_ok=True)
    for index, photo in progress([*photos] * draws, len(photos) * draws, "noisy image"):
        name = f"{index:05}.png"
        if (folder / "noisy" / name).exists():
            continue
        rng = np.random.default_rng((seed, index))
        clean = crop(read_rgb(photo), rng)
        reference = crop(reference_of(index % len(photos), rng), rng)
        key = prng.fold_in(prng.key(seed), index)
        images = generation.by_reference(method)(
            generation.Images(clean, reference, reference), key
        )
        for role, pixels in (("gt", clean), ("noisy", generation.as_file(images))):
            with replacing(folder / role / name) as temporary:
                Image.fromarray(pixels).save(temporary, format="png")
    return folder


def crop(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cuts a random part of at most 512x512 pixels."""
    top, left = (int(rng.integers(max(side - _CROP, 0) + 1)) for side in image.shape[:2])
    return image[top : top + _CROP, left : left + _CROP]


class Scores(NamedTuple):
    """Of each image: PSNR in dB and SSIM, denoised and noisy; its name, what it is a crop of."""

    images: list[str]
    photographs: list[str]
    psnr: list[float]
    ssim: list[float]
    noisy_psnr: list[float]
    noisy_ssim: list[float]


def scores(
    workdirs: Sequence[Path],
    steps: int,
    place: str,
    scenes: Sequence[denoising.Scene],
    synthetic: denoising.Noise | None = None,
    seed: int = 0,
) -> list[Scores]:
    """Scores trained denoisers; each workdir keeps its scores as `scores/PLACE.json`.

    Args:
      workdirs: finished. Those without kept scores go over the images together.
      steps: that they were trained for.
      place: name of the set, the noise and the trial.
      scenes: see `denoising.evaluate`, as the others.
    """
    names = [f"{scene.name} {scene.rows} {scene.columns}" for scene in scenes]
    asked = {"steps": steps, "images": names, "synthetic": synthetic, "seed": seed}
    asked["protocol"] = report.PROTOCOL
    # Sets of the same name and images of the same names may be others.
    asked["files"] = fingerprint(file for scene in scenes for file in (scene.clean, scene.noisy))
    files = {str(workdir): workdir / "scores" / f"{place}.json" for workdir in workdirs}
    missing = {
        name: load_denoiser(name) for name, file in files.items() if not _is_kept(file, asked)
    }
    rows = {}
    if missing:
        print(f"{place}: scoring {len(missing)} denoiser(s)", flush=True)
        evaluated = denoising.evaluate(missing, scenes, Broken(skip=False), synthetic, seed)
        noisy = evaluated.scores[denoising.NOISY]
        for name in missing:
            found = evaluated.scores[name]
            rows[name] = [
                evaluated.images,
                evaluated.photographs,
                *(row[metric] for row in (found, noisy) for metric in ("psnr", "ssim")),
            ]
    return [Scores(*kept(file, asked, partial(rows.get, name))) for name, file in files.items()]


# --- Rows ----------------------------------------------------------------------------------------

_FAMILIES = {
    "noisetransfer": "NoiseTransfer",
    "srgbflow": "sRGB Flow",
    "danet": "DANet",
    "c2n": "C2N",
    "neca": "NeCA",
    "naflow": "NAFlow",
    "n2g": "N2G",
}


# Two recipes each, whose models differ in what they were trained on alone: DANet and GDANet, N2G_g
# and N2G_p.
_SEVERAL_RECIPES = ("danet", "n2g")


def load_generators(names: str) -> dict[str, Generator]:
    """Loads models of any family of a comma-separated list, by the name that they are asked for.

    Raises:
      InputError: one is no such model, or is given twice.
    """
    asked = [name.strip() for name in names.split(",") if name.strip()]
    if len(set(asked)) < len(asked):
        raise InputError(f"--model={names}: name each model once")
    return {name: load(name) for name in asked}


def titles_of(models: Mapping[str, Generator]) -> dict[str, str]:
    """Titles models' rows: the family, and the model's name where that tells too little.

    It does where several models or several recipes are of one family. Of a folder, the last part of
    its name is enough if it tells the models apart.
    """
    ends = [Path(name).name for name in models]
    distinct = len(set(ends)) == len(ends)
    kinds = {name: str(model.metadata["kind"]) for name, model in models.items()}
    families_of = list(kinds.values())
    titles = {}
    for name, kind in kinds.items():
        family = _FAMILIES.get(kind, kind.rpartition(".")[2])
        alone = families_of.count(kind) == 1 and kind not in _SEVERAL_RECIPES
        titles[name] = family if alone else f"{family}, {Path(name).name if distinct else name}"
    return titles


def digest_of(model: Generator) -> str:
    """Sums up a model's parameters."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(model.params):
        array = np.asarray(leaf)
        digest.update(f"{array.dtype} {array.shape}\n".encode() + array.tobytes())
    return digest.hexdigest()


def generated_rows(names: str, runs: Path) -> dict[str, str]:
    """Titles the rows `generated:MODEL` of denoisers, one for each of a comma-separated list.

    Says what a model is told of the noise: a training batch has references, but neither cameras nor
    the references' clean images.

    Args:
      names: the list.
      runs: folder of the denoisers; gets a note of each model that they are trained with.

    Raises:
      InputError: there is none, `runs` is of another model of that name, or as `load_generators`.
    """
    models = load_generators(names)
    if not models:
        raise InputError("the row `generated` needs --model")
    rows = {}
    for name, title in titles_of(models).items():
        row, digest = f"generated:{name}", digest_of(models[name])
        if kept(runs / f"{folder_name(row)}.json", {}, lambda digest=digest: digest) != digest:
            raise InputError(
                f"{runs} holds denoisers of another model {name}; choose another --output or"
                " --runs, or remove it"
            )
        told = "the reference" if "reference" in models[name].told else "nothing"
        rows[row] = f"{title} (told {told})"
    return rows


def folder_name(row: str) -> str:
    """Turns a row's name into a part of a folder's."""
    return re.sub(r"[^\w.-]", ".", row)


# --- Numbers -------------------------------------------------------------------------------------


def mean(values: Sequence[Sequence[float]], photographs: Sequence[str] = ()) -> Estimate:
    """Averages [seeds or trials, images], with the interval of `statistics.mean`."""
    return statistics.mean(np.mean(values, axis=0).tolist(), photographs)


def gap(
    ours: Sequence[Sequence[float]],
    true: Sequence[Sequence[float]],
    photographs: Sequence[str] = (),
) -> Estimate:
    """Averages ours - true, [seeds, images] each, pair by pair.

    The interval is of 95 %, by drawing seeds and photographs anew (both, as both are samples of
    what could have been); of one seed, photographs alone.

    Args:
      ours, true: what is compared.
      photographs: what each image is a crop of; none where every image is its own.
    """
    difference = np.asarray(ours, np.float64) - np.asarray(true, np.float64)
    of_image = statistics.numbered(photographs, difference.shape[1])
    counts = np.bincount(of_image)
    sums = np.stack([np.bincount(of_image, row) for row in difference])
    seeds, different = sums.shape
    if different < 2:
        return Estimate(float(difference.mean()), None)
    rng = np.random.default_rng(0)

    def draw(count: int) -> np.ndarray:
        return rng.integers(count, size=count)

    def drawn() -> float:
        rows, columns = draw(seeds), draw(different)
        return sums[np.ix_(rows, columns)].sum() / (seeds * counts[columns].sum())

    draws = [drawn() for _ in range(_RESAMPLES)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(float(difference.mean()), (float(low), float(high)))


def estimate_json(estimate: Estimate | None) -> dict[str, Any] | None:
    """Writes an estimate as in results.json."""
    if estimate is None:
        return None
    return {"mean": estimate.value, "interval": estimate.interval}


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

"""Table 2: denoisers of real noise, trained on generated and on true noise.

  python -m experiments.table2_real_denoising --model=small,runs/danet --pairs=SIDD_TRAIN \
    --val=SIDD_VAL,POLYU_VAL --output=DIR [--rows=generated,real,...] [--seeds=0,1,2]

A row is a RIDNet (`configs/denoiser.py`) trained on the clean images of --pairs with
  generated         the noise of --model, references are other pairs' noisy images; of several
                    models of any family, comma-separated, each is a row
  real              the true noise: the ceiling, from which gaps are taken
  camera            the camera model's, at random levels
  gaussian          white Gaussian noise, sigma 0 to 50
  white, poisson_gaussian, extracted   the baselines of `nt_jax/evaluation/baselines.py`, made
                    beforehand with other photographs' noisy images as references
and --method=MODULE:FUNCTION, made likewise; with --beforehand the models' noise, too, so that small
denoisers need not wait for a large generator in each step. All rows have the same network, patches,
batch, steps and regularisation. Budgets: smoke takes seconds a row; small is -small of the recipe,
for 2 CPU cores; paper is the paper's schedule.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import denoiser
from experiments import budget, intervals, parts, row_names
from nt_jax.broken import Broken
from nt_jax.compilation import use_compilation_cache
from nt_jax.data.catalogue.references import photograph
from nt_jax.data.catalogue.sources import find_pairs
from nt_jax.errors import InputError, run_command, unwind_on_signals
from nt_jax.evaluation import baselines, denoising, generation, report
from nt_jax.evaluation.baselines import Method
from nt_jax.evaluation.samples import usable_pairs
from nt_jax.evaluation.statistics import Estimate
from nt_jax.images import read_rgb
from nt_jax.inference.loading import load

GENERATED, TRUE = "generated", "real"
# Rows whose noise the training step makes, by name of the recipe; generated noise is the models'.
RECIPES = {
    TRUE: "true noise (the ceiling)",
    "camera": "camera model, random level",
    "gaussian": "white Gaussian, random level",
}
# Rows whose noise is made beforehand.
METHODS: dict[str, tuple[str, Method]] = {
    "white": ("white Gaussian, reference's level", baselines.white),
    "poisson_gaussian": ("Poisson-Gaussian, fitted", baselines.poisson_gaussian),
    "extracted": ("extracted and masked", baselines.extracted),
}
ROWS = (GENERATED, *RECIPES, *METHODS)
# PSNR and SSIM (paper, table 2).
PUBLISHED_SETS = ("SIDD validation blocks", "SIDD+", "DND")
PUBLISHED = {
    "NoiseTransfer": ("38.57 / .9112", "36.30 / .9095", "39.15 / .9492"),
    "true noise (the ceiling)": ("39.14 / .9155", "36.21 / .9057", "39.35 / .9502"),
    "DANet": ("35.91 / .8762", "34.64 / .8600", "37.54 / .9292"),
    "GDANet": ("36.58 / .8851", "35.22 / .8844", "37.13 / .9345"),
    "C2N": ("31.87 / .7274", "34.22 / .8290", "35.41 / .9032"),
    "CycleISP": ("38.09 / .9095", "35.49 / .9006", "38.95 / .9485"),
}
# Of NoiseTransfer to true noise.
PUBLISHED_GAPS = "-0.57, +0.09 and -0.20 dB"


class Study(NamedTuple):
    """Denoisers trained on real photographs.

    Attributes:
      titles: of the rows, by name.
      workdirs: of each row, one a seed.
      config: of the last training, for what the page says of all.
    """

    titles: dict[str, str]
    workdirs: dict[str, list[Path]]
    config: ConfigDict


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the flags that say what is trained."""
    parser.add_argument("--model", default="", help="for `generated`: names or folders, a,b")
    parser.add_argument("--pairs", required=True, type=Path, help="folder of pairs to train on")
    parser.add_argument("--val", required=True, help="folders of other pairs, comma-separated")
    parser.add_argument("--rows", default=",".join(ROWS), help="comma-separated, in this order")
    parser.add_argument("--beforehand", action="store_true", help="make the models' noise, too")
    parser.add_argument("--method", action="append", default=[], help="MODULE:FUNCTION, a row")


def train_all(args: Namespace, options: budget.Options) -> Study:
    """Trains the rows that are not trained yet.

    Raises:
      InputError: a wrong row, model, method or folder.
    """
    names = [name.strip() for name in args.rows.split(",") if name.strip()]
    for name in names:
        if name not in ROWS:
            raise InputError(f"--rows: unknown row {name!r}, known are {', '.join(ROWS)}")
    methods = METHODS | {spec: (spec, baselines.load_method(spec)) for spec in args.method}
    names += args.method
    if not names:
        raise InputError("--rows: give one or more")
    generated = row_names.generated_rows(args.model, options.runs) if GENERATED in names else {}
    if args.beforehand:
        methods |= {row: (title, _method_of(row)) for row, title in generated.items()}
    known = RECIPES | {name: title for name, (title, _) in methods.items()}
    titles: dict[str, str] = {}
    for name in names:
        titles |= generated if name == GENERATED else {name: known[name]}
    fields = {
        # That of the paper's study of real noise, whatever a row's recipe has.
        "train.l2": denoiser.get_config(TRUE).train.l2,
        "data.photos": "",
        "data.pairs": str(args.pairs),
        "eval.photos": "",
        "eval.pairs": args.val,
    }
    workdirs = {}
    for name in titles:
        folder_name = row_names.folder_name(name)
        workdirs[name] = [
            options.runs / f"real-{folder_name}-{options.name}-seed{seed}" for seed in options.seeds
        ]
        for seed, workdir in zip(options.seeds, workdirs[name], strict=True):
            recipe, changes = name, dict(fields)
            if name in methods:
                recipe = TRUE
                folder = options.runs / f"noise-{folder_name}-{options.name}-seed{seed}"
                changes["data.pairs"] = str(
                    _make_noise(methods[name][1], args.pairs, folder, options.budget.draws, seed)
                )
            elif name in generated:
                recipe, _, changes["denoiser.model"] = name.partition(":")
            config = budget.denoiser_config(recipe, options, seed, changes)
            budget.train(config, workdir)
    return Study(titles, workdirs, config)


def _method_of(row: str) -> Method:
    """Makes a method of a row `generated:MODEL`.

    Raises:
      InputError: the model asks for more than the reference.
    """
    _, _, name = row.partition(":")
    model = load(name)
    if model.told != ("reference",):
        raise InputError(f"--beforehand: {name} is told {generation.told_by(model)}")

    generate = generation.of_model(model)

    def transfer(clean: np.ndarray, reference: np.ndarray, key: jax.Array) -> np.ndarray:
        return generate(generation.Images(clean, reference, reference), key)

    return transfer


def _make_noise(method: Method, pairs_folder: Path, folder: Path, draws: int, seed: int) -> Path:
    pairs = find_pairs(pairs_folder)
    photographs = np.array([photograph(pair) for pair in pairs])
    if len(set(photographs)) < 2:
        raise InputError(f"{pairs_folder}: one photograph only; a reference is another one's")

    def reference_of(index: int, rng: np.random.Generator) -> np.ndarray:
        others = np.flatnonzero(photographs != photographs[index])
        return read_rgb(pairs[rng.choice(others)].noisy)

    clean = [pair.clean for pair in pairs]
    return parts.make_pairs(folder, method, clean, reference_of, draws, seed)


def score_all(study: Study, val: str, options: budget.Options) -> dict[str, dict[str, Any]]:
    """Computes scores by set and row: a list of `parts.Scores`, one a seed."""
    results: dict[str, dict[str, Any]] = {}
    steps = int(study.config.train.steps)
    folders = row_names.split(val)
    for folder, title in zip(folders, row_names.titles_of_folders(folders), strict=True):
        scenes = denoising.scenes_of_pairs(usable_pairs(folder, Broken(skip=False)))
        scenes = scenes[: options.budget.images]
        place = title.replace("/", "_")
        workdirs = [workdir for row in study.workdirs.values() for workdir in row]
        scores = iter(parts.scores(workdirs, steps, place, scenes))
        results[place] = {name: [next(scores) for _ in row] for name, row in study.workdirs.items()}
    return results


def gaps(scores: dict[str, list[parts.Scores]]) -> dict[str, Estimate]:
    """Computes PSNR of each row less that of the true noise's; none without that row."""
    if TRUE not in scores:
        return {}
    true = [s.psnr for s in scores[TRUE]]
    return {
        name: intervals.gap([s.psnr for s in rows], true, rows[0].photographs)
        for name, rows in scores.items()
        if name != TRUE
    }


def _mean(seeds: Sequence[parts.Scores], metric: str) -> Estimate:
    return intervals.mean([getattr(scores, metric) for scores in seeds], seeds[0].photographs)


def table(titles: dict[str, str], scores: dict[str, list[parts.Scores]]) -> str:
    """Writes Markdown of one set."""
    found = gaps(scores)
    rows = [
        [
            titles[name],
            report.cell(_mean(seeds, "psnr"), 2),
            report.cell(_mean(seeds, "ssim"), 4),
            report.cell(found.get(name), 2),
        ]
        for name, seeds in scores.items()
    ]
    first = next(iter(scores.values()))[:1]
    noisy = [
        report.cell(_mean(first, "noisy_psnr"), 2),
        report.cell(_mean(first, "noisy_ssim"), 4),
    ]
    rows.append(["noisy input", *noisy, "–"])
    header = ["trained on", "PSNR, dB", "SSIM", "gap to true noise, dB"]
    return report.markdown_table(header, rows)


def begin(
    module: str, doc: str, argv: list[str] | None, changes: Sequence[str]
) -> tuple[Namespace, budget.Options, Study]:
    """Starts this table and figure 5: reads flags, trains all denoisers."""
    parser = budget.make_parser(module, doc, changes)
    add_arguments(parser)
    args = parser.parse_args(argv)
    unwind_on_signals()
    use_compilation_cache()
    val = row_names.split(args.val)
    options = budget.parse_options(args, [args.pairs, *val])
    row_names.titles_of_folders(val)  # before anything is trained
    study = train_all(args, options)
    return args, options, study


def main(argv: list[str] | None = None) -> None:
    """Runs it.

    Raises:
      InputError: a wrong flag, model, folder or image.
      DivergedError: a training became non-finite.
      PreemptedError: a signal stopped it; the same command goes on.
    """
    args, options, study = begin("table2_real_denoising", __doc__, argv, ["steps", "images"])
    scores = score_all(study, args.val, options)
    tables = {place: table(study.titles, rows) for place, rows in scores.items()}
    tables["Published (the paper's table 2), PSNR / SSIM"] = report.markdown_table(
        ["trained on", *PUBLISHED_SETS], [[name, *values] for name, values in PUBLISHED.items()]
    )
    notes = [
        budget.describe(options, study.config),
        f"Trained on {args.pairs}; generator {args.model}; noise made beforehand: "
        f"{options.budget.draws} of each clean image.",
        "True noise and noise made beforehand are of 8 bits, as files are; other noise is not "
        "rounded. Generators are told what a training batch has.",
        f"Brackets: {report.INTERVALS} Gaps: over seeds, too. What is published is "
        "of other images and the paper's schedule; its gaps of NoiseTransfer to true noise are "
        f"{PUBLISHED_GAPS}.",
    ]
    results = {
        place: {
            name: {
                "psnr": intervals.as_json(_mean(seeds, "psnr")),
                "ssim": intervals.as_json(_mean(seeds, "ssim")),
                "gap": intervals.as_json(gaps(rows).get(name)),
                "psnr_by_seed": [float(np.mean(s.psnr)) for s in seeds],
            }
            for name, seeds in rows.items()
        }
        for place, rows in scores.items()
    }
    text = budget.write(options, "Table 2: real noise", tables, notes, {"sets": results})
    print(f"{text}\nresults: {options.output}")


if __name__ == "__main__":
    run_command(main)

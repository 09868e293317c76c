"""Table 3: denoisers of synthetic noise, trained on generated and on true noise.

  python -m experiments.table3_synthetic_denoising --model=small --n2g_g=runs/n2g_g \
    --n2g_p=runs/n2g_p --photos=CLEAN_PHOTOS --bsds=BSDS500 --output=DIR \
    [--rows=generated,synthetic,...] [--seeds=0,1,2]

A row is a RIDNet (`configs/denoiser.py`) trained on the photographs of --photos with
  generated   the noise of --model, references are other photographs with synthetic noise; of
              several models of any family, comma-separated, each is a row
  synthetic   the true noise: Gaussian, Poisson or both, from which gaps are taken
  n2g_g, n2g_p   N2G's: the noise that the model --n2g_g (--n2g_p) takes out of other photographs
              with Gaussian (Poisson) noise; rows that are there if their model is given
  extracted_gaussian, extracted_poisson   likewise with non-local means in place of a network, made
              beforehand; see `nt_jax/evaluation/baselines.py`
and scored on the images of --bsds with the noise of the paper's six columns; random columns draw
a level for each image anew in each of 10 trials. Every row sees the same noise. Budgets: smoke
takes seconds a row; small is -small of the recipe, for 2 CPU cores; paper is the paper's schedule.
"""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments import budget, intervals, parts, row_names
from nt_jax import prng
from nt_jax.broken import Broken
from nt_jax.compilation import use_compilation_cache
from nt_jax.data.catalogue.sources import find_photos
from nt_jax.errors import InputError, run_command, unwind_on_signals
from nt_jax.evaluation import baselines, denoising, report
from nt_jax.evaluation.denoising import NOISY
from nt_jax.evaluation.oracles import to_bytes
from nt_jax.evaluation.samples import usable_photos
from nt_jax.evaluation.statistics import Estimate
from nt_jax.images import read_rgb
from nt_jax.inference.loading import load

GENERATED, TRUE = "generated", "synthetic"


class Row(NamedTuple):
    """How a denoiser is trained.

    Attributes:
      title: of the row.
      kind: of synthetic noise on the references; "" for all kinds.
      model: that makes the noise; "" for none.
    """

    title: str
    kind: str = ""
    model: str = ""


# Rows without a model.
ROWS = {
    TRUE: Row("true noise (the ceiling)"),
    "extracted_gaussian": Row("extracted by non-local means, Gaussian", "gaussian"),
    "extracted_poisson": Row("extracted by non-local means, Poisson", "poisson"),
}
# Those of N2G's models.
N2G = {"n2g_g": Row("N2G, Gaussian", "gaussian"), "n2g_p": Row("N2G, Poisson", "poisson")}
# PSNR (paper, table 3) by title.
PUBLISHED = {
    "NoiseTransfer": (31.27, 32.76, 30.58, 29.95, 29.16, 28.71),
    ROWS[TRUE].title: (31.48, 33.20, 30.74, 30.20, 29.31, 28.85),
    N2G["n2g_g"].title: (31.21, 32.82, 30.28, 29.52, 28.80, 28.15),
    N2G["n2g_p"].title: (31.17, 32.74, 30.31, 29.56, 28.93, 28.32),
}
# Kind, sigma and photons at white, as flags of `eval denoising`.
COLUMNS = {
    "Gaussian 25": ("gaussian", "25", "30"),
    "Gaussian 0-50": ("gaussian", "0:50", "30"),
    "Poisson 30": ("poisson", "25", "30"),
    "Poisson 5-50": ("poisson", "25", "5:50"),
    "both 30, 25": ("poisson_gaussian", "25", "30"),
    "both random": ("poisson_gaussian", "0:50", "5:50"),
}
# Of noise to be extracted, as the study's.
SIGMA, PHOTONS = (0.0, 50.0), (5.0, 50.0)

# By row and seed: PSNR, SSIM, noisy PSNR and noisy SSIM of each image, means over trials.
_Scores = dict[str, list[np.ndarray]]


def rows_of(args: Namespace, runs: Path) -> dict[str, Row]:
    """Makes the rows that the flags ask for, by name, of denoisers that are in `runs`.

    Raises:
      InputError: there is none, or an unknown one, or a model is missing.
    """
    names = [name.strip() for name in args.rows.split(",") if name.strip()]
    rows: dict[str, Row] = {}
    for name in names:
        if name == GENERATED:
            for row, title in row_names.generated_rows(args.model, runs).items():
                rows[row] = Row(title, model=row.partition(":")[2])
        elif name in ROWS:
            rows[name] = ROWS[name]
        else:
            raise InputError(f"--rows={args.rows}: choose from {', '.join((GENERATED, *ROWS))}")
    for name, row in N2G.items():
        if model := getattr(args, name):
            load(model)  # before anything is trained
            rows[name] = row._replace(model=model)
    if not rows:
        raise InputError("--rows: give one or more")
    return rows


def train_all(
    rows: Mapping[str, Row], photos: Path, options: budget.Options
) -> tuple[dict[str, list[Path]], ConfigDict]:
    """Trains what is not trained yet: workdirs by row, and the last config."""
    workdirs = {}
    for name, row in rows.items():
        folder_name = row_names.folder_name(name)
        workdirs[name] = [
            options.runs / f"synthetic-{folder_name}-{options.name}-seed{seed}"
            for seed in options.seeds
        ]
        for seed, workdir in zip(options.seeds, workdirs[name], strict=True):
            changes: dict[str, Any] = {"data.photos": str(photos), "data.pairs": ""}
            recipe = TRUE
            if row.model:
                recipe = GENERATED
                changes |= {"denoiser.model": row.model, "train.l2": 1e-6}
                if row.kind:
                    changes |= {"data.noise_kinds": (row.kind,), "data.noise_kind_weights": (1.0,)}
            elif row.kind:
                # Pairs, but of the synthetic study.
                recipe = "real"
                folder = _extract(row.kind, photos, options, seed)
                changes = {"data.photos": "", "data.pairs": str(folder), "train.l2": 1e-6}
                changes |= {"eval.photos": "skimage-heldout"}
            config = budget.denoiser_config(recipe, options, seed, changes)
            budget.train(config, workdir)
    return workdirs, config


def _extract(kind: str, photos: Path, options: budget.Options, seed: int) -> Path:
    """Makes a folder of pairs with noise taken out of photographs with that noise."""
    files = find_photos(photos)
    if len(files) < 2:
        raise InputError(f"{photos}: one photograph only; a reference is another")
    noise = denoising.Noise(kind, SIGMA, PHOTONS)

    def reference_of(index: int, rng: np.random.Generator) -> np.ndarray:
        other = (index + 1 + int(rng.integers(len(files) - 1))) % len(files)
        image = parts.crop(read_rgb(files[other]), rng)
        key = prng.key(int(rng.integers(2**32)))
        return to_bytes(255 * denoising.add_noise(image, noise, key))

    folder = options.runs / f"noise-extracted_{kind}-{options.name}-seed{seed}"
    draws = options.budget.draws
    return parts.make_pairs(folder, baselines.extracted, files, reference_of, draws, seed)


def score_all(
    workdirs: Mapping[str, list[Path]], steps: int, bsds: Path, options: budget.Options
) -> dict[str, _Scores]:
    """Computes scores by column, row and seed: [4, images]."""
    photos = usable_photos(bsds, Broken(skip=False))[: options.budget.images]
    scenes = denoising.scenes_of_photos(photos)
    results: dict[str, _Scores] = {}
    for column, flags in COLUMNS.items():
        noise = denoising.make_noise(*flags)
        random = any(low < high for low, high in _ranges(noise))
        trials = options.budget.trials if random else 1
        place = column.replace(" ", "_").replace(",", "")
        if options.budget.images:  # beside the scores of all images
            place += f"_{len(photos)}_images"
        every = [workdir for row in workdirs.values() for workdir in row]
        scores = [
            parts.scores(every, steps, f"{place}_trial{trial}", scenes, noise, trial)
            for trial in range(trials)
        ]
        # [trials, workdirs, 4, images] -> mean over trials.
        means = iter(
            np.mean(
                [[[s.psnr, s.ssim, s.noisy_psnr, s.noisy_ssim] for s in trial] for trial in scores],
                axis=0,
            )
        )
        results[column] = {name: [next(means) for _ in row] for name, row in workdirs.items()}
    return results


def _ranges(noise: denoising.Noise) -> list[tuple[float, float]]:
    """Lists the ranges that the kind of noise uses."""
    used = []
    if "gaussian" in noise.kind:
        used.append(noise.sigma)
    if "poisson" in noise.kind:
        used.append(noise.lam)
    return used


def estimates(scores: _Scores) -> dict[str, dict[str, Estimate | None]]:
    """Estimates PSNR, SSIM and gap to the true noise's row, by row."""
    found: dict[str, dict[str, Estimate | None]] = {}
    for name, seeds in scores.items():
        gap = None
        if TRUE in scores and name != TRUE:
            gap = intervals.gap([s[0] for s in seeds], [s[0] for s in scores[TRUE]])
        psnr, ssim = (intervals.mean([s[metric].tolist() for s in seeds]) for metric in (0, 1))
        found[name] = {"psnr": psnr, "ssim": ssim, "gap": gap}
    first = next(iter(scores.values()))[0]
    noisy = [intervals.mean([first[metric].tolist()]) for metric in (2, 3)]
    return found | {NOISY: {"psnr": noisy[0], "ssim": noisy[1], "gap": None}}


def tables(
    titles: Mapping[str, str], found: Mapping[str, Mapping[str, Mapping[str, Estimate | None]]]
) -> dict[str, str]:
    """Writes Markdown by heading: PSNR, SSIM, gaps, and what is published.

    Args:
      titles: of the rows, by name.
      found: as `estimates` gives it, by column.
    """
    names = [*titles, NOISY]
    rows = {
        metric: [
            [
                titles.get(name, name),
                *(report.cell(found[column][name][metric], digits) for column in COLUMNS),
            ]
            for name in names
        ]
        for metric, digits in (("psnr", 2), ("ssim", 4), ("gap", 2))
    }
    header = ["trained on", *COLUMNS]
    result = {
        "PSNR, dB": report.markdown_table(header, rows["psnr"]),
        "SSIM": report.markdown_table(header, rows["ssim"]),
    }
    gaps = [row for name, row in zip(names, rows["gap"], strict=True) if name not in (TRUE, NOISY)]
    if TRUE in titles and gaps:
        result["gap to true noise, dB"] = report.markdown_table(header, gaps)
    true = PUBLISHED[ROWS[TRUE].title]
    published = [
        [title, *(f"{a:.2f} ({a - b:+.2f})" for a, b in zip(values, true, strict=True))]
        for title, values in PUBLISHED.items()
    ]
    heading = "Published (the paper's table 3), PSNR and gap, dB"
    return result | {heading: report.markdown_table(header, published)}


def main(argv: list[str] | None = None) -> None:
    """Runs it.

    Raises:
      InputError: a wrong flag, model, folder or image.
      DivergedError: a training became non-finite.
      PreemptedError: a signal stopped it; the same command goes on.
    """
    parser = budget.make_parser("table3_synthetic_denoising", __doc__)
    parser.add_argument("--model", default="", help="for `generated`: names or folders, a,b")
    for name, row in N2G.items():
        parser.add_argument(f"--{name}", help=f"model for the row {row.title}: name or folder")
    parser.add_argument("--photos", required=True, type=Path, help="photographs to train on")
    parser.add_argument("--bsds", required=True, type=Path, help="images to score on")
    every = ",".join((GENERATED, *ROWS))
    parser.add_argument("--rows", default=every, help="comma-separated")
    args = parser.parse_args(argv)
    unwind_on_signals()
    use_compilation_cache()
    options = budget.parse_options(args, [args.photos, args.bsds])
    rows = rows_of(args, options.runs)

    workdirs, config = train_all(rows, args.photos, options)
    scores = score_all(workdirs, int(config.train.steps), args.bsds, options)
    found = {column: estimates(of_rows) for column, of_rows in scores.items()}
    first = next(iter(next(iter(scores.values())).values()))[0]
    notes = [
        budget.describe(options, config),
        f"Trained on {args.photos}, generators {args.model}; scored on {first.shape[1]} images of "
        f"{args.bsds}; random columns: means of {options.budget.trials} trials. Noise made "
        f"beforehand (extracted): {options.budget.draws} of each photograph.",
        "Brackets: 95 % intervals over images, of gaps over seeds and images. Published: the "
        "paper's schedule, trained on DIV2K, scored on all 500 images.",
    ]
    results: dict[str, Any] = {}
    for column, of_rows in found.items():
        results[column] = {}
        for name, row in of_rows.items():
            by_seed = [float(s[0].mean()) for s in scores[column].get(name, [])]
            numbers = {metric: intervals.as_json(value) for metric, value in row.items()}
            results[column][name] = {"psnr_by_seed": by_seed, **numbers}
    titles = {name: row.title for name, row in rows.items()}
    columns = {"columns": results}
    text = budget.write(options, "Table 3: synthetic noise", tables(titles, found), notes, columns)
    print(f"{text}\nresults: {options.output}")


if __name__ == "__main__":
    run_command(main)

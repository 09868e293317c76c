"""Table 3: denoisers of synthetic noise, trained on generated and on true noise.

  python -m experiments.table3_synthetic_denoising --model=runs/small --photos=CLEAN_PHOTOS \
    --bsds=BSDS500 --output=DIR [--rows=generated,synthetic,...] [--seeds=0,1,2]

A row is a RIDNet (`configs/denoiser.py`) trained on the photographs of --photos with
  generated   the model's noise, references are other photographs with synthetic noise
  synthetic   the true noise: Gaussian, Poisson or both, from which gaps are taken
  extracted_gaussian, extracted_poisson   N2G-style: noise taken out of other photographs with
              Gaussian (Poisson) noise, made beforehand; see `nt_jax/evaluation/baselines.py`
and scored on the images of --bsds with the noise of the paper's six columns; random columns draw
a level for each image anew in each of 10 trials. Every row sees the same noise. Budgets: smoke
takes seconds a row; small is -small of the recipe, for 2 CPU cores; paper is the paper's schedule.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments import budget
from nt_jax import prng
from nt_jax.broken import Broken
from nt_jax.compilation import use_compilation_cache
from nt_jax.data.catalogue.sources import find_photos
from nt_jax.errors import InputError, run_command, unwind_on_sigterm
from nt_jax.evaluation import baselines, denoising, report
from nt_jax.evaluation.oracles import to_bytes
from nt_jax.evaluation.samples import usable_photos
from nt_jax.evaluation.statistics import Estimate
from nt_jax.images import read_rgb

TRUE = "synthetic"


class Row(NamedTuple):
    """Title, the kind of noise that is extracted for it, and the published PSNR of each column."""

    title: str
    extracted: str
    published: tuple[float, ...]


ROWS = {
    "generated": Row("NoiseTransfer", "", (31.27, 32.76, 30.58, 29.95, 29.16, 28.71)),
    TRUE: Row("true noise (the ceiling)", "", (31.48, 33.20, 30.74, 30.20, 29.31, 28.85)),
    "extracted_gaussian": Row(
        "N2G, Gaussian", "gaussian", (31.21, 32.82, 30.28, 29.52, 28.80, 28.15)
    ),
    "extracted_poisson": Row("N2G, Poisson", "poisson", (31.17, 32.74, 30.31, 29.56, 28.93, 28.32)),
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


def train_all(
    names: list[str], model: str | None, photos: Path, options: budget.Options
) -> tuple[dict[str, list[Path]], ConfigDict]:
    """Trains what is not trained yet: workdirs by row, and the last config."""
    workdirs = {}
    for name in names:
        workdirs[name] = [
            options.runs / f"synthetic-{name}-{options.name}-seed{seed}" for seed in options.seeds
        ]
        for seed, workdir in zip(options.seeds, workdirs[name], strict=True):
            changes: dict[str, Any] = {"data.photos": str(photos), "data.pairs": ""}
            recipe, kind = name, ROWS[name].extracted
            if kind:
                # Pairs, but of the synthetic study.
                recipe = "real"
                folder = _extract(kind, photos, options, seed)
                changes = {"data.photos": "", "data.pairs": str(folder), "train.l2": 1e-6}
                changes |= {"eval.photos": "skimage-heldout"}
            elif name == "generated":
                changes |= {"denoiser.model": model, "train.l2": 1e-6}
            config = budget.denoiser_config(recipe, options, seed, changes)
            budget.train(config, workdir)
    return workdirs, config


def _extract(kind: str, photos: Path, options: budget.Options, seed: int) -> Path:
    """Folder of pairs with noise taken out of photographs with that noise."""
    files = find_photos(photos)
    if len(files) < 2:
        raise InputError(f"{photos}: one photograph only; a reference is another")
    noise = denoising.Noise(kind, SIGMA, PHOTONS)

    def reference_of(index: int, rng: np.random.Generator) -> np.ndarray:
        other = (index + 1 + int(rng.integers(len(files) - 1))) % len(files)
        image = budget.crop(read_rgb(files[other]), rng)
        key = prng.key(int(rng.integers(2**32)))
        return to_bytes(255 * denoising.add_noise(image, noise, key))

    folder = options.runs / f"noise-extracted_{kind}-{options.name}-seed{seed}"
    draws = options.budget.draws
    return budget.make_pairs(folder, baselines.extracted, files, reference_of, draws, seed)


def score_all(
    workdirs: Mapping[str, list[Path]], steps: int, bsds: Path, options: budget.Options
) -> dict[str, _Scores]:
    """Scores by column, row and seed: [4, images]."""
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
            budget.scores(every, steps, f"{place}_trial{trial}", scenes, noise, trial)
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
    """Those that the kind of noise uses."""
    used = []
    if "gaussian" in noise.kind:
        used.append(noise.sigma)
    if "poisson" in noise.kind:
        used.append(noise.lam)
    return used


def estimates(scores: _Scores) -> dict[str, dict[str, Estimate | None]]:
    """PSNR, SSIM and gap to the true noise's row, by row."""
    found: dict[str, dict[str, Estimate | None]] = {}
    for name, seeds in scores.items():
        gap = None
        if TRUE in scores and name != TRUE:
            gap = budget.gap([s[0] for s in seeds], [s[0] for s in scores[TRUE]])
        psnr, ssim = (budget.mean([s[metric].tolist() for s in seeds]) for metric in (0, 1))
        found[name] = {"psnr": psnr, "ssim": ssim, "gap": gap}
    first = next(iter(scores.values()))[0]
    noisy = [budget.mean([first[metric].tolist()]) for metric in (2, 3)]
    return found | {"noisy input": {"psnr": noisy[0], "ssim": noisy[1], "gap": None}}


def tables(found: Mapping[str, Mapping[str, Mapping[str, Estimate | None]]]) -> dict[str, str]:
    """Markdown by heading: PSNR, SSIM, gaps."""
    names = list(next(iter(found.values())))
    titles = {name: ROWS[name].title if name in ROWS else name for name in names}

    def published(name: str, index: int) -> str:
        return f"{ROWS[name].published[index]:.2f}" if name in ROWS else "–"

    psnr_header = ["trained on"]
    for column in COLUMNS:
        psnr_header += [column, "published"]
    psnr = [
        [titles[name]]
        + [
            cell
            for index, column in enumerate(COLUMNS)
            for cell in (report.cell(found[column][name]["psnr"], 2), published(name, index))
        ]
        for name in names
    ]
    ssim = [
        [titles[name], *(report.cell(found[column][name]["ssim"], 4) for column in COLUMNS)]
        for name in names
    ]
    result = {
        "PSNR, dB": report.markdown_table(psnr_header, psnr),
        "SSIM": report.markdown_table(["trained on", *COLUMNS], ssim),
    }
    others = [name for name in names if name in ROWS and name != TRUE]
    if TRUE in names and others:
        gaps = []
        for name in others:
            row = [titles[name]]
            for index, column in enumerate(COLUMNS):
                theirs = ROWS[name].published[index] - ROWS[TRUE].published[index]
                row += [report.cell(found[column][name]["gap"], 2), f"{theirs:.2f}"]
            gaps.append(row)
        result["gap to true noise, dB"] = report.markdown_table(psnr_header, gaps)
    return result


def main(argv: list[str] | None = None) -> None:
    """Runs it.

    Raises:
      InputError: a wrong flag, model, folder or image.
      DivergedError: a training became non-finite.
      PreemptedError: a signal stopped it; the same command goes on.
    """
    parser = budget.make_parser("table3_synthetic_denoising", __doc__)
    parser.add_argument("--model", help="for the row `generated`: bundled name or folder")
    parser.add_argument("--photos", required=True, type=Path, help="photographs to train on")
    parser.add_argument("--bsds", required=True, type=Path, help="images to score on")
    parser.add_argument("--rows", default=",".join(ROWS), help="comma-separated")
    args = parser.parse_args(argv)
    unwind_on_sigterm()
    use_compilation_cache()
    names = [name.strip() for name in args.rows.split(",") if name.strip()]
    unknown = [name for name in names if name not in ROWS]
    if unknown or not names:
        raise InputError(f"--rows={args.rows}: choose from {', '.join(ROWS)}")
    if "generated" in names and not args.model:
        raise InputError("the row `generated` needs --model")
    options = budget.parse_options(args, [args.photos, args.bsds])

    workdirs, config = train_all(names, args.model, args.photos, options)
    scores = score_all(workdirs, int(config.train.steps), args.bsds, options)
    found = {column: estimates(rows) for column, rows in scores.items()}
    first = next(iter(next(iter(scores.values())).values()))[0]
    notes = [
        budget.describe(options, config),
        f"Trained on {args.photos}, generator {args.model}; scored on {first.shape[1]} images of "
        f"{args.bsds}; random columns: means of {options.budget.trials} trials. Noise made "
        f"beforehand (N2G): {options.budget.draws} of each photograph.",
        "Brackets: 95 % intervals over images, of gaps over seeds and images. Published: the "
        "paper's schedule, trained on DIV2K, scored on all 500 images. N2G there trains a network "
        "to extract noise; here non-local means does.",
    ]
    results: dict[str, Any] = {}
    for column, rows in found.items():
        results[column] = {}
        for name, row in rows.items():
            by_seed = [float(s[0].mean()) for s in scores[column].get(name, [])]
            numbers = {metric: budget.estimate_json(value) for metric, value in row.items()}
            results[column][name] = {"psnr_by_seed": by_seed, **numbers}
    columns = {"columns": results}
    text = budget.write(options, "Table 3: synthetic noise", tables(found), notes, columns)
    print(f"{text}\nresults: {options.output}")


if __name__ == "__main__":
    run_command(main)

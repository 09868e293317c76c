"""Table 1: AKLD and KS of generated noise, beside what each generator is told and took to train.

  python -m experiments.table1_generation --model=small,runs/danet --pairs=SIDD_VAL,POLYU_VAL \
    --output=DIR
  python -m experiments.table1_generation --model=runs/small --photos=BSDS500 --output=DIR

A table for each folder of --pairs, and for each kind of synthetic noise on --photos. Each generator
is scored with two references: the scored image itself (`self`, as published) and another image with
the same noise (`other`). --model takes models of any family, comma-separated; --method=
MODULE:FUNCTION adds a row of anybody's generator, see `nt_jax/evaluation/baselines.py`. What the
paper publishes is of other images, and a table of its own. Budgets: smoke scores 3 images of a set,
the others all of them; nothing is trained.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from experiments import budget, parts, row_names
from nt_jax import prng
from nt_jax.broken import Broken
from nt_jax.compilation import use_compilation_cache
from nt_jax.data.catalogue.sources import ImageFile
from nt_jax.errors import InputError, run_command, unwind_on_signals
from nt_jax.evaluation import denoising, generation, report
from nt_jax.evaluation.baselines import BASELINES, BLIND, load_method
from nt_jax.evaluation.oracles import CEILING, ORACLES, Generate, to_bytes
from nt_jax.evaluation.samples import (
    LARGEST_WHOLE,
    Sample,
    other_references,
    samples_of_pairs,
    usable_pairs,
    usable_photos,
)
from nt_jax.evaluation.statistics import Estimate
from nt_jax.families import Generator
from nt_jax.files import replacing
from nt_jax.images import image_size, read_rgb

# AKLD and KS (paper, table 1).
PUBLISHED_SETS = ("SIDD validation blocks", "SIDD+")
PUBLISHED = {
    "NoiseTransfer": (".1655 / .0617", ".2324 / .1537"),
    "DANet": (".2117 / .0732", ".4144 / .1468"),
    "GDANet": (".2431 / .1079", ".4744 / .2557"),
    "C2N": (".3138 / .1499", ".2882 / .1330"),
    "CycleISP": (".6881 / .1743", ".9412 / .1743"),
}
SECOND_DRAW = "true noise, drawn again"
REFERENCES = ("self", "other")
COLUMNS = (
    *(("akld", reference) for reference in REFERENCES),
    *(("ks", reference) for reference in REFERENCES),
    *(("c2st", reference) for reference in REFERENCES),
    ("lag1_error", "self"),
    ("psd_error", "self"),
    ("channel_correlation_error", "self"),
)
# Range of sigma, 0 to 255 scale, and of photons at white: those of table 3.
SIGMA, PHOTONS = (0.0, 50.0), (5.0, 50.0)


class About(NamedTuple):
    """Facts of what makes a row; None where one is not known.

    Attributes:
      told: of the noise that it is to make.
      parameters: of what makes the noise.
      steps: of its training.
      seconds: that these took.
    """

    told: str
    parameters: int | None = None
    steps: int | None = None
    seconds: float | None = None

    def cells(self) -> list[str]:
        """Writes its cells of the table."""
        hours = None if self.seconds is None else f"{self.seconds / 3600:.2f}"
        numbers = (f"{n:,}" if n is not None else "–" for n in (self.parameters, self.steps))
        return [self.told, *numbers, hours or "–"]


def about_model(model: Generator) -> About:
    """Reads what a model's folder says of it; converted ones do not tell steps."""
    told, parameters = generation.told_by(model), generation.parameters_of(model)
    return About(told, parameters, model.metadata.get("step"), model.metadata.get("seconds"))


def about_others(methods: Sequence[str]) -> dict[str, About]:
    """Describes rows that are not models: nothing is trained, but what a user's method does."""
    rows = {name: About("the reference") for name in methods}
    for name, method in BASELINES.items():
        rows[name] = About("nothing" if method in BLIND else "the reference", 0, 0, 0.0)
    return rows | dict.fromkeys((CEILING, *ORACLES, SECOND_DRAW), About("the truth", 0, 0, 0.0))


def synthetic_samples(
    kind: str, photos: Sequence[ImageFile], folder: Path, seed: int
) -> list[Sample]:
    """Writes photographs, the middle of large ones, with synthetic noise of spread levels as files.

    Two photographs in turn share a level, so that one can be the other's reference. Beside the
    noisy image lies a second draw of the same noise: what a perfect generator would give.

    Raises:
      InputError: the folder holds what was made of other photographs or with another seed.
    """
    made_of = [[str(photo), Path(photo).stat().st_size] for photo in photos]
    parts.claim(folder, {"kind": kind, "photos": made_of, "seed": seed})
    samples = []
    settings = -(-len(photos) // 2)
    for index, photo in enumerate(photos):
        number = min(index // 2, settings - 1)
        spread = (number + 0.5) / settings
        sigma, photons = (low + spread * (high - low) for low, high in (SIGMA, PHOTONS))
        noise = denoising.Noise(kind, (sigma, sigma), (photons, photons))
        files = [folder / f"{index:04}_{draw}.png" for draw in ("noisy", "again")]
        for draw, file in enumerate(files):
            if file.exists():
                continue
            key = prng.fold_in(prng.key(seed), 2 * index + draw)
            noisy = to_bytes(255 * denoising.add_noise(read_rgb(photo), noise, key))
            with replacing(file) as temporary:
                Image.fromarray(noisy).save(temporary, format="png")
        height, width = image_size(photo)
        window = _middle(height), _middle(width)
        name = f"{index:04}"
        samples.append(Sample(name, f"{number}", photo, files[0], files[1], *window, name))
    return samples


def _middle(side: int) -> slice:
    start = max(0, side - LARGEST_WHOLE) // 2
    return slice(start, start + min(side, LARGEST_WHOLE))


def score(
    samples: Sequence[Sample],
    rows: Mapping[str, Generate],
    options: budget.Options,
    place: str,
    asked: Mapping[str, Any],
) -> dict[str, Any]:
    """Computes `rows` of the JSON of `eval generation` by reference, kept in the output."""
    results = {}
    for reference in REFERENCES:
        broken = Broken(skip=reference == "other")
        scored: Sequence[Sample] = samples
        references: Sequence[Sample | None] = [None] * len(samples)
        if reference == "other":
            try:
                scored, references = other_references(samples, broken)
            except InputError:  # no image has one; `broken` names them
                results[reference] = {"rows": {}, "images": [], "left_out": broken.skipped}
                continue
        scored = scored[: options.budget.images]

        def compute(
            scored: Sequence[Sample] = scored, references: Sequence[Sample | None] = references
        ) -> dict[str, Any]:
            evaluated = generation.evaluate(
                scored, references, rows, Broken(skip=False), options.seeds[0]
            )
            return generation.as_json(evaluated)

        names = [f"{sample.image} {sample.rows} {sample.columns}" for sample in scored]
        question = {**asked, "images": names, "rows": list(rows), "seed": options.seeds[0]}
        question["protocol"] = report.PROTOCOL
        seen = [sample for sample in (*scored, *references) if sample]
        question["files"] = parts.fingerprint(
            file for sample in seen for file in (sample.clean, sample.noisy, sample.generated)
        )
        path = options.output / "parts" / f"{place}_{reference}.json"
        results[reference] = parts.kept(path, question, compute) | {"left_out": broken.skipped}
    return results


def _estimate(row: Mapping[str, Any], metric: str) -> Estimate | None:
    value, interval = row["mean"][metric], row["interval"][metric]
    if value is None:
        return None
    return Estimate(value, (interval[0], interval[1]) if interval else None)


def table(results: Mapping[str, Any], about: Mapping[str, About]) -> str:
    """Writes Markdown of one set: a row a generator, and the floor.

    Dashes stand where no image has another one's noise for a reference.
    """

    def find(name: str, reference: str, metric: str) -> Estimate | None:
        row = results[reference]["rows"].get(name)
        return _estimate(row, metric) if row else None

    columns = generation.columns()
    titles = [f"{columns[metric].title}, {reference}" for metric, reference in COLUMNS]
    rows = []
    for name in results["self"]["rows"]:
        cells = [
            report.cell(find(name, reference, metric), columns[metric].digits)
            for metric, reference in COLUMNS
        ]
        rows.append([name, *about[name].cells(), *cells])
    floor = [
        report.cell(find(next(iter(results["self"]["rows"])), reference, "akld_floor"), 3)
        for reference in REFERENCES
    ]
    dashes = ["–"] * (len(COLUMNS) - len(floor))
    rows.append(["floor: a second draw, estimated", *["–"] * len(About._fields), *floor, *dashes])
    return report.markdown_table(["noise", "told", "parameters", "steps", "hours", *titles], rows)


def main(argv: list[str] | None = None) -> None:
    """Runs it.

    Raises:
      InputError: a wrong flag, model, folder or image.
    """
    parser = budget.make_parser("table1_generation", __doc__, ["images"], trains=False)
    parser.add_argument("--model", help="bundled name, workdir or model folder; or several, a,b")
    parser.add_argument("--pairs", default="", help="folders of pairs, comma-separated")
    parser.add_argument("--photos", type=Path, help="folder of clean images for synthetic noise")
    parser.add_argument("--method", action="append", default=[], help="MODULE:FUNCTION, a row")
    args = parser.parse_args(argv)
    unwind_on_signals()
    use_compilation_cache()
    folders = row_names.split(args.pairs)
    if not (args.model or args.method) or not (folders or args.photos):
        raise InputError("give --model or --method, and --pairs or --photos")
    options = budget.parse_options(args, folders)
    titles = row_names.titles_of_folders(folders)

    models = row_names.load_generators(args.model or "")
    rows: dict[str, Generate] = {}
    about = about_others(args.method)
    for name, title in row_names.titles_of(models).items():
        rows[title], about[title] = generation.of_model(models[name]), about_model(models[name])
    digests = [row_names.digest_of(model) for model in models.values()]
    asked: dict[str, Any] = {"model": args.model, "digests": digests}
    rows |= generation.rows_of({spec: load_method(spec) for spec in args.method}, True)

    results, cameras = {}, {}
    for folder, title in zip(folders, titles, strict=True):
        samples = samples_of_pairs(usable_pairs(folder, Broken(skip=False)))
        name = title.replace("/", "_")
        results[name] = score(samples, rows, options, name, {**asked, "pairs": str(folder)})
        if any("camera" in model.told for model in models.values()):
            scored = samples[: options.budget.images]
            cameras[name] = sum(bool(sample.camera) for sample in scored)
    for kind in denoising.KINDS if args.photos else ():
        photos = usable_photos(args.photos, Broken(skip=False))[: options.budget.images]
        samples = synthetic_samples(kind, photos, options.output / "noisy" / kind, options.seeds[0])
        with_truth = {name: rows[name] for name in rows} | {SECOND_DRAW: generation.from_files}
        question = {**asked, "photos": str(args.photos)}
        results[kind] = score(samples, with_truth, options, kind, question)
    tables = {name: table(result, about) for name, result in results.items()}
    tables["Published (the paper's table 1), AKLD / KS"] = report.markdown_table(
        ["noise", *PUBLISHED_SETS], [[name, *values] for name, values in PUBLISHED.items()]
    )
    notes = [
        budget.describe(options),
        f"Generators: {args.model}. Hours of a model's training are those of its machine, with "
        "compilation and evaluations.",
        *(
            f"{name}: {len(result['self']['images'])} images; with `other` "
            f"{len(result['other']['images'])}, as the rest have no other photograph of their"
            " camera and ISO."
            if result["other"]["left_out"]
            else f"{name}: {len(result['self']['images'])} images."
            for name, result in results.items()
        ),
        *(
            f"{name}: camera and ISO are known of {known} images; of the others a row that is told"
            " them draws one that its training saw."
            for name, known in cameras.items()
        ),
        "Oracles and true noise drawn again are of 8 bits, as files are; other rows are not"
        " rounded: of KS, that can be .02. NoiseTransfer's models have losses that its paper has"
        " not, and their level is calibrated (docs/noise.md).",
        f"Brackets: {report.INTERVALS} Lower is better, C2ST is best at 0.5. What is published is "
        "of other images, with the scored image as the reference.",
    ]
    found = {"sets": results, "rows": {name: row._asdict() for name, row in about.items()}}
    text = budget.write(options, "Table 1: generated noise", tables, notes, found)
    print(f"{text}\nresults: {options.output}")


if __name__ == "__main__":
    run_command(main)

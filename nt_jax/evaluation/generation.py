"""How close generated noise is to the real: metrics of each image, oracles beside, pictures.

What a generator makes is scored as it comes, clipped to [0, 1] and not rounded to 8 bits, as while
training and as the published tables are. Only the classifier test and the pictures see it as a file
would hold it: real images are files, and a network could tell them from floats by that alone.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nt_jax import metrics, prng
from nt_jax.broken import Broken
from nt_jax.errors import InputError
from nt_jax.evaluation import c2st, figures, report, statistics
from nt_jax.evaluation.baselines import BASELINES, Method, load_method
from nt_jax.evaluation.oracles import CEILING, ORACLES, Generate, to_bytes, true_noise
from nt_jax.evaluation.report import Evaluation
from nt_jax.evaluation.samples import (
    Images,
    Sample,
    other_references,
    read_images,
    samples_of_folders,
    samples_of_pairs,
    usable_pairs,
)
from nt_jax.evaluation.statistics import Estimate
from nt_jax.families import Generator
from nt_jax.files import progress

# Trained for each set, in place of computed: so it is no entry of `metrics.GENERATION`.
C2ST = metrics.Metric(c2st.c2st, "C2ST", 3)
GENERATED = "generated"
# Of what a model is told, in a table.
_TOLD = {
    "reference": "the reference",
    "reference_clean": "its clean image",
    "camera": "camera and ISO",
}
# Of a model's arrays: no parameters, or not of what makes noise.
_NOT_COUNTED = ("counts", "discriminator")
_EXAMPLES = 4
# Noise may go far beyond white; what goes further is of another scale, such as 0 to 255.
_LARGEST = 4.0


def columns() -> dict[str, metrics.Metric]:
    """Lists the columns of the table."""
    return {**metrics.GENERATION, "c2st": C2ST}


@partial(jax.jit, static_argnums=3)
def _score(
    clean: jax.Array, noisy: jax.Array, generated: jax.Array, names: tuple[str, ...]
) -> dict[str, jax.Array]:
    of_all = {name: metrics.GENERATION[name].function(clean, noisy, generated) for name in names}
    return {name: jnp.asarray(values)[0] for name, values in of_all.items()}


@jax.jit
def _floor(clean: jax.Array, noisy: jax.Array, key: jax.Array) -> jax.Array:
    return metrics.akld_floor(clean, noisy, key)[0]


def by_reference(method: Method) -> Generate:
    """Turns a baseline or a user's generator into a row of the table; see `baselines.py`.

    Raises:
      InputError: when called, if the method gives no image of the clean one's size, or integers of
        more than 8 bits, or values that are not finite or of another scale than 0 to 1.
    """

    def generate(images: Images, key: jax.Array) -> np.ndarray:
        return _checked(method(images.clean, images.reference, key), images)

    return generate


def _checked(made: Any, images: Images) -> np.ndarray:
    noisy = np.asarray(made)
    if noisy.shape != images.clean.shape:
        raise InputError(f"a method gave {noisy.shape} for an image of {images.clean.shape}")
    if noisy.dtype == np.uint8:
        return noisy
    if noisy.dtype.kind != "f" or not np.isfinite(noisy).all() or np.abs(noisy).max() > _LARGEST:
        raise InputError(
            f"a method gave {noisy.dtype} from {noisy.min():g} to {noisy.max():g}; expected uint8, "
            "or finite float with white at 1"
        )
    return np.clip(noisy.astype(np.float32), 0, 1)


def as_file(image: np.ndarray) -> np.ndarray:
    """Converts an image, uint8 or float in [0, 1], to what a file of 8 bits would hold."""
    return image if image.dtype == np.uint8 else to_bytes(255 * image)


def rows_of(methods: Mapping[str, Method], with_baselines: bool) -> dict[str, Generate]:
    """Rows beside a generator's: of others, of the baselines and the ceiling, of the oracles."""
    if with_baselines:
        methods = {**methods, **BASELINES}
    rows = {name: by_reference(method) for name, method in methods.items()}
    return rows | ({CEILING: true_noise} if with_baselines else {}) | ORACLES


def from_files(images: Images, key: jax.Array) -> np.ndarray:
    """Takes another program's images, as a row of the table."""
    assert images.generated is not None
    return images.generated


def of_model(model: Generator) -> Generate:
    """Makes a row of the table of a loaded model, which is told what its family asks for."""

    def generate(images: Images, key: jax.Array) -> np.ndarray:
        told = {name: getattr(images, name) for name in model.told}
        return _checked(model.transfer(images.clean, seed=int(prng.bits(key)), **told), images)

    return generate


def told_by(model: Generator) -> str:
    """Says what a model knows of the noise that it makes, for a table."""
    return " and ".join(_TOLD[name] for name in model.told) or "nothing"


def parameters_of(model: Generator) -> int:
    """Counts the parameters of what makes a model's noise."""
    leaves = jax.tree.leaves_with_path(model.params)
    return sum(
        leaf.size
        for path, leaf in leaves
        if not path or getattr(path[0], "key", "") not in _NOT_COUNTED
    )


def evaluate(
    samples: Sequence[Sample],
    references: Sequence[Sample | None],
    rows: Mapping[str, Generate],
    broken: Broken,
    seed: int = 0,
) -> Evaluation:
    """Scores each row on all samples.

    Args:
      samples: from `samples_of_pairs` or `samples_of_folders`.
      references: a sample's reference; None for itself.
      rows: what makes the noise, by name.
      broken: what to do about images that cannot be read.
      seed: of the generators, the oracles, the floor, the classifier test.

    Raises:
      InputError: an image cannot be read, or none is left.
    """
    looks = {name: figures.Look() for name in ("true", *rows)}
    parts: dict[str, list[dict[str, float]]] = {name: [] for name in rows}
    floors: list[float] = []
    examples: list[tuple[Images, np.ndarray]] = []
    owners: list[str] = []
    photographs: dict[str, str] = {}
    size = c2st.patch_size(min(min(sample.size) for sample in samples))
    most = max(1, min(c2st.MAX_PATCHES, c2st.MAX_TOTAL // len(samples)))
    patches: dict[str, list[np.ndarray]] = {name: [] for name in ("clean", "noisy", *rows)}
    bins = figures.spectrum_bins(sample.size for sample in samples)
    for index, sample in progress(samples, len(samples), "image"):
        try:
            images = read_images(sample, references[index])
        except InputError as error:
            broken.note(error)
            continue
        key = prng.fold_in(prng.key(seed), index)
        made = {
            name: generate(images, prng.fold_in(key, number))
            for number, (name, generate) in enumerate(rows.items())
        }
        floors.append(float(_floor(images.clean, images.noisy, prng.fold_in(key, len(rows)))))
        for name, generated in made.items():
            scores = _score(images.clean, images.noisy, generated, tuple(metrics.GENERATION))
            parts[name].append({metric: float(value) for metric, value in scores.items()})
        made = {name: as_file(generated) for name, generated in made.items()}
        everything = {"true": images.noisy} | made
        for name, noisy in everything.items():
            looks[name].add(images.clean, noisy, bins)
        for name, pixels in ({"clean": images.clean, "noisy": images.noisy} | made).items():
            patches[name].append(c2st.patches_of(pixels, size, most))
        if len(examples) < _EXAMPLES and sample.image not in owners:
            examples.append((images, next(iter(made.values()))))
        owners.append(sample.image)
        photographs[sample.image] = sample.photograph
    if not owners:
        raise InputError("no usable image is left")
    names = list(photographs)
    scores = {
        name: {
            metric: _by_image(owners, [p[metric] for p in rows_]) for metric in metrics.GENERATION
        }
        for name, rows_ in parts.items()
    }
    if c2st.can_fold(list(photographs.values())):
        counts = [len(block) for block in patches["clean"]]
        image = np.repeat([names.index(owner) for owner in owners], counts)
        stacks = {name: np.concatenate(blocks) for name, blocks in patches.items()}
        for name in rows:
            noises = stacks["clean"], stacks["noisy"], stacks[name]
            accuracy = c2st.c2st(*noises, image, list(photographs.values()), seed)
            scores[name]["c2st"] = accuracy.tolist()
    return Evaluation(
        names,
        list(photographs.values()),
        scores,
        tuple(broken.skipped),
        examples,
        _by_image(owners, floors),
        looks,
    )


def _by_image(owners: Sequence[str], values: Sequence[float]) -> list[float]:
    """Averages the blocks of each image, in the order images first come."""
    blocks: dict[str, list[float]] = {}
    for owner, value in zip(owners, values, strict=True):
        blocks.setdefault(owner, []).append(value)
    return [float(np.mean(block)) for block in blocks.values()]


def summarize(evaluation: Evaluation) -> dict[str, dict[str, Estimate | None]]:
    """Gives mean and interval of each metric by row; the floor counts as a metric of each."""
    floor = statistics.mean(evaluation.floor, evaluation.photographs)
    return {
        name: {**estimates, "akld_floor": floor}
        for name, estimates in report.summarize(evaluation, columns()).items()
    }


def table(evaluation: Evaluation) -> str:
    """Writes the Markdown table: a row per generator, the AKLD floor last."""
    estimate = statistics.mean(evaluation.floor, evaluation.photographs)
    floor = report.cell(estimate, metrics.GENERATION["akld"].digits)
    last = ["floor: a second draw, estimated", floor, *["–"] * (len(columns()) - 1)]
    return report.table("noise", evaluation, columns(), [last])


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Makes the content of results.json: the first row's numbers, and those of all rows."""
    rows = {name: report.as_json(values) for name, values in summarize(evaluation).items()}
    first, scores = next(iter(rows.values())), next(iter(evaluation.scores.values()))
    images = [
        {"name": image, "akld_floor": evaluation.floor[index]}
        | {metric: values[index] for metric, values in scores.items()}
        for index, image in enumerate(evaluation.images)
    ]
    return first | {"images": images, "rows": rows, "skipped": evaluation.skipped}


def run_pairs(
    model_name: str | None,
    pairs: Path,
    reference: str,
    output: Path,
    seed: int,
    skip_broken: bool,
    methods: Sequence[str] = (),
    with_baselines: bool = False,
) -> str:
    """Runs `eval generation` of generators on pairs; returns the table.

    Args:
      model_name: a model of any family; None for none.
      reference: `self`, the scored noisy image itself, as published tables have it; or `other`,
        a noisy image of another photograph of the same camera and ISO; images that have none are
        left out, and named.
      methods: other generators, each `package.module:function`; see `baselines.py`.
      with_baselines: also rows of the baselines.

    Raises:
      InputError: a wrong argument, model or image.
    """
    report.check_output(output, [pairs])
    others = {spec: load_method(spec) for spec in methods}
    broken = Broken(skip_broken)
    samples = samples_of_pairs(usable_pairs(pairs, broken))
    references: Sequence[Sample | None] = [None] * len(samples)
    found = len({sample.image for sample in samples})
    if reference == "other":
        samples, references = other_references(samples, broken)
    rows: dict[str, Generate] = {}
    if model_name:
        from nt_jax.inference.loading import load

        rows[GENERATED] = of_model(load(model_name))
    rows |= rows_of(others, with_baselines)
    evaluation = evaluate(samples, references, rows, broken, seed)
    asked = {"model": model_name, "pairs": str(pairs), "reference": reference, "seed": seed}
    if reference == "other":
        asked["images_found"] = found
    return _write(evaluation, output, {k: v for k, v in asked.items() if v is not None})


def run_folders(
    clean: Path,
    noisy: Path,
    generated: Path,
    output: Path,
    seed: int,
    skip_broken: bool,
    with_baselines: bool = False,
) -> str:
    """Runs `eval generation` of any program's outputs; returns the table.

    Raises:
      InputError: a wrong argument or image.
    """
    report.check_output(output, [clean, noisy, generated])
    broken = Broken(skip_broken)
    samples = samples_of_folders(clean, noisy, generated, broken)
    rows = {GENERATED: from_files} | rows_of({}, with_baselines)
    evaluation = evaluate(samples, [None] * len(samples), rows, broken, seed)
    asked = {"clean": str(clean), "noisy": str(noisy), "generated": str(generated), "seed": seed}
    return _write(evaluation, output, asked)


def _write(evaluation: Evaluation, output: Path, asked: dict[str, Any]) -> str:
    notes = [
        report.describe(evaluation.photographs, asked),
        f"Brackets: {report.INTERVALS} Lower is better; C2ST is the accuracy of a small network at "
        "telling real from generated noise, 0.5 is chance. "
        f"{report.PROTOCOL} C2ST: rounded, as the real images are.",
    ]
    if not c2st.can_fold(evaluation.photographs):
        notes.append(f"C2ST needs {c2st.NEEDED}.")
    notes += [f"Skipped: {error}" for error in evaluation.skipped]
    text = table(evaluation) + "\n" + "\n\n".join(notes) + "\n"
    pictures = {
        "examples": figures.examples(evaluation.examples),
        "histograms": figures.histograms(evaluation.looks),
        "noise_levels": figures.noise_levels(evaluation.looks),
        "spectra": figures.spectra(evaluation.looks),
    }
    results = {"arguments": asked, "protocol": report.PROTOCOL} | as_json(evaluation)
    report.write_results(output, results, text, pictures)
    return text

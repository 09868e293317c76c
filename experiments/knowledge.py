"""Compares what a denoiser restores by what it knows of an image's noise.

  python -m experiments.knowledge --pairs SIDD_VAL_BLOCKS POLYU/val [--denoiser=small-denoiser]

Rows: the noisy image; a denoiser that knows nothing, as its exported file; that knows the mean of
what it reads off the folder's images of other scenes, as the file of `export --noisy=PHOTOS` (only
where names tell the scenes, NAME_NUMBER, and there are two); that reads the image; the same and a
person sets the strength, best of five; in all eight orientations (`--ensemble`); and that is told
the noise's true spectrum. Prints the mean PSNR of each folder in dB. Nothing is random.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from nt_jax import metrics
from nt_jax.compilation import use_compilation_cache
from nt_jax.data.catalogue.sources import Pair, find_pairs
from nt_jax.errors import ArgumentParser, InputError, run_command
from nt_jax.evaluation import report
from nt_jax.families.denoiser.step import condition_of
from nt_jax.files import progress
from nt_jax.images import read_rgb, to_float
from nt_jax.inference.denoiser import Denoiser
from nt_jax.inference.loading import load_denoiser
from nt_jax.paths import parse_path

_STRENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0)


def scene_of(pair: Pair) -> str:
    """Names what a crop NAME_NUMBER shows; the whole name of one without a number."""
    name, _, number = pair.name.rpartition("_")
    return name if number.isdecimal() else pair.name


def rows_of(
    denoiser: Denoiser, clean: np.ndarray, noisy: np.ndarray, others: Sequence[np.ndarray]
) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Denoises an image, float32 [H, W, 3]; yields a row's name and its images, to take the best.

    Args:
      denoiser: one that reads.
      clean, noisy: the image without and with noise.
      others: what is read off images of other scenes, float32 [spectra.CONDITIONS] each.
    """

    def knowing(condition: np.ndarray | None) -> list[np.ndarray]:
        return [np.asarray(replace(denoiser, condition=condition).fixed(noisy))]

    yield "noisy", [noisy]
    yield "knows nothing", knowing(None)
    if others:
        yield "knows other scenes", knowing(np.mean(others, axis=0))
    by_strength = {one: np.asarray(denoiser(noisy, strength=one)) for one in _STRENGTHS}
    yield "reads", [by_strength[1.0]]
    yield "reads, strength by hand", list(by_strength.values())
    yield "reads, ensemble", [np.asarray(denoiser(noisy, ensemble=True))]
    yield "told the true spectrum", knowing(np.asarray(condition_of((noisy - clean)[None])[0]))


def score(denoiser: Denoiser, pairs: Sequence[Pair]) -> dict[str, float]:
    """Averages the PSNR in dB of each row over pairs; a row that not all have is left out."""
    scenes = [scene_of(pair) for pair in pairs]
    images = [
        tuple(to_float(read_rgb(file)) for file in (pair.clean, pair.noisy)) for pair in pairs
    ]
    read = [denoiser.read(noisy) for _, noisy in images]
    scores: dict[str, list[float]] = {}
    for index, (clean, noisy) in progress(images, len(images), "image"):
        others = [
            np.asarray(found[0])
            for found, scene in zip(read, scenes, strict=True)
            if found is not None and scene != scenes[index]
        ]
        for name, results in rows_of(denoiser, clean, noisy, others):
            best = max(float(metrics.psnr(clean[None], one[None])[0]) for one in results)
            scores.setdefault(name, []).append(best)
    return {
        name: float(np.mean(values)) for name, values in scores.items() if len(values) == len(pairs)
    }


def main(argv: list[str] | None = None) -> None:
    """Runs it.

    Raises:
      InputError: a wrong flag, folder or image.
    """
    parser = ArgumentParser(prog="python -m experiments.knowledge", description=__doc__)
    parser.add_argument("--pairs", nargs="+", required=True, type=parse_path, help="folders")
    parser.add_argument("--denoiser", default="small-denoiser", help="name or folder")
    args = parser.parse_args(argv)
    use_compilation_cache()
    denoiser = load_denoiser(args.denoiser)
    if denoiser.reader is None:
        raise InputError(f"--denoiser={args.denoiser} is blind: it knows nothing of the noise")
    columns = [score(denoiser, find_pairs(folder)) for folder in args.pairs]
    names = dict.fromkeys(name for column in columns for name in column)
    lines = [
        [name, *(f"{column[name]:.2f}" if name in column else "" for column in columns)]
        for name in names
    ]
    print(report.markdown_table(["knows", *map(str, args.pairs)], lines))


if __name__ == "__main__":
    run_command(main)

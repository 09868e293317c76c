"""How well a denoiser restores real or synthetic noisy images: PSNR and SSIM of each image.

A denoised image is scored as the network gives it, clipped to [0, 1] and not rounded to 8 bits, as
while training and as the published tables are. Real noisy images are files of 8 bits; synthetic
ones are clipped but not rounded, as in training. An image is denoised and scored whole, in tiles if
it is large.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nt_jax import metrics, noise, prng
from nt_jax.broken import Broken
from nt_jax.data.catalogue.references import photograph
from nt_jax.data.catalogue.sources import ImageFile, Pair
from nt_jax.errors import InputError
from nt_jax.evaluation import figures, report
from nt_jax.evaluation.oracles import to_bytes
from nt_jax.evaluation.report import Evaluation
from nt_jax.evaluation.samples import usable_pairs, usable_photos, whole_windows
from nt_jax.files import progress
from nt_jax.images import read_rgb

KINDS = ("gaussian", "poisson", "poisson_gaussian")
DENOISED, NOISY = "denoised", "noisy input"
_NOTE = (
    f"{report.PROTOCOL} SSIM as the paper's metric has it: images of 384 pixels or more along their"
    " shorter side are first reduced by average pooling, 2x2 up to 640 pixels. SSIM, plain: not"
    " reduced, as scikit-image's with Gaussian weights."
)
_EXAMPLES = 4


class Scene(NamedTuple):
    """An image to restore.

    Attributes:
      name: of the image.
      photograph: what it is a crop of, itself where it is none.
      clean: its file.
      noisy: file; None where noise is still to be put on the clean image.
      rows, columns: the part of it that counts.
    """

    name: str
    photograph: str
    clean: ImageFile
    noisy: ImageFile | None
    rows: slice
    columns: slice


class Noise(NamedTuple):
    """Synthetic noise; each image draws its parameters uniformly from the ranges.

    Attributes:
      kind: one of `KINDS`.
      sigma: range of the Gaussian part, on the 0 to 255 scale.
      lam: range of the photon count at white.
    """

    kind: str
    sigma: tuple[float, float]
    lam: tuple[float, float]


def scenes_of_pairs(pairs: Sequence[Pair]) -> list[Scene]:
    """Makes scenes of pairs, to restore the noisy images of."""
    windows = whole_windows([pair.clean for pair in pairs])
    return [
        Scene(pair.name, photograph(pair), pair.clean, pair.noisy, *window)
        for pair, window in zip(pairs, windows, strict=True)
    ]


def scenes_of_photos(photos: Sequence[ImageFile]) -> list[Scene]:
    """Makes scenes of clean images, to put synthetic noise on."""
    return [
        Scene(photo.stem, str(photo), photo, None, *window)
        for photo, window in zip(photos, whole_windows(photos), strict=True)
    ]


def make_noise(kind: str, sigma: str, lam: str) -> Noise:
    """Reads synthetic noise from flags; `sigma` and `lam` are a number or LOW:HIGH.

    Raises:
      InputError: an unknown kind, or a range that is none.
    """
    if kind not in KINDS:
        raise InputError(f"--noise={kind}: expected one of {', '.join(KINDS)}")
    photons = _range(lam, "lam", (1, noise.MOST_PHOTONS))
    return Noise(kind, _range(sigma, "sigma", (0, 255)), photons)


def _range(text: str, name: str, bounds: tuple[float, float]) -> tuple[float, float]:
    try:
        values = [float(part) for part in text.split(":")]
    except ValueError:
        values = []
    if len(values) not in (1, 2) or not bounds[0] <= values[0] <= values[-1] <= bounds[1]:
        raise InputError(
            f"--{name}={text}: expected a number or LOW:HIGH from {bounds[0]:g} to {bounds[1]:g}"
        )
    return values[0], values[-1]


def evaluate(
    denoisers: Mapping[str, Callable[[np.ndarray], Any]],
    scenes: Sequence[Scene],
    broken: Broken,
    synthetic: Noise | None = None,
    seed: int = 0,
) -> Evaluation:
    """Scores denoisers and, beside them, their input, the same for all.

    Args:
      denoisers: by the name of their row, one or more: noisy [H, W, 3], uint8 or float in [0, 1]
        -> float [H, W, 3]. Examples are of the first.
      scenes: from `scenes_of_pairs`, or from `scenes_of_photos` with `synthetic` noise.
      broken: what to do about images that cannot be read.
      synthetic: what to put on the clean images.
      seed: of the synthetic noise; each image has its own.

    Raises:
      InputError: an image cannot be read, or none is left.
    """
    images: list[str] = []
    photographs: list[str] = []
    scores: dict[str, dict[str, list[float]]] = {
        row: {metric: [] for metric in metrics.RESTORATION} for row in (*denoisers, NOISY)
    }
    examples: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for index, scene in progress(scenes, len(scenes), "image"):
        try:
            clean = read_rgb(scene.clean)[scene.rows, scene.columns]
            noisy = read_rgb(scene.noisy)[scene.rows, scene.columns] if scene.noisy else None
        except InputError as error:
            broken.note(error)
            continue
        if noisy is None:
            if synthetic is None:
                raise InputError(f"{scene.name}: neither noisy image nor synthetic noise")
            noisy = add_noise(clean, synthetic, prng.fold_in(prng.key(seed), index))
        results = {
            row: np.clip(np.asarray(denoise(noisy), np.float32), 0, 1)
            for row, denoise in denoisers.items()
        }
        for row, image in (results | {NOISY: noisy}).items():
            for name, metric in metrics.RESTORATION.items():
                scores[row][name].append(float(np.asarray(metric.function(clean, image))[0]))
        images.append(scene.name)
        photographs.append(scene.photograph)
        if len(examples) < _EXAMPLES:
            shown = noisy if noisy.dtype == np.uint8 else to_bytes(255 * noisy)
            examples.append((clean, shown, to_bytes(255 * next(iter(results.values())))))
    if not images:
        raise InputError("no usable image is left")
    return Evaluation(images, photographs, scores, tuple(broken.skipped), examples)


def add_noise(clean: np.ndarray, synthetic: Noise, key: jax.Array) -> np.ndarray:
    """Adds synthetic noise to uint8 [H, W, 3]: float32 in [0, 1], clipped but not rounded."""
    draw_key, noise_key = prng.split(key)
    weights = tuple(float(kind == synthetic.kind) for kind in noise.KINDS)
    setting = noise.sample_setting(draw_key, weights, synthetic.sigma, synthetic.lam)
    return np.asarray(_add_noise(noise_key, clean, setting))


@jax.jit
def _add_noise(key: jax.Array, clean: jax.Array, setting: noise.NoiseSetting) -> jax.Array:
    return noise.add_noise(key, clean.astype(jnp.float32) / 255, setting)


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Makes the content of results.json: the denoiser's numbers, and those of both rows."""
    summary = report.summarize(evaluation, metrics.RESTORATION)
    rows = {row: report.as_json(values) for row, values in summary.items()}
    scores = evaluation.scores
    images = [
        {"name": image}
        | {metric: values[index] for metric, values in scores[DENOISED].items()}
        | {f"noisy_{metric}": values[index] for metric, values in scores[NOISY].items()}
        for index, image in enumerate(evaluation.images)
    ]
    return rows[DENOISED] | {"images": images, "rows": rows, "skipped": evaluation.skipped}


def run(
    denoiser_name: str,
    folder: Path,
    synthetic: Noise | None,
    output: Path,
    seed: int,
    skip_broken: bool,
    ensemble: bool,
    strength: float,
) -> str:
    """Runs `eval denoising` on pairs, or on clean images with synthetic noise; returns the table.

    Raises:
      InputError: a wrong argument, denoiser or image.
    """
    report.check_output(output, [folder])
    broken = Broken(skip_broken)
    scenes = (
        scenes_of_photos(usable_photos(folder, broken))
        if synthetic
        else scenes_of_pairs(usable_pairs(folder, broken))
    )
    from nt_jax.inference.loading import load_denoiser

    denoiser = load_denoiser(denoiser_name)
    denoise = partial(denoiser, ensemble=ensemble, strength=strength)
    evaluation = evaluate({DENOISED: denoise}, scenes, broken, synthetic, seed)
    asked: dict[str, Any] = {"denoiser": denoiser_name, "images": str(folder)}
    if ensemble:
        asked["ensemble"] = "eight orientations"
    if strength != 1:
        asked["strength"] = strength
    if synthetic:
        asked |= _describe(synthetic) | {"seed": seed}
    notes = [
        report.describe(evaluation.photographs, asked),
        f"Brackets: {report.INTERVALS} Higher is better. {_NOTE}",
        *(f"Skipped: {error}" for error in evaluation.skipped),
    ]
    table = report.table("images", evaluation, metrics.RESTORATION)
    text = table + "\n" + "\n\n".join(notes) + "\n"
    report.write_results(
        output,
        {"arguments": asked, "protocol": report.PROTOCOL} | as_json(evaluation),
        text,
        {"examples": figures.restorations(evaluation.examples)},
    )
    return text


def _describe(synthetic: Noise) -> dict[str, Any]:
    described: dict[str, Any] = {"noise": synthetic.kind}
    if "gaussian" in synthetic.kind:
        described["sigma"] = "{:g}:{:g}".format(*synthetic.sigma)
    if "poisson" in synthetic.kind:
        described["lam"] = "{:g}:{:g}".format(*synthetic.lam)
    return described

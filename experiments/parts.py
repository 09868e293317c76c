"""Parts of experiments: answers kept as JSON, new folders, noisy images, denoisers' scores."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from nt_jax import prng
from nt_jax.broken import Broken
from nt_jax.data.catalogue.sources import ImageFile
from nt_jax.errors import InputError
from nt_jax.evaluation import denoising, generation, report
from nt_jax.evaluation.baselines import Method
from nt_jax.files import progress, replacing, scratch_beside
from nt_jax.images import read_rgb
from nt_jax.inference.loading import load_denoiser

_CROP = 512


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


def noted(path: Path, fact: Any) -> bool:
    """Notes a fact of JSON's types in a file, unless it holds one; tells if it is the same."""
    return kept(path, {}, lambda: fact) == json.loads(json.dumps(fact))


def window(rng: np.random.Generator, size: int, *images: np.ndarray) -> list[np.ndarray]:
    """Cuts the same window of `size` pixels a side, at a drawn place, out of images [H, W, ...]."""
    top, left = (int(rng.integers(side - size + 1)) for side in images[0].shape[:2])
    return [image[top : top + size, left : left + size] for image in images]


def write_pair(folder: Path, number: int, clean: np.ndarray, noisy: np.ndarray) -> None:
    """Writes FOLDER/clean/NUMBER.png and FOLDER/noisy/NUMBER.png: of 0 to 255, rounded."""
    for name, image in (("clean", clean), ("noisy", noisy)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        pixels = np.clip(np.rint(image), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name / f"{number:05}.png")


@contextlib.contextmanager
def new_folder(output: Path, inputs: Sequence[Path]) -> Iterator[Path]:
    """Gives a folder to write to that becomes `output` at the end, unless something fails.

    What two runs write into one folder would be one data set.

    Raises:
      InputError: `output` holds something, is a file or an input folder, or cannot be written.
    """
    report.check_output(output, inputs)
    if output.exists() and any(output.iterdir()):
        raise InputError(f"--output={output} is not empty; choose another or remove it")
    place = output.resolve()  # which a link may lead to
    try:
        with scratch_beside(place) as scratch:
            made = scratch / "made"  # with the rights of any new folder
            made.mkdir()
            yield made
            os.replace(made, place)
    except OSError as error:
        raise InputError(f"--output={output}: {error.strerror or error}; choose another") from error


def claim(folder: Path, asked: Mapping[str, Any]) -> None:
    """Notes in a folder what its images are to be made of, before the first one.

    Raises:
      InputError: there it holds what was made of something else, or of nobody knows what.
    """
    note = folder / "made_of.json"
    unknown = not note.exists() and any(folder.rglob("*.png"))
    if unknown or not noted(note, asked):
        raise InputError(f"{folder} was made of other images; choose another --output or remove it")


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

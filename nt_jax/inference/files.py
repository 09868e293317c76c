"""Transfer from files to files: which goes where, checks before anything is written, the work.

Imports neither JAX nor a model, so that wrong input is told at once.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nt_jax.errors import InputError
from nt_jax.inference.images import (
    Photo,
    check_writable_as,
    find_images,
    from_float,
    read_photo,
    to_float,
    write_photo,
)

if TYPE_CHECKING:
    from nt_jax.inference.model import Model


class Job(NamedTuple):
    """One clean image to be made noisy.

    Attributes:
      source: the clean image.
      target: the file to write.
      seed: of its random maps.
      size: its height and width.
    """

    source: Path
    target: Path
    seed: int
    size: tuple[int, int]


def plan(clean: Path, output: Path, references: Sequence[Path], seed: int) -> list[Job]:
    """What to do, one job an image, in the order of file names; the i-th has seed + i.

    A folder's images keep their names and sub-folders. Every clean image is decoded once, so that
    a broken one ends the command before anything is written.

    Args:
      clean: image file, or folder of images.
      output: file, or folder where `clean` is one; a file may also go into an existing folder.
      references: not to be overwritten, as the clean images.
      seed: of the first image.

    Raises:
      InputError: an image is missing or broken, or `output` does not fit.
    """
    if clean.is_dir():
        if output.exists() and not output.is_dir():
            raise InputError(f"{output} is a file, but {clean} is a folder; name an output folder")
        pairs = [(clean / name, output / name) for name in find_images(clean, output)]
    elif output.is_dir():
        pairs = [(clean, output / clean.name)]
    else:
        pairs = [(clean, output)]
    inputs = {path.resolve() for path in (*references, *(source for source, _ in pairs))}
    jobs = []
    for index, (source, target) in enumerate(pairs):
        if target.resolve() in inputs:
            raise InputError(f"{target} would overwrite an input; choose another output")
        photo = read_photo(source)
        check_writable_as(target, photo)
        height, width = photo.pixels.shape[:2]
        jobs.append(Job(source, target, seed + index, (height, width)))
    return jobs


def make_folders(targets: Sequence[Path], output: Path) -> None:
    """Makes the folders of all files to write and checks that files can be written there.

    Raises:
      InputError: they cannot, or a link leads out of the output folder.
    """
    for folder in sorted({target.parent for target in targets}):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"output folder {folder} cannot be made: {error.strerror}") from error
        is_below = folder.is_relative_to(output)
        if is_below and not folder.resolve().is_relative_to(output.resolve()):
            raise InputError(f"{folder} is a link out of {output}; choose another output")
        probe = folder / f".nt_jax.{os.getpid()}.part"
        try:
            with probe.open("xb"):
                probe.unlink()
        except OSError as error:
            raise InputError(
                f"output folder {folder} cannot be written to: {error.strerror}; choose another"
            ) from error


def embed_photos(model: "Model", photos: Sequence[Photo]) -> Any:
    """Embedding [E] of photos as `Model.embed_references`, without holding them as float."""
    from nt_jax.inference.model import reference_crops

    embeddings = []
    for photo in photos:
        crops = [model.embed(to_float(crop)) for crop in reference_crops(photo.pixels)]
        embeddings.append(model.average(crops))
    return model.average(embeddings)


def run_job(
    model: "Model",
    job: Job,
    embedding: Any,
    strength: float,
    tile: int,
    on_tile: Callable[[], None],
) -> None:
    """Reads, transfers and writes one image; calls `on_tile` after each tile."""
    photo = read_photo(job.source)
    grey = photo.pixels.ndim == 2
    pixels = np.empty(photo.pixels.shape, photo.pixels.dtype)
    for part in model.transfer_tiles(
        photo.pixels, embedding, seed=job.seed, strength=strength, tile=tile
    ):
        pixels[part.rows, part.columns] = from_float(part.pixels, pixels.dtype, grey)
        on_tile()
    write_photo(job.target, replace(photo, pixels=pixels))

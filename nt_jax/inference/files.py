"""From image files to image files: which goes where, checks before anything is written, the work.

Imports neither JAX nor a model, so that wrong input is told at once.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nt_jax.broken import Broken
from nt_jax.errors import InputError
from nt_jax.files import Progress, check_inside, temporary_name
from nt_jax.formats import raw
from nt_jax.images import (
    Photo,
    check_writable_as,
    find_images,
    from_float,
    read_photo,
    to_float,
    write_photo,
)
from nt_jax.inference.embeddings import reference_crops
from nt_jax.inference.shards import WHOLE, Shard
from nt_jax.paths import exists, is_folder

if TYPE_CHECKING:
    from nt_jax.inference.model import Model
    from nt_jax.inference.reference import ReferenceNoise
    from nt_jax.inference.tiles import Tile


class Job(NamedTuple):
    """One image to be worked on.

    Attributes:
      source: the image.
      target: the file to write.
      seed: of its random maps, where it is to be made noisy.
      size: its height and width.
    """

    source: Path
    target: Path
    seed: int
    size: tuple[int, int]


def images_to_work_on(folder: Path, output: Path) -> list[Path]:
    """Runs `images.find_images`, with a line about what is left out, also where nothing is left."""
    notes: list[str] = []
    try:
        return find_images(folder, output, notes)
    finally:
        for note in notes:
            print(note, flush=True)


def pair_up(source: Path, output: Path) -> list[tuple[Path, Path]]:
    """Lists the images to be worked on in the order of file names, each with the file to write.

    A folder's images keep their names and sub-folders; developed raw files become TIFFs. Prints a
    line about what of a folder is left out.

    Args:
      source: image file, or folder of images.
      output: file, or folder where `source` is one; a file may also go into an existing folder.

    Raises:
      InputError: a folder has no images, or `output` does not fit.
    """
    if is_folder(source):
        if exists(output) and not is_folder(output):
            raise InputError(f"{output} is a file, but {source} is a folder; name an output folder")
        names = images_to_work_on(source, output)
        return [(source / name, output / _target_name(name)) for name in names]
    if is_folder(output):
        return [(source, output / _target_name(Path(source.name)))]
    return [(source, output)]


def plan(
    pairs: Sequence[tuple[Path, Path]],
    references: Sequence[Path] = (),
    seed: int = 0,
    skip_broken: bool = False,
    shard: Shard = WHOLE,
) -> list[Job]:
    """Plans the work, one job per image; the i-th of all has seed + i, whichever shard it is in.

    Every image of the shard is decoded once, so that one that is broken, or that its file's format
    cannot hold, ends the command before anything is written.

    Args:
      pairs: images and the files to write, of `pair_up`.
      references: not to be overwritten, as the images themselves.
      seed: of the first image.
      skip_broken: goes on without such images of a folder, each named in a line.
      shard: which of the images.

    Raises:
      InputError: an image is missing or broken, or all are, or two would become one file.
    """
    inputs = {path.resolve() for path in (*references, *(image for image, _ in pairs))}
    targets: dict[Path, Path] = {}
    jobs, broken = [], Broken(skip_broken)
    for index, (image, target) in enumerate(pairs):
        if targets.setdefault(target, image) != image:
            raise InputError(
                f"{image} and {targets[target]} would both become {target}; move one of them to "
                "another folder"
            )
        if not shard.holds(index):
            continue
        if target.resolve() in inputs:
            raise InputError(f"{target} would overwrite an input; choose another output")
        try:
            photo = read_photo(image)
            check_writable_as(target, photo)
        except InputError as error:
            if len(pairs) == 1:
                raise
            broken.add(error)
            continue
        height, width = photo.pixels.shape[:2]
        jobs.append(Job(image, target, seed + index, (height, width)))
    broken.check(len(pairs))
    broken.say()
    return jobs


def _target_name(name: Path) -> Path:
    """Names an image's result: as itself, but nothing is written as a raw file."""
    return name.with_suffix(".tif") if name.suffix.lower() in raw.EXTENSIONS else name


def make_folders(targets: Sequence[Path], output: Path) -> None:
    """Makes the folders of all files to write and checks that files can be written there.

    Raises:
      InputError: they cannot, a file's name is too long, or a link leads out of the output folder.
    """
    folders = sorted({target.parent for target in targets})
    for folder in folders:  # before any is made
        if folder.is_relative_to(output):
            check_inside(folder, output)
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"output folder {folder} cannot be made: {error.strerror}") from error
        probe = folder / temporary_name("nt_jax")
        try:
            with probe.open("xb"):
                probe.unlink()
        except OSError as error:
            raise InputError(
                f"output folder {folder} cannot be written to: {error.strerror}; choose another"
            ) from error
    for target in targets:
        try:
            with contextlib.suppress(FileNotFoundError):
                target.lstat()
        except OSError as error:
            raise InputError(f"{target} cannot be written: {error.strerror}") from error


def noise_of_photos(
    model: "Model", photos: Sequence[Photo], calibrate: bool | None = None
) -> "ReferenceNoise":
    """Computes `Model.reference_noise` of photos, without holding them as float."""
    crops = [
        [to_float(crop)[None] for crop in reference_crops(photo.pixels, model.reference_crop)]
        for photo in photos
    ]
    return model.noise_of_crops(crops, calibrate=calibrate)


def run_jobs(
    jobs: Sequence[Job],
    tiles: Callable[[Job, np.ndarray], Iterable["Tile"]],
    total: int,
    note: Callable[[Job], str] = lambda job: "",
) -> None:
    """Reads the images, works on them and writes them one by one, with a bar and a line for each.

    Args:
      jobs: what to do.
      tiles: (job, its pixels) -> the finished pieces of the image.
      total: how many pieces there will be in all.
      note: what to add to a job's line.
    """
    shown, done = Progress(total, "tile", lines=False), itertools.count(1)

    def counted(job: Job, pixels: np.ndarray) -> Iterator["Tile"]:
        for part in tiles(job, pixels):
            yield part
            shown.show(next(done))

    try:
        for number, job in enumerate(jobs, start=1):
            make_file(job, counted)
            height, width = job.size
            shown.say(f"[{number}/{len(jobs)}] {job.target}  {width}x{height}{note(job)}")
    finally:
        shown.close()


def make_file(job: Job, tiles: Callable[[Job, np.ndarray], Iterable["Tile"]]) -> None:
    """Reads an image, works on it piece by piece and writes it, whole or not at all.

    Args:
      job: the image and the file to write.
      tiles: (job, its pixels) -> the finished pieces, which cover the image once.

    Raises:
      InputError: the image cannot be read or the file not be written.
    """
    photo = read_photo(job.source)
    grey = photo.pixels.ndim == 2
    pixels = np.empty(photo.pixels.shape, photo.pixels.dtype)
    for part in tiles(job, photo.pixels):
        pixels[part.rows, part.columns] = from_float(part.pixels, pixels.dtype, grey)
    photo = replace(photo, pixels=pixels)  # lets go of the pixels before
    write_photo(job.target, photo)


def is_done(job: Job) -> bool:
    """Tells whether the file to write is there, of the image's size and decodable to its end."""
    try:
        return exists(job.target) and read_photo(job.target).pixels.shape[:2] == job.size
    except InputError:
        return False

"""Samples to evaluate: clean/noisy pairs, or folders of triples, cut into samples of bounded size.

An image of up to 512 pixels a side is one sample, whole, so that metrics are those of their
definition. A larger one is cut into blocks of 256x256, as SIDD's validation images are: up to 4
along each axis, evenly spaced, without overlap; its score is the mean over its blocks.

Everything is compiled once for each size. Of a set of more than 32 sizes, samples are cut in the
middle to sides of 16, 32, 48 or a multiple of 64, which leaves 121 sizes at most.

Pixels are 8-bit RGB throughout, as `nt_jax.images.read_rgb` gives them.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nt_jax.broken import Broken
from nt_jax.data.catalogue.references import photograph
from nt_jax.data.catalogue.sources import (
    ImageFile,
    Pair,
    find_pairs,
    find_photos,
)
from nt_jax.errors import InputError
from nt_jax.images import (
    SMALLEST_SIDE,
    check_sides,
    image_size,
    list_images,
    nothing_found,
    read_rgb,
)
from nt_jax.paths import expand, same_name

LARGEST_WHOLE = 512
BLOCK = 256
_BLOCKS = 4
_MANY_SIZES = 32
_COARSE = 64

_Window = tuple[slice, slice]
# Name, group, clean, noisy, generated, photograph, camera.
_Files = tuple[str, str, ImageFile, ImageFile, ImageFile | None, str, str]

# A block's neighbours come from the same files.
_read = lru_cache(maxsize=4)(read_rgb)


class Sample(NamedTuple):
    """An image, or a block of one, with what it is scored against.

    Attributes:
      image: the image's name; its blocks share it, as do a prepared data set's tiles.
      group: camera and ISO; the image's name where they are not known.
      clean, noisy: files.
      generated: file with generated noise; None where it is still to be made.
      rows, columns: the part of the image.
      photograph: what the image is a crop of, itself where it is none.
      camera: camera and ISO such as "S6_3200"; "" where they are not known.
    """

    image: str
    group: str
    clean: ImageFile
    noisy: ImageFile
    generated: ImageFile | None
    rows: slice
    columns: slice
    photograph: str
    camera: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


class Images(NamedTuple):
    """A sample's pixels, uint8 [H, W, 3] each.

    Attributes:
      clean, noisy: the scored pair.
      reference: noisy image that a generator may look at; of any size.
      generated: clean image with generated noise; None where it is still to be made.
      reference_clean: the reference's clean image; None where it is not known.
      camera: camera and ISO such as "S6_3200"; "" where they are not known.
    """

    clean: np.ndarray
    noisy: np.ndarray
    reference: np.ndarray
    generated: np.ndarray | None = None
    reference_clean: np.ndarray | None = None
    camera: str = ""


def usable_pairs(folder: Path, broken: Broken) -> list[Pair]:
    """Lists a folder's pairs, in any layout of `nt_jax.data.catalogue.sources.find_pairs`.

    Raises:
      InputError: there is none; an image has no partner or one of another size, is below 16 pixels
        a side or cannot be read, and `broken` does not go on.
    """
    notes: list[str] = []
    problems: list[str] = []
    pairs = find_pairs(folder, problems, notes)
    for problem in problems:
        broken.note(problem)
    _say(notes)
    return [pair for pair in pairs if _size(pair.clean, broken)]


def usable_photos(folder: Path, broken: Broken) -> list[ImageFile]:
    """Lists the image files under a folder.

    Raises:
      InputError: there is none; an image is below 16 pixels a side or cannot be read, and `broken`
        does not go on.
    """
    notes: list[str] = []
    photos = find_photos(folder, notes)
    _say(notes)
    return [path for path in photos if _size(path, broken)]


def usable_images(folder: Path, broken: Broken) -> list[Path]:
    """Lists the image files under a folder, clean or noisy, as `usable_photos`.

    Raises:
      InputError: as there.
    """
    notes: list[str] = []
    files = list_images(folder, notes)
    _say(notes)
    if not files:
        raise nothing_found(folder)
    return [path for path in files if _size(path, broken)]


def _say(notes: list[str]) -> None:
    for note in notes:
        print(note, flush=True)


def _size(path: ImageFile, broken: Broken) -> tuple[int, int] | None:
    """Reads height and width; None where the image cannot be used."""
    try:
        height, width = image_size(path)
        check_sides(path, height, width)
        return height, width
    except InputError as error:
        broken.note(error)
        return None


def samples_of_pairs(pairs: Sequence[Pair]) -> list[Sample]:
    """Samples in the order of the pairs."""
    return _cut(
        [
            (
                *(pair.image or pair.name, pair.group, pair.clean, pair.noisy, None),
                *(photograph(pair), pair.group if pair.iso is not None else ""),
            )
            for pair in pairs
        ]
    )


def samples_of_folders(clean: Path, noisy: Path, generated: Path, broken: Broken) -> list[Sample]:
    """Samples of three folders with equal file names; extensions may differ.

    Raises:
      InputError: a folder is missing or empty; an image has no partner, sizes differ within a
        triple, an image is below 16 pixels a side or cannot be read, and `broken` does not go on.
    """
    folders = [(folder, _by_name(folder, broken)) for folder in (clean, noisy, generated)]
    images: list[_Files] = []
    for name in sorted(set().union(*(files for _, files in folders))):
        missing = [folder for folder, files in folders if name not in files]
        paths = [files[name] for _, files in folders if name in files]
        if missing:
            broken.note(f"{missing[0]} has no image {name}, but there is {paths[0]}")
            continue
        sizes = [_size(path, broken) for path in paths]
        if None in sizes:
            continue
        other = next((p for p, size in zip(paths, sizes, strict=True) if size != sizes[0]), None)
        if other:
            broken.note(f"{other}: its size differs from that of {paths[0]}")
            continue
        images.append((name, name, paths[0], paths[1], paths[2], name, ""))
    if not images:
        raise InputError(f"{clean}, {noisy} and {generated} have no usable image in common")
    return _cut(images)


def _by_name(folder: Path, broken: Broken) -> dict[str, Path]:
    """Lists image files under a folder by relative path without extension."""
    files: dict[str, Path] = {}
    root = expand(folder)
    for path in list_images(root):
        name = same_name(path.relative_to(root).with_suffix("").as_posix())
        if name in files:
            broken.note(f"{path} and {files[name]} have one name")
        else:
            files[name] = path
    if not files:
        raise nothing_found(folder)
    return files


def _cut(images: Sequence[_Files]) -> list[Sample]:
    parts = _bounded([_windows(*image_size(clean)) for _, _, clean, *_ in images])
    return [
        Sample(*image[:5], *window, *image[5:])
        for image, windows in zip(images, parts, strict=True)
        for window in windows
    ]


def whole_windows(images: Sequence[ImageFile]) -> list[_Window]:
    """Rows and columns of whole images, cut in the middle where there are too many sizes."""
    sizes = [image_size(image) for image in images]
    whole = [[(slice(0, height), slice(0, width))] for height, width in sizes]
    return [window for (window,) in _bounded(whole)]


def _bounded(parts: list[list[_Window]]) -> list[list[_Window]]:
    shapes = {(r.stop - r.start, c.stop - c.start) for windows in parts for r, c in windows}
    if len(shapes) <= _MANY_SIZES:
        return parts
    return [[(_coarse(r), _coarse(c)) for r, c in windows] for windows in parts]


def _windows(height: int, width: int) -> list[_Window]:
    if max(height, width) <= LARGEST_WHOLE:
        return [(slice(0, height), slice(0, width))]
    return [(row, column) for row in _blocks(height) for column in _blocks(width)]


def _blocks(side: int) -> list[slice]:
    if side < 2 * BLOCK:
        return [_middle(slice(0, side), min(side, BLOCK))]
    count = min(_BLOCKS, side // BLOCK)
    starts = [index * (side - BLOCK) // (count - 1) for index in range(count)]
    return [slice(start, start + BLOCK) for start in starts]


def _coarse(window: slice) -> slice:
    side = window.stop - window.start
    step = _COARSE if side >= _COARSE else SMALLEST_SIDE
    return _middle(window, side // step * step)


def _middle(window: slice, side: int) -> slice:
    start = window.start + (window.stop - window.start - side) // 2
    return slice(start, start + side)


def other_references(
    samples: Sequence[Sample], broken: Broken
) -> tuple[list[Sample], list[Sample]]:
    """Lists samples, and for each the next of the same camera and ISO but another photograph.

    "Next" is in the order given, starting over at the end. An image whose photograph is the only
    one of its camera and ISO has no such reference: it is left out, as its own other parts share
    its very noise; `broken` names it.

    Raises:
      InputError: none is left.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        groups[sample.group].append(index)
    kept, references = [], []
    for index, sample in enumerate(samples):
        members = groups[sample.group]
        turn = members.index(index) + 1
        others = (samples[member] for member in (*members[turn:], *members[: turn - 1]))
        other = next((o for o in others if o.photograph != sample.photograph), None)
        if other is None:
            broken.leave_out(
                f"{sample.image}: no other photograph of the same camera and ISO to be its "
                "reference"
            )
            continue
        kept.append(sample)
        references.append(other)
    if not kept:
        raise InputError(
            "no two photographs of the same camera and ISO (names as of SIDD and PolyU tell them); "
            "use --reference=self"
        )
    return kept, references


def read_images(sample: Sample, reference: Sample | None = None) -> Images:
    """Reads a sample and its reference; None: it is its own reference.

    Raises:
      InputError: a file is no readable image.
    """

    def part(path: ImageFile, of: Sample) -> np.ndarray:
        return _read(path)[of.rows, of.columns]

    clean, noisy = part(sample.clean, sample), part(sample.noisy, sample)
    return Images(
        clean=clean,
        noisy=noisy,
        reference=noisy if reference is None else part(reference.noisy, reference),
        generated=None if sample.generated is None else part(sample.generated, sample),
        reference_clean=clean if reference is None else part(reference.clean, reference),
        camera=sample.camera,
    )

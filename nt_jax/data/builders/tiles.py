"""Cutting images into tiles, once: checked, in parallel, and kept on disk so that it resumes."""

import contextlib
import hashlib
import json
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import imagecodecs
import numpy as np

from nt_jax.data.builders.alignment import align_noisy
from nt_jax.data.builders.listing import Source
from nt_jax.data.catalogue.prepared import ROLES
from nt_jax.errors import InputError
from nt_jax.files import progress, replacing, shortened
from nt_jax.images import EXTENSIONS, LARGE, check_sides, image_size

_T = TypeVar("_T")
_R = TypeVar("_R")

_LARGE_LOCK = threading.Lock()


def windows(height: int, width: int, tile: int) -> list[tuple[int, int, int, int]]:
    """Places the tiles that cover an image: (y, x, height, width) of each.

    All are `tile` pixels a side; the last of a row or column is shifted inwards and overlaps the
    one before. An image smaller than that stays whole along that side.
    """

    def starts(size: int) -> list[int]:
        return [*range(0, size - tile, tile), max(size - tile, 0)]

    h, w = min(height, tile), min(width, tile)
    return [(y, x, h, w) for y in starts(height) for x in starts(width)]


@contextlib.contextmanager
def room(source: Source) -> Iterator[None]:
    """Lets only one large image or pair be worked on at a time, or they would fill the memory.

    Raises:
      InputError: a file cannot be read.
    """
    files = [path for path in source.files if path.suffix.lower() in EXTENSIONS]
    pixels = sum(math.prod(image_size(path)) for path in files)
    with _LARGE_LOCK if pixels > LARGE else contextlib.nullcontext():
        yield


def read(source: Source) -> dict[str, np.ndarray]:
    """Decodes an image or a pair completely: "clean" and "noisy" [H, W, 3], as there are.

    Each is uint8, or uint16 where its file is deeper.

    Raises:
      InputError: a file cannot be read, the two differ in size, or have a side below 16 pixels.
    """
    readers = {"clean": source.clean, "noisy": source.noisy}
    images = {role: reader() for role, reader in readers.items() if reader}
    if len({image.shape for image in images.values()}) > 1:
        (height, width), (h, w) = images["clean"].shape[:2], images["noisy"].shape[:2]
        raise InputError(
            f"{source.files[-1]}: {w}x{h}, but its clean partner {source.files[0]} is"
            f" {width}x{height}"
        )
    height, width = next(iter(images.values())).shape[:2]
    check_sides(source.files[-1], height, width)
    return images


def work_name(source: Source, tile: int) -> str:
    """Makes a name that changes with what a source's tiles are made of, and where they go."""
    digest = hashlib.sha256(f"{source.name} {source.split} {source.y} {source.x} {tile}".encode())
    if source.align:
        digest.update(b" aligned")
    for path in source.files:
        stat = path.stat()
        digest.update(f" {path.name} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:32]


def tile_file(split: str, role: str, name: str) -> str:
    """Tells where a tile's image goes, relative to the index.

    Parts too long for a file have a digest.
    """
    return "/".join([split, role, *map(shortened, f"{name}.png".split("/"))])


def _write_png(path: Path, png: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path.parent} cannot be written: {error.strerror}") from error
    with replacing(path) as temporary:
        temporary.write_bytes(png)


def _write(folder: Path, source: Source, tile: int) -> list[dict[str, Any]]:
    """Writes the tiles of an image below a folder: the rows of the index that only they tell."""
    images = read(source)
    if source.align and len(images) == 2:
        images["noisy"] = align_noisy(images["clean"], images["noisy"])
    height, width = next(iter(images.values())).shape[:2]
    places = windows(height, width, tile)
    rows = []
    for y, x, h, w in places:
        place = f"_y{source.y + y:05d}_x{source.x + x:05d}" if len(places) > 1 else ""
        row: dict[str, Any] = {"name": source.name + place, "height": h, "width": w}
        row |= {"y": source.y + y, "x": source.x + x, "bits": 8}
        for role in ROLES:
            row |= {role: None, f"{role}_sha256": None}
        for role, image in images.items():
            part = np.ascontiguousarray(image[y : y + h, x : x + w])
            png = bytes(imagecodecs.png_encode(part, level=4))
            row[role] = tile_file(source.split, role, row["name"])
            row[f"{role}_sha256"] = hashlib.sha256(png).hexdigest()
            row["bits"] = max(row["bits"], image.dtype.itemsize * 8)
            _write_png(folder / row[role], png)
        rows.append(row)
    return rows


def cut(source: Source, tile: int, folder: Path, done: Path) -> list[dict[str, Any]]:
    """Cuts an image into PNGs below `folder`, once: a file below `done` says that it is done.

    Returns:
      The rows of the index that are its own, without those that tell of the whole image.

    Raises:
      InputError: the image is broken, or a file cannot be written.
    """
    path = done / f"{work_name(source, tile)}.json"
    if not path.exists():
        with room(source):
            rows = _write(folder, source, tile)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(rows))
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}): remove it and start again") from error


def in_parallel(
    function: Callable[[_T], _R], items: Iterable[_T], total: int, what: str
) -> Iterator[_R]:
    """Runs `map` in threads with a progress bar on a terminal, plain lines otherwise."""
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for _, result in progress(pool.map(function, items), total, "image", what):
            yield result
    finally:
        pool.shutdown(cancel_futures=True)  # `with` would first work off all that waits

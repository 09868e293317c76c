"""Cutting images into tiles, once: checked, in parallel, and kept on disk so that it resumes."""

import contextlib
import hashlib
import math
import os
import re
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import imagecodecs
import numpy as np

from nt_jax.data.builders.alignment import align_noisy
from nt_jax.data.builders.listing import Source
from nt_jax.errors import InputError
from nt_jax.files import progress, replacing
from nt_jax.images import EXTENSIONS, LARGE, image_size

_T = TypeVar("_T")
_R = TypeVar("_R")

_LARGE_LOCK = threading.Lock()
_MEMBER = re.compile(r"y(\d+)_x(\d+)_(clean|noisy)\.png")


class Tile(NamedTuple):
    """A part of an image: y and x of its first pixel there, and lossless PNGs of it."""

    y: int
    x: int
    clean: bytes | None
    noisy: bytes | None


def windows(height: int, width: int, tile: int) -> list[tuple[int, int, int, int]]:
    """(y, x, height, width) of the tiles that cover an image.

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
    """Decodes an image or a pair completely: "clean" and "noisy" uint8 [H, W, 3], as there are.

    Raises:
      InputError: a file cannot be read, or the two differ in size.
    """
    readers = {"clean": source.clean, "noisy": source.noisy}
    images = {role: reader() for role, reader in readers.items() if reader}
    if len({image.shape for image in images.values()}) > 1:
        (height, width), (h, w) = images["clean"].shape[:2], images["noisy"].shape[:2]
        raise InputError(
            f"{source.files[-1]}: {w}x{h}, but its clean partner {source.files[0]} is"
            f" {width}x{height}"
        )
    return images


def work_name(source: Source, tile: int) -> str:
    """A name that changes with whatever the tiles of a source are made of."""
    digest = hashlib.sha256(f"{source.name} {source.y} {source.x} {tile}".encode())
    if source.align:
        digest.update(b" aligned")
    for path in source.files:
        stat = path.stat()
        digest.update(f" {path.name} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:32]


def _write(path: Path, source: Source, tile: int) -> None:
    images = read(source)
    if source.align and len(images) == 2:
        images["noisy"] = align_noisy(images["clean"], images["noisy"])
    height, width = next(iter(images.values())).shape[:2]
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for y, x, h, w in windows(height, width, tile):
            for role, image in images.items():
                part = np.ascontiguousarray(image[y : y + h, x : x + w])
                png = imagecodecs.png_encode(part, level=4)
                archive.writestr(f"y{source.y + y}_x{source.x + x}_{role}.png", png)


def cut(source: Source, tile: int, work: Path) -> Path:
    """Cuts an image and keeps its tiles in a file below `work`; that of an earlier run stands.

    Returns:
      The file, for `load`.

    Raises:
      InputError: the image is broken, or the file cannot be written.
    """
    path = work / f"{work_name(source, tile)}.zip"
    if not path.exists():
        with room(source):
            _write(path, source, tile)
    return path


def load(path: Path) -> Iterator[Tile]:
    """The tiles that `cut` kept.

    Raises:
      InputError: the file was damaged since.
    """
    found: dict[tuple[int, int], dict[str, bytes]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                match = _MEMBER.fullmatch(member)
                assert match
                part = found.setdefault((int(match[1]), int(match[2])), {})
                part[match[3]] = archive.read(member)
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InputError(f"{path} is damaged ({error}): remove it and start again") from error
    for (y, x), images in found.items():
        yield Tile(y, x, images.get("clean"), images.get("noisy"))


def in_parallel(
    function: Callable[[_T], _R], items: Iterable[_T], total: int, what: str
) -> Iterator[_R]:
    """`map` in threads with a progress bar on a terminal, plain lines otherwise."""
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for _, result in progress(pool.map(function, items), total, "image", what):
            yield result
    finally:
        pool.shutdown(cancel_futures=True)  # `with` would first work off all that waits

"""All pixels of a training set in one array: in memory, or in a memory-mapped file."""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nt_jax.broken import Broken
from nt_jax.data.catalogue.prepared import StoredImage
from nt_jax.data.catalogue.sources import ImageFile, Pair, in_threads
from nt_jax.errors import InputError
from nt_jax.files import replacing
from nt_jax.images import image_size, read_rgb
from nt_jax.paths import expand

_STALE_S = 3600.0  # a temporary file of a cache not written to for so long is nobody's
_BROKEN_SHARE = 0.01  # of the images, that training goes on without
_REMEDY = (
    "mend or remove them; `python -m nt_jax.prepare --on_error=skip` names all and leaves them out"
)


class ImageBank(NamedTuple):
    """All pixels of several images in one flat array, for gathering patches by index.

    Photographs come first, then the pairs. A pair's noisy image lies in the same array, in the
    same row-major order as its clean one.

    Attributes:
      pixels: uint8 [pixels, 3], on a 64-byte boundary.
      offsets: int64 [N], index of each (clean) image's first pixel.
      noisy_offsets: int64 [N], the same of its noisy version; equal to `offsets` for photographs.
      heights: int64 [N].
      widths: int64 [N].
      usable: bool [M], which of the M images asked for these N are.
    """

    pixels: np.ndarray
    offsets: np.ndarray
    noisy_offsets: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    usable: np.ndarray


class _Header(NamedTuple):
    """Knowledge of an image before its pixels: size, and what changes when it does."""

    height: int
    width: int
    identity: str


def _aligned_empty(size: int) -> np.ndarray:
    """Allocates uint8 [size] on a 64-byte boundary: TensorFlow can use it without a copy."""
    memory = np.empty(size + 63, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


def _read_header(image: ImageFile) -> _Header:
    path = Path(image)
    try:
        stat = path.stat()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    # Not resolved: that takes longer than all else here, and times tell where a link was changed.
    identity = f"{os.path.abspath(path)} {stat.st_size} {stat.st_mtime_ns}"
    if isinstance(image, StoredImage):
        return _Header(image.height, image.width, identity)
    return _Header(*image_size(image), identity)


def _cache_key(headers: Sequence[_Header]) -> str:
    """Digests what differs when an image does.

    These are names, sizes in pixels and bytes, and times of change.
    """
    lines = "".join(f"{header}\n" for header in headers)
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()[:32]


def _from_disk(path: Path, size: int, fill: Callable[[np.ndarray], None]) -> np.ndarray:
    """Maps uint8 [size] in a file, filled once; later runs find it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        found = path.stat().st_size if path.exists() else None
        if found is not None and found != size:  # mapped, what is missing would end the process
            print(f"data: {path} has {found} bytes, not {size}: writing it anew", flush=True)
        if found != size:
            _write(path, size, fill)
        # Not read-only, which DLPack refuses, and not copy-on-write, which reserves as much memory.
        return np.asarray(np.memmap(path, np.uint8, "r+", shape=(size,)))
    except OSError as error:
        raise InputError(f"data.cache: {path.parent}: {error.strerror}") from error


def _write(path: Path, size: int, fill: Callable[[np.ndarray], None]) -> None:
    for left in path.parent.glob(f".{path.name}.*.part"):  # by a run that was killed
        with contextlib.suppress(FileNotFoundError):  # another run has just finished or removed it
            if time.time() - left.stat().st_mtime > _STALE_S:
                left.unlink()
    print(f"data: writing {size / 1e9:.1f} GB of pixels to {path}", flush=True)
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            if hasattr(os, "posix_fallocate"):  # on a full disk a mapped write ends the process
                os.posix_fallocate(file.fileno(), 0, size)
            file.truncate(size)
        array = np.memmap(temporary, np.uint8, "r+", shape=(size,))
        fill(array)
        array.flush()


class _Unusable:
    """Which images cannot be used: pairs by either of their files; and what becomes of them."""

    def __init__(self, problems: Sequence[str], images: int) -> None:
        """Takes lines about images found unusable before, and how many there are besides."""
        self._broken = Broken(
            skip=True, most=_BROKEN_SHARE, remedy=_REMEDY, prefix="data: skipped "
        )
        for problem in problems:
            self._broken.add(problem)
        self._total = images + len(problems)
        self.images: set[int] = set()

    def add(self, image: int, line: str) -> None:
        if image not in self.images:
            self.images.add(image)
            self._broken.add(line)

    def check(self) -> None:
        """Raises InputError if they are too many to go on without them."""
        self._broken.check(self._total)

    def say(self) -> None:
        self._broken.say()


def _header_or_problem(image: ImageFile) -> _Header | str:
    try:
        return _read_header(image)
    except InputError as error:
        return str(error)


def _look_at(
    files: Sequence[ImageFile], image_of: Sequence[int], pairs: int, unusable: _Unusable
) -> tuple[list[int], list[_Header]]:
    """Lists (numbers of the files of usable images, their headers).

    The last are the pairs' noisy.
    """
    headers = in_threads(_header_or_problem, files)
    for i, header in enumerate(headers):
        if isinstance(header, str):
            unusable.add(image_of[i], header)
    for i in range(len(files) - pairs, len(files)):
        clean, noisy = headers[i - pairs], headers[i]
        if image_of[i] not in unusable.images and clean[:2] != noisy[:2]:
            line = f"{files[i]}: its size differs from that of {files[i - pairs]}"
            unusable.add(image_of[i], line)
    unusable.check()
    listed = [i for i in range(len(files)) if image_of[i] not in unusable.images]
    return listed, [header for i in listed if isinstance(header := headers[i], _Header)]


def _check_sides(files: Sequence[ImageFile], sizes: np.ndarray, smallest: int) -> None:
    for file, (height, width) in zip(files, sizes, strict=True):
        if min(height, width) < smallest:
            raise InputError(
                f"{file}: {width}x{height} is smaller than the patch of {smallest}: "
                "lower data.patch_size or leave the image out"
            )


def _read_into(
    pixels: np.ndarray, files: Sequence[ImageFile], sizes: np.ndarray, starts: np.ndarray
) -> list[str]:
    """Decodes files to pixels [P, 3] from each one's start: what is wrong with each, or ""."""

    def read(i: int) -> str:
        try:
            image = read_rgb(files[i])
        except InputError as error:
            return str(error)
        if image.shape[:2] != tuple(sizes[i]):
            return (
                f"{files[i]}: not of the size that its header or index says: save or prepare it"
                " again"
            )
        pixels[starts[i] : starts[i + 1]] = image.reshape(-1, 3)
        return ""

    return in_threads(read, range(len(files)))


def _in_memory(size: int) -> np.ndarray:
    try:
        return _aligned_empty(size)
    except MemoryError as error:
        raise InputError(
            f"the images take {size / 1e9:.0f} GB, more than the memory: set data.cache to a"
            " folder with as much room"
        ) from error


def load_bank(
    photos: Sequence[ImageFile],
    pairs: Sequence[Pair],
    smallest_side: int,
    cache: str | Path = "",
    problems: Sequence[str] = (),
) -> ImageBank:
    """Reads photographs and pairs into one bank, without those that cannot be read.

    Each of these is named in a line; a pair counts once.

    Args:
      photos: image files.
      pairs: from `find_pairs`.
      smallest_side: what height and width of every image must reach, in pixels: the patch size.
      cache: folder to keep the pixels in as a memory-mapped file, for more than fit into memory;
        "" for memory. A later call with the same images finds them there.
      problems: lines about images that were found unusable before; counted with the others.

    Raises:
      InputError: more than 1 % of the images cannot be used, or one is too small; the cache cannot
        be written; there is too little memory.
    """
    n = len(photos) + len(pairs)
    every_file = [*photos, *(pair.clean for pair in pairs), *(pair.noisy for pair in pairs)]
    image_of = [*range(n), *range(len(photos), n)]
    unusable = _Unusable(problems, n)
    listed, headers = _look_at(every_file, image_of, len(pairs), unusable)
    files = [every_file[i] for i in listed]
    sizes = np.array([header[:2] for header in headers], np.int64).reshape(-1, 2)
    _check_sides(files, sizes, smallest_side)
    starts = np.concatenate([[0], np.cumsum(sizes.prod(axis=1))])
    size = int(starts[-1]) * 3

    def fill(memory: np.ndarray) -> None:
        lines = _read_into(memory[:size].reshape(-1, 3), files, sizes, starts)
        memory[size:] = [not line for line in lines]
        for i, line in zip(listed, lines, strict=True):
            if line:
                unusable.add(image_of[i], line)
        unusable.check()

    # After the pixels, a byte for each file: whether they could be read.
    room = size + len(files)
    if cache:
        path = expand(cache) / f"pixels-{_cache_key(headers)}.bin"
        memory = _from_disk(path, room, fill)
        for i in np.flatnonzero(memory[size:] == 0).tolist():
            unusable.add(image_of[listed[i]], f"{files[i]}: not readable, says {path}")
    else:
        memory = _in_memory(room)
        fill(memory)
    unusable.check()
    unusable.say()

    where = {number: i for i, number in enumerate(listed)}
    usable = [i for i in range(n) if i not in unusable.images]
    clean_at = np.array([where[i] for i in usable], np.int64)
    noisy_at = np.array([where[i + len(pairs) * (i >= len(photos))] for i in usable], np.int64)
    return ImageBank(
        pixels=memory[:size].reshape(-1, 3),
        offsets=starts[clean_at],
        noisy_offsets=starts[noisy_at],
        heights=sizes[clean_at, 0],
        widths=sizes[clean_at, 1],
        usable=np.array([i not in unusable.images for i in range(n)], bool),
    )

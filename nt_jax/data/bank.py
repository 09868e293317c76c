"""All pixels of a training set in one array: in memory, or in a memory-mapped file."""

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nt_jax.data.prepared import StoredImage
from nt_jax.data.sources import ImageFile, Pair, image_size, in_threads, read_rgb
from nt_jax.errors import InputError
from nt_jax.outputs import replacing

_STALE_S = 3600.0  # a temporary file of a cache not written to for so long is nobody's


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
    """

    pixels: np.ndarray
    offsets: np.ndarray
    noisy_offsets: np.ndarray
    heights: np.ndarray
    widths: np.ndarray


def _aligned_empty(size: int) -> np.ndarray:
    """uint8 [size] on a 64-byte boundary, so that TensorFlow can use it without a copy."""
    memory = np.empty(size + 63, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


def _cache_key(files: Sequence[ImageFile], sizes: np.ndarray) -> str:
    """Differs when an image does: names, sizes in pixels and bytes, and times of change."""
    digest = hashlib.sha256(sizes.tobytes())
    for image in files:
        path = image.shard if isinstance(image, StoredImage) else image
        stat = path.stat()
        offset = image.offset if isinstance(image, StoredImage) else 0
        digest.update(f"{path.resolve()} {offset} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def _from_disk(path: Path, size: int, fill: Callable[[np.ndarray], None]) -> np.ndarray:
    """uint8 [size] in a file, filled once; later runs find it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"data.cache: {path.parent}: {error.strerror}") from error
    if not path.exists():
        for left in path.parent.glob(f".{path.name}.*.part"):  # by a run that was killed
            if time.time() - left.stat().st_mtime > _STALE_S:
                left.unlink(missing_ok=True)
        print(f"data: writing {size / 1e9:.1f} GB of pixels to {path}", flush=True)
        with replacing(path) as temporary:
            array = np.memmap(temporary, np.uint8, "w+", shape=(size,))
            fill(array)
            array.flush()
    # Not read-only, which DLPack refuses, and not copy-on-write, which reserves as much memory.
    return np.asarray(np.memmap(path, np.uint8, "r+", shape=(size,)))


def load_bank(
    photos: Sequence[ImageFile], pairs: Sequence[Pair], smallest_side: int, cache: str | Path = ""
) -> ImageBank:
    """Reads photographs and pairs into one bank.

    Args:
      photos: image files.
      pairs: from `find_pairs`.
      smallest_side: what height and width of every image must reach, in pixels: the patch size.
      cache: folder to keep the pixels in as a memory-mapped file, for more than fit into memory;
        "" for memory. A later call with the same images finds them there.

    Raises:
      InputError: an image is too small or cannot be read; the cache cannot be written.
    """
    clean = [*photos, *(pair.clean for pair in pairs)]
    files = [*clean, *(pair.noisy for pair in pairs)]
    sizes = np.array(in_threads(image_size, files), np.int64).reshape(-1, 2)
    for path, (height, width) in zip(files, sizes, strict=True):
        if min(height, width) < smallest_side:
            raise InputError(
                f"{path}: {width}x{height} is smaller than the patch of {smallest_side}: "
                "lower data.patch_size or leave the image out"
            )
    starts = np.concatenate([[0], np.cumsum(sizes.prod(axis=1))])

    def fill(memory: np.ndarray) -> None:
        pixels = memory.reshape(-1, 3)

        def fill_one(i: int) -> None:
            image = read_rgb(files[i])
            if image.shape[:2] != tuple(sizes[i]):
                raise InputError(f"{files[i]}: turned by EXIF data after its pixels: save it again")
            pixels[starts[i] : starts[i + 1]] = image.reshape(-1, 3)

        in_threads(fill_one, range(len(files)))

    size = int(starts[-1]) * 3
    if cache:
        path = Path(cache).expanduser() / f"pixels-{_cache_key(files, sizes)}.bin"
        memory = _from_disk(path, size, fill)
    else:
        memory = _aligned_empty(size)
        fill(memory)
    n = len(clean)
    noisy_offsets = np.concatenate([starts[: len(photos)], starts[n : len(files)]])
    return ImageBank(memory.reshape(-1, 3), starts[:n], noisy_offsets, sizes[:n, 0], sizes[:n, 1])

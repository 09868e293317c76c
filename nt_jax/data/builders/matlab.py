"""Reading MATLAB files: version 5 with SciPy, version 7.3, which is HDF5, with h5py."""

import functools
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nt_jax.errors import InputError

_LOCK = threading.Lock()
# A file can declare any size in a few bytes; SIDD's validation blocks are 252 MB.
_MAX_BYTES = 2**30


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise InputError("MATLAB 7.3 files need h5py: pip install h5py") from error
    return h5py


def _is_hdf5(path: Path) -> bool:
    """Tells whether a file is HDF5 after MATLAB's header of 512 bytes, or from the start."""
    with path.open("rb") as file:
        head = file.read(520)
    return b"\x89HDF\r\n\x1a\n" in (head[:8], head[512:])


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: not a readable MATLAB file ({error})")


def _is_array(file: Any, name: str) -> bool:
    """Tells whether it is an array of numbers in the file itself.

    HDF5 can point into other files too.
    """
    h5py = _h5py()
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        return False
    item = file[name]
    return (
        isinstance(item, h5py.Dataset)
        and not (item.external or item.is_virtual)
        and item.shape is not None
        and item.dtype.kind in "uif"
    )


def _dataset(file: Any, path: Path, name: str) -> Any:
    if not _is_array(file, name):
        raise InputError(f"{path}: has no array of numbers {name}")
    return file[name]


def _check_bytes(path: Path, shape: Sequence[int], itemsize: int) -> None:
    if math.prod(shape) * itemsize > _MAX_BYTES:
        raise InputError(
            f"{path}: an array of {'x'.join(map(str, shape))} is above"
            f" {_MAX_BYTES // 2**30} GB, larger than any published"
        )


def _to_8_bits(path: Path, array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind != "f":
        raise InputError(f"{path}: holds {array.dtype}, not 8 bits or floats in [0, 1]")
    if not (np.isfinite(array).all() and array.size and array.max() <= 2):
        raise InputError(f"{path}: floats beyond [0, 1]")
    return np.round(np.clip(array, 0, 1) * 255).astype(np.uint8)


_NO_IMAGES = "holds no array of images [..., H, W, 3]"


def _largest_images(path: Path, shapes: dict[str, Sequence[int]]) -> str:
    """Finds the name of the largest array.

    Beside the one of images there are sometimes small things.
    """
    arrays = {name: shape for name, shape in shapes.items() if len(shape) > 3}
    if not arrays:
        raise InputError(f"{path}: {_NO_IMAGES}")
    return max(arrays, key=lambda name: math.prod(arrays[name]))


# Bytes of a number, by the names that SciPy gives MATLAB's classes.
_ITEM_BYTES = {"uint8": 1, "single": 4, "double": 8}


@functools.lru_cache(maxsize=2)
def _read_blocks(path: Path) -> np.ndarray:
    import scipy.io

    try:
        if _is_hdf5(path):
            with _h5py().File(path) as file:
                arrays = [name for name in file if _is_array(file, name)]
                shapes = {name: file[name].shape for name in arrays}
                name = _largest_images(path, shapes)
                stored = _dataset(file, path, name)
                _check_bytes(path, stored.shape, stored.dtype.itemsize)
                array = stored[()].T  # MATLAB's order of axes
        else:
            contents = scipy.io.whosmat(path)  # reads no values
            kinds = {name: kind for name, _, kind in contents if kind in _ITEM_BYTES}
            shapes = {name: shape for name, shape, _ in contents if name in kinds}
            name = _largest_images(path, shapes)
            _check_bytes(path, shapes[name], _ITEM_BYTES[kinds[name]])
            array = scipy.io.loadmat(path, variable_names=[name])[name]
    except (InputError, MemoryError):
        raise
    except Exception as error:  # SciPy and h5py raise nearly anything on a damaged file
        raise _unreadable(path, error) from error
    if array.shape[-1] != 3:
        raise InputError(f"{path}: {_NO_IMAGES}")
    return _to_8_bits(path, array)


def read_blocks(path: Path) -> np.ndarray:
    """Reads the images of a file of equal-sized blocks; the last two files stay in memory.

    Returns:
      uint8 [..., H, W, 3].

    Raises:
      InputError: it holds no such array or cannot be read.
    """
    with _LOCK:  # or several threads would read the same file
        return _read_blocks(path)


def read_block(path: Path, index: tuple[int, ...]) -> np.ndarray:
    """Reads one block of such a file, uint8 [H, W, 3]."""
    return read_blocks(path)[index]


def read_region(path: Path, name: str, y: int, x: int, height: int, width: int) -> np.ndarray:
    """Reads a part of an image [H, W, 3] in a 7.3 file, and only that part.

    Returns:
      uint8 [height, width, 3]; floats in [0, 1] are rounded to 8 bits.

    Raises:
      InputError: the file has no such image or cannot be read.
    """
    try:
        with _h5py().File(path) as file:
            stored = _dataset(file, path, name)  # axes are reversed: [3, W, H]
            if len(stored.shape) != 3 or stored.shape[0] != 3:
                raise InputError(f"{path}: {name} is no image [H, W, 3]")
            _check_bytes(path, (height, width, 3), stored.dtype.itemsize)
            if stored.shape[2] < y + height or stored.shape[1] < x + width:
                raise InputError(f"{path}: {stored.shape[2]}x{stored.shape[1]} is below its boxes")
            array = stored[:, x : x + width, y : y + height].T
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise _unreadable(path, error) from error
    return _to_8_bits(path, array)


def read_boxes(path: Path) -> list[np.ndarray]:
    """Reads the bounding boxes of DND's info.mat.

    Returns:
      For each image int64 [boxes, 4]: y, x, height and width, from 0.

    Raises:
      InputError: the file has no boxes or cannot be read.
    """
    try:
        with _h5py().File(path) as file:
            info = file["info"]
            if not isinstance(file.get("info", getlink=True), _h5py().HardLink):
                raise InputError(f"{path}: info is a link")
            references = np.asarray(info["boundingboxes"]).ravel()
            corners = [np.asarray(info[reference]).T.astype(np.int64) for reference in references]
    except (InputError, MemoryError):
        raise
    except Exception as error:
        raise _unreadable(path, error) from error
    if not corners or any(box.ndim != 2 or box.shape[1] != 4 for box in corners):
        raise InputError(f"{path}: its bounding boxes are not [boxes, 4] for each image")
    # MATLAB counts from 1 and includes the end: [first row, first column, last row, last column].
    boxes = [np.column_stack([b[:, :2] - 1, b[:, 2:] - b[:, :2] + 1]) for b in corners]
    if any((box < [0, 0, 1, 1]).any() for box in boxes):
        raise InputError(f"{path}: a bounding box is empty or outside its image")
    return boxes

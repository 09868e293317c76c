"""Cameras' raw files: known by name or content, developed by `rawpy` where it is installed.

They hold the mosaic of the sensor and, first, a small finished preview: not the photograph.
"""

import functools
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from nt_jax.errors import InputError

_NAMES = (
    "3fr arw cr2 cr3 crw dcr dng erf fff iiq kdc mef mos mrw nef nrw orf pef raf rw2 rwl"
    " sr2 srf srw x3f"
)
EXTENSIONS = frozenset(f".{name}" for name in _NAMES.split())
# Of those that are no TIFF, or a TIFF by another number; Canon's CR2 is one by the right number.
_MAGIC = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM")


def looks_raw(path: Path, head: bytes) -> bool:
    """Tells whether a file is raw by its name or its first 16 bytes; a TIFF may be besides."""
    return (
        path.suffix.lower() in EXTENSIONS
        or head.startswith(_MAGIC)
        or head[4:12] == b"ftypcrx "
        or head[6:14] == b"HEAPCCDR"
        or (head[:2] in (b"II", b"MM") and head[8:10] == b"CR")
    )


@functools.cache
def can_develop() -> bool:
    """Tells whether `rawpy` is installed."""
    return importlib.util.find_spec("rawpy") is not None


def refusal(path: Path) -> InputError:
    """Makes the error of a raw file where `rawpy` is not installed."""
    return InputError(
        f"{path} is a camera's raw file: develop it to a 16-bit TIFF first (sRGB, white balance of "
        "the camera), or pip install 'nt_jax[raw]'"
    )


def size(path: Path) -> tuple[int, int]:
    """Reads the (height, width) of the developed photograph, upright.

    Raises:
      Exception: of many kinds, where the file is damaged.
    """
    import rawpy

    with rawpy.imread(str(path)) as raw:
        return _size(raw)


def _size(raw: Any) -> tuple[int, int]:
    sizes = raw.sizes
    turned = sizes.flip in (5, 6)
    height, width = sizes.iheight, sizes.iwidth
    return (width, height) if turned else (height, width)


def develop(path: Path) -> np.ndarray:
    """Develops the photograph as its camera would: sRGB, the camera's white balance.

    Not brightened to the picture's own white, which a camera does not do either and which would
    scale the noise of each photograph by another factor.

    Returns:
      uint16 [H, W, 3].

    Raises:
      Exception: of many kinds, where the file is damaged.
    """
    import rawpy

    with rawpy.imread(str(path)) as raw:
        return raw.postprocess(
            use_camera_wb=True,
            no_auto_bright=True,
            output_bps=16,
            output_color=rawpy.ColorSpace.sRGB,
            gamma=(2.4, 12.92),
        )

"""WebP: the size and metadata that its chunks tell, before a decoder takes memory for it."""

import struct
from typing import NamedTuple

import numpy as np

MAGIC = b"RIFF"
_KIND = b"WEBP"
_HEADER = 12


class Container(NamedTuple):
    """Header of a file, before its pixels.

    Attributes:
      height, width: in pixels.
      frames: 1, or more of an animation.
      icc_profile, exif, xmp: None where there is none.
    """

    height: int
    width: int
    frames: int
    icc_profile: bytes | None
    exif: bytes | None
    xmp: bytes | None


def is_webp(head: bytes) -> bool:
    """Tells whether a file with these first bytes is WebP."""
    return head.startswith(MAGIC) and head[8:_HEADER] == _KIND


def read_container(data: bytes) -> Container:
    """Goes through the chunks.

    Raises:
      ValueError: there is no image, or its size is not the file's.
    """
    chunks: dict[bytes, bytes] = {}
    frames, at = 0, _HEADER
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        frames += kind == b"ANMF"
        if kind not in chunks:
            # Of pixels the first bytes suffice.
            most = length if kind in (b"ICCP", b"EXIF", b"XMP ") else 10
            chunks[kind] = data[at + 8 : at + 8 + min(length, most)]
        at += 8 + length + length % 2
    sizes = {size for kind in (b"VP8X", b"VP8 ", b"VP8L") if (size := _size(kind, chunks))}
    if len(sizes) != 1:
        raise ValueError("no size, or several")
    ((height, width),) = sizes
    known = (chunks.get(kind) for kind in (b"ICCP", b"EXIF", b"XMP "))
    return Container(height, width, max(frames, 1), *known)


def _size(kind: bytes, chunks: dict[bytes, bytes]) -> tuple[int, int] | None:
    """Reads the (height, width) that a chunk tells; None where there is no such chunk."""
    start = chunks.get(kind, b"")
    if len(start) < (5 if kind == b"VP8L" else 10):
        return None
    if kind == b"VP8X":
        width, height = (int.from_bytes(start[i : i + 3], "little") + 1 for i in (4, 7))
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", start, 6))
    else:
        bits = int.from_bytes(start[1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return height, width


def decode(data: bytes) -> np.ndarray:
    """Decodes a file to uint8 [H, W, 3], or [H, W, 4] with alpha.

    Raises:
      Exception: of many kinds, where the file is damaged.
    """
    import imagecodecs  # Pillow's limit of pixels, which is the user's, holds in its own decoder

    return np.asarray(imagecodecs.webp_decode(data))

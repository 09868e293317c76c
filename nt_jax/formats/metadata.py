"""Metadata of a shot: EXIF and resolution, kept from input to output.

Of EXIF goes what no longer holds: the orientation, as pixels are upright; the thumbnail, which
shows the image before; and what describes the file and not the shot.
"""

import contextlib
import io
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import tifffile
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from nt_jax.formats.descriptions import png_text

ORIENTATION = 0x0112
_EXIF, _GPS, _INTEROP = 0x8769, 0x8825, 0xA005
_MAKER_NOTE = 0x927C
_ISO = 0x8827
_SIZES = {"width": 0xA002, "height": 0xA003}
_X_RESOLUTION, _Y_RESOLUTION, _UNIT = 0x011A, 0x011B, 0x0128
_INCH = 2
# Description, make, model, software, time, artist, computer, copyright, rating.
_TEXTS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x8298)
_RATING = 0x4746
_BYTES = range(0x9C9B, 0x9CA0)  # Windows' title, comment, author, keywords, subject
# Types of a field that is bytes. In EXIF's own directories all of them are of the second, in GPS'
# the method and the area.
_BYTE, _UNDEFINED = 1, 7
_UNDEFINED_OF_GPS = (0x1B, 0x1C)
_KEPT = (*_TEXTS, _RATING, *_BYTES, _EXIF, _GPS)
_PREFIX = b"Exif\0\0"
_LARGEST = 65_500  # that JPEG holds
# Of a little-endian BigTIFF: magic number, bytes of an offset, zero, the first directory's offset.
_BIG_MAGIC, _BIG_HEADER = b"II+\0", struct.Struct("<4sHHQ")
_LAST_POINTER = 2**32 - 2**17  # in a TIFF, with room for EXIF behind it

Resolution = tuple[float, float]


class _Text(str):
    """A text that is written as the bytes it was read from.

    Whatever they mean (most programs write UTF-8), Pillow reads Latin-1, and would write ASCII with
    question marks.
    """

    def encode(self, encoding: str = "", errors: str = "strict") -> bytes:
        """Gives the bytes, whichever encoding is asked for."""
        return super().encode("latin-1", errors)


def _texts(directory: Mapping[int, Any]) -> dict[int, Any]:
    return {
        tag: _Text(value) if isinstance(value, str) else value for tag, value in directory.items()
    }


def _copied(exif: Image.Exif) -> Image.Exif:
    """Copies the tags that are kept, with their directories, ready to be written as they were."""
    values: dict[int, Any] = {tag: exif[tag] for tag in _KEPT if tag in exif}
    for tag in (_EXIF, _GPS):
        if tag in values:
            values[tag] = _texts(exif.get_ifd(tag))
    if _INTEROP in values.get(_EXIF, {}):
        values[_EXIF][_INTEROP] = _texts(exif.get_ifd(_INTEROP))
    copy = Image.Exif()
    # Makers' notes stay the bytes they are, and most have no order of their own.
    copy.endian = exif.endian
    copy.update(_texts(values))
    return copy


def _packed(exif: Image.Exif) -> bytes:
    """Packs EXIF as bytes, with their fields' types, all of which Pillow writes as BYTE."""
    data = bytearray(exif.tobytes().removeprefix(_PREFIX))
    order = "<" if data.startswith(b"II") else ">"
    (first,) = struct.unpack_from(order + "I", data, 4)
    _set_types(data, order, 0, first, 0)
    return _PREFIX + bytes(data)


def _set_types(data: bytearray, order: str, start: int, at: int, pointer: int) -> None:
    """Sets the types of bytes in a directory and those below it, in place.

    Args:
      data: holds the directories.
      order: of bytes, `<` or `>`.
      start: place in the file of `data`.
      at: place in the file of the directory.
      pointer: tag that points to it; 0 of the first.
    """
    (count,) = struct.unpack_from(order + "H", data, at - start)
    for entry in range(at - start + 2, at - start + 2 + 12 * count, 12):
        tag, kind, _, value = struct.unpack_from(order + "HHII", data, entry)
        if tag in (_EXIF, _GPS, _INTEROP):
            _set_types(data, order, start, value, tag)
        elif kind == _BYTE and (
            pointer in (_EXIF, _INTEROP) or (pointer == _GPS and tag in _UNDEFINED_OF_GPS)
        ):
            struct.pack_into(order + "H", data, entry + 2, _UNDEFINED)


def kept_exif(exif: Image.Exif, height: int, width: int) -> bytes | None:
    """Packs EXIF as bytes, for an upright image of that size; None where it is missing or damaged.

    The file that it was read from must still be open.
    """
    with contextlib.suppress(Exception):  # damaged metadata is no reason to refuse a photograph
        kept = _copied(exif)
        if not len(kept):
            return None
        shot = kept.get(_EXIF, {})
        shot |= {
            tag: value
            for tag, value in ((_SIZES["width"], width), (_SIZES["height"], height))
            if tag in shot
        }
        data = _packed(kept)
        if len(data) > _LARGEST:
            shot.pop(_MAKER_NOTE, None)
            data = _packed(kept)
        return data if len(data) <= _LARGEST else None
    return None


def exif_of_tiff(file: IO[bytes]) -> Image.Exif:
    """Reads the EXIF of an open TIFF; empty where it is damaged, or of a big-endian BigTIFF."""
    exif = Image.Exif()
    with contextlib.suppress(Exception):
        file.seek(0)
        head = file.read(_BIG_HEADER.size)
        file.seek(0)
        if head.startswith(_BIG_MAGIC):
            exif.endian, exif.bigtiff = "<", True
            exif.load_from_fp(file, offset=_BIG_HEADER.unpack(head)[-1])
        else:
            exif.load_from_fp(file)
        return exif
    return Image.Exif()


def exif_of_bytes(data: bytes | None) -> Image.Exif:
    """Reads the EXIF of its bytes; empty where they are damaged."""
    exif = Image.Exif()
    with contextlib.suppress(Exception):
        exif.load(data or b"")
        return exif
    return Image.Exif()


def resolution_of_exif(exif: Image.Exif) -> Resolution | None:
    """Reads the dots per inch across and down; None where EXIF does not say."""
    with contextlib.suppress(Exception):
        factor = {2: 1.0, 3: 2.54}[int(exif.get(_UNIT, _INCH))]
        return usable([factor * float(exif[tag]) for tag in (_X_RESOLUTION, _Y_RESOLUTION)])
    return None


def iso_of_exif(exif: bytes | None) -> int | None:
    """Reads the ISO speed a shot was taken at; None where the file does not say."""
    value = exif_of_bytes(exif).get_ifd(_EXIF).get(_ISO)
    if isinstance(value, tuple):
        value = value[0] if value else None
    return value if isinstance(value, int) and value > 0 else None


def usable(resolution: Any) -> Resolution | None:
    """Takes a resolution, if it is one; None otherwise."""
    with contextlib.suppress(TypeError, ValueError, ZeroDivisionError):
        x, y = (float(value) for value in resolution)
        if 0 < x < 1e6 and 0 < y < 1e6:
            return x, y
    return None


def with_resolution(exif: bytes | None, resolution: Resolution | None) -> bytes | None:
    """Adds the resolution to EXIF, for formats that tell it nowhere else."""
    if resolution is None:
        return exif
    whole = _copied(exif_of_bytes(exif))
    whole[_X_RESOLUTION], whole[_Y_RESOLUTION] = resolution
    whole[_UNIT] = _INCH
    return _packed(whole)


# --- PNG -----------------------------------------------------------------------------------------


def png_chunks(
    icc_profile: bytes | None,
    exif: bytes | None,
    resolution: Resolution | None,
    xmp: bytes | None,
) -> bytes:
    """Makes what follows a PNG's header to keep the profile, EXIF, resolution and XMP."""
    chunks = b""
    if icc_profile is not None:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc_profile))
    if resolution is not None:
        per_metre = (round(dots / 0.0254) for dots in resolution)
        chunks += _chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1))
    if exif is not None:
        chunks += _chunk(b"eXIf", exif.removeprefix(_PREFIX))
    if xmp is not None:
        chunks += _chunk(b"iTXt", png_text(xmp))
    return chunks


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# --- TIFF ----------------------------------------------------------------------------------------


def tiff_tags(exif: bytes | None) -> list[tuple[int, str, int, Any, bool]]:
    """Makes tifffile's `extratags` for EXIF: its own tags, and room for what `add_to_tiff` adds."""
    whole = _copied(exif_of_bytes(exif))
    tags: list[tuple[int, str, int, Any, bool]] = []
    for tag, value in whole.items():
        if isinstance(value, str) and value:
            tags.append((tag, "s", 0, value.encode(), True))
        elif isinstance(value, bytes) and value and tag in _BYTES:
            tags.append((tag, "B", len(value), value, True))
        elif tag == _RATING and isinstance(value, int) and 0 <= value < 2**16:
            tags.append((tag, "H", 1, value, True))
    # tifffile writes no such tags: the numbers before theirs stand for them.
    return tags + [(tag - 1, "I", 1, 0, True) for tag in (_EXIF, _GPS) if tag in whole]


def add_to_tiff(path: Path, exif: bytes | None) -> None:
    """Puts EXIF's directories behind a little-endian TIFF that was written with `tiff_tags`."""
    if exif is None:
        return
    whole = _copied(exif_of_bytes(exif))
    with tifffile.TiffFile(path) as tiff:
        tags = tiff.pages.first.tags
        places = {tag: tags[tag - 1] for tag in (_EXIF, _GPS) if tag - 1 in tags}
    with path.open("r+b") as file:
        for tag, place in places.items():
            directory = ImageFileDirectory_v2(b"II*\0\x08\0\0\0")
            directory.update(whole[tag])
            end = file.seek(0, io.SEEK_END)
            end += end % 2
            if end > _LAST_POINTER:
                return
            file.seek(end)
            packed = bytearray(directory.tobytes(end))
            _set_types(packed, "<", end, end, tag)
            file.write(packed)
            file.seek(place.offset)
            file.write(struct.pack("<H", tag))
            file.seek(place.valueoffset)
            file.write(struct.pack("<I", end))

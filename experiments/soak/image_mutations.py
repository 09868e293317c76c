"""Small images of all kinds, and what can be wrong with their bytes."""

import functools
import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import tifffile
from PIL import Image

SIDE = 32
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
Mutation = Callable[[bytes, random.Random], bytes]


# --- Sound files ---------------------------------------------------------------------------------


def _pixels() -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    ramp = np.stack([rows * 8, columns * 8, (rows + columns) * 4], -1)
    return (ramp + np.random.default_rng(0).integers(0, 8, ramp.shape)).astype(np.uint8)


def save(image: Image.Image, kind: str, **options: object) -> bytes:
    """Makes the file of an image, of a kind by Pillow's name."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _tiff(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def png(
    width: int, height: int, raw: bytes, depth: int = 8, colour: int = 2, more: bytes = b""
) -> bytes:
    """Makes a PNG of unpacked rows, each after its filter's byte.

    `more`: chunks before the pixels.
    """
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + more + chunk(b"IDAT", zlib.compress(raw, 9))
    return PNG_MAGIC + body + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    """Makes a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def sound_files() -> dict[str, bytes]:
    """Makes a small file of each kind that is read, by a name with its extension."""
    rgb = _pixels()
    wide = rgb.astype(np.uint16) * 257
    image = Image.fromarray(rgb)
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x010E: "description"})
    alpha = Image.fromarray(np.dstack([rgb, rgb[..., 0]]))
    palette = image.quantize(32)
    return {
        "rgb.png": save(image, "PNG"),
        "exif.png": save(image, "PNG", exif=exif),
        "grey.png": save(image.convert("L"), "PNG"),
        "alpha.png": save(alpha, "PNG"),
        "palette.png": save(palette, "PNG"),
        "transparent.png": save(palette, "PNG", transparency=3),
        "grey16.png": save(Image.fromarray(wide[..., 0]), "PNG"),
        "rgb16.png": png(SIDE, SIDE, b"".join(b"\0" + row.tobytes() for row in wide), depth=16),
        "rgb.jpg": save(image, "JPEG", exif=exif),
        "progressive.jpg": save(image, "JPEG", progressive=True),
        "grey.jpg": save(image.convert("L"), "JPEG"),
        "cmyk.jpg": save(image.convert("CMYK"), "JPEG"),
        "rgb.tif": save(image, "TIFF", exif=exif),
        "lzw.tif": save(image, "TIFF", compression="tiff_lzw"),
        "deflate.tif": save(alpha, "TIFF", compression="tiff_adobe_deflate"),
        "jpeg.tif": save(image, "TIFF", compression="jpeg"),
        "palette.tif": save(palette, "TIFF"),
        "cmyk.tif": save(image.convert("CMYK"), "TIFF"),
        "rgb16.tif": _tiff(wide, photometric="rgb"),
        "grey16.tif": _tiff(wide[..., 0], photometric="minisblack"),
        "planar16.tif": _tiff(wide.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
        "tiled16.tif": _tiff(wide, photometric="rgb", tile=(16, 16)),
        "zlib16.tif": _tiff(wide, photometric="rgb", compression="zlib", predictor=True),
        "lossy.webp": save(image, "WEBP", exif=exif),
        "lossless.webp": save(image, "WEBP", lossless=True),
        "alpha.webp": save(alpha, "WEBP", lossless=True),
        "rgb.bmp": save(image, "BMP"),
        "palette.bmp": save(palette, "BMP"),
    }


# --- Mutations of any file -----------------------------------------------------------------------


def _flip(data: bytes, chance: random.Random, first: int | None = None) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 20)):
        changed[chance.randrange(min(first or len(data), len(data)))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _flip_header(data: bytes, chance: random.Random) -> bytes:
    return _flip(data, chance, first=80)


def _truncate(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def _blank(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    stop = min(len(data), start + chance.randint(1, 200))
    return data[:start] + bytes([chance.choice((0, 255))]) * (stop - start) + data[stop:]


def _repeat(data: bytes, chance: random.Random) -> bytes:
    start, stop = sorted(chance.randrange(len(data)) for _ in range(2))
    return data[:stop] + data[start:stop] * chance.randint(1, 4) + data[stop:]


def _remove(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    return data[:start] + data[start + chance.randint(1, 60) :]


def _extreme(data: bytes, chance: random.Random) -> bytes:
    """Writes an extreme number of 1, 2 or 4 bytes, in either order, mostly in the header."""
    kind = chance.choice(("B", ">H", "<H", ">I", "<I"))
    number = struct.pack(kind, chance.choice(_EXTREMES) & (256 ** struct.calcsize(kind) - 1))
    at = chance.randrange(min(len(data), chance.choice((64, 300, len(data)))))
    return data[:at] + number + data[at + len(number) :]


def _wrong_head(data: bytes, chance: random.Random) -> bytes:
    heads = (PNG_MAGIC, b"\xff\xd8\xff\xe0", b"II*\0\x08\0\0\0", b"MM\0*", b"II+\0\x08\0\0\0")
    heads += (b"RIFF\xff\xff\xff\xffWEBPVP8L", b"BM", b"GIF89a", b"%!PS-Adobe-3.0 EPSF-3.0\n")
    head = chance.choice(heads)
    return head + data[len(head) :]


def _append(data: bytes, chance: random.Random) -> bytes:
    return data + chance.choice((chance.randbytes(300), data))


def _noise(data: bytes, chance: random.Random) -> bytes:
    keep = chance.choice((0, 4, 8, 12, 32))
    return data[:keep] + chance.randbytes(chance.choice((0, 1, 16, 2000)))


# --- Mutations that know a format ----------------------------------------------------------------


def _png_header(data: bytes, chance: random.Random) -> bytes:
    """Sets another size, depth, colour type or interlacing with the right checksum."""
    header = bytearray(data[16:29])
    for _ in range(chance.randint(1, 2)):
        field = chance.choice(("size", "size", "depth", "colour", "interlace"))
        if field == "size":
            value = chance.choice((0, 1, 15, 31, 33, 64, 10000, 15000, 70000, 2**31 - 1, 2**32 - 1))
            struct.pack_into(">I", header, chance.choice((0, 4)), value)
        else:
            at = {"depth": 8, "colour": 9, "interlace": 12}[field]
            header[at] = chance.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
    return data[:8] + chunk(b"IHDR", bytes(header)) + data[33:]


@functools.cache
def _text_bomb() -> bytes:
    return zlib.compress(bytes(10**8), 9)


def _png_metadata(data: bytes, chance: random.Random) -> bytes:
    """Inserts chunks of random bytes, or of a text that unpacks to 100 MB."""
    more = chance.choice(
        (
            lambda: chunk(b"eXIf", b"MM\0*" + chance.randbytes(60)),
            lambda: chunk(b"iCCP", b"x\0\0" + chance.randbytes(60)),
            lambda: chunk(b"iCCP", b"x\0\0" + _text_bomb()),
            lambda: chunk(b"zTXt", b"Comment\0\0" + _text_bomb()),
            lambda: chunk(b"iTXt", b"Comment\0\1\0\0\0" + _text_bomb()),
            lambda: chunk(b"tRNS", chance.randbytes(chance.randint(0, 300))),
            lambda: chunk(b"PLTE", chance.randbytes(chance.randint(0, 800))),
            lambda: chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)),
            lambda: chunk(b"gAMA", chance.randbytes(chance.randint(0, 4))),
        )
    )()
    return data[:33] + more + data[33:]


def _jpeg_size(data: bytes, chance: random.Random) -> bytes:
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    if at < 0:
        return _extreme(data, chance)
    sides = [chance.choice((0, 1, 33, 300, 65500, 65535)) for _ in range(2)]
    return data[: at + 5] + struct.pack(">HH", *sides) + data[at + 9 :]


def _jpeg_exif(data: bytes, chance: random.Random) -> bytes:
    body = b"Exif\0\0" + chance.choice((b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"))
    body += chance.randbytes(chance.randint(0, 200))
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def _tiff_tag(data: bytes, chance: random.Random) -> bytes:
    """Sets another type, count or value of some tags, of the size and the strips above all."""
    order = ">" if data[:2] == b"MM" else "<"
    if data[2:4] not in (b"*\0", b"\0*"):
        return _extreme(data, chance)
    (first,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, first)
    changed = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at = first + 2 + 12 * chance.randrange(count)
        field = chance.choice(("tag", "type", "count", "value", "value", "value"))
        if field in ("tag", "type"):
            number = chance.choice((0, 1, 2, 3, 4, 5, 7, 12, 16, 256, 258, 277, 322, 330, 34665))
            struct.pack_into(order + "H", changed, at + (0 if field == "tag" else 2), number)
        else:
            number = chance.choice((*_EXTREMES, 5, 8, 15, 16, 33, 4000, 15000, 60000))
            struct.pack_into(order + "I", changed, at + (4 if field == "count" else 8), number)
    if chance.random() < 0.1:  # the list of images goes in a circle
        struct.pack_into(order + "I", changed, first + 2 + 12 * count, first)
    return bytes(changed)


def _webp_size(data: bytes, chance: random.Random) -> bytes:
    sides = [chance.choice((1, 33, 4000, 15000, 16383, 16384, 2**24)) - 1 for _ in range(2)]
    changed = bytearray(data)
    if (at := data.find(b"VP8X")) >= 0:
        changed[at + 12 : at + 18] = b"".join(struct.pack("<I", side)[:3] for side in sides)
    if (at := data.find(b"VP8L")) >= 0:
        bits = (sides[0] & 0x3FFF) | (sides[1] & 0x3FFF) << 14
        changed[at + 9 : at + 13] = struct.pack("<I", bits)
    if (at := data.find(b"\x9d\x01\x2a")) >= 0:
        changed[at + 3 : at + 7] = struct.pack("<HH", *(side & 0x3FFF for side in sides))
    return bytes(changed)


def _bmp_header(data: bytes, chance: random.Random) -> bytes:
    at, kind = chance.choice(
        ((10, "<I"), (14, "<I"), (18, "<i"), (22, "<i"), (28, "<H"), (30, "<I"))
    )
    value = chance.choice((0, 1, 2, 4, 12, 16, 24, 32, 40, 64, 10000, 15000, 32767))
    value *= chance.choice((1, -1)) if kind == "<i" else 1
    changed = bytearray(data)
    struct.pack_into(kind, changed, at, value)
    return bytes(changed)


_ANY: tuple[Mutation, ...] = (
    *(_flip, _flip_header, _truncate, _blank, _repeat, _remove),
    *(_extreme, _extreme, _wrong_head, _append, _noise),
)
_OF_FORMAT: dict[str, tuple[Mutation, ...]] = {
    ".png": (_png_header, _png_header, _png_metadata),
    ".jpg": (_jpeg_size, _jpeg_exif),
    ".tif": (_tiff_tag, _tiff_tag, _tiff_tag),
    ".webp": (_webp_size,),
    ".bmp": (_bmp_header,),
}


def mutations(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Makes (name, content) of `count` files; names are unique."""
    chance = random.Random(seed)
    sound = sorted(sound_files().items())
    for number in range(count):
        name, data = sound[number % len(sound)]
        stem, suffix = name.split(".")
        known = _OF_FORMAT[f".{suffix}"]
        mutation = chance.choice((*_ANY, *known, *known))
        if chance.random() < 0.03:
            suffix = chance.choice(("png", "jpg", "tif", "webp", "bmp"))
        yield f"{number:05d}_{stem}{mutation.__name__}.{suffix}", mutation(data, chance)

"""Small image files that declare, and some of which hold, more than a decoder should take."""

import struct
import zlib

from PIL import Image

from experiments.soak.image_mutations import PNG_MAGIC, SIDE, chunk, png, save


def bombs() -> dict[str, bytes]:
    """Makes small files that declare, and some of which hold, as much as is just taken, or more.

    Taken are up to 205 megapixels, 100 of the costly kinds.
    """
    files = {}
    for side in (9900, 12400, 14300, 60000):
        files |= {
            f"hollow_{side}.png": png(side, side, b"\0"),
            f"hollow16_{side}.png": png(side, side, b"\0", 16),
            f"hollow16_alpha_{side}.png": png(side, side, b"\0", 16, 6),
            f"hollow_palette_{side}.png": png(side, side, b"\0", 8, 3, chunk(b"PLTE", bytes(768))),
            f"strip_{side}.tif": _hollow_tiff(side),
            f"channels_{side}.tif": _hollow_tiff(side // 8, samples=3000),
            f"bmp_{side}.bmp": _hollow_bmp(side),
        }
    small = Image.new("RGB", (SIDE, SIDE))
    baseline = save(small, "JPEG")
    costly = save(small.convert("CMYK"), "JPEG", progressive=True)
    for name, data, sides in (
        ("grey", baseline, (12400, 14300, 65500)),  # libjpeg makes all that is missing grey
        ("cmyk", costly, (7900, 9900, 65500)),
    ):
        files |= {f"{name}_{side}.jpg": _resized_jpeg(data, side) for side in sides}
    for side in (7900, 9900, 14300):
        files[f"black_{side}.webp"] = _black_webp(side)
    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * 12400)
    packed = b"".join(packer.compress(row) for _ in range(12400)) + packer.flush()
    whole = chunk(b"IHDR", struct.pack(">IIBBBBB", 12400, 12400, 8, 2, 0, 0, 0))
    files["unpacks_to_460_MB_and_ends.png"] = PNG_MAGIC + whole + chunk(b"IDAT", packed[:-900])
    files["too_wide.png"] = png(2**31 - 1, 1, b"\0")
    return files


def _resized_jpeg(data: bytes, side: int) -> bytes:
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return data[: at + 5] + struct.pack(">HH", side, side) + data[at + 9 :]


def _hollow_tiff(side: int, samples: int = 3) -> bytes:
    """Makes a 16-bit TIFF that says where its one strip is, and has none."""
    tags = [
        *((256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 16), (259, 3, 1, 1)),
        *((262, 3, 1, 2), (273, 4, 1, 8), (277, 3, 1, samples), (278, 4, 1, side)),
        (279, 4, 1, side * side * samples * 2 & 0xFFFFFFFF),
    ]
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + body + bytes(4)


def _hollow_bmp(side: int) -> bytes:
    header = struct.pack("<IIIIiiHHIIiiII", 0, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + header + bytes(100)


def _black_webp(side: int) -> bytes:
    """Makes a lossless WebP of one colour, whose codes have no bits: 24 bytes for any size."""
    bits = (side - 1) | (side - 1) << 14
    for code in range(5):  # simple, of one symbol, that is 0
        bits |= 1 << (32 + 3 + 4 * code)
    body = b"\x2f" + bits.to_bytes(9, "little")
    body = b"WEBPVP8L" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(body)) + body

"""Feeds damaged and hostile image files to `transfer` and `prepare` and looks for faults.

python experiments/soak/fuzz_images.py --files=2000

Each file goes alone through `python -m nt_jax.transfer`'s main, all together, as photographs and
as noisy halves of pairs, through `nt_jax.prepare`'s, and some of them through the commands as
processes of their own. A file must be taken, with its output whole, or refused with one line and
exit code 2 and nothing written. All else is a fault: another exception, a second line, a hang, a
remnant, more than 3 GB of memory. Ends with 1 if there was any.

Files are mutations of small images of all formats: flipped bits, cut ends, wrong headers, extreme
numbers, huge declared sizes, decompression bombs, damaged metadata. A seed gives the same files.
"""

import argparse
import contextlib
import functools
import io
import multiprocessing
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, TextIO

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

import numpy as np
import tifffile
from PIL import Image

from nt_jax.errors import InputError

SIDE = 32
LIMIT_BYTES = 3 * 10**9
LIMIT_S = 120  # for one file
BOMB_LIMIT_S = 1800  # that holds 200 megapixels
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
Mutation = Callable[[bytes, random.Random], bytes]


# --- Sound files ---------------------------------------------------------------------------------


def _pixels() -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    ramp = np.stack([rows * 8, columns * 8, (rows + columns) * 4], -1)
    return (ramp + np.random.default_rng(0).integers(0, 8, ramp.shape)).astype(np.uint8)


def _save(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _tiff(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def sound_files() -> dict[str, bytes]:
    """A small file of each kind that is read, by a name with its extension."""
    rgb = _pixels()
    wide = rgb.astype(np.uint16) * 257
    image = Image.fromarray(rgb)
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x010E: "description"})
    alpha = Image.fromarray(np.dstack([rgb, rgb[..., 0]]))
    palette = image.quantize(32)
    return {
        "rgb.png": _save(image, "PNG"),
        "exif.png": _save(image, "PNG", exif=exif),
        "grey.png": _save(image.convert("L"), "PNG"),
        "alpha.png": _save(alpha, "PNG"),
        "palette.png": _save(palette, "PNG"),
        "transparent.png": _save(palette, "PNG", transparency=3),
        "grey16.png": _save(Image.fromarray(wide[..., 0]), "PNG"),
        "rgb16.png": png(SIDE, SIDE, b"".join(b"\0" + row.tobytes() for row in wide), depth=16),
        "rgb.jpg": _save(image, "JPEG", exif=exif),
        "progressive.jpg": _save(image, "JPEG", progressive=True),
        "grey.jpg": _save(image.convert("L"), "JPEG"),
        "cmyk.jpg": _save(image.convert("CMYK"), "JPEG"),
        "rgb.tif": _save(image, "TIFF", exif=exif),
        "lzw.tif": _save(image, "TIFF", compression="tiff_lzw"),
        "deflate.tif": _save(alpha, "TIFF", compression="tiff_adobe_deflate"),
        "jpeg.tif": _save(image, "TIFF", compression="jpeg"),
        "palette.tif": _save(palette, "TIFF"),
        "cmyk.tif": _save(image.convert("CMYK"), "TIFF"),
        "rgb16.tif": _tiff(wide, photometric="rgb"),
        "grey16.tif": _tiff(wide[..., 0], photometric="minisblack"),
        "planar16.tif": _tiff(wide.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
        "tiled16.tif": _tiff(wide, photometric="rgb", tile=(16, 16)),
        "zlib16.tif": _tiff(wide, photometric="rgb", compression="zlib", predictor=True),
        "lossy.webp": _save(image, "WEBP", exif=exif),
        "lossless.webp": _save(image, "WEBP", lossless=True),
        "alpha.webp": _save(alpha, "WEBP", lossless=True),
        "rgb.bmp": _save(image, "BMP"),
        "palette.bmp": _save(palette, "BMP"),
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
    """An extreme number of 1, 2 or 4 bytes, in either order, mostly in the header."""
    kind = chance.choice(("B", ">H", "<H", ">I", "<I"))
    number = struct.pack(kind, chance.choice(_EXTREMES) & (256 ** struct.calcsize(kind) - 1))
    at = chance.randrange(min(len(data), chance.choice((64, 300, len(data)))))
    return data[:at] + number + data[at + len(number) :]


def _wrong_head(data: bytes, chance: random.Random) -> bytes:
    heads = (_PNG_MAGIC, b"\xff\xd8\xff\xe0", b"II*\0\x08\0\0\0", b"MM\0*", b"II+\0\x08\0\0\0")
    heads += (b"RIFF\xff\xff\xff\xffWEBPVP8L", b"BM", b"GIF89a", b"%!PS-Adobe-3.0 EPSF-3.0\n")
    head = chance.choice(heads)
    return head + data[len(head) :]


def _append(data: bytes, chance: random.Random) -> bytes:
    return data + chance.choice((chance.randbytes(300), data))


def _noise(data: bytes, chance: random.Random) -> bytes:
    keep = chance.choice((0, 4, 8, 12, 32))
    return data[:keep] + chance.randbytes(chance.choice((0, 1, 16, 2000)))


# --- Mutations that know a format ----------------------------------------------------------------


def png(
    width: int, height: int, raw: bytes, depth: int = 8, colour: int = 2, more: bytes = b""
) -> bytes:
    """A PNG of unpacked rows, each after its filter's byte; `more`: chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + more + chunk(b"IDAT", zlib.compress(raw, 9))
    return _PNG_MAGIC + body + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_header(data: bytes, chance: random.Random) -> bytes:
    """Another size, depth, colour type or interlacing with the right checksum."""
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
    """Chunks of random bytes, or of a text that unpacks to 100 MB."""
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
    """Another type, count or value of some tags, of the size and the strips above all."""
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


def bombs() -> dict[str, bytes]:
    """Small files that declare, and some of which hold, as much as is just taken, or more.

    `prepare` takes up to 155 megapixels, 64 of the costly kinds; `transfer` 205 and 100.
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
    baseline = _save(small, "JPEG")
    costly = _save(small.convert("CMYK"), "JPEG", progressive=True)
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
    files["unpacks_to_460_MB_and_ends.png"] = _PNG_MAGIC + whole + chunk(b"IDAT", packed[:-900])
    files["too_wide.png"] = png(2**31 - 1, 1, b"\0")
    return files


def _resized_jpeg(data: bytes, side: int) -> bytes:
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return data[: at + 5] + struct.pack(">HH", side, side) + data[at + 9 :]


def _hollow_tiff(side: int, samples: int = 3) -> bytes:
    """A 16-bit TIFF that says where its one strip is, and has none."""
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
    """A lossless WebP of one colour, whose codes have no bits: 24 bytes for any size."""
    bits = (side - 1) | (side - 1) << 14
    for code in range(5):  # simple, of one symbol, that is 0
        bits |= 1 << (32 + 3 + 4 * code)
    body = b"\x2f" + bits.to_bytes(9, "little")
    body = b"WEBPVP8L" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(body)) + body


def mutations(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """(name, content) of `count` files; names are unique."""
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


# --- What becomes of them ------------------------------------------------------------------------


class Hang(BaseException):
    """A file took longer than it may."""


def _ring(number: int, frame: FrameType | None) -> None:
    raise Hang


def peak_bytes() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@functools.cache
def _stream_of_stderr() -> TextIO:
    """One stream for all commands: a library's log keeps the one it first met."""
    return open(2, "w", buffering=1, closefd=False)


@contextlib.contextmanager
def _all_stderr(said: list[str]) -> Iterator[None]:
    """Appends what is written to stderr meanwhile, by libraries in C too."""
    saved = os.dup(2)
    with tempfile.TemporaryFile("w+") as file:
        os.dup2(file.fileno(), 2)
        try:
            with contextlib.redirect_stderr(_stream_of_stderr()):
                yield
        finally:
            _stream_of_stderr().flush()
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            said.append(file.read())


class Outcomes:
    """Counts what became of the files, and keeps what went wrong."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.largest = ("nothing", 0.0)
        self.slowest = ("nothing", 0.0)

    def fault(self, name: str, what: str) -> None:
        # Not to where the commands' own lines go.
        print(f"FAULT {name}: {what}", file=sys.__stdout__, flush=True)
        self.faults.append(f"{name}: {what}")

    def run(self, name: str, command: Callable[[], None], limit_s: int = LIMIT_S) -> str:
        """Runs a command; "taken", "refused" or "fault"."""
        before, begun = peak_bytes(), time.monotonic()
        handler = signal.signal(signal.SIGALRM, _ring)
        said: list[str] = []
        outcome = "taken"
        signal.alarm(limit_s)
        try:
            with _all_stderr(said):
                command()
        except InputError as error:
            outcome = "refused"
            if not str(error):
                self.fault(name, "refused without a word")
        except (SystemExit, KeyboardInterrupt):
            raise
        except Hang:
            outcome = "fault"
            self.fault(name, f"takes longer than {limit_s} s")
        except BaseException:
            outcome = "fault"
            self.fault(name, traceback.format_exc())
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, handler)
        if said[0]:
            self.fault(name, f"says besides: {said[0][:500]}")
        self.slowest = max(self.slowest, (name, time.monotonic() - begun), key=lambda pair: pair[1])
        grown = float(peak_bytes())
        if grown > before:
            self.largest = (name, grown)
        if grown > LIMIT_BYTES >= before:
            self.fault(name, f"takes {grown / 1e9:.1f} GB")
        self.counts[outcome] += 1
        return outcome


def tiny_model(folder: Path) -> Path:
    """Writes a model of random weights, as small as can be: the files are what is tried."""
    import jax

    from nt_jax.checkpointing import save_model
    from nt_jax.models.networks import init_networks, layouts, make_networks
    from nt_jax.models.parameters import unstack

    sizes = {
        "width": 4,
        "embedding_size": 8,
        "blocks": (1, 1, 1),
        "discriminator_blocks": (1, 1, 1),
        "embedding_bound": "tanh",
        "gan_trunk": "block",
    }
    networks = make_networks(SimpleNamespace(**sizes))
    parts = zip(init_networks(jax.random.key(0), networks), layouts(networks), strict=True)
    generator, key_encoder = (unstack(params, layout) for (params, _), layout in parts)
    variables = {"generator": generator, "key_encoder": key_encoder}
    save_model(folder, {"kind": "noisetransfer", "model": sizes}, variables)
    return folder


def everything(folder: Path) -> set[str]:
    """All there is below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def _without_network(model: Any, clean: np.ndarray, *_: Any, tile: int, **__: Any) -> Iterator[Any]:
    """In place of `Model.transfer_tiles` for bombs, where the network would take minutes."""
    from nt_jax.inference.tiles import over_tiles

    return over_tiles(clean, model.windows(*clean.shape[:2], tile), lambda inputs, *_: inputs)


def fuzz_transfer(files: list[Path], work: Path, outcomes: Outcomes) -> None:
    """Each file alone through transfer's main; the bombs' pixels pass by the network."""
    from nt_jax import transfer
    from nt_jax.inference import model
    from nt_jax.inference.images import read_photo

    model.load = functools.cache(model.load)  # type: ignore[assignment]
    with_network = model.Model.transfer_tiles
    output = work / "transferred"
    output.mkdir()
    for path in files:
        target = output / f"{path.stem}.png"
        flags = [f"--model={work / 'model'}", f"--reference={work / 'reference.png'}", "--tile=512"]
        command = functools.partial(
            transfer.main, [*flags, f"--clean={path}", f"--output={target}"]
        )
        bomb = not path.name[0].isdigit()
        limit_s = BOMB_LIMIT_S if bomb else LIMIT_S
        model.Model.transfer_tiles = _without_network if bomb else with_network  # type: ignore
        with contextlib.redirect_stdout(io.StringIO()):
            outcome = outcomes.run(f"transfer {path.name}", command, limit_s)
        expected = {target.name} if outcome == "taken" else set()
        if everything(output) != expected:
            outcomes.fault(path.name, f"{outcome}, and there is {everything(output)}")
        if outcome == "taken":
            read_photo(target)
        for left in output.iterdir():
            left.unlink()


def fuzz_prepare(files: list[Path], work: Path, outcomes: Outcomes) -> None:
    """All files together through prepare's main: photographs, then noisy halves of pairs."""
    from nt_jax import prepare
    from nt_jax.data import prepared

    photos, pairs = work / "photos", work / "pairs"
    photos.mkdir()
    pairs.mkdir()
    sound = sound_files()["rgb.png"]
    for folder in (photos, pairs):
        (folder / "sound_gt.png").write_bytes(sound)
        (folder / "sound_noisy.png").write_bytes(sound)
    for path in files:
        (photos / path.name).hardlink_to(path)
        (pairs / f"{path.stem}_noisy{path.suffix}").hardlink_to(path)
        if path.name[0].isdigit():
            (pairs / f"{path.stem}_gt.png").write_bytes(sound)
        else:  # a bomb beside a bomb
            (pairs / f"{path.stem}_gt{path.suffix}").hardlink_to(path)
    for kind, folder in (("photos", photos), ("pairs", pairs)):
        flags = [f"--dataset={kind}", f"--raw_dir={folder}", f"--data_dir={work / 'data'}"]
        for choice in ("fail", "skip"):
            command = functools.partial(prepare.main, [*flags, f"--on_error={choice}"])
            with contextlib.redirect_stdout(io.StringIO()):
                outcome = outcomes.run(f"prepare {kind} {choice}", command, BOMB_LIMIT_S)
            expected = "refused" if choice == "fail" else "taken"
            if outcome != expected:
                outcomes.fault(f"prepare {kind} {choice}", f"{outcome}, not {expected}")
        if outcome != "taken":
            continue
        (made,) = (work / "data" / kind).iterdir()
        splits = prepared.read_index(made)["splits"].values()
        images = {tile["image"] for tiles in splits for tile in tiles}
        skipped = len((made / "skipped.txt").read_text().splitlines())
        outcomes.counts[f"{kind} prepared"] += len(images)
        outcomes.counts[f"{kind} skipped"] += skipped
        if len(images) + skipped != len(files) + (2 if kind == "photos" else 1):
            outcomes.fault(f"prepare {kind}", f"{len(images)} taken and {skipped} skipped")


def fuzz_processes(files: list[Path], work: Path, outcomes: Outcomes) -> None:
    """Each file alone through `python -m nt_jax.transfer`."""
    output = work / "by_process"
    for path in files:
        command = [sys.executable, "-m", "nt_jax.transfer", f"--model={work / 'model'}"]
        command += [f"--reference={work / 'reference.png'}", f"--clean={path}"]
        with (work / "stderr").open("w+") as stderr:
            process = subprocess.Popen(
                [*command, f"--output={output / 'made.png'}"],
                cwd=REPOSITORY,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
            _, status, usage = os.wait4(process.pid, 0)
            stderr.seek(0)
            lines = stderr.read().splitlines()
        code = process.returncode = os.waitstatus_to_exitcode(status)
        taken = (code, lines) == (0, []) and everything(output) == {"made.png"}
        one_line = len(lines) == 1 and lines[0].startswith("error: ")
        refused = code == 2 and one_line and not output.exists()
        if not (taken or refused):
            outcomes.fault(f"process {path.name}", f"{code} {lines[-8:]}")
        memory = path.name, usage.ru_maxrss * 1024.0
        outcomes.largest = max(outcomes.largest, memory, key=lambda pair: pair[1])
        if memory[1] > LIMIT_BYTES:
            outcomes.fault(f"process {path.name}", f"takes {memory[1] / 1e9:.1f} GB")
        outcomes.counts["taken" if taken else "refused" if refused else "fault"] += 1
        shutil.rmtree(output, ignore_errors=True)


Phase = Callable[[list[Path], Path, Outcomes], None]


def _phase(phase: Phase, files: list[Path], work: Path) -> Outcomes:
    outcomes = Outcomes()
    phase(files, work, outcomes)
    return outcomes


def _apart(phase: Phase, files: list[Path], work: Path) -> Outcomes:
    """Runs a phase in a process of its own, as memory counts, and says how it went."""
    begun = time.monotonic()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        outcomes = pool.submit(_phase, phase, files, work).result()
    counts = ", ".join(f"{name} {count}" for name, count in sorted(outcomes.counts.items()))
    print(
        f"{phase.__name__}: {counts}; {len(outcomes.faults)} faults; peak memory"
        f" {outcomes.largest[1] / 1e9:.2f} GB at {outcomes.largest[0]}; slowest"
        f" {outcomes.slowest[0]} {outcomes.slowest[1]:.0f} s; {time.monotonic() - begun:.0f} s",
        flush=True,
    )
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=2000, help="how many mutations")
    parser.add_argument("--processes", type=int, default=20, help="of them as processes too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder to keep the files in")
    parser.add_argument("--only", choices=("prepare", "transfer", "processes"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        folder = args.keep or work / "files"
        folder.mkdir(parents=True)
        for name, data in [*mutations(args.files, args.seed), *bombs().items()]:
            (folder / name).write_bytes(data)
        files = sorted(folder.iterdir())
        (work / "reference.png").write_bytes(sound_files()["rgb.png"])
        tiny_model(work / "model")
        some = random.Random(args.seed).sample(files, min(args.processes, len(files)))
        phases: dict[str, tuple[Phase, list[Path]]] = {
            "prepare": (fuzz_prepare, files),
            "transfer": (fuzz_transfer, files),
            "processes": (fuzz_processes, some),
        }
        faults = sum(
            len(_apart(phase, chosen, work).faults)
            for name, (phase, chosen) in phases.items()
            if args.only in (None, name)
        )
    print(f"{len(files)} files, {faults} faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()

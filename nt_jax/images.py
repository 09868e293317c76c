"""Photographs in and out of files, for all commands: PNG, JPEG, TIFF, WebP and BMP, 8 or 16 bits.

Cameras' raw files are developed where `rawpy` is installed. Pixels stay integers of the file's own
depth; `to_float` and `from_float` convert one piece at a time, so that a large photograph is never
held as float. What a file keeps: depth, grey, alpha, the ICC profile, EXIF, resolution, and what
people wrote in XMP and IPTC.

Nothing here changes what other code sees: not Pillow's limits, no logger, no filter of warnings. So
decoders may log what they find wrong in a file; commands silence them (`errors.quiet_decoders`).
"""

import contextlib
import io
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import BmpImagePlugin, Image, JpegImagePlugin, PngImagePlugin
from PIL.ImageFile import ImageFile

from nt_jax.errors import InputError
from nt_jax.files import replacing
from nt_jax.formats import descriptions, metadata, png, raw, webp
from nt_jax.formats.metadata import Resolution
from nt_jax.paths import look_through

# Largest height and width each format can hold.
_LARGEST = {
    ".png": 2**31 - 1,
    ".tif": 2**31 - 1,
    ".jpg": 65500,
    ".webp": 16383,
    ".bmp": 2**31 - 1,
}
_ALIASES = {".jpeg": ".jpg", ".tiff": ".tif"}
WRITABLE = frozenset(_LARGEST) | frozenset(_ALIASES)
# What folders are searched for.
EXTENSIONS = WRITABLE | (raw.EXTENSIONS if raw.can_develop() else frozenset())
_NAMES = "PNG, JPEG, TIFF, WebP or BMP"
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER_END = 33
_PNG_DEPTH = 24
_PROFILE_SPACE = slice(16, 20)  # of an ICC profile: what its colours are
# A file can declare any size in a few bytes, and from decoding to writing a pixel takes 12 bytes;
# with 16 bits and alpha, and in the decoders of WebP and progressive JPEG, up to 24. The largest
# sensors have 201 megapixels.
_MAX_PIXELS = 205_000_000
_MAX_PIXELS_COSTLY = 100_000_000
SMALLEST_SIDE = 16
# Threads decode images of more pixels one at a time, as some of them at once would fill the memory.
LARGE = 32 * 1024**2
_LARGE_LOCK = threading.Lock()
_STRIP = 2**22  # pixels converted at a time
# ITU-R BT.601, what Pillow and most cameras' own grey use.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Photo:
    """An image file's pixels, upright, and what else the file says.

    Attributes:
      pixels: uint8 or uint16, [H, W, 3], or [H, W] where the file is grey.
      alpha: [H, W] of the same dtype, the colours not multiplied by it; None where there is none.
      icc_profile: the colour profile; None where the file has none.
      exif: without orientation and thumbnail; None where the file has none.
      resolution: dots per inch across and down; None where the file has none.
      xmp: what its vocabularies of descriptions say; None where there is nothing.
      iptc: records of a JPEG or TIFF; None where there are none.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    icc_profile: bytes | None = None
    exif: bytes | None = None
    resolution: Resolution | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None


def to_float(pixels: np.ndarray) -> np.ndarray:
    """Turns [H, W, 3] or grey [H, W], uint8, uint16 or float in [0, 1], into float32 [H, W, 3]."""
    values = pixels.astype(np.float32)
    if pixels.dtype.kind == "u":
        values /= np.float32(np.iinfo(pixels.dtype).max)
    return values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=-1)


def cut_middle(pixels: np.ndarray, side: int) -> np.ndarray:
    """Cuts [side, side, ...] out of the middle of [H, W, ...], or what an image has of it."""
    top, left = (max(0, (size - side) // 2) for size in pixels.shape[:2])
    return pixels[top : top + side, left : left + side]


def from_float(image: np.ndarray, dtype: np.dtype, grey: bool) -> np.ndarray:
    """Rounds float32 [H, W, 3] in [0, 1] to pixels of an integer dtype; grey is BT.601 luma."""
    values = image @ _LUMA if grey else image
    return np.rint(values * np.float32(np.iinfo(dtype).max)).astype(dtype)


def as_depth(pixels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Scales uint8 or uint16 pixels to another depth, full range to full range, rounded."""
    if pixels.dtype == dtype:
        return pixels
    if dtype == np.uint16:
        return pixels.astype(np.uint16) * np.uint16(257)
    narrow = np.empty(pixels.shape, np.uint8)
    rows = max(_STRIP // pixels[0].size, 1)
    for top in range(0, len(pixels), rows):
        narrow[top : top + rows] = (pixels[top : top + rows].astype(np.uint32) + 128) // 257
    return narrow


# --- Reading -------------------------------------------------------------------------------------


def read_photo(path: str | os.PathLike) -> Photo:
    """Reads an image file, upright.

    Palettes become RGB, and CMYK becomes RGB without colour management, so its profile is dropped.
    A fourth sample is alpha where the file says so, and else left out.

    Raises:
      InputError: no such file; another format, depth or several frames; truncated or damaged;
        more than 205 megapixels, or 100 of WebP, progressive JPEG or 16 bits with alpha; a side
        below 16 pixels; a raw file without `rawpy`.
    """
    path = Path(path)
    with _opened(path) as image:
        photo = image.decode()
    height, width = photo.pixels.shape[:2]
    check_sides(path, height, width)
    return photo


def check_sides(path: object, height: int, width: int) -> None:
    """Raises InputError if an image is below 16 pixels a side."""
    if min(height, width) < SMALLEST_SIDE:
        raise InputError(
            f"{path} is {width}x{height}; an image needs at least "
            f"{SMALLEST_SIDE}x{SMALLEST_SIDE} pixels"
        )


def read_rgb(source: str | os.PathLike, *, keep_depth: bool = False) -> np.ndarray:
    """Reads an image as RGB, upright: uint8 [H, W, 3]; uint16 if that is its depth and to be kept.

    As `read_photo`, of any size from 1 pixel; grey becomes RGB, alpha is dropped.

    Raises:
      InputError: as `read_photo`.
    """
    with _opened(source) as image:
        large = image.height * image.width > LARGE
        with _LARGE_LOCK if large else contextlib.nullcontext():
            pixels = image.decode().pixels
            if not keep_depth:
                pixels = as_depth(pixels, np.dtype(np.uint8))
            if pixels.ndim == 2:
                pixels = np.broadcast_to(pixels[..., None], (*pixels.shape, 3))
            return np.ascontiguousarray(pixels)


def image_size(source: str | os.PathLike) -> tuple[int, int]:
    """Reads the (height, width) of an image file as it will be read, from the header only.

    Raises:
      InputError: the file is no readable image.
    """
    with _opened(source) as image:
        # An orientation after the pixels of a PNG is not in its header.
        turned = image.orientation() in (5, 6, 7, 8)
        return (image.width, image.height) if turned else (image.height, image.width)


class _Opened(NamedTuple):
    """An image file whose header was read.

    Attributes:
      height, width: in pixels, as stored.
      costly: decoding takes much memory.
      orientation: gives the EXIF orientation, 1 to 8, as far as it is known before decoding.
      decode: gives the photograph.
    """

    height: int
    width: int
    costly: bool
    orientation: Callable[[], int]
    decode: Callable[[], Photo]


@contextlib.contextmanager
def _opened(source: str | os.PathLike) -> Iterator[_Opened]:
    """Opens an image; whatever fails within is an InputError that names it."""
    named = Path(source)
    try:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(_binary(named))
            head = file.read(_PNG_HEADER_END)
            file.seek(0)
            image = _open(named, file, head, stack)
            _check_size(named, image)
            yield image
    except InputError:
        raise
    except ImportError as error:
        raise InputError(
            f"{named} needs a decoder that is not installed ({error}); install nt_jax with what it "
            "requires"
        ) from error
    except MemoryError as error:
        raise InputError(f"{named} takes more memory than there is; cut it up") from error
    except Exception as error:  # decoders raise many kinds on damaged files
        raise InputError(
            f"{named} cannot be decoded, it is truncated or damaged ({error}); replace the file"
        ) from error


def _binary(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder; name an image file") from error
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror}") from error


def _open(source: Path, file: IO[bytes], head: bytes, stack: contextlib.ExitStack) -> _Opened:
    if raw.looks_raw(source, head[:16]):
        return _open_raw(source, file)
    if head.startswith(_TIFF_MAGIC):
        return _open_tiff(source, file, stack)
    if webp.is_webp(head):
        return _open_webp(source, file.read())
    # No others, whatever a file is called: for EPS Pillow would start Ghostscript.
    factories: dict[bytes, Callable[[IO[bytes]], ImageFile]] = {
        _PNG_MAGIC: _png,
        b"\xff\xd8\xff": JpegImagePlugin.jpeg_factory,
        b"BM": BmpImagePlugin.BmpImageFile,
    }
    for magic, factory in factories.items():
        if head.startswith(magic):
            try:
                image = stack.enter_context(factory(file))
            except SyntaxError as error:
                if not str(error).startswith("cannot handle"):
                    break
                raise  # such as a JPEG with 12 bits
            return _open_by_pillow(source, file, head, image)
    raise InputError(f"{source} is not a readable {_NAMES} image; convert or replace it")


def _png(file: IO[bytes]) -> ImageFile:
    try:
        return PngImagePlugin.PngImageFile(file)
    except ValueError:  # such as a profile that unpacks to more than 1 MiB
        file.seek(0)
        data, profile = png.split_profile(file.read())
        image = PngImagePlugin.PngImageFile(io.BytesIO(data))
        image.info["icc_profile"] = profile
        return image


def _check_size(source: Path, image: _Opened) -> None:
    most = _MAX_PIXELS_COSTLY if image.costly else _MAX_PIXELS
    if image.width * image.height > most:
        raise InputError(
            f"{source} is {image.width}x{image.height}, more than {most // 10**6} megapixels; "
            "cut it up"
        )


def _open_raw(path: Path, file: IO[bytes]) -> _Opened:
    if not raw.can_develop():
        raise raw.refusal(path)

    def decode() -> Photo:
        pixels = raw.develop(path)
        # Most raw files are built as a TIFF; of the others there is no EXIF to be had.
        exif = metadata.exif_of_tiff(file)
        return Photo(pixels, exif=metadata.kept_exif(exif, *pixels.shape[:2]))

    return _Opened(*raw.size(path), False, lambda: 1, decode)


def _open_tiff(source: Path, file: IO[bytes], stack: contextlib.ExitStack) -> _Opened:
    from tifffile import TiffFile

    from nt_jax.formats import tiff

    opened = stack.enter_context(TiffFile(file))
    if tiff.is_raw(opened):
        return _open_raw(source, file)
    layout = tiff.find_layout(opened, source)
    page = layout.page
    orientation = partial(page.tags.valueof, metadata.ORIENTATION, 1)

    def decode() -> Photo:
        pixels, alpha = tiff.decode(layout)
        return _upright(
            Photo(
                pixels,
                alpha,
                # Of the inks or whatever else was converted.
                page.iccprofile if layout.keeps_colours else None,
                xmp=descriptions.kept_xmp(page.tags.valueof(descriptions.XMP_OF_TIFF)),
                iptc=descriptions.kept_iptc(page.tags.valueof(descriptions.IPTC_OF_TIFF)),
            ),
            orientation(),
            metadata.exif_of_tiff(file),
        )

    return _Opened(page.imagelength, page.imagewidth, layout.costly, orientation, decode)


def _open_webp(source: Path, data: bytes) -> _Opened:
    found = webp.read_container(data)
    if found.frames > 1:
        raise InputError(f"{source} holds {found.frames} images; save the one you want alone")
    exif = metadata.exif_of_bytes(found.exif)
    orientation = exif.get(metadata.ORIENTATION, 1)

    def decode() -> Photo:
        xmp = descriptions.kept_xmp(found.xmp)
        photo = Photo(*_split(webp.decode(data)), found.icc_profile, xmp=xmp)
        return _upright(photo, orientation, exif)

    return _Opened(found.height, found.width, True, lambda: orientation, decode)


def _open_by_pillow(source: Path, file: IO[bytes], head: bytes, image: ImageFile) -> _Opened:
    # The second frame of a phone's MPO is a preview or a depth map.
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise InputError(f"{source} holds {frames} images; save the one you want alone")
    deep = image.format == "PNG" and head[_PNG_DEPTH] == 16
    if image.format == "PNG" and image.mode == "L" and head[_PNG_DEPTH] in (2, 4):
        # Pillow scales the pixels and not the value that is transparent.
        scale = 255 // (2 ** head[_PNG_DEPTH] - 1)
        image.info |= {k: scale * v for k, v in image.info.items() if k == "transparency"}
    costly = "progressive" in image.info
    costly |= deep and ("A" in image.mode or "transparency" in image.info)

    def orientation() -> int:
        # Not image.getexif(), which decodes the whole of a PNG that has none before its pixels.
        return Image.Image.getexif(image).get(metadata.ORIENTATION, 1)

    def decode() -> Photo:
        icc_profile = image.info.get("icc_profile")
        if deep:
            file.seek(0)
            pixels, alpha = _deep_png(file.read(), image.info.get("transparency"))
        else:
            image.load()
            if image.mode not in _PLAIN_MODES:
                raise InputError(
                    f"{source} has pixels of type {image.mode}; save it with 8 or 16 bits a channel"
                )
            if image.mode in ("CMYK", "YCbCr"):
                icc_profile = None
            grey = image.mode in ("1", "L", "LA")
            pixels, alpha = _split(
                _convert(image, ("L" if grey else "RGB") + "A" * image.has_transparency_data)
            )
        exif = image.getexif()
        resolution = metadata.usable(image.info.get("dpi"))
        xmp = descriptions.kept_xmp(image.info.get("xmp"))
        iptc = descriptions.iptc_of_photoshop(image.info.get("photoshop"))
        photo = Photo(pixels, alpha, icc_profile, resolution=resolution, xmp=xmp, iptc=iptc)
        return _upright(photo, exif.get(metadata.ORIENTATION, 1), exif)

    return _Opened(image.height, image.width, costly, orientation, decode)


_PLAIN_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def _deep_png(
    data: bytes, transparent: int | tuple[int, int, int] | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Decodes pixels and alpha of a PNG with 16 bits, whose colour Pillow reduces to 8."""
    import imagecodecs

    pixels, alpha = _split(np.asarray(imagecodecs.png_decode(data)))
    if alpha is None and transparent is not None:
        same = pixels == np.asarray(transparent, np.uint16)
        alpha = np.where(same if pixels.ndim == 2 else same.all(-1), 0, 65535).astype(np.uint16)
    return pixels, alpha


def _split(array: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Splits channels [H, W] or [H, W, 1 to 4] into colour and, where there are 2 or 4, alpha."""
    if array.ndim == 2:
        return array, None
    channels = array.shape[-1]
    # A copy, that lets the pixels go without it.
    alpha = np.ascontiguousarray(array[..., -1]) if channels in (2, 4) else None
    return (array[..., 0] if channels < 3 else array[..., :3]), alpha


def _convert(image: Image.Image, mode: str) -> np.ndarray:
    """Converts a decoded image to another mode, uint8 [H, W, channels].

    The image is never twice whole in memory.
    """
    array = np.empty((image.height, image.width, len(mode)), np.uint8)
    rows = max(_STRIP // image.width, 1)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        size = image.width, bottom - top
        # A part at its own size: crop() would look at Pillow's limit, which is the user's.
        strip = image.resize(size, Image.Resampling.NEAREST, (0, top, image.width, bottom))
        if image.mode in ("P", "PA"):  # by way of RGBA, or Pillow warns about transparency
            strip = strip.convert("RGBA")
        array[top:bottom] = np.asarray(strip.convert(mode)).reshape(*size[::-1], -1)
    return array


def _upright(photo: Photo, orientation: int, exif: Image.Exif) -> Photo:
    """Undoes an EXIF orientation (1 to 8) and keeps the rest of EXIF."""
    turned = orientation in (5, 6, 7, 8)

    def turn(array: np.ndarray) -> np.ndarray:
        """Flips [H, W, ...] to [H, W, ...] or [W, H, ...], a view."""
        if turned:
            array = array.swapaxes(0, 1)
        if orientation in (3, 4, 7, 8):
            array = array[::-1]
        if orientation in (2, 3, 6, 7):
            array = array[:, ::-1]
        return array

    pixels = turn(photo.pixels)
    resolution = photo.resolution or metadata.resolution_of_exif(exif)
    return replace(
        photo,
        pixels=pixels,
        alpha=None if photo.alpha is None else turn(photo.alpha),
        exif=metadata.kept_exif(exif, *pixels.shape[:2]),
        resolution=resolution[::-1] if resolution and turned else resolution,
    )


# --- Writing -------------------------------------------------------------------------------------


def extension(path: Path) -> str:
    """Reads the format of an output path: `.png`, `.jpg`, `.tif`, `.webp` or `.bmp`.

    Raises:
      InputError: another extension, or none.
    """
    suffix = _ALIASES.get(path.suffix.lower(), path.suffix.lower())
    if suffix not in _LARGEST:
        raise InputError(f"{path}: the output must end in {' '.join(sorted(WRITABLE))}")
    return suffix


def check_writable_as(path: str | os.PathLike, photo: Photo) -> None:
    """Raises InputError where the format of `path` cannot hold `photo`."""
    suffix = extension(Path(path))
    height, width = photo.pixels.shape[:2]
    if photo.alpha is not None and suffix in (".jpg", ".bmp"):
        raise InputError(f"{path}: {suffix} cannot hold the image's alpha; use .png, .tif or .webp")
    if max(height, width) > _LARGEST[suffix]:
        raise InputError(
            f"{path}: {width}x{height} is too large for {suffix}, which holds sides up to "
            f"{_LARGEST[suffix]}; use .png or .tif"
        )


def write_photo(path: str | os.PathLike, photo: Photo) -> None:
    """Writes an image file in the format of its extension; it appears whole or not at all.

    PNG and TIFF keep 16 bits, the others get 8. JPEG has quality 95 without chroma subsampling,
    because noise is what counts here; the other four are lossless. BMP holds nothing but pixels
    and the resolution.

    Raises:
      InputError: the format cannot hold the photo, or the file cannot be written.
    """
    path = Path(path)
    check_writable_as(path, photo)
    with replacing(path) as temporary:
        _encode(temporary, extension(path), photo)


def _encode(path: Path, suffix: str, photo: Photo) -> None:
    depth = photo.pixels.dtype if suffix in (".png", ".tif") else np.dtype(np.uint8)
    array = as_depth(photo.pixels, depth)
    if photo.alpha is not None:
        array = np.dstack([array, as_depth(photo.alpha, depth)])
    array = np.ascontiguousarray(array)
    if suffix == ".tif":
        _encode_tiff(path, array, photo)
        return
    if array.dtype == np.uint16:
        path.write_bytes(_encode_png16(array, photo))
        return
    known: dict[str, Any] = {
        "icc_profile": photo.icc_profile,
        "exif": photo.exif,
        "dpi": photo.resolution,
    }
    options: dict[str, dict] = {
        # Noise hardly compresses: more effort only takes more time.
        ".png": {"format": "PNG", "compress_level": 1},
        ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
        ".webp": {"format": "WEBP", "lossless": True, "quality": 20, "method": 0, "exact": True},
        ".bmp": {"format": "BMP"},
    }
    if suffix == ".webp":
        known["exif"] = metadata.with_resolution(photo.exif, photo.resolution)
        # Grey becomes RGB, to which a profile of grey does not apply.
        if photo.icc_profile and photo.icc_profile[_PROFILE_SPACE] == b"GRAY":
            known["icc_profile"] = None
    if suffix == ".jpg" and photo.resolution and max(photo.resolution) >= 2**16 - 0.5:
        known["dpi"] = None  # for which there are 16 bits
    if suffix in (".jpg", ".webp"):
        known["xmp"] = photo.xmp
    if suffix == ".jpg" and photo.iptc:
        known["extra"] = descriptions.photoshop_segment(photo.iptc)
    if suffix == ".png" and photo.xmp:
        known["pnginfo"] = PngImagePlugin.PngInfo()
        known["pnginfo"].add(b"iTXt", descriptions.png_text(photo.xmp))
    given = {name: value for name, value in known.items() if value is not None}
    Image.fromarray(array).save(path, **options[suffix], **given)


def _encode_tiff(path: Path, array: np.ndarray, photo: Photo) -> None:
    import tifffile

    tifffile.imwrite(
        path,
        array,
        byteorder="<",
        photometric="minisblack" if photo.pixels.ndim == 2 else "rgb",
        planarconfig="contig" if array.ndim == 3 else None,
        extrasamples=None if photo.alpha is None else ["unassalpha"],
        compression="zlib",
        predictor=True,
        iccprofile=photo.icc_profile,
        metadata=None,
        software=False,
        resolution=photo.resolution,
        resolutionunit=None if photo.resolution is None else "INCH",
        extratags=metadata.tiff_tags(photo.exif) + descriptions.tiff_tags(photo.xmp, photo.iptc),
    )
    metadata.add_to_tiff(path, photo.exif)


def _encode_png16(array: np.ndarray, photo: Photo) -> bytes:
    import imagecodecs  # Pillow has no 16-bit colour

    encoded = bytes(
        imagecodecs.png_encode(
            array,
            level=imagecodecs.PNG.COMPRESSION.SPEED,
            strategy=imagecodecs.PNG.STRATEGY.RLE,
            filter=imagecodecs.PNG.FILTER.SUB,
        )
    )
    chunks = metadata.png_chunks(photo.icc_profile, photo.exif, photo.resolution, photo.xmp)
    return encoded[:_PNG_HEADER_END] + chunks + encoded[_PNG_HEADER_END:]


# --- Folders -------------------------------------------------------------------------------------


def list_images(folder: Path, notes: list[str] | None = None) -> list[Path]:
    """Lists the image files under a folder, sorted; see `paths.look_through`.

    Args:
      folder: where.
      notes: gets a line about files that are left out for their type.

    Raises:
      InputError: the folder does not exist.
    """
    found = look_through(folder, EXTENSIONS)
    if notes is not None:
        notes += found.left_out()
    return found.files


def find_images(folder: Path, output: Path, notes: list[str] | None = None) -> list[Path]:
    """Lists the image files under a folder to be worked on, relative to it, by name as text.

    Links that lead out of the folder and the output folder are left out.

    Args:
      folder: where.
      output: folder that results go to.
      notes: gets lines about what is left out.

    Raises:
      InputError: there is none.
    """
    found = look_through(folder, EXTENSIONS, follow=False, without=output)
    if notes is not None:
        notes += found.left_out()
        notes += [f"{link}: left out, a link out of the folder" for link in found.outside]
    if not found.files:
        raise nothing_found(folder)
    return sorted((path.relative_to(folder) for path in found.files), key=Path.as_posix)


def nothing_found(folder: str | os.PathLike) -> InputError:
    """Makes the error of a folder without images."""
    return InputError(f"{folder}: no image found, looked for {' '.join(sorted(EXTENSIONS))}")

"""Photographs in and out of files: PNG, JPEG, TIFF and WebP with 8 or 16 bits a channel.

Pixels stay integers of the file's own depth; `to_float` and `from_float` convert one piece at a
time, so that a large photograph is never held as float. What a file keeps: depth, grey, alpha and
the ICC profile. EXIF rotation is applied to the pixels; other metadata is not carried over.
"""

import contextlib
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from nt_jax.decoders import silence_decoders
from nt_jax.errors import InputError
from nt_jax.outputs import replacing

# Largest height and width each format can hold.
_LARGEST = {".png": 2**31 - 1, ".tif": 2**31 - 1, ".jpg": 65500, ".webp": 16383}
_ALIASES = {".jpeg": ".jpg", ".tiff": ".tif"}
EXTENSIONS = frozenset(_LARGEST) | frozenset(_ALIASES)
_PILLOW_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP")
# A file can declare any size in a few bytes, and from decoding to writing a pixel takes 12 bytes;
# with 16 bits and alpha, and in the decoders of WebP and progressive JPEG, up to 24. The largest
# sensors have 201 megapixels.
_MAX_PIXELS = 205_000_000
_MAX_PIXELS_COSTLY = 100_000_000
SMALLEST_SIDE = 16
_STRIP = 2**22  # pixels converted at a time

_ORIENTATION_TAG = 0x0112
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH_OFFSET = 24
_PNG_HEADER_END = 33
# ITU-R BT.601, what Pillow and most cameras' own grey use.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Photo:
    """An image file's pixels, upright.

    Attributes:
      pixels: uint8 or uint16, [H, W, 3], or [H, W] where the file is grey.
      alpha: [H, W] of the same dtype; None where the file has none.
      icc_profile: the colour profile; None where the file has none.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    icc_profile: bytes | None = None


def to_float(pixels: np.ndarray) -> np.ndarray:
    """Pixels [H, W, 3] or grey [H, W], uint8, uint16 or float in [0, 1] -> float32 [H, W, 3]."""
    values = pixels.astype(np.float32)
    if pixels.dtype.kind == "u":
        values /= np.float32(np.iinfo(pixels.dtype).max)
    return values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=-1)


def from_float(image: np.ndarray, dtype: np.dtype, grey: bool) -> np.ndarray:
    """float32 [H, W, 3] in [0, 1] -> rounded pixels of an integer dtype; grey is BT.601 luma."""
    values = image @ _LUMA if grey else image
    return np.rint(values * np.float32(np.iinfo(dtype).max)).astype(dtype)


def as_depth(pixels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """uint8 or uint16 pixels at another depth, full range to full range, rounded."""
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

    Raises:
      InputError: no such file; another format, depth or several frames; truncated or damaged;
        more than 205 megapixels, or 100 of WebP, progressive JPEG or 16 bits with alpha; a side
        below 16 pixels.
    """
    path = Path(path)
    silence_decoders()
    try:
        with open(path, "rb") as file:
            head = file.read(_PNG_HEADER_END)
    except OSError as error:
        raise _cannot_read(path, error) from error
    try:
        photo = _read_tiff(path) if head[:4] in _TIFF_MAGIC else _read_with_pillow(path, head)
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{path} takes more memory than there is; cut it up") from error
    except Image.UnidentifiedImageError as error:
        raise InputError(
            f"{path} is not a readable PNG, JPEG, TIFF or WebP image; convert or replace it"
        ) from error
    except Exception as error:  # decoders raise many kinds on damaged files
        raise InputError(
            f"{path} cannot be decoded, it is truncated or damaged ({error}); replace the file"
        ) from error
    _check_size(path, photo.pixels.shape[1], photo.pixels.shape[0])
    return photo


def _cannot_read(path: Path, error: OSError) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path}: no such file; check the path")
    if isinstance(error, IsADirectoryError):
        return InputError(f"{path} is a folder; name an image file")
    return InputError(f"{path} cannot be opened: {error.strerror}")


def _check_size(path: Path, width: int, height: int, costly: bool = False) -> None:
    most = _MAX_PIXELS_COSTLY if costly else _MAX_PIXELS
    if width * height > most:
        raise InputError(
            f"{path} is {width}x{height}, more than {most // 10**6} megapixels; cut it up"
        )
    if min(width, height) < SMALLEST_SIDE:
        raise InputError(
            f"{path} is {width}x{height}; an image needs at least "
            f"{SMALLEST_SIDE}x{SMALLEST_SIDE} pixels"
        )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Opens a file by Pillow with our limit of pixels in place of Pillow's."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = _MAX_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata, which is not carried over
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_PILLOW_FORMATS) as image:
                costly = image.format == "WEBP" or "progressive" in image.info
                _check_size(path, *image.size, costly)
                yield image
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InputError(
            f"{path} has more than {_MAX_PIXELS // 10**6} megapixels; cut it up"
        ) from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _read_with_pillow(path: Path, head: bytes) -> Photo:
    with _opened(path) as image:
        # The second frame of a phone's MPO is a preview or a depth map.
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":
            raise InputError(f"{path} holds {frames} images; save the one you want alone")
        icc_profile = image.info.get("icc_profile")
        if head.startswith(_PNG_MAGIC) and head[_PNG_DEPTH_OFFSET] == 16:
            import imagecodecs  # Pillow reduces 16-bit colour to 8 bits

            _check_size(path, *image.size, costly="A" in image.mode)
            array = np.asarray(imagecodecs.png_decode(path.read_bytes()))
        else:
            image.load()
            if image.mode in ("CMYK", "YCbCr", "LAB"):
                icc_profile = None
            array = _convert(image, _plain_mode(path, image))
        # Asked only now: Pillow turns a TIFF while loading it and drops the tag.
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    return _photo(_upright(array, orientation), icc_profile)


def _plain_mode(path: Path, image: Image.Image) -> str:
    if image.mode in ("1", "L", "LA"):
        return "LA" if image.has_transparency_data else "L"
    if image.mode in ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"):
        return "RGBA" if image.has_transparency_data else "RGB"
    raise InputError(f"{path} has pixels of type {image.mode}; save it with 8 or 16 bits a channel")


def _convert(image: Image.Image, mode: str) -> np.ndarray:
    """A decoded image in another mode, uint8 [H, W, channels]; never twice whole in memory."""
    array = np.empty((image.height, image.width, len(mode)), np.uint8)
    rows = max(_STRIP // image.width, 1)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        strip = image.crop((0, top, image.width, bottom)).convert(mode)
        array[top:bottom] = np.asarray(strip).reshape(bottom - top, image.width, -1)
    return array


def _read_tiff(path: Path) -> Photo:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        if page.samplesperpixel > 4 or page.imagedepth > 1:
            raise InputError(f"{path} has more than 4 channels; save it as grey or RGB")
        _check_size(path, page.imagewidth, page.imagelength, costly=page.samplesperpixel in (2, 4))
        if len(tiff.pages) > 1:
            raise InputError(f"{path} holds {len(tiff.pages)} images; save the one you want alone")
        if np.max(page.bitspersample) <= 8:
            return _read_with_pillow(path, b"")
        photometric = tifffile.PHOTOMETRIC(page.photometric)
        plain = photometric in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
        if page.dtype != np.uint16 or not plain:
            raise InputError(
                f"{path} has pixels of type {page.dtype}, {photometric.name}; save it as grey "
                "or RGB with 8 or 16 bits a channel"
            )
        array = page.asarray().astype(np.uint16, copy=False)  # a file's bytes may be swapped
        if page.axes == "SYX":
            array = np.moveaxis(array, 0, -1)
        orientation = page.tags.valueof(274, 1)
        profile = page.tags.valueof(34675)
    return _photo(_upright(array, orientation), profile)


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes an EXIF orientation (1 to 8): [H, W, ...] -> [H, W, ...] or [W, H, ...], a view."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def _photo(array: np.ndarray, icc_profile: bytes | None) -> Photo:
    """Splits decoded channels [H, W] or [H, W, 1 to 4] into colour and alpha."""
    if array.ndim == 2:
        array = array[..., None]
    channels = array.shape[-1]
    # A copy, that lets the pixels go without it.
    alpha = np.ascontiguousarray(array[..., -1]) if channels in (2, 4) else None
    pixels = array[..., 0] if channels < 3 else array[..., :3]
    return Photo(pixels, alpha, icc_profile)


# --- Writing -------------------------------------------------------------------------------------


def extension(path: Path) -> str:
    """The format of an output path: `.png`, `.jpg`, `.tif` or `.webp`.

    Raises:
      InputError: another extension, or none.
    """
    suffix = _ALIASES.get(path.suffix.lower(), path.suffix.lower())
    if suffix not in _LARGEST:
        raise InputError(f"{path}: the output must end in {' '.join(sorted(EXTENSIONS))}")
    return suffix


def check_writable_as(path: str | os.PathLike, photo: Photo) -> None:
    """Raises InputError where the format of `path` cannot hold `photo`."""
    suffix = extension(Path(path))
    height, width = photo.pixels.shape[:2]
    if photo.alpha is not None and suffix == ".jpg":
        raise InputError(f"{path}: JPEG cannot hold the image's alpha; use .png, .tif or .webp")
    if max(height, width) > _LARGEST[suffix]:
        raise InputError(
            f"{path}: {width}x{height} is too large for {suffix}, which holds sides up to "
            f"{_LARGEST[suffix]}; use .png or .tif"
        )


def write_photo(path: str | os.PathLike, photo: Photo) -> None:
    """Writes an image file in the format of its extension; it appears whole or not at all.

    PNG and TIFF keep 16 bits, JPEG and WebP get 8. JPEG has quality 95 without chroma subsampling,
    because noise is what counts here; the other three are lossless.

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
    elif array.dtype == np.uint16:
        path.write_bytes(_encode_png16(array, photo.icc_profile))
    else:
        options: dict[str, dict] = {
            # Noise hardly compresses: more effort only takes more time.
            ".png": {"format": "PNG", "compress_level": 1},
            ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
            ".webp": {
                "format": "WEBP",
                "lossless": True,
                "quality": 20,
                "method": 0,
                "exact": True,
            },
        }
        Image.fromarray(array).save(path, icc_profile=photo.icc_profile, **options[suffix])


def _encode_tiff(path: Path, array: np.ndarray, photo: Photo) -> None:
    import tifffile

    tifffile.imwrite(
        path,
        array,
        photometric="minisblack" if photo.pixels.ndim == 2 else "rgb",
        planarconfig="contig" if array.ndim == 3 else None,
        extrasamples=None if photo.alpha is None else ["unassalpha"],
        compression="zlib",
        predictor=True,
        iccprofile=photo.icc_profile,
        metadata=None,
    )


def _encode_png16(array: np.ndarray, icc_profile: bytes | None) -> bytes:
    import imagecodecs  # Pillow has no 16-bit colour

    png = bytes(
        imagecodecs.png_encode(
            array,
            level=imagecodecs.PNG.COMPRESSION.SPEED,
            strategy=imagecodecs.PNG.STRATEGY.RLE,
            filter=imagecodecs.PNG.FILTER.SUB,
        )
    )
    if icc_profile is None:
        return png
    body = b"iCCP" + b"ICC profile\0\0" + zlib.compress(icc_profile)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:_PNG_HEADER_END] + chunk + png[_PNG_HEADER_END:]


# --- Folders -------------------------------------------------------------------------------------


def find_images(folder: Path, output: Path) -> list[Path]:
    """Image files under a folder, relative to it, sorted by name as text.

    Hidden files, links that lead out of the folder and the output folder are left out; linked
    folders are not entered.

    Raises:
      InputError: there is none.
    """
    root, excluded = folder.resolve(), output.resolve()
    found = []
    for current, folders, files in os.walk(root):
        folders[:] = [
            name for name in folders if not name.startswith(".") and Path(current, name) != excluded
        ]
        for name in files:
            path = Path(current, name)
            hidden = name.startswith(".") or path.suffix.lower() not in EXTENSIONS
            if not hidden and path.resolve().is_relative_to(root):
                found.append(path.relative_to(root))
    if not found:
        raise InputError(f"{folder}: no image found, looked for {' '.join(sorted(EXTENSIONS))}")
    return sorted(found, key=Path.as_posix)

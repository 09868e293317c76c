"""TIFF: which of its images is the photograph, and what its samples mean.

What is black and white, how many bits a sample has, which sample is alpha: a TIFF says all of it
in tags. A tag that is not honoured here is a reason to refuse the file, not to guess.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from tifffile import COMPRESSION, PHOTOMETRIC, TiffFile, TiffPage

from nt_jax.errors import InputError

# Of colour, by photometric interpretation; others are refused.
_COLOURS = {
    PHOTOMETRIC.MINISWHITE: 1,
    PHOTOMETRIC.MINISBLACK: 1,
    PHOTOMETRIC.PALETTE: 1,
    PHOTOMETRIC.RGB: 3,
    PHOTOMETRIC.YCBCR: 3,
    PHOTOMETRIC.SEPARATED: 4,
}
_RAW = (PHOTOMETRIC.CFA, PHOTOMETRIC.LINEAR_RAW)
# tifffile does not unpack others rightly.
_BITS = (*range(1, 17), 32)
_JPEG = (COMPRESSION.OJPEG, COMPRESSION.JPEG, COMPRESSION.ALT_JPEG)
_ASSOCIATED, _UNASSOCIATED = 1, 2
# Beyond the colours; also a bound on the memory that a small file can ask for.
_MOST_EXTRA = 2
_MOST_PAGES = 64
_STRIP = 2**22  # pixels converted at a time


@dataclass(frozen=True)
class Layout:
    """Meaning of a page's samples.

    Attributes:
      page: the page.
      photometric: what the colours mean.
      colours: samples of colour in a pixel; further ones follow.
      white: largest value of a sample.
      alpha: index of the sample of opacity; None where no tag says that one is.
      associated: the colours are multiplied by it.
    """

    page: TiffPage
    photometric: PHOTOMETRIC
    colours: int
    white: int
    alpha: int | None
    associated: bool

    @property
    def costly(self) -> bool:
        """Whether decoding takes more memory than RGB of 16 bits."""
        samples = self.page.samplesperpixel
        return samples in (2, 4, 5) or samples * ((self.white.bit_length() + 7) // 8) > 6

    @property
    def keeps_colours(self) -> bool:
        """Whether a colour profile still holds once it is decoded."""
        return self.photometric != PHOTOMETRIC.SEPARATED


def is_raw(tiff: TiffFile) -> bool:
    """Tells whether a camera's raw values are in the file, in whichever of its images."""
    return any(
        page.photometric in _RAW or "DNGVersion" in page.tags or "CFAPattern" in page.tags
        for page in _all_pages(tiff)
    )


def _pages(pages: Any) -> list[TiffPage]:
    return [page for page in islice(pages, _MOST_PAGES) if isinstance(page, TiffPage)]


def _all_pages(tiff: TiffFile) -> Iterator[TiffPage]:
    """Lists the file's images, and those below them, such as the mosaic below a preview."""
    for page in _pages(tiff.pages):
        yield page
        yield from _pages(page.pages or ())


def _is_whole(page: TiffPage) -> bool:
    """Tells whether a page is neither a reduced version of another image nor a mask."""
    return not page.subfiletype & 0b101 and page.tags.valueof(255, 1) != 2


def find_layout(tiff: TiffFile, path: object) -> Layout:
    """Finds the photograph among the images of a file, and what its samples are.

    Raises:
      InputError: none or several are whole, or it has a property that is not honoured.
    """
    pages = list(_all_pages(tiff))
    first = _pages(tiff.pages)
    whole = [page for page in first if _is_whole(page)] or [p for p in pages if _is_whole(p)]
    if len(whole) > 1:
        raise InputError(f"{path} holds {len(whole)} images; save the one you want alone")
    page = whole[0] if whole else pages[0]
    if max(_area(other) for other in pages) > _area(page):
        raise InputError(f"{path} holds a larger image beside the first; save that one alone")
    return _layout(page, path)


def _area(page: TiffPage) -> int:
    return page.imagewidth * page.imagelength


def _layout(page: TiffPage, path: object) -> Layout:
    tags = page.tags

    def values(code: int, default: int) -> tuple[int, ...]:
        found = tags.valueof(code, default)
        return tuple(found) if isinstance(found, tuple | list) else (found,)

    def refuse(what: str) -> InputError:
        return InputError(f"{path} has {what}; save it as grey or RGB with 8 or 16 bits a channel")

    bits, formats = set(values(258, 1)), set(values(339, 1))
    kinds = {2: "signed integer", 3: "floating-point", 5: "complex", 6: "complex"}
    if formats != {1}:
        names = " and ".join(kinds.get(kind, "undefined") for kind in sorted(formats))
        raise refuse(f"{names} samples ({page.dtype}), of which nothing says what white is")
    if 262 not in tags:
        raise refuse("no photometric interpretation")
    if page.photometric not in _COLOURS:
        name = getattr(page.photometric, "name", page.photometric)
        raise refuse(f"the photometric interpretation {name}")
    photometric = PHOTOMETRIC(page.photometric)
    if len(bits) > 1 or page.dtype is None or page.dtype.kind not in "ub" or max(bits) not in _BITS:
        raise refuse(f"samples of {'/'.join(map(str, sorted(bits)))} bits")
    colours = _COLOURS[photometric]
    extra = page.samplesperpixel - colours
    if extra < 0 or page.imagedepth > 1:
        raise refuse(f"{page.samplesperpixel} samples, {photometric.name}")
    if extra > _MOST_EXTRA:
        raise refuse(f"more than {colours + _MOST_EXTRA} channels")
    if photometric == PHOTOMETRIC.YCBCR and page.compression not in _JPEG:
        raise refuse("YCbCr pixels that are not JPEG")
    if photometric == PHOTOMETRIC.SEPARATED and values(332, 1) != (1,):
        raise refuse("inks that are not CMYK")
    if photometric == PHOTOMETRIC.PALETTE and page.colormap is None:
        raise refuse("a palette without colours")
    white = 2 ** max(bits) - 1
    reference = tags.valueof(532)
    if photometric == PHOTOMETRIC.RGB and reference and not _is_full_range(reference, white):
        raise refuse("a black and a white of its own (ReferenceBlackWhite)")
    meanings = [int(kind) for kind in page.extrasamples][:extra]
    alphas = [i for i, kind in enumerate(meanings) if kind in (_ASSOCIATED, _UNASSOCIATED)]
    alpha = colours + alphas[0] if alphas else None
    associated = bool(alphas) and meanings[alphas[0]] == _ASSOCIATED
    return Layout(page, photometric, colours, white, alpha, associated)


def _is_full_range(reference: Any, white: int) -> bool:
    values = np.asarray(reference, np.float64).reshape(-1)
    if len(values) == 12:  # six fractions
        values = values[::2] / np.maximum(values[1::2], 1)
    return values.tolist() == [0, white] * 3


def decode(layout: Layout) -> tuple[np.ndarray, np.ndarray | None]:
    """Decodes pixels [H, W] or [H, W, 3] and, if any, alpha [H, W]; uint8 or uint16 each.

    Up to 8 bits become 8 and more become 16, white to white. CMYK becomes RGB without colour
    management, and colours that were multiplied by alpha are divided by it.

    Raises:
      Exception: of many kinds, where the file is damaged.
    """
    import imagecodecs  # noqa: F401  without it tifffile calls what is compressed a wrong value

    page = layout.page
    _check_complete(page)
    samples = page.asarray(squeeze=False)  # [separate samples, 1, H, W, samples together]
    samples = np.moveaxis(samples[:, 0], 0, -2).reshape(*samples.shape[2:4], -1)
    if page.compression in _JPEG and layout.photometric == PHOTOMETRIC.YCBCR:
        white = 255  # decoded to RGB
    else:
        white = layout.white
    height, width, _ = samples.shape
    dtype = np.dtype(np.uint8 if white <= 255 else np.uint16)
    if layout.photometric == PHOTOMETRIC.PALETTE:
        dtype = np.dtype(np.uint8)
    grey = layout.colours == 1 and layout.photometric != PHOTOMETRIC.PALETTE
    direct = samples.dtype == dtype and white in (255, 65535) and not layout.associated
    if direct and layout.photometric in (
        PHOTOMETRIC.MINISBLACK,
        PHOTOMETRIC.RGB,
        PHOTOMETRIC.YCBCR,
    ):
        pixels = samples[..., 0] if grey else samples[..., :3]
        samples_alpha = None if layout.alpha is None else samples[..., layout.alpha]
        return pixels, None if samples_alpha is None else np.ascontiguousarray(samples_alpha)
    pixels = np.empty((height, width) if grey else (height, width, 3), dtype)
    alpha = None if layout.alpha is None else np.empty((height, width), dtype)
    rows = max(_STRIP // width, 1)
    for top in range(0, height, rows):
        part = slice(top, top + rows)
        opacity = None
        if alpha is not None:
            opacity = _scaled(samples[part, :, layout.alpha], white, dtype)
            alpha[part] = opacity
        colours = _colours(samples[part, :, : layout.colours], layout, white, dtype)
        if opacity is not None and layout.associated:
            colours = _divided(colours, opacity[..., None])
        pixels[part] = colours[..., 0] if grey else colours
    return pixels, alpha


def _check_complete(page: TiffPage) -> None:
    """Refuses a photograph that lacks pieces: tifffile fills with black what is missing."""
    size = page.parent.filehandle.size
    pieces = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if not pieces or any(not count or offset + count > size for offset, count in pieces):
        raise ValueError("pieces of the image are missing")


def _scaled(values: np.ndarray, white: int, dtype: np.dtype) -> np.ndarray:
    """Scales values 0 to `white` to the full range of an integer type, rounded."""
    largest = np.iinfo(dtype).max
    if white == largest:
        return values.astype(dtype)
    return ((values.astype(np.uint64) * largest + white // 2) // white).astype(dtype)


def _colours(values: np.ndarray, layout: Layout, white: int, dtype: np.dtype) -> np.ndarray:
    """Turns [h, w, samples] into grey [h, w, 1] or RGB [h, w, 3]."""
    if layout.photometric == PHOTOMETRIC.PALETTE:
        # Colours of 16 bits, which all programs make of 8 bits, some by 256 and some by 257.
        return (np.asarray(layout.page.colormap).T >> 8).astype(dtype)[values[..., 0]]
    colours = _scaled(values, white, dtype)
    largest = int(np.iinfo(dtype).max)
    if layout.photometric == PHOTOMETRIC.MINISWHITE:
        return (largest - colours).astype(dtype)
    if layout.photometric == PHOTOMETRIC.SEPARATED:
        light = largest - colours[..., 3:].astype(np.uint32)
        ink = (colours[..., :3].astype(np.uint32) * light + largest // 2) // largest
        return (light - ink).astype(dtype)
    return colours


def _divided(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Divides colours by the alpha they were multiplied by; 0 where nothing is left of them."""
    largest = np.iinfo(colours.dtype).max
    divisor = np.maximum(alpha.astype(np.uint32), 1)
    whole = (colours.astype(np.uint32) * largest + divisor // 2) // divisor
    return np.where(alpha == 0, 0, np.minimum(whole, largest)).astype(colours.dtype)

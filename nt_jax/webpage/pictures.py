"""Contents of the page as HTML: pictures, numbers, links, errors. All of it is inside the page."""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from nt_jax.images import Photo, as_depth
from nt_jax.readings import NoiseReading

_SIDE = 480  # of a preview, at most
CSS = """
.nt img { max-width: 100%; height: auto }
.nt figure { display: inline-block; margin: 0 1em 1em 0; vertical-align: top; max-width: 480px }
.nt td, .nt th { padding: .15em .8em; text-align: left }
.nt pre { white-space: pre-wrap; max-height: 16em; overflow: auto }
.nt progress { width: 100% }
.nt .error { color: #b00020; font-weight: 600 }
.nt .download { font-weight: 600; text-decoration: underline }
"""


def block(*parts: str) -> str:
    """Puts parts of HTML together, as one that the style sheet applies to."""
    return f'<div class="nt">{"".join(parts)}</div>'


def error(line: str) -> str:
    """Writes a line that says what is wrong, as the command line has it."""
    return block(f'<p class="error" role="alert">error: {html.escape(line)}</p>')


def lines(texts: Iterable[str]) -> str:
    """Writes texts, a paragraph each."""
    return "".join(f"<p>{html.escape(text)}</p>" for text in texts)


def log(texts: Iterable[str]) -> str:
    """Shows what a command has printed."""
    return f"<pre>{html.escape(chr(10).join(texts))}</pre>"


def preview(photo: Photo, caption: str) -> str:
    """Shows a photo, reduced to 480 pixels a side at most, as a JPEG inside the page."""
    pixels = as_depth(photo.pixels, np.dtype(np.uint8))
    image = Image.fromarray(np.ascontiguousarray(pixels))
    factor = max(1, -(-max(image.size) // _SIDE))
    buffer = io.BytesIO()
    image.reduce(factor).convert("RGB").save(buffer, "JPEG", quality=90)
    data = base64.b64encode(buffer.getvalue()).decode()
    caption = html.escape(caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def facts(path: Path, photo: Photo) -> str:
    """Describes a photo's file in a line."""
    height, width = photo.pixels.shape[:2]
    parts = [f"{width}x{height}", f"{8 * photo.pixels.itemsize} bits"]
    parts += ["grey"] * (photo.pixels.ndim == 2)
    parts += ["alpha"] * (photo.alpha is not None)
    parts += ["profile"] * (photo.icc_profile is not None)
    parts += ["EXIF"] * (photo.exif is not None)
    parts += ["XMP"] * (photo.xmp is not None)
    return f"{path.name}: {', '.join(parts)}"


def readings(found: Sequence[tuple[str, NoiseReading | None]]) -> str:
    """Tabulates the noise that is read off images, by their names; "" if a model cannot read."""
    head = (
        *("noise read off", "level, of 255", "red", "green", "blue"),
        *("correlation, next pixel", "one further", "red-green", "red-blue", "green-blue"),
    )
    rows = [
        (
            name,
            f"{reading.total_level:.1f}",
            *(f"{level:.1f}" for level in reading.level),
            *(f"{x:.2f}" for x in (reading.lag1, reading.lag2, *reading.channel_correlation)),
        )
        for name, reading in found
        if reading
    ]
    if not rows:
        return ""
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{body}</table>"


def download(link: str, name: str, size: int) -> str:
    """Writes a link to a result's file."""
    name = html.escape(name)
    return (
        f'<p><a class="download" href="{html.escape(link)}" download="{name}">'
        f"Download {name}</a> ({size / 1e6:.1f} MB)</p>"
    )

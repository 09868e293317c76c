"""The page that shows what was found in somebody's photos and what became of them."""

import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nt_jax.adaptation.survey import PhotoNoise
from nt_jax.files import replacing
from nt_jax.images import read_photo, read_rgb, to_float
from nt_jax.inference.denoiser import Denoiser
from nt_jax.inference.report import embedded, page

_TITLE = "A denoiser for these photos"
_SIDE = 256  # of a crop
_PHOTOS = 4
_GAIN = 4  # of noise, to see it


def write_report(
    path: Path,
    photos: Sequence[PhotoNoise],
    lines: Sequence[str],
    outcome: Sequence[str],
    before: Denoiser,
    after: Denoiser,
    generated: Sequence[tuple[Path, Path]],
    command: str,
) -> None:
    """Writes the page, with its picture inside and beside it as `report.png`.

    Args:
      path: of the page.
      photos: somebody's photos; of the first few the middle is shown.
      lines: what was found in them.
      outcome: what training reached, line by line.
      before, after: the denoiser for all cameras, and the adapted one.
      generated: clean and noisy files of patches that were trained with.
      command: how to use the denoiser.
    """
    picture = _picture(
        photos[:: max(1, len(photos) // _PHOTOS)][:_PHOTOS], before, after, generated
    )
    with replacing(path.with_suffix(".png")) as temporary:
        temporary.write_bytes(picture)
    rows = "".join(
        f"<tr><td>{html.escape(photo.path.name)}</td><td>{photo.iso or ''}</td>"
        f"<td>{photo.level:.1f}</td><td>{photo.noise.reading.lag1:.2f}</td>"
        f"<td>{' '.join(f'{gain:.2f}' for gain in photo.noise.gain)}</td></tr>"
        for photo in photos
        if photo.noise.reading
    )
    said = "".join(f"<li>{html.escape(line)}</li>" for line in (*lines, *outcome))
    body = f"""<ul>{said}</ul>
<p>To use it:</p><pre>{html.escape(command)}</pre>
{embedded(picture, "photos, denoised before and after, and both noises")}
<p>The noise of a photo is an estimate, what the adapted denoiser takes away; generated noise is
known exactly. Both are shown times {_GAIN}.</p>
<table><tr><th>photo</th><th>ISO</th><th>level read, of 255</th><th>correlation with the next
pixel</th><th>generated noise times</th></tr>{rows}</table>"""
    with replacing(path) as temporary:
        temporary.write_text(page(_TITLE, body), encoding="utf-8")


def _picture(
    photos: Sequence[PhotoNoise],
    before: Denoiser,
    after: Denoiser,
    generated: Sequence[tuple[Path, Path]],
) -> bytes:
    from matplotlib.figure import Figure

    titles = ("photo", "denoiser for all cameras", "adapted", "its noise", "generated noise")
    figure = Figure(figsize=(3 * len(titles), 3.1 * len(photos)), layout="constrained")
    axes = figure.subplots(len(photos), len(titles), squeeze=False)
    for row, photo, (clean, noisy) in zip(axes, photos, generated, strict=False):
        pixels = read_photo(photo.path).pixels
        top, left = (max(0, (side - _SIDE) // 2) for side in pixels.shape[:2])
        crop = to_float(pixels[top : top + _SIDE, left : left + _SIDE])
        adapted = np.asarray(after(crop))
        made = to_float(read_rgb(noisy)) - to_float(read_rgb(clean))
        images = (
            *(crop, np.asarray(before(crop)), adapted),
            *(np.clip(0.5 + _GAIN * noise, 0, 1) for noise in (crop - adapted, made)),
        )
        for ax, title, image in zip(row, titles, images, strict=True):
            ax.imshow(image)
            ax.set_title(title if title != "photo" else photo.path.name, fontsize=9)
            ax.axis("off")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()

"""The page that shows what was found in somebody's photos and what became of them."""

import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nt_jax.adaptation.pairs import add_noise
from nt_jax.adaptation.survey import PhotoNoise
from nt_jax.evaluation.comparison import embedded, page
from nt_jax.files import replacing
from nt_jax.images import read_photo
from nt_jax.inference.closeup import GAIN, middle, visible
from nt_jax.inference.denoiser import Denoiser
from nt_jax.inference.model import Model
from nt_jax.paths import printable

_TITLE = "A denoiser for these photos"
_SIDE = 256  # of a crop
_PHOTOS = 4
_TITLES = ("photo", "denoiser for all cameras", "adapted", "its noise", "generated noise")


def write_report(
    path: Path,
    photos: Sequence[PhotoNoise],
    lines: Sequence[str],
    outcome: Sequence[str],
    model: Model,
    before: Denoiser,
    after: Denoiser,
    command: str,
) -> None:
    """Writes the page, with its picture inside and beside it as `report.png`.

    Args:
      path: of the page.
      photos: somebody's photos; of the first few the middle is shown.
      lines: what was found in them.
      outcome: what training reached, line by line.
      model: what made the noise.
      before, after: the denoiser for all cameras, and the adapted one.
      command: how to use the denoiser.
    """
    shown = photos[:: max(1, len(photos) // _PHOTOS)][:_PHOTOS]
    picture = _picture(shown, [look(photo, model, before, after) for photo in shown])
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
known exactly, here that which the model puts on the same piece, denoised for all cameras. Both are
shown times {GAIN}.</p>
<table><tr><th>photo</th><th>ISO</th><th>level read, of 255</th><th>correlation with the next
pixel</th><th>generated noise times</th></tr>{rows}</table>"""
    with replacing(path) as temporary:
        temporary.write_text(page(_TITLE, printable(body)), encoding="utf-8")


def look(
    photo: PhotoNoise, model: Model, before: Denoiser, after: Denoiser
) -> tuple[np.ndarray, ...]:
    """Makes a photo's row of the picture, of its middle: five images of one size, in [0, 1].

    Returns:
      The photo, denoised by `before` and by `after`, and its noise, as `after` takes it away and as
      the model makes it.
    """
    crop = middle(read_photo(photo.path), _SIDE)
    clean, adapted = np.asarray(before(crop)), np.asarray(after(crop))
    made = add_noise(model, clean, photo, crop, seed=0) - clean
    return crop, clean, adapted, visible(crop - adapted), visible(made)


def _picture(photos: Sequence[PhotoNoise], rows: Sequence[tuple[np.ndarray, ...]]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(_TITLES), 3.1 * len(photos)), layout="constrained")
    axes = figure.subplots(len(photos), len(_TITLES), squeeze=False)
    for row, photo, images in zip(axes, photos, rows, strict=True):
        titles = (printable(photo.path.name), *_TITLES[1:])
        for ax, title, image in zip(row, titles, images, strict=True):
            ax.imshow(image)
            ax.set_title(title, fontsize=9, parse_math=False)  # a file's name is no formula
            ax.axis("off")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()

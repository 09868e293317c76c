"""One page to see how generated noise matches that of the reference: pictures, curves, numbers."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nt_jax import metrics
from nt_jax.errors import InputError
from nt_jax.evaluation import figures
from nt_jax.evaluation.figures import Noisy
from nt_jax.files import replacing
from nt_jax.images import read_photo
from nt_jax.inference.closeup import middle
from nt_jax.paths import printable

EXTENSIONS = (".html", ".png")

_SIDE = 512


def check_report(
    path: Path, reference: Path, reference_clean: Path | None, taken: Sequence[Path]
) -> None:
    """Checks what the report is made from, before the work.

    Raises:
      InputError: `path` is of another kind or one of `taken` (the command's other files); a
        reference cannot be read or has another size than its clean version.
    """
    if path.resolve() in {other.resolve() for other in taken}:
        raise InputError(f"{path}: the report would overwrite an image; choose another file")
    if path.suffix.lower() not in EXTENSIONS:
        raise InputError(f"{path}: a report must end in {' or '.join(EXTENSIONS)}")
    if reference_clean is not None:
        sizes = [read_photo(p).pixels.shape[:2] for p in (reference, reference_clean)]
        if sizes[0] != sizes[1]:
            raise InputError(
                f"{reference_clean} is no clean version of {reference}: sizes differ, "
                f"{sizes[1][1]}x{sizes[1][0]} and {sizes[0][1]}x{sizes[0][0]}"
            )


def write_report(
    path: Path, reference: Path, reference_clean: Path | None, clean: Path, generated: Path
) -> None:
    """Writes the page, HTML or PNG by its extension, with all pictures inside.

    Looks at the middle 512x512 pixels of each image. Without `reference_clean`, the reference's
    noise is estimated by non-local means and labelled so.

    Args:
      path: where to.
      reference, reference_clean: the first reference and, where there is one, its clean version.
      clean, generated: an image of the transfer, before and after, as files.
    """
    looked_at = _look(reference, reference_clean, clean, generated)
    picture = _picture(*looked_at)
    with replacing(path) as temporary:
        if path.suffix.lower() == ".png":
            temporary.write_bytes(picture)
        else:
            temporary.write_text(page(*_content(picture, *looked_at)), encoding="utf-8")


def compare(
    reference: Path, reference_clean: Path | None, clean: Path, generated: Path
) -> tuple[str, str]:
    """Makes what `write_report` writes as a page: its title, and its body as HTML.

    Raises:
      InputError: an image cannot be read.
    """
    looked_at = _look(reference, reference_clean, clean, generated)
    return _content(_picture(*looked_at), *looked_at)


def _look(
    reference: Path, reference_clean: Path | None, clean: Path, generated: Path
) -> tuple[Noisy, Noisy, dict[str, str]]:
    """Reads the real noise, the generated one, and the files' names."""
    noisy = middle(read_photo(reference), _SIDE)
    if reference_clean is None:
        real = Noisy(_denoise(noisy), noisy, "reference (estimate)")
    else:
        real = Noisy(middle(read_photo(reference_clean), _SIDE), noisy, "reference")
    fake = Noisy(
        middle(read_photo(clean), _SIDE), middle(read_photo(generated), _SIDE), "generated"
    )
    files = {"reference": reference, "clean": clean, "generated": generated}
    return real, fake, {role: printable(path.name) for role, path in files.items()}


def _denoise(image: np.ndarray) -> np.ndarray:
    from skimage.restoration import denoise_nl_means

    # Donoho's estimate from the diagonal details of the Haar wavelet, at half the size: neighbours
    # in a photograph have correlated noise, of which the finest details hold half or less.
    height, width = (size // 2 * 2 for size in image.shape[:2])
    halved = image[:height, :width].reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))
    details = np.diff(np.diff(halved, axis=0), axis=1) / 2
    sigma = 2 * float(np.median(np.abs(details)) / 0.6745)
    clean = denoise_nl_means(
        image, patch_size=5, patch_distance=6, h=0.8 * sigma, sigma=sigma, channel_axis=-1
    )
    return np.clip(clean, 0, 1).astype(np.float32)


def _picture(real: Noisy, fake: Noisy, names: dict[str, str]) -> bytes:
    pictures = {
        f"reference\n{names['reference']}": real.noisy,
        f"clean\n{names['clean']}": fake.clean,
        f"generated\n{names['generated']}": fake.noisy,
    }
    buffer = io.BytesIO()
    figures.comparison(pictures, real, fake).savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _correlation(item: Noisy, lag: int) -> float:
    return float(metrics.lag_autocorrelation(item.noise, lag)[0])


def _content(picture: bytes, real: Noisy, fake: Noisy, names: dict[str, str]) -> tuple[str, str]:
    """Writes the title and body of the page."""
    rows = {
        "standard deviation": [f"{item.noise.std():.4f}" for item in (real, fake)],
        "mean": [f"{item.noise.mean():+.4f}" for item in (real, fake)],
        "autocorrelation at 1 pixel": [f"{_correlation(item, 1):+.3f}" for item in (real, fake)],
        "correlation of red and green": [
            f"{float(metrics.channel_correlation(item.noise)[0, 0, 1]):+.3f}"
            for item in (real, fake)
        ],
    }
    table = "".join(
        f"<tr><th>{name}</th>{''.join(f'<td>{value}</td>' for value in values)}</tr>"
        for name, values in rows.items()
    )
    estimate = (
        "<p>No clean version of the reference was given: its noise is an <b>estimate</b>, the "
        "reference minus its non-local-means denoised version. Such estimates are somewhat low, "
        "most of all for coarse noise.</p>"
        if real.label != "reference"
        else ""
    )
    return (
        f"Noise of {names['reference']} on {names['clean']}",
        f"""<p>The middle {fake.noise.shape[1]}×{fake.noise.shape[0]} pixels; values in [0, 1]. The
two images differ, so of these curves the histogram also depends on what they show.</p>
{estimate}
<table><tr><th></th><th>{real.label}</th><th>{fake.label}</th></tr>{table}</table>
{embedded(picture, "pictures and curves of both noises")}""",
    )


def page(title: str, body: str) -> str:
    """Writes a page of its own: the title, escaped here, above a body of HTML."""
    title = html.escape(title)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 16px system-ui, sans-serif; max-width: 1430px; margin: 2em auto; padding: 0 1em }}
img {{ max-width: 100% }}
td, th {{ padding: .2em 1em; text-align: left }}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""


def embedded(picture: bytes, description: str) -> str:
    """Writes a PNG as part of a page."""
    return (
        f'<img alt="{description}"\n'
        f' src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
    )

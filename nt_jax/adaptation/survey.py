"""The noise of somebody's photos: read off each, and said in words."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nt_jax.formats.metadata import iso_of_exif
from nt_jax.images import read_photo
from nt_jax.inference.denoiser import Denoiser
from nt_jax.inference.files import noise_of_photos
from nt_jax.inference.model import Model
from nt_jax.inference.reference import ReferenceNoise

# Levels that photos of one noise do not differ by, as a factor.
_SPREAD = 3.0


class PhotoNoise(NamedTuple):
    """One noisy photo.

    Attributes:
      path: its file.
      iso: ISO speed of its EXIF data; None where there is none.
      noise: what the model knows of its noise, with a reading.
      condition: what a denoiser reads off it, float32 [spectra.CONDITIONS]; None of a blind one.
    """

    path: Path
    iso: int | None
    noise: ReferenceNoise
    condition: np.ndarray | None = None

    @property
    def level(self) -> float:
        """Of all channels together, 0 to 255 scale."""
        assert self.noise.reading is not None
        return float(self.noise.reading.total_level)


def survey(model: Model, denoiser: Denoiser, path: Path) -> PhotoNoise:
    """Reads the noise of a photo, by a model and by a denoiser that is told it.

    Raises:
      InputError: the photo cannot be read.
    """
    photo = read_photo(path)
    read = denoiser.read(photo.pixels)
    condition = None if read is None else np.asarray(read[0])
    noise = noise_of_photos(model, [photo])
    return PhotoNoise(path, iso_of_exif(photo.exif), noise, condition)


def describe(found: Sequence[PhotoNoise]) -> list[str]:
    """Lines that say what was found, by ISO where the files tell it, and what to beware of."""
    lines = []
    everywhere = [photo.level for photo in found]
    for iso in sorted({photo.iso for photo in found}, key=lambda iso: iso or 0):
        group = [photo for photo in found if photo.iso == iso]
        readings = [photo.noise.reading for photo in group if photo.noise.reading]
        levels = sorted(photo.level for photo in group)
        lag = float(np.median([reading.lag1 for reading in readings]))
        colour = float(np.median([reading.channel_correlation.mean() for reading in readings]))
        at = f"ISO {iso}: " if iso else ""
        spread = f" ({levels[0]:.1f} to {levels[-1]:.1f})" if len(levels) > 1 else ""
        lines.append(
            f"{at}{len(group)} photo{'s' * (len(group) > 1)}, noise of level"
            f" {float(np.median(levels)):.1f} of 255{spread}, {_coarse(lag)} (correlation with the"
            f" next pixel {lag:.2f}), {_coloured(colour)}"
        )
    if max(everywhere) > _SPREAD * min(everywhere):
        lines.append(
            "warning: these photos' noise differs much in level: with photos of one ISO alone the"
            " denoiser gets better at it"
        )
    strange = [photo.path.name for photo in found if photo.noise.out_of_bounds]
    if strange:
        lines.append(
            f"warning: the model hardly knows the noise of {len(strange)} of {len(found)} photos,"
            f" {strange[0]} for one: its noise cannot be brought to their level"
        )
    return lines


def _coarse(lag: float) -> str:
    return "fine-grained" if lag < 0.2 else "soft" if lag < 0.5 else "blotchy"


def _coloured(correlation: float) -> str:
    return "in grey" if correlation > 0.9 else "partly grey" if correlation > 0.5 else "in colour"

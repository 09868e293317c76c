"""Second tab of the page: the work of `nt_jax.denoise`, on one photo."""

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import gradio as gr
import numpy as np

from nt_jax.errors import InputError
from nt_jax.images import Photo, from_float, read_photo
from nt_jax.inference.closeup import GAIN, middle, visible
from nt_jax.inference.denoiser import Denoiser
from nt_jax.inference.files import Job, noise_of_photos, pair_up, plan, run_jobs
from nt_jax.inference.loading import load_denoiser
from nt_jax.inference.model import Model
from nt_jax.inference.tiles import Tile
from nt_jax.model_folder import CONFIG_FILE, MODEL_FILE
from nt_jax.webpage import pictures
from nt_jax.webpage.sessions import MOST_BYTES, Session

_MOST_ENTRIES = 10_000  # of a ZIP file
_SIDE = 352  # of the piece that is shown at full size

_bundled = lru_cache(load_denoiser)


@dataclass
class Denoise:
    """Denoises with any denoiser.

    Attributes:
      model: reads the noise before and after.
      names: denoisers for everyone.
    """

    model: Model
    names: Sequence[str]

    def choices(self, session: Session) -> list[str]:
        """Denoisers that the session can use: everyone's and its own."""
        return [*self.names, *session.denoisers]

    def __call__(
        self, session: Session, progress: gr.Progress, name: str, strength: float
    ) -> Iterator[str]:
        """Denoises the session's upload `photo`.

        Args:
          session: see above.
          progress: is told how far it is.
          name: of the denoiser.
          strength: factor on the level that it reads, 1/4 to 4; 1 of a blind one.

        Yields:
          The result: numbers, pictures and a link to the file.

        Raises:
          InputError: there is no photo or no such denoiser, or the strength is none of its.
        """
        source = session.file("photo", "photo")
        denoiser = self._load(session, name)
        denoiser.check_strength(strength)
        [job] = plan(pair_up(source, session.fresh_folder("denoised")))
        total = len(denoiser.windows(*job.size))

        def work(job: Job, pixels: np.ndarray) -> Iterable[Tile]:
            tiles = denoiser.denoise_tiles(pixels, strength=strength)
            return progress.tqdm(tiles, desc="denoising", total=total, unit="tiles")

        run_jobs([job], work, total=total)
        before, after = read_photo(source), read_photo(job.target)
        read = [
            (name, noise_of_photos(self.model, [photo], calibrate=False).reading)
            for name, photo in ((source.name, before), ("result", after))
        ]
        link = f"{source.stem}-denoised{job.target.suffix}"
        yield pictures.block(
            pictures.readings(read),
            pictures.download(session.offer(job.target, link), link, job.target.stat().st_size),
            pictures.preview(after, f"the result, reduced; {pictures.facts(job.target, after)}"),
            f"<div>{''.join(_close_up(before, after))}</div>",
        )

    def _load(self, session: Session, name: str) -> Denoiser:
        if name in self.names:
            return _bundled(name)
        if name not in session.denoisers:
            raise InputError("choose a denoiser of the list")
        return load_denoiser(session.denoisers[name])


def _close_up(before: Photo, after: Photo) -> Iterator[str]:
    """Shows the middle at full size: before, after, and what was taken away."""
    crops = [middle(photo, _SIDE) for photo in (before, after)]
    for image, caption in (
        (crops[0], "the middle, before"),
        (crops[1], "after"),
        (visible(crops[0] - crops[1]), f"what was taken away ×{GAIN}"),
    ):
        yield pictures.preview(Photo(from_float(image, np.dtype(np.uint8), grey=False)), caption)


def take_denoiser(session: Session, purpose: str, uploads: Sequence[Path]) -> Iterator[str]:
    """Takes a denoiser into the session, in the place of an earlier one: its folder as a ZIP file.

    Raises:
      InputError: it is none.
    """
    path = session.keep(purpose, uploads)[0]
    folder = session.fresh_folder("unpacked")
    session.denoisers = {
        name: own for name, own in session.denoisers.items() if not own.is_relative_to(folder)
    }
    _unpack(path, folder)
    names = (MODEL_FILE, CONFIG_FILE)
    found = sorted((p for p in folder.rglob("*") if p.name in names), key=lambda p: len(p.parts))
    if not found:
        raise InputError(
            f"{path.name} holds no {MODEL_FILE}: expected the folder of a denoiser, as adapt or a"
            " training run writes it"
        )
    load_denoiser(found[0].parent)
    session.denoisers[path.name] = found[0].parent
    yield pictures.block(pictures.lines([f"{path.name} is in the list now"]))


def _unpack(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > _MOST_ENTRIES or sum(e.file_size for e in entries) > MOST_BYTES:
                raise InputError(f"{path.name} unpacks to too much; choose another")
            # Names that lead out of the folder are led back into it, and links become files.
            archive.extractall(folder)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path.name} is no readable ZIP file; pack the denoiser's folder again"
        ) from error

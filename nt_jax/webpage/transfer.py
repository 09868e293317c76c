"""First tab of the page: the work of `nt_jax.transfer`, on one photo."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gradio as gr
import numpy as np

from nt_jax.evaluation.comparison import compare
from nt_jax.images import read_photo
from nt_jax.inference.checks import check_options
from nt_jax.inference.files import Job, noise_of_photos, pair_up, plan, run_jobs
from nt_jax.inference.model import Model
from nt_jax.inference.reference import ReferenceNoise
from nt_jax.inference.tiles import Tile
from nt_jax.models.parameters import Array
from nt_jax.transfer import describe
from nt_jax.webpage import pictures
from nt_jax.webpage.sessions import Session

# Matplotlib does not draw in two threads at once.
_DRAWING = threading.Lock()


@dataclass
class Transfer:
    """Transfers with one model.

    Attributes:
      model: the model.
    """

    model: Model

    def __call__(
        self,
        session: Session,
        progress: gr.Progress,
        strength: float,
        level: float,
        blend: float,
        seed: int,
    ) -> Iterator[str]:
        """Puts the noise of the session's noisy photo on its clean one.

        Args:
          session: with uploads `noisy`, `clean` and maybe `second`, another reference.
          progress: is told how far it is.
          strength: factor of the noise, 0 or more.
          level: how far to shift the embedding along the level direction, 0 to 255 scale.
          blend: weight of the second reference, 0 to 1.
          seed: of the random maps.

        Yields:
          The result: numbers, pictures and a link to the file.

        Raises:
          InputError: a photo is missing or an argument is out of range.
        """
        references = [session.file("noisy", "noisy photo"), *session.files("second")]
        clean = session.file("clean", "clean photo")
        check_options(seed, strength)
        pairs = pair_up(clean, session.fresh_folder("transferred"))
        [job] = plan(pairs, references, seed)
        model = self.model
        progress((0, 3), desc="reading the noise")
        photos = [read_photo(path) for path in references]
        noises = [noise_of_photos(model, [photo]) for photo in photos]
        mixed = self.mix(noises, level, blend)
        total = len(model.windows(*job.size))

        def work(job: Job, pixels: np.ndarray) -> Iterable[Tile]:
            tiles = model.transfer_tiles(pixels, seed=job.seed, strength=strength, **mixed)
            return progress.tqdm(tiles, desc="making noise", total=total, unit="tiles")

        run_jobs([job], work, total=total)

        progress((2, 3), desc="comparing")
        result = read_photo(job.target)
        read = [
            (f"noisy: {path.name}", noise.reading)
            for path, noise in zip(references, noises, strict=True)
        ]
        for name, photo in ((f"clean: {clean.name}", read_photo(clean)), ("result", result)):
            read.append((name, noise_of_photos(model, [photo], calibrate=False).reading))
        with _DRAWING:
            _, comparison = compare(references[0], None, clean, job.target)
        name = f"{clean.stem}-noisy{job.target.suffix}"
        yield pictures.block(
            pictures.lines(line for noise in noises for line in describe(noise)),
            pictures.readings(read),
            pictures.download(session.offer(job.target, name), name, job.target.stat().st_size),
            pictures.preview(result, f"the result, reduced; {pictures.facts(job.target, result)}"),
            comparison,
        )

    def mix(self, noises: Sequence[ReferenceNoise], level: float, blend: float) -> dict[str, Any]:
        """Mixes embedding and gains of one or two noises, moved along the level direction.

        Args:
          noises: of the references.
          level, blend: see above; `blend` counts where there are two.

        Returns:
          Arguments of `Model.transfer_tiles`.

        Raises:
          InputError: `level` is no finite number, or `blend` not from 0 to 1.
        """
        embedding, gains = noises[0].embedding, noises[0].gains
        if len(noises) > 1:
            embedding = self.model.interpolate(embedding, noises[1].embedding, blend)
            share, others = np.float32(blend), noises[1].gains
            gains = {
                name: (1 - share) * gain + share * others[name] for name, gain in gains.items()
            }
        if level:
            embedding = self.model.shift(embedding, self._direction, level)
        return {"embedding": embedding} | gains

    @cached_property
    def _direction(self) -> Array:
        """The level direction, on photographs that come with scikit-image."""
        from skimage import data

        return self.model.level_direction([data.chelsea(), data.coffee()])

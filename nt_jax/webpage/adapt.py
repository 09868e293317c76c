"""Third tab of the page: runs `nt_jax.adapt` on the session's photos.

In a process of its own: training belongs to a main thread, and a process can be ended at any time.
"""

import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

import nt_jax
from nt_jax.arrays import as_number
from nt_jax.errors import EXIT_INPUT, InputError
from nt_jax.evaluation.comparison import embedded
from nt_jax.webpage import pictures
from nt_jax.webpage.sessions import Session

_LONGEST = 120  # minutes
_LOOK_EVERY_S = 0.5
_SAID, _ERRORS = "said.txt", "errors.txt"
_PAIRS = "true pairs"
NAME = "adapted"
# Of the output: not what it was trained with.
_PACKED = ("model.json", "variables", "report.html", "report.png")


@dataclass
class Adapt:
    """Adapts a denoiser.

    Attributes:
      model: what makes the noise: name or folder.
      denoiser: what to begin with: name or folder.
    """

    model: str
    denoiser: str

    def __call__(self, session: Session, progress: gr.Progress, minutes: float) -> Iterator[str]:
        """Adapts a denoiser to the session's uploads `photos`.

        Its uploads `sharp`, clean photographs, and `pairs`, true pairs, go into it where there are
        any.

        Args:
          session: see above; gets the denoiser.
          progress: not used: a bar of the time is part of what is shown.
          minutes: time to take, about.

        Yields:
          What is said so far, again and again, and at the end the report and a link.

        Raises:
          InputError: there are no photos, or one is broken.
        """
        del progress
        if not session.files("photos"):
            raise InputError("no noisy photos yet: drop some")
        if not 0 < as_number(minutes, "minutes") <= _LONGEST:
            raise InputError(f"minutes: expected more than 0, up to {_LONGEST}; got {minutes}")
        if session.adaptation and session.adaptation.poll() is None:
            raise InputError("an adaptation is running already: cancel it first")
        session.denoisers.pop(NAME, None)
        folder = session.fresh_folder("adaptation")
        process = self._start(session, folder, minutes)
        session.adaptation = process
        begun = time.monotonic()
        while process.poll() is None:
            done = min(1, (time.monotonic() - begun) / (60 * minutes))
            yield pictures.block(
                f'<progress value="{done:.3f}"></progress>', _said(session, folder)
            )
            time.sleep(_LOOK_EVERY_S)
        if process is session.cancelled:
            yield pictures.block(pictures.lines(["cancelled"]), _said(session, folder))
            return
        if process.returncode == -signal.SIGKILL:
            raise InputError(
                "the adaptation was killed, as happens where memory runs out; drop fewer or smaller"
                " photos"
            )
        if process.returncode:
            errors = (folder / _ERRORS).read_text(errors="replace")
            if process.returncode == EXIT_INPUT:
                raise InputError(errors.splitlines()[-1].removeprefix("error: "))
            raise RuntimeError(f"adapt ended with {process.returncode}:\n{errors}")
        session.denoisers[NAME] = folder / NAME
        packed = _pack(folder / NAME)
        name = f"{NAME}.zip"
        yield pictures.block(
            pictures.lines([f"done: the denoiser is in the list of the tab before, as {NAME}"]),
            pictures.download(session.offer(packed, name), name, packed.stat().st_size),
            _said(session, folder),
            embedded((folder / NAME / "report.png").read_bytes(), "denoised before and after"),
        )

    def _start(self, session: Session, folder: Path, minutes: float) -> subprocess.Popen:
        flags = {
            # Relative to the session's folder, as what is printed names them.
            "noisy": "photos",
            "output": f"{folder.name}/{NAME}",
            "minutes": minutes,
            "model": self.model,
            "denoiser": self.denoiser,
        }
        if session.files("sharp"):
            flags["clean"] = "sharp"
        if session.files("pairs"):
            # Uploads have a folder each; partners are found within one.
            together = session.fresh_folder(_PAIRS)
            for path in session.files("pairs"):
                (together / path.name).unlink(missing_ok=True)
                os.link(path, together / path.name)
            flags["pairs"] = _PAIRS
        command = [sys.executable, "-m", "nt_jax.adapt"]
        with (folder / _SAID).open("wb") as said, (folder / _ERRORS).open("wb") as errors:
            return subprocess.Popen(
                command + [f"--{name}={value}" for name, value in flags.items()],
                cwd=session.folder,
                # This very package, wherever the server was started from.
                env=os.environ
                | {"PYTHONPATH": str(Path(nt_jax.__file__).parents[1]), "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=errors,
            )


def _said(session: Session, folder: Path) -> str:
    """Reads what the process has printed so far."""
    lines = (folder / _SAID).read_text(errors="replace").splitlines()
    return pictures.log(session.public(line) for line in lines)


def _pack(folder: Path) -> Path:
    """Writes the denoiser and its report, without what it was trained with, as a ZIP file."""
    packed = folder.with_suffix(".zip")
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in _PACKED:
            for path in (folder / name, *sorted((folder / name).rglob("*"))):
                archive.write(path, path.relative_to(folder.parent))
    return packed

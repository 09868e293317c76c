"""Files and folders that appear whole or not at all, and how far the work on many of them is."""

import contextlib
import hashlib
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from nt_jax.errors import InputError
from nt_jax.paths import exists

_T = TypeVar("_T")
_LONGEST_NAME = 255  # bytes that a file's name has room for
_LINE_EVERY_S = 15.0


# --- Whole or not at all -------------------------------------------------------------------------


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    temporary = path.with_name(temporary_name(path.name))
    try:
        temporary.unlink(missing_ok=True)
        temporary.open("xb").close()  # "x" follows no link that someone else put there
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`, to be written; renames it on success, else removes it.

    Raises:
      InputError: an operating system's error inside, such as a full disk or a missing right.
    """
    try:
        with _replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


def replace_text(path: Path, text: str) -> None:
    """Replaces a file so that it has its old or its new content, whenever the machine stops.

    Raises:
      OSError: it cannot be written.
    """
    with _replacing(path) as temporary, temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def scratch_beside(folder: Path) -> Iterator[Path]:
    """Gives an empty folder beside `folder`; removed at the end, as are parents made for it.

    Raises:
      OSError: it cannot be made.
    """
    folder = folder.absolute()
    missing = [parent for parent in folder.parents if not exists(parent)]
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        for parent in missing:
            with contextlib.suppress(OSError):  # it is not empty, so it holds the folder
                parent.rmdir()


def temporary_name(name: str) -> str:
    """Makes a hidden name that no other process has, on a disk that machines share either.

    Of a long name, for which there would be no room, it has what tells it apart.
    """
    end = f".{platform.node()}.{os.getpid()}.part"
    return f".{shortened(name, len(end) + 1)}{end}"


def shortened(name: str, reserved: int = 0) -> str:
    """Shortens a name to a digest with its ending where no disk has room for it and `reserved`."""
    if len(os.fsencode(name)) + reserved <= _LONGEST_NAME:
        return name
    return hashlib.sha256(os.fsencode(name)).hexdigest() + Path(name).suffix[:16]


def check_inside(folder: Path, root: Path) -> None:
    """Raises InputError if a link on the way leads from `root` to `folder` somewhere else.

    `folder` need not exist yet; `root` itself may be a link.
    """
    try:
        inside = folder.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError) as error:  # links in a circle
        raise InputError(f"{folder} cannot be followed: {error}; choose another output") from error
    if not inside:
        raise InputError(f"{folder} is a link out of {root}; choose another output")


# --- How far the work is -------------------------------------------------------------------------


class Progress:
    """Shows a bar with rate and time left on a terminal, plain lines now and then otherwise."""

    def __init__(
        self, total: int, unit: str, what: str = "", start: int = 0, lines: bool = True
    ) -> None:
        """Begins the count.

        Args:
          total: of how many.
          unit: what is counted.
          what: a word for the work.
          start: how many are done before.
          lines: False for no plain lines, where `say` gives enough.
        """
        self._bar = tqdm(
            total=total,
            initial=start,
            desc=what or None,
            unit=unit,
            disable=not sys.stderr.isatty(),
            smoothing=0.05,
        )
        self._lines = lines
        self._what, self._unit, self._total = what or unit, unit, total
        self._start, self._begun = start, time.monotonic()
        self._last = self._begun

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return max(time.monotonic() - self._begun, 1e-9)

    def restart(self, done: int) -> None:
        """Counts the rate from here: what came before was compilation."""
        self._start, self._begun = done, time.monotonic()

    def show(self, done: int, text: str = "") -> None:
        """Reports that so many are done, with a few words about them."""
        self._bar.update(done - self._bar.n)
        if time.monotonic() - self._last < _LINE_EVERY_S and done != self._total:
            return
        self._last = time.monotonic()
        rate = (done - self._start) / self.elapsed
        left = _clock((self._total - done) / rate) if rate else "?"
        if self._bar.disable:
            if not self._lines:
                return
            line = f"{self._what} {done}/{self._total}  {rate:.2f} {self._unit}s/s  {left} left"
            print(f"{line}  {text}".rstrip(), flush=True)
        else:
            self._bar.set_postfix_str(text)

    def say(self, line: str) -> None:
        """Prints a line, above the bar where there is one."""
        self._bar.write(line, file=sys.stdout)

    def close(self) -> None:
        """Ends the bar's line."""
        self._bar.close()


def progress(
    items: Iterable[_T], total: int, unit: str, what: str = ""
) -> Iterator[tuple[int, _T]]:
    """Yields numbers and items, and shows how many are done."""
    shown = Progress(total, unit, what)
    try:
        for index, item in enumerate(items):
            yield index, item
            shown.show(index + 1)
    finally:
        shown.close()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"

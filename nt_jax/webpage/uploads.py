"""Files that the page's users send, and the first look at them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nt_jax.errors import InputError
from nt_jax.images import read_photo
from nt_jax.webpage import pictures
from nt_jax.webpage.sessions import Session


class Uploads:
    """Where the page's toolkit puts what arrives, before a session takes it."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder."""
        folder.mkdir()
        self._folder = folder.resolve()

    def find(self, sent: Any) -> list[Path]:
        """Paths of files that a browser says it has sent.

        Args:
          sent: an object with the file's `path`, or a list of them; not to be trusted.

        Raises:
          InputError: one is no such file; then it was not sent, or it was cleared away since.
        """
        paths = []
        for item in sent if isinstance(sent, list) else [sent]:
            named = item.get("path") if isinstance(item, dict) else None
            path = Path(str(named)).resolve()
            if not path.is_relative_to(self._folder) or not path.is_file():
                raise InputError("that file did not arrive whole; drop it again")
            paths.append(path)
        return paths


def take_photo(session: Session, purpose: str, uploads: Sequence[Path]) -> Iterator[str]:
    """Takes a photo into the session, in the place of an earlier one, and shows it.

    Raises:
      InputError: it cannot be read.
    """
    path = session.keep(purpose, uploads)[0]
    try:
        photo = read_photo(path)
    except InputError as error:
        line = session.public(str(error))
        session.drop(purpose)
        raise InputError(line) from error
    yield pictures.block(pictures.preview(photo, pictures.facts(path, photo)))


def take_photos(session: Session, purpose: str, uploads: Sequence[Path]) -> Iterator[str]:
    """Takes photos into the session, in the place of earlier ones, and names them.

    Raises:
      InputError: they are too many or too large.
    """
    names = [path.name for path in session.keep(purpose, uploads)]
    shown = ", ".join(names[:8]) + ", ..." * (len(names) > 8)
    yield pictures.block(pictures.lines([f"{len(names)} in all: {shown}"]))

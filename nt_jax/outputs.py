"""Files that appear whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from nt_jax.errors import InputError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`, to be written; renames it on success, else removes it.

    Raises:
      InputError: an operating system's error inside, such as a full disk or a missing right.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.unlink(missing_ok=True)
        temporary.open("xb").close()  # "x" follows no link that someone else put there
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


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

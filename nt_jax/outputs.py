"""Files that appear whole or not at all."""

import contextlib
import hashlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from nt_jax.errors import InputError

_LONGEST_NAME = 255  # bytes that a file's name has room for


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`, to be written; renames it on success, else removes it.

    Raises:
      InputError: an operating system's error inside, such as a full disk or a missing right.
    """
    temporary = path.with_name(temporary_name(path.name))
    try:
        temporary.unlink(missing_ok=True)
        temporary.open("xb").close()  # "x" follows no link that someone else put there
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(name: str) -> str:
    """A hidden name that no other process has, on a disk that machines share either.

    Of a long name, for which there would be no room, it has what tells it apart.
    """
    end = f".{platform.node()}.{os.getpid()}.part"
    if len(os.fsencode(name)) + len(end) + 1 > _LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return f".{name}{end}"


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

"""Paths as users write them, and what lies in their folders."""

import argparse
import os
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from nt_jax.errors import InputError

# What desktops, network disks and archives leave beside photographs; hidden folders besides.
_LITTER = frozenset({"@eadir", "__macosx", "$recycle.bin"})

_KINDS = 12  # of files left out that are named


def exists(path: str | os.PathLike) -> bool:
    """Tells whether there is a file or folder; what the system refuses to look for is not there.

    Paths' own methods raise on names that are too long and below folders without rights.
    """
    return os.path.exists(path)


def is_folder(path: str | os.PathLike) -> bool:
    """Tells whether there is such a folder, as `exists`."""
    return os.path.isdir(path)


def is_file(path: str | os.PathLike) -> bool:
    """Tells whether there is such a file, as `exists`."""
    return os.path.isfile(path)


def expand(text: str | os.PathLike) -> Path:
    """Reads a path as a shell would: `~` is the home folder, whatever lies around.

    A name that only begins with `~`, as those of backups do, is a name if there is such a file.
    """
    path = Path(text)
    first = path.parts[0] if path.parts else ""
    if not first.startswith("~") or (first != "~" and exists(path)):
        return path
    return Path(os.path.expanduser(path))


def parse_path(text: str) -> Path:
    """Reads a flag's path: an argument parser's type, which makes one line of an empty one."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; name a file or folder")
    return expand(text)


def printable(text: str) -> str:
    """Spells out bytes of files' names that are no text: neither pages nor pictures take them."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def split_names(text: str, known: Callable[[str], bool]) -> list[str]:
    """Splits a comma-separated list of names that may hold commas: what is known whole wins.

    Args:
      text: such as "a.png,Paris, 2024".
      known: whether there is something of that name.

    Returns:
      The names, without spaces around them and without empty ones.
    """
    parts, names = text.split(","), []
    while parts:
        for count in range(len(parts), 0, -1):
            name = ",".join(parts[:count]).strip()
            if count == 1 or known(name):
                names.append(name)
                del parts[:count]
                break
    return [name for name in names if name]


def same_name(text: str) -> str:
    """Puts a name in the one form of Unicode that names are compared in: disks use two."""
    return unicodedata.normalize("NFC", text)


class Folder(NamedTuple):
    """Contents of a folder, at any depth.

    Attributes:
      files: with one of the wanted extensions, sorted by path.
      others: other files, sorted.
      folders: all of them, itself first.
      outside: links to what is outside, where these are not followed.
      made: folders that this package wrote, whose images are not photographs; left out.
    """

    files: list[Path]
    others: list[Path]
    folders: list[Path]
    outside: list[Path]
    made: list[Path]

    def left_out(self) -> list[str]:
        """Writes lines about what is left out: files of other types, and what this package made."""
        made = [f"{folder}: left out, made by nt_jax" for folder in self.made]
        return ([self._other_types()] if self.others else []) + made

    def _other_types(self) -> str:
        kinds = sorted({path.suffix or path.name for path in self.others})
        shown = " ".join(kinds[:_KINDS] + ["..."] * (len(kinds) > _KINDS))
        files = "file" if len(self.others) == 1 else "files"
        return f"{len(self.others)} other {files} left out: {shown}"


def look_through(
    root: Path, extensions: frozenset[str], follow: bool = True, without: Path | None = None
) -> Folder:
    """Looks through a folder and all folders below it.

    Hidden files and folders are left out, and what desktops and network disks leave behind. Every
    folder is entered once, those of its own first, then those that links lead to.

    Args:
      root: the folder.
      extensions: of the wanted files, in lower case with their dot.
      follow: links that lead out of the folder.
      without: a folder to leave out, such as the output.

    Raises:
      InputError: there is no such folder, or it cannot be read.
    """
    if not is_folder(root):
        raise InputError(f"{root}: no such folder")
    inside = root.resolve()
    found = Folder([], [], [], [], [])
    entered = {without.resolve()} - {inside} if without else set()
    waiting = [root]
    links: list[Path] = []
    while waiting or links:
        folder = waiting.pop() if waiting else links.pop(0)
        real = folder.resolve()
        # A folder above this one holds it: to enter it would go in a circle.
        if real in entered or (folder != root and inside.is_relative_to(real)):
            continue
        entered.add(real)
        if folder != root and _is_made(folder):
            found.made.append(folder)
            continue
        found.folders.append(folder)
        for path in _entries(folder):
            if os.path.islink(path) and not follow and not _leads_inside(path, inside):
                found.outside.append(path)
            elif is_folder(path):
                (links if os.path.islink(path) else waiting).append(path)
            elif is_file(path):
                wanted = path.suffix.lower() in extensions
                (found.files if wanted else found.others).append(path)
    for paths in found:
        paths.sort()
    return found


def files_named(root: Path, pattern: str) -> list[Path]:
    """Lists the files below a folder whose names match a pattern such as "*.mat", sorted."""
    found = look_through(root, frozenset())
    return [path for path in found.others if path.match(pattern)]


def folders_named(root: Path, name: str) -> list[Path]:
    """Lists the folders below a folder that are called so, sorted; not itself."""
    return [path for path in look_through(root, frozenset()).folders[1:] if path.name == name]


def _entries(folder: Path) -> Iterator[Path]:
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}") from error
    return (p for p in paths if not p.name.startswith(".") and p.name.lower() not in _LITTER)


def _is_made(folder: Path) -> bool:
    """Tells whether a folder is a model of this package, a training run, or prepared data."""
    if is_file(folder / "model.json") and is_folder(folder / "variables"):
        return True
    if is_file(folder / "index.jsonl") and is_file(folder / "about.json"):
        return True
    begun = is_file(folder / "adapt.json")
    return begun or (is_file(folder / "config.json") and is_folder(folder / "checkpoints"))


def _leads_inside(path: Path, inside: Path) -> bool:
    try:
        return path.resolve().is_relative_to(inside)
    except (OSError, RuntimeError):  # links in a circle
        return False

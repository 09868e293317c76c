"""Reading and writing the folder that `python -m nt_jax.prepare` makes: PNG tiles and an index.

sidd/index.jsonl                 a line a tile, see `COLUMNS`
sidd/train/clean/NAME.png        8 or 16 bits, as its source
sidd/train/noisy/NAME.png
sidd/about.json                  what the data set is made of
"""

import itertools
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from nt_jax.errors import InputError
from nt_jax.files import replacing
from nt_jax.paths import exists, expand, is_file, is_folder

INDEX = "index.jsonl"
ABOUT = "about.json"
ROLES = ("clean", "noisy")
COLUMNS = {
    "name": "of the tile, unique",
    "split": "train, val or test",
    "clean": "file, relative to the index; null where there is none, like the next",
    "noisy": "file",
    "clean_sha256": "of the file",
    "noisy_sha256": "of the file",
    "height": "in pixels",
    "width": "in pixels",
    "bits": "a channel, 8 or 16: of the deeper of the two files",
    "image": "name of the image that it was cut from",
    "y": "of its first pixel in that image",
    "x": "of the same",
    "dataset": "such as sidd",
    "scene": "such as 008; empty where not known",
    "camera": "such as S6; empty where not known",
    "iso": "such as 3200; null where not known, like the next two",
    "shutter": "inverse of the exposure in 1/s",
    "illuminant": "colour temperature in K",
    "origin": "files that it was cut from, relative to the folder that prepare was given",
}
_OLD_INDEX = "tiles.json"  # of the TFRecords that prepare wrote once
_MAX_PIXELS = 2**30  # of a tile, which memory is taken for before it is read


class StoredImage(NamedTuple):
    """A tile's image file, whose size the index tells; stands where a path could stand."""

    path: Path
    height: int
    width: int

    @property
    def stem(self) -> str:
        """As of a path."""
        return self.path.stem

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)


class StoredTile(NamedTuple):
    """One tile of a prepared data set.

    Attributes:
      name: unique within the data set.
      image: name of the image that it was cut from.
      camera, scene: "" where not known.
      iso: None where not known.
      clean, noisy: None where the data set has none.
      folder: of the data set.
    """

    name: str
    image: str
    camera: str
    iso: int | None
    scene: str
    clean: StoredImage | None
    noisy: StoredImage | None
    folder: Path


def write_index(folder: Path, rows: Iterable[dict[str, Any]], about: dict[str, Any]) -> None:
    """Writes the index, in the order of names, and what the data set is made of.

    Args:
      folder: of the data set.
      rows: by the names of `COLUMNS`, all of them.
      about: what `read_about` gives.

    Raises:
      InputError: two tiles have one name, or a file cannot be written.
    """
    ordered = sorted(rows, key=lambda row: row["name"])
    for row, later in itertools.pairwise(ordered):
        if row["name"] == later["name"]:
            raise InputError(f"{row['origin'][-1]}: two tiles are named {row['name']}: rename it")
    with replacing(folder / INDEX) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in ordered:
            line = {column: row[column] for column in COLUMNS}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    with replacing(folder / ABOUT) as temporary:
        temporary.write_text(json.dumps(about, indent=1) + "\n")


def read_index(folder: Path) -> list[dict[str, Any]]:
    """Reads what `write_index` wrote: a row a tile, by the names of `COLUMNS`.

    Raises:
      InputError: it cannot be read.
    """
    path = folder / INDEX
    try:
        with path.open(encoding="utf-8") as file:
            rows = [_checked(json.loads(line)) for line in file]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: not readable: prepare the data again") from error
    if not rows:
        raise InputError(f"{path}: empty: prepare the data again")
    return rows


def read_about(folder: Path) -> dict[str, Any]:
    """Reads what the data set of a folder is made of; {} where the folder is none.

    Raises:
      InputError: it is of an older version.
    """
    _refuse_old(folder)
    try:
        about = json.loads((folder / ABOUT).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError, KeyError or TypeError where a row is not as `write_index` writes it."""
    texts = [row[column] for column in ("name", "split", "image", "dataset", "camera", "scene")]
    known = [row[column] for column in ("iso", "shutter", "illuminant") if row[column] is not None]
    numbers = [*known, *(row[column] for column in ("height", "width", "bits", "y", "x"))]
    files = [row[role] for role in ROLES if row[role] is not None]
    if not (
        all(isinstance(text, str) for text in texts)
        and all(isinstance(number, int) and number >= 0 for number in numbers)
        and 1 <= row["height"] * row["width"] <= _MAX_PIXELS
        and files
        and all(isinstance(file, str) and _is_below(file) for file in files)
    ):
        raise ValueError(row)
    return row


def _is_below(file: str) -> bool:
    """Tells whether a name leads below the index, as far as it can be told without links."""
    return not {"", ".."} & set(file.split("/"))


def _refuse_old(root: Path) -> None:
    for depth in ("", "*/", "*/*/"):
        for old in root.glob(depth + _OLD_INDEX):
            raise InputError(
                f"{old.parent}: prepared by an older version of nt_jax: remove it and run"
                " `python -m nt_jax.prepare` again"
            )


def _locate(root: Path) -> Path | None:
    """Finds the prepared data set at or right below a folder: DATA_DIR/NAME or DATA_DIR."""
    found = [path.parent for depth in ("", "*/") for path in root.glob(depth + INDEX)]
    # A hidden one is not finished.
    found = sorted(folder for folder in found if folder == root or not folder.name.startswith("."))
    if len(found) > 1:
        names = ", ".join(str(folder) for folder in found)
        raise InputError(f"{root}: holds more than one prepared data set, name one: {names}")
    if not found:
        _refuse_old(root)
    return found[0] if found else None


def _locate_split(asked: Path) -> tuple[Path | None, str]:
    """Finds the (data set, split or "" for all) that a folder's name means.

    Gives (None, "") for another folder.
    """
    if is_folder(asked):
        if root := _locate(asked):
            return root, ""
        return (asked.parent, asked.name) if is_file(asked.parent / INDEX) else (None, "")
    if exists(asked) or not is_folder(asked.parent):
        return None, ""
    return _locate(asked.parent), asked.name


def find_tiles(folder: str | Path) -> list[StoredTile] | None:
    """Lists the tiles of a folder `prepare` wrote, sorted by name; None if it is no such folder.

    DIR and DIR/NAME mean all splits; followed by `/train`, `/val` or `/test` they mean that one.

    Raises:
      InputError: it holds several data sets, has no such split, or is of an older version.
    """
    root, split = _locate_split(expand(folder))
    if not root:
        return None
    rows = read_index(root)
    splits = {row["split"] for row in rows}
    if split and split not in splits:
        raise InputError(f"{folder}: no such split, {root} has {', '.join(sorted(splits))}")
    base = os.fspath(root)

    def image(row: dict[str, Any], role: str) -> StoredImage | None:
        if row[role] is None:
            return None
        return StoredImage(Path(base, row[role]), row["height"], row["width"])

    return [
        StoredTile(
            name=row["name"],
            image=row["image"],
            camera=row["camera"],
            iso=row["iso"],
            scene=row["scene"],
            clean=image(row, "clean"),
            noisy=image(row, "noisy"),
            folder=root,
        )
        for row in rows
        if split in ("", row["split"])
    ]

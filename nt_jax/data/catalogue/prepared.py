"""Reading what `python -m nt_jax.prepare` wrote, without TensorFlow.

The data set is TFDS's own: TFRecord shards of tf.train.Example. Beside them lies `tiles.json`,
which says where in which shard the PNG of each tile lies, so an image costs one seek.
"""

import json
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from nt_jax.errors import InputError
from nt_jax.paths import expand

INDEX = "tiles.json"
_MAX_PIXELS = 2**30  # of a tile, which memory is taken for before it is read


class StoredImage(NamedTuple):
    """A PNG inside a shard; stands where the path of an image file could stand.

    Attributes:
      name: the tile's name and which of its images it is.
      shard: file.
      offset: of the PNG's first byte in the shard.
      length: in bytes.
      height: in pixels.
      width: in pixels.
    """

    name: str
    shard: Path
    offset: int
    length: int
    height: int
    width: int

    @property
    def stem(self) -> str:
        """As of a path."""
        return self.name

    def __str__(self) -> str:
        return f"{self.shard.parent}: {self.name}"

    def read(self) -> bytes:
        """The PNG.

        Raises:
          InputError: the shard is gone or too short.
        """
        try:
            with self.shard.open("rb") as file:
                if self.offset + self.length > os.fstat(file.fileno()).st_size:
                    raise InputError(f"{self.shard}: ends too early: prepare the data again")
                file.seek(self.offset)
                return file.read(self.length)
        except OSError as error:
            raise InputError(f"{self.shard}: {error.strerror}: prepare the data again") from error


class StoredTile(NamedTuple):
    """One example of a prepared data set.

    Attributes:
      name: unique within the data set.
      image: name of the image that it was cut from.
      camera, scene: "" where not known.
      iso: None where not known.
      clean, noisy: None where the data set has none.
    """

    name: str
    image: str
    camera: str
    iso: int | None
    scene: str
    clean: StoredImage | None
    noisy: StoredImage | None


def _fields(data: mmap.mmap, at: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """(number, start, stop) of the length-delimited fields of a protocol buffer message."""

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < stop:
        tag = varint()
        assert tag & 7 == 2, "tf.train.Example has no other fields down to its values"
        length = varint()
        yield tag >> 3, at, at + length
        at += length


def _varint(data: bytes) -> int:
    return sum((byte & 0x7F) << (7 * i) for i, byte in enumerate(data))


def _example(data: mmap.mmap, start: int, stop: int) -> dict[str, tuple[int, int, bool]]:
    """Where the one value of each feature lies: (start, stop, whether it is an integer)."""
    values = {}
    ((_, start, stop),) = _fields(data, start, stop)  # Example.features
    for _, entry_start, entry_stop in _fields(data, start, stop):  # Features.feature, a map
        (_, *key), (_, *feature) = sorted(_fields(data, entry_start, entry_stop))
        ((kind, *value_list),) = _fields(data, *feature)  # 1 bytes_list, 3 int64_list
        ((_, *value),) = _fields(data, *value_list)
        values[data[slice(*key)].decode()] = (value[0], value[1], kind == 3)
    return values


def _tiles(shard: Path) -> Iterator[dict[str, Any]]:
    """The index of one shard. A TFRecord is its length (8 bytes), a CRC (4), data, a CRC (4)."""
    with shard.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            tile: dict[str, Any] = {"shard": shard.name}
            for name, (start, stop, is_integer) in _example(
                data, at + 12, at + 12 + length
            ).items():
                if name in ("clean", "noisy"):
                    width, height = struct.unpack_from(">II", data, start + 16)  # of the PNG header
                    tile |= {name: [start, stop - start], "height": height, "width": width}
                elif is_integer:
                    tile[name] = _varint(data[start:stop])
                else:
                    tile[name] = data[start:stop].decode()
            yield tile
            at += length + 16


def write_index(folder: Path, **about: Any) -> None:
    """Writes the index of the shards of a folder, and `about` into it."""
    splits: dict[str, list[dict[str, Any]]] = {}
    for shard in sorted(folder.glob("*.tfrecord*")):
        for tile in _tiles(shard):
            splits.setdefault(tile.pop("split"), []).append(tile)
    for tiles in splits.values():
        tiles.sort(key=lambda tile: tile["name"])
    (folder / INDEX).write_text(json.dumps(about | {"splits": splits}))


def read_index(folder: Path) -> dict[str, Any]:
    """Reads what `write_index` wrote.

    Raises:
      InputError: it cannot be read.
    """
    try:
        index = json.loads((folder / INDEX).read_text())
        for rows in index["splits"].values():
            for row in rows:
                _check_row(row)
        return index
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{folder / INDEX}: not readable: prepare the data again") from error


def _check_row(row: dict[str, Any]) -> None:
    """Raises ValueError or KeyError where a row is not as `write_index` makes it."""
    texts = [row[field] for field in ("name", "image", "camera", "scene", "shard")]
    numbers = [row["iso"], *row.get("clean", ()), *row.get("noisy", ())]
    sides = row["height"], row["width"]
    if not (
        all(isinstance(text, str) for text in texts)
        and all(isinstance(number, int) and number >= 0 for number in [*numbers, *sides])
        and 1 <= sides[0] * sides[1] <= _MAX_PIXELS
        and all(len(row[role]) == 2 for role in ("clean", "noisy") if role in row)
        and Path("x", row["shard"]).name == row["shard"] != ".."  # beside the index
    ):
        raise ValueError(row)


def _locate(root: Path) -> Path | None:
    """The prepared data set at or below a folder: DATA_DIR, DATA_DIR/NAME or .../NAME/VERSION."""
    found = [path.parent for depth in ("", "*/", "*/*/") for path in root.glob(depth + INDEX)]
    found = sorted(folder for folder in found if not folder.name.startswith("incomplete."))
    if len(found) > 1:
        names = ", ".join(str(folder) for folder in found)
        raise InputError(f"{root}: holds more than one prepared data set, name one: {names}")
    return found[0] if found else None


def find_tiles(folder: str | Path) -> list[StoredTile] | None:
    """The tiles of a folder that `prepare` wrote, sorted by name; None if it is no such folder.

    DIR, DIR/NAME and DIR/NAME/VERSION mean all splits; followed by `/train`, `/val` or `/test`
    they mean that one, as if splits were folders.

    Raises:
      InputError: it holds several data sets, or has no such split.
    """
    asked = expand(folder)
    root, split = _locate(asked) if asked.is_dir() else None, ""
    if not root and not asked.exists() and asked.parent.is_dir():
        root, split = _locate(asked.parent), asked.name
    if not root:
        return None
    splits = read_index(root)["splits"]
    if split and split not in splits:
        raise InputError(f"{folder}: no such split, {root} has {', '.join(sorted(splits))}")
    rows = [row for name, rows in splits.items() if split in ("", name) for row in rows]

    def image(row: dict[str, Any], role: str) -> StoredImage | None:
        if role not in row:
            return None
        offset, length = row[role]
        return StoredImage(
            name=f"{row['name']} {role}",
            shard=root / row["shard"],
            offset=offset,
            length=length,
            height=row["height"],
            width=row["width"],
        )

    return [
        StoredTile(
            name=row["name"],
            image=row["image"],
            camera=row["camera"],
            iso=row["iso"] or None,
            scene=row["scene"],
            clean=image(row, "clean"),
            noisy=image(row, "noisy"),
        )
        for row in sorted(rows, key=lambda row: row["name"])
    ]

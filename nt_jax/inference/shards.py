"""Shards: the images of one folder divided among the processes of a job array.

Shard I of N has the images I, I + N, I + 2 N, ... in the order of file names; seeds are counted
over all images, so the shard of an image does not change its noise. All shards of one output folder
leave one record there, `transfer.json`, of what their noise is made of: another start that would
make other images is told so, in place of being mixed with these.
"""

import argparse
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nt_jax.errors import InputError
from nt_jax.files import replacing

RECORD = "transfer.json"


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of a list: every `count`-th element from number `index` on."""

    index: int
    count: int

    def holds(self, number: int) -> bool:
        """Tells whether the element of that number is in the shard."""
        return number % self.count == self.index


WHOLE = Shard(0, 1)


def parse_shard(text: str) -> Shard:
    """Reads `I/N` with 0 <= I < N; argparse tells what is wrong."""
    numbers = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if not numbers or not int(numbers[1]) < int(numbers[2]):
        raise argparse.ArgumentTypeError(f"expected I/N with 0 <= I < N, such as 0/4; got {text!r}")
    return Shard(int(numbers[1]), int(numbers[2]))


def record_of(
    images: Sequence[Path],
    references: Sequence[Path],
    model: Mapping[str, Any],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Records what the images of all shards are made of, the same on every machine.

    Args:
      images: all images to be worked on, relative to their folder, in the order of seeds.
      references: the photos whose noise is put on them.
      model: metadata of the model.
      options: flags that the noise depends on.
    """
    names = "\n".join(name.as_posix() for name in images)
    about = json.dumps(model, sort_keys=True, default=str)
    return {
        **options,
        "model": _digest(about.encode()),
        "references": [_digest(path.read_bytes()) for path in references],
        "images": len(images),
        "names": _digest(names.encode(errors="surrogateescape")),
    }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def check_record(output: Path, record: Mapping[str, Any]) -> None:
    """Leaves the record in an output folder, or finds it there as another shard left it.

    Raises:
      InputError: the folder holds anything but outputs of the same start, or cannot be written to.
    """
    path = output / RECORD
    try:
        output.mkdir(parents=True, exist_ok=True)
        # First, as the record is there before anything else of another shard is.
        empty = all(entry.name.startswith(".") for entry in output.iterdir())
        before = json.loads(path.read_text()) if path.exists() else None
    except OSError as error:
        raise InputError(f"{output} cannot be used: {error.strerror}; choose another") from error
    except ValueError as error:
        raise InputError(f"{path} cannot be read ({error}); choose another output") from error
    if before is None and not empty:
        raise InputError(
            f"{output} holds files that are of no shard ({RECORD} is not there); choose another "
            "output"
        )
    if before is None:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n")
    elif before != record:
        same = before if isinstance(before, dict) else {}
        other = ", ".join(key for key in record if same.get(key) != record[key])
        raise InputError(
            f"{output} holds images of another start (other {other}); choose another output, or "
            "the same flags and files to go on"
        )

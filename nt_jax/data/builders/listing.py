"""Listing of a data set's layout: one `Source` per image, before anything is decoded."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nt_jax.data.catalogue import sources
from nt_jax.errors import InputError
from nt_jax.images import read_rgb
from nt_jax.paths import split_names

SPLITS = ("train", "val", "test")
_HELD_OUT = 0.1  # share of the images that goes to `val` where no split is published

# -> uint8 or uint16 [H, W, 3]; raises InputError with the file's name.
Reader = Callable[[], np.ndarray]


class Source(NamedTuple):
    """One image, or one pair of them.

    Attributes:
      name: unique within the data set.
      split: "" where none is published.
      files: what it is read from.
      clean, noisy: None where there is none.
      image: name of the larger image that it is a part of, by default its own.
      capture: camera and so on, as far as known.
      y, x: of its first pixel in that larger image.
      align: take out of the noisy image what is a filter of the clean one.
    """

    name: str
    split: str
    files: tuple[Path, ...]
    clean: Reader | None = None
    noisy: Reader | None = None
    image: str = ""
    capture: sources.Capture = sources.Capture()
    y: int = 0
    x: int = 0
    align: bool = False

    @property
    def scene(self) -> str:
        """Names what must not lie in two splits: the scene, or the image where it is not known."""
        return self.capture.scene or self.image or self.name


class Listing(NamedTuple):
    """Images found: the usable ones, and one line for each that is not."""

    sources: list[Source]
    broken: list[str]


def split_of(path: Path, raw_dir: Path) -> str:
    """Tells the split that the first folder below `raw_dir` names; "" for another folder."""
    first = path.relative_to(raw_dir).parts[0]
    return first if first in SPLITS else ""


def _reader(path: Path) -> Reader:
    return partial(read_rgb, path, keep_depth=True)


def photo(path: Path, raw_dir: Path, split: str) -> Source:
    """Makes the source of a photograph."""
    name = path.relative_to(raw_dir).as_posix()
    return Source(name, split, (path,), clean=_reader(path))


def pair(found: sources.Pair, raw_dir: Path, split: str | None = None) -> Source:
    """Makes the source of a pair; its folder tells the split if none is given."""
    assert isinstance(found.clean, Path)
    assert isinstance(found.noisy, Path)
    return Source(
        name=found.name,
        split=split_of(found.clean, raw_dir) if split is None else split,
        files=(found.clean, found.noisy),
        clean=_reader(found.clean),
        noisy=_reader(found.noisy),
        capture=sources.parse_capture(found.name)._replace(scene=found.scene),
    )


def assign_splits(
    found: list[Source], seed: str, val_scenes: str | Iterable[str] | None = None
) -> list[Source]:
    """Gives every source a split; those without a published one by scene, whatever the camera.

    Args:
      found: sources.
      seed: the data set's name.
      val_scenes: held out for `val`; text is comma-separated. None chooses: in the order of a
        hash, until they hold a tenth of the images; never all.

    Raises:
      InputError: there is no such scene.
    """
    counts = Counter(source.scene for source in found if not source.split)
    if val_scenes is None:
        total = sum(counts.values())
        order = sorted(
            counts, key=lambda scene: hashlib.sha256(f"{seed} {scene}".encode()).digest()
        )
        held_out: set[str] = set()
        for scene in order[:-1]:
            if sum(counts[held] for held in held_out) < _HELD_OUT * total:
                held_out.add(scene)
    else:
        if isinstance(val_scenes, str):
            val_scenes = split_names(val_scenes, counts.__contains__)
        held_out = set(val_scenes)
        for scene in sorted(held_out - set(counts)):
            known = ", ".join(sorted(counts)[:12]) or "none: the splits are published"
            raise InputError(f"--val_scenes: no scene {scene!r}, there are {known}")
        if counts and held_out == set(counts):
            raise InputError("--val_scenes: names every scene, so none is left to train on")
    return [
        source
        if source.split
        else source._replace(split="val" if source.scene in held_out else "train")
        for source in found
    ]

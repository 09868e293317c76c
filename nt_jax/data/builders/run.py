"""Preparing a data set: list, check, cut, write. Nothing is written before all is checked."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from nt_jax.broken import Broken
from nt_jax.data.builders import dnd, pairs, photos, sidd, tiles
from nt_jax.data.builders.listing import Listing, Source, assign_splits
from nt_jax.data.catalogue import prepared
from nt_jax.errors import InputError
from nt_jax.files import scratch_beside
from nt_jax.images import EXTENSIONS
from nt_jax.paths import exists, is_file, is_folder, look_through, printable


class Dataset(NamedTuple):
    """How to find the images of a data set: a function, and what to say where there are none."""

    list_images: Callable[[Path], Listing]
    layout: str


DATASETS = {
    "sidd": Dataset(
        sidd.list_sidd,
        "Data/0001_001_S6_00100_00060_3200_L/*_SRGB_010.PNG or Validation*BlocksSrgb.mat",
    ),
    "siddplus": Dataset(
        sidd.list_siddplus,
        "siddplus_valid_noisy_srgb and siddplus_valid_gt_srgb, .mat files or folders",
    ),
    "dnd": Dataset(dnd.list_dnd, "info.mat and images_srgb/0001.mat"),
    "polyu": Dataset(
        pairs.list_polyu, "CroppedImages/Canon5D2_5_160_3200_chair_11_mean.JPG and ..._real.JPG"
    ),
    "div2k": Dataset(photos.list_div2k, "DIV2K_train_HR/*.png or DIV2K_valid_HR/*.png"),
    "bsds500": Dataset(photos.list_bsds500, "images/train, images/val and images/test"),
    "pairs": Dataset(
        pairs.list_pairs,
        "NAME_gt.EXT beside NAME_noisy.EXT, or folders gt and noisy or target and input",
    ),
    "photos": Dataset(photos.list_photos, "image files"),
}

# Of the others it is known what else lies beside the images.
_ANY_FOLDER = ("pairs", "photos")
_DONE = "done"  # folder of the images that are cut, while the data set is unfinished


def _fingerprint(listed: Iterable[Source], tile: int) -> str:
    lines = sorted(f"{tiles.work_name(source, tile)}\n" for source in listed)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _check(source: Source) -> str:
    """Says what is wrong with an image; "" if it decodes to its end."""
    try:
        with tiles.room(source):
            tiles.read(source)
    except InputError as error:
        return str(error)
    return ""


def _without_odd_names(found: Listing) -> Listing:
    """Leaves out images whose names are not UTF-8, as which they go into the data set."""
    usable, broken = [], list(found.broken)
    for source in found.sources:
        try:
            source.name.encode()
            usable.append(source)
        except UnicodeEncodeError:
            broken.append(f"{source.files[0]}: its name is not UTF-8: rename it")
    return Listing(usable, broken)


def _check_names(listed: list[Source]) -> None:
    seen: dict[str, Source] = {}
    for source in listed:
        other = seen.setdefault(source.name, source)
        if other is not source:
            raise InputError(
                f"{source.files[0]}: named {source.name} like {other.files[0]}: prepare them apart"
            )


def _check_all(
    listed: list[Source], problems: list[str], tile: int, done: Path, skip: bool
) -> tuple[list[Source], list[str]]:
    """Sorts out the sources: (usable sources, lines about the others).

    Raises:
      InputError: there are others and they are not to be skipped, or none is usable.
    """
    broken = Broken(skip, remedy="mend them, or leave them out with --on_error=skip")

    def check(source: Source) -> str:
        cut = (done / f"{tiles.work_name(source, tile)}.json").exists()  # and checked before
        return "" if cut else _check(source)

    lines = list(tiles.in_parallel(check, listed, len(listed), "checked"))
    for line in filter(None, [*problems, *lines]):
        broken.add(line)
    broken.check(len(listed) + len(problems))
    broken.say()
    usable = [source for source, line in zip(listed, lines, strict=True) if not line]
    return usable, broken.skipped


def prepare(
    dataset: str,
    raw_dir: Path,
    data_dir: Path,
    tile: int = 512,
    val_scenes: str | Iterable[str] | None = None,
    on_error: str = "fail",
    align: bool = False,
) -> Path:
    """Writes a data set of tiles and their index, or finds it written; see `nt_jax.prepare`.

    Ended at any moment and called again it goes on with the images that are not cut yet: all lies
    in a hidden folder of `data_dir` until the data set, complete, gets its name.
    `align` takes out of the training pairs' noise what is a filter of the clean image; what models
    are evaluated on stays as it was taken.

    Returns:
      Its folder, `data_dir/dataset`.

    Raises:
      InputError: nothing of that layout in `raw_dir`, a broken image, or another data set there.
    """
    if not is_folder(raw_dir):
        raise InputError(f"{raw_dir}: no such folder")
    if tile < 16:
        raise InputError(f"--tile: {tile} is below 16")
    listed, broken = _list(dataset, raw_dir, val_scenes, align)
    fingerprint = _fingerprint(listed, tile)
    folder = data_dir / dataset
    if exists(folder) or os.path.islink(folder):
        about = prepared.read_about(folder)
        if about.get("fingerprint") != fingerprint or not is_file(folder / prepared.INDEX):
            raise InputError(
                f"{folder}: no data set of prepare's, or one of other images or settings: remove it"
                " or give another --data_dir"
            )
        print(f"{folder}: prepared already", flush=True)
        return folder
    with _writing(folder), scratch_beside(folder):  # before images are decoded
        pass
    work = data_dir / f".{dataset}.unfinished"
    usable, skipped = _check_all(listed, broken, tile, work / _DONE, on_error == "skip")
    made = work / dataset
    _make_folders(work, made, work / _DONE)
    cut = tiles.in_parallel(
        lambda source: tiles.cut(source, tile, made, work / _DONE), usable, len(usable), "cut"
    )
    rows = [
        row | _about_image(source, dataset, raw_dir)
        for source, own in zip(usable, cut, strict=True)
        for row in own
    ]
    _remove_others(made, rows)
    if skipped:
        lines = "".join(f"{printable(line)}\n" for line in skipped)
        (made / "skipped.txt").write_text(lines, encoding="utf-8")
    prepared.write_index(made, rows, {"dataset": dataset, "fingerprint": fingerprint})
    with _writing(folder):
        os.rename(made, folder)
    shutil.rmtree(work)
    return folder


def _list(
    dataset: str, raw_dir: Path, val_scenes: str | Iterable[str] | None, align: bool
) -> tuple[list[Source], list[str]]:
    """Lists (images with their splits, a line for each that is of no use)."""
    about = DATASETS[dataset]
    found = _without_odd_names(about.list_images(raw_dir))
    if not found.sources and not found.broken:
        raise InputError(f"{raw_dir}: nothing of {dataset} found: need {about.layout}")
    if dataset in _ANY_FOLDER:
        for line in look_through(raw_dir, EXTENSIONS).left_out():
            print(line, flush=True)
    _check_names(found.sources)
    listed = [
        source._replace(align=align and source.split == "train")
        for source in assign_splits(found.sources, dataset, val_scenes)
    ]
    if align and not any(source.clean and source.noisy for source in listed):
        raise InputError(f"--align: {dataset} has no pairs of clean and noisy images")
    return listed, found.broken


def _about_image(source: Source, dataset: str, raw_dir: Path) -> dict[str, Any]:
    """Collects what all rows of the index say that were cut from one image."""
    return {
        "split": source.split,
        "image": source.image or source.name,
        "dataset": dataset,
        "origin": [path.relative_to(raw_dir).as_posix() for path in source.files],
    } | source.capture._asdict()


def _make_folders(work: Path, *inside: Path) -> None:
    if work.is_symlink():  # what it leads to would be filled, and removed at the end
        raise InputError(f"{work} is a link: remove it")
    with _writing(work):
        for folder in inside:
            folder.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}") from error


def _remove_others(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Removes what an earlier run left that was ended, and had other images or settings."""
    files = {folder / row[role] for row in rows for role in prepared.ROLES if row[role]}
    for path in folder.rglob("*"):
        if path not in files and not path.is_dir():
            path.unlink()

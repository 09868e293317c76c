"""Preparing a data set: list, check, cut, write. Nothing is written before all is checked."""

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nt_jax.data.builders import tiles
from nt_jax.data.builders.listing import Listing, Source, assign_splits
from nt_jax.data.catalogue import prepared
from nt_jax.errors import InputError
from nt_jax.images import EXTENSIONS
from nt_jax.paths import look_through

LAYOUTS = {  # what to say where nothing was found
    "sidd": "Data/0001_001_S6_00100_00060_3200_L/*_SRGB_010.PNG or Validation*BlocksSrgb.mat",
    "siddplus": "siddplus_valid_noisy_srgb and siddplus_valid_gt_srgb, .mat files or folders",
    "dnd": "info.mat and images_srgb/0001.mat",
    "polyu": "CroppedImages/Canon5D2_5_160_3200_chair_11_mean.JPG and ..._real.JPG",
    "div2k": "DIV2K_train_HR/*.png or DIV2K_valid_HR/*.png",
    "bsds500": "images/train, images/val and images/test",
    "pairs": "NAME_gt.EXT beside NAME_noisy.EXT, or folders gt and noisy or target and input",
    "photos": "image files",
}

# Of the others it is known what else lies beside the images.
_ANY_FOLDER = ("pairs", "photos")


def _fingerprint(listed: Iterable[Source], tile: int) -> str:
    lines = sorted(f"{tiles.work_name(source, tile)} {source.split}\n" for source in listed)
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
    """Names go into the data set as UTF-8, which a file's name need not be."""
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
    listed: list[Source], broken: list[str], tile: int, work: Path, on_error: str
) -> tuple[list[Source], list[str]]:
    """(usable sources, lines about the others).

    Raises:
      InputError: there are others and `on_error` is "fail", or none is usable.
    """
    total = len(listed) + len(broken)

    def check(source: Source) -> str:
        done = (work / f"{tiles.work_name(source, tile)}.zip").exists()  # checked and cut before
        return "" if done else _check(source)

    lines = list(tiles.in_parallel(check, listed, len(listed), "checked"))
    usable = [source for source, line in zip(listed, lines, strict=True) if not line]
    broken = [*broken, *filter(None, lines)]
    if broken and on_error == "fail":
        raise InputError(
            f"{broken[0]}; {len(broken)} of {total} are broken: mend them, or leave them out with"
            " --on_error=skip"
        )
    for line in broken:
        print(f"skipped: {line}", flush=True)
    if not usable:
        raise InputError(f"{broken[0]}; all {total} are broken")
    return usable, broken


def prepare(
    dataset: str,
    raw_dir: Path,
    data_dir: Path,
    tile: int = 512,
    val_scenes: str | Iterable[str] | None = None,
    on_error: str = "fail",
    align: bool = False,
) -> Path:
    """Writes a TFDS data set of tiles, or finds it written already; see `nt_jax.prepare`.

    Ended at any moment and called again it goes on with the images that are not cut yet: they lie
    in a hidden folder of `data_dir` until the data set, written beside its place, gets its name.
    `align` takes out of the training pairs' noise what is a filter of the clean image; what models
    are evaluated on stays as it was taken.

    Returns:
      Its folder, `data_dir/dataset/VERSION`.

    Raises:
      InputError: nothing of that layout in `raw_dir`, a broken image, or another data set there.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # or it prints that it uses them
    from nt_jax.data.builders.builder import BUILDERS, Plan

    if not raw_dir.is_dir():
        raise InputError(f"{raw_dir}: no such folder")
    if tile < 16:
        raise InputError(f"--tile: {tile} is below 16")
    builder = BUILDERS[dataset]
    found = _without_odd_names(builder.list_images(raw_dir))
    if not found.sources and not found.broken:
        raise InputError(f"{raw_dir}: nothing of {dataset} found: need {LAYOUTS[dataset]}")
    if dataset in _ANY_FOLDER and (note := look_through(raw_dir, EXTENSIONS).left_out()):
        print(note, flush=True)
    _check_names(found.sources)
    listed = [
        source._replace(align=align and source.split == "train")
        for source in assign_splits(found.sources, dataset, val_scenes)
    ]
    if align and not any(source.clean and source.noisy for source in listed):
        raise InputError(f"--align: {dataset} has no pairs of clean and noisy images")
    fingerprint = _fingerprint(listed, tile)
    folder = data_dir / dataset / str(builder.VERSION)
    if folder.exists():
        if prepared.read_index(folder).get("fingerprint") != fingerprint:
            raise InputError(
                f"{folder}: holds a data set of other images or settings: remove it or give another"
                " --data_dir"
            )
        print(f"{folder}: prepared already", flush=True)
        return folder
    work = data_dir / f".{dataset}.unfinished"
    usable, skipped = _check_all(listed, found.broken, tile, work, on_error)
    _make_folder(work)
    paths = tiles.in_parallel(
        lambda source: tiles.cut(source, tile, work), usable, len(usable), "cut"
    )
    cut = list(zip(usable, paths, strict=True))
    print("writing", flush=True)
    for left in folder.parent.glob("incomplete.*"):  # TFDS's, of a run that was killed
        if not left.is_symlink():
            shutil.rmtree(left)
    _write(builder(data_dir=data_dir, plan=Plan(cut, fingerprint, skipped)), work)
    shutil.rmtree(work)
    return folder


def _make_folder(folder: Path) -> None:
    if folder.is_symlink():  # what it leads to would be filled, and removed at the end
        raise InputError(f"{folder} is a link: remove it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}") from error


def _write(builder: Any, work: Path) -> None:
    import tensorflow as tf
    import tensorflow_datasets as tfds

    logging.getLogger("absl").setLevel(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(None):  # it speaks of downloading
            builder.download_and_prepare(file_format="tfrecord", download_dir=work)
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f"{builder.data_dir} cannot be written: {error}") from error

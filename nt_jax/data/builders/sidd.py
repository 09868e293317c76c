"""SIDD (Abdelhamed et al. 2018) and SIDD+ (NTIRE 2020), sRGB."""

import re
from functools import partial
from pathlib import Path

from nt_jax.data.builders import matlab
from nt_jax.data.builders.listing import Listing, Source, pair
from nt_jax.data.catalogue import sources
from nt_jax.errors import InputError
from nt_jax.paths import files_named, is_file, is_folder, look_through


def _partner(noisy: Path) -> Path:
    """Names the clean version of a file or folder of noisy images: its "noisy" made "gt"."""
    match = re.search("noisy", noisy.name, re.IGNORECASE)
    assert match
    partner = {"noisy": "gt", "NOISY": "GT"}.get(match[0], "Gt")
    return noisy.with_name(noisy.name[: match.start()] + partner + noisy.name[match.end() :])


def _blocks(noisy: Path) -> Listing:
    """Lists the pairs of two MATLAB files of blocks.

    The files hold [N, H, W, 3], or [images, blocks of each, H, W, 3].

    Both files stay in memory: 250 MB each.
    """
    clean = _partner(noisy)
    if not is_file(clean):
        return Listing([], [f"{noisy}: its clean partner {clean.name} is missing"])
    try:
        shape = matlab.read_blocks(noisy).shape
        clean_shape = matlab.read_blocks(clean).shape
    except InputError as error:
        return Listing([], [str(error)])
    if shape != clean_shape:
        return Listing([], [f"{noisy}: {shape}, but its clean partner {clean.name} {clean_shape}"])
    title = re.sub("_?noisy", "", noisy.stem, flags=re.IGNORECASE)
    rows, columns = shape[0], shape[1] if len(shape) == 5 else 0
    found = []
    for row in range(rows):
        image = f"{title}/{row:04d}"
        for column in range(columns or 1):
            index = (row, column) if columns else (row,)
            found.append(
                Source(
                    name=f"{image}_{column:02d}" if columns else image,
                    split="val",
                    files=(clean, noisy),
                    clean=partial(matlab.read_block, clean, index),
                    noisy=partial(matlab.read_block, noisy, index),
                    image=image,
                )
            )
    return Listing(found, [])


def list_sidd(raw_dir: Path) -> Listing:
    """Lists SIDD-Medium, SIDD-Small and validation blocks, any of them, anywhere below a folder.

    `<instance>_<scene>_<phone>_<ISO>_<shutter>_<kelvin>_<L|N|H>/{GT,NOISY}_SRGB_010.PNG`, in
    SIDD-Medium with `<instance>_` before it; ValidationNoisyBlocksSrgb.mat beside
    ValidationGtBlocksSrgb.mat. Where the blocks are, all others are `train`, as published.
    """
    found, broken = sources.list_pairs(raw_dir)
    listed = [pair(one, raw_dir) for one in found if sources.parse_capture(one.name).illuminant]
    blocks = [_blocks(path) for path in files_named(raw_dir, "ValidationNoisyBlocksSrgb.mat")]
    if not blocks and (alone := files_named(raw_dir, "ValidationGtBlocksSrgb.mat")):
        broken.append(f"{alone[0]}: its noisy partner ValidationNoisyBlocksSrgb.mat is missing")
    if blocks:
        listed = [source._replace(split=source.split or "train") for source in listed]
    for block in blocks:
        listed += block.sources
        broken += block.broken
    return Listing(listed, broken)


def list_siddplus(raw_dir: Path) -> Listing:
    """Lists siddplus_valid_{noisy,gt}_srgb.mat, else folders of PNGs.

    The folders are so named, or named noisy and gt.
    """
    files = files_named(raw_dir, "siddplus*noisy_srgb.mat")
    listings = [_blocks(path) for path in files]
    listed = [source for listing in listings for source in listing.sources]
    broken = [line for listing in listings for line in listing.broken]
    if files:
        return Listing(listed, broken)
    for noisy in look_through(raw_dir, frozenset()).folders:
        if "noisy" not in noisy.name.lower():
            continue
        if not is_folder(_partner(noisy)):
            broken.append(f"{noisy}: its clean partner {_partner(noisy).name} is missing")
            continue
        found, problems = sources.match_folders(_partner(noisy), noisy)
        listed += [pair(one, raw_dir, split="val") for one in found]
        broken += problems
    return Listing(listed, broken)

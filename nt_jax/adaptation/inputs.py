"""Finds the images that a user gives `nt_jax.adapt`; checks them before anything is written."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from nt_jax.data.catalogue.sources import ImageFile
from nt_jax.errors import InputError
from nt_jax.images import EXTENSIONS, image_size, nothing_found
from nt_jax.paths import exists, is_file, look_through

SIDE = 192  # of the patches that are cut, in pixels


def check_places(output: Path, noisy: Path, others: Mapping[str, Path]) -> None:
    """Raises InputError where the output would become part of what it is made from.

    Args:
      output: the denoiser's folder.
      noisy: the photos' folder, which may hold the output, as that is left out there.
      others: folders that are read as a whole, by their flags.
    """
    real = Path(os.path.realpath(output))
    for flag, folder in {"noisy": noisy, **others}.items():
        given = Path(os.path.realpath(folder))
        if real == given or (flag in others and real.is_relative_to(given)):
            raise InputError(
                f"--output={output} lies in --{flag}={folder} and would be read as a part of it;"
                " choose another output"
            )


def find_noisy(source: Path, output: Path) -> list[Path]:
    """Lists the noisy photos: a file, or those of a folder without the output's own patches.

    Prints a line about what of a folder is left out.

    Raises:
      InputError: there is none.
    """
    if is_file(source):
        return [source]
    if not exists(source):
        raise InputError(f"{source}: no such file or folder")
    found = look_through(source, EXTENSIONS, without=output)
    for line in found.left_out():
        print(line, flush=True)
    if not found.files:
        raise nothing_found(source)
    return found.files


def check_sizes(images: Iterable[ImageFile], smallest: int) -> None:
    """Raises InputError at the first image that has less than so many pixels on a side."""
    for image in images:
        height, width = image_size(image)
        if min(height, width) < smallest:
            raise InputError(
                f"{image}: {width}x{height} is smaller than {smallest} pixels; leave it out"
            )

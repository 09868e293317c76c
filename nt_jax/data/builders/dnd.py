"""DND (Plötz and Roth 2017), sRGB: noisy images only, the clean ones are not published."""

from functools import partial
from pathlib import Path

from nt_jax.data.builders import matlab
from nt_jax.data.builders.listing import Listing, Source
from nt_jax.errors import InputError
from nt_jax.paths import files_named, is_file


def list_dnd(raw_dir: Path) -> Listing:
    """Lists the benchmark's boxes: `images_srgb/0001.mat` and so on, cut as `info.mat` says.

    Name `0001_01` is box 1 of image 1; its tile's y and x are where a submission puts it back.
    """
    info = next(iter(files_named(raw_dir, "info.mat")), None)
    if not info:
        return Listing([], [])
    try:
        boxes = matlab.read_boxes(info)
    except InputError as error:
        return Listing([], [str(error)])
    listed, broken = [], []
    for number, image_boxes in enumerate(boxes, start=1):
        path = info.parent / "images_srgb" / f"{number:04d}.mat"
        if not is_file(path):
            broken.append(f"{path}: missing, info.mat has boxes for it")
            continue
        for box, (y, x, height, width) in enumerate(image_boxes.tolist(), start=1):
            read = partial(matlab.read_region, path, "InoisySRGB", y, x, height, width)
            listed.append(
                Source(
                    name=f"{path.stem}_{box:02d}",
                    split="test",
                    files=(path, info),
                    noisy=read,
                    image=path.stem,
                    y=y,
                    x=x,
                )
            )
    return Listing(listed, broken)

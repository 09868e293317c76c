"""The files that DND's server scores: a denoiser's results on the 1,000 boxes of the benchmark.

  python -m experiments.dnd_submission --denoiser=runs/ridnet --dnd=DND --output=DIR

--dnd is the folder of `info.mat` and `images_srgb/0001.mat` to `0050.mat` as DND publishes them.
For each image NNNN.mat, MATLAB 5, is written: `Idenoised`, a 1 x 20 cell of the denoised boxes,
single [H, W, 3] in [0, 1]; `israw`, false; `eval_version`, '1.0'. That is what the benchmark's own
program (Plötz and Roth, CVPR 2017) makes of its results; the server takes the folder's files. Boxes
are denoised one by one, as there. An image whose file is there is not done again: a new denoiser
needs a new folder.
"""

import argparse
from pathlib import Path

import h5py
import numpy as np
import scipy.io

from nt_jax.compilation import use_compilation_cache
from nt_jax.data.builders.matlab import read_boxes
from nt_jax.errors import ArgumentParser, InputError, run_command, unwind_on_signals
from nt_jax.evaluation import report
from nt_jax.files import progress, replacing
from nt_jax.inference.loading import load_denoiser


def read(path: Path, boxes: np.ndarray) -> list[np.ndarray]:
    """Reads the noisy boxes of an image, float32 [H, W, 3] in [0, 1]; not rounded to 8 bits.

    Args:
      path: of `images_srgb`, MATLAB 7.3.
      boxes: int [boxes, 4]: y, x, height and width.

    Raises:
      InputError: the file is missing or not readable, or smaller than its boxes.
    """
    try:
        with h5py.File(path) as file:
            stored = file["InoisySRGB"]  # axes are reversed: [3, W, H]
            crops = [stored[:, x : x + w, y : y + h].T for y, x, h, w in boxes.tolist()]
    except (OSError, KeyError) as error:
        raise InputError(f"{path}: not a readable image of DND ({error})") from error
    if any(crop.shape != (h, w, 3) for crop, (_, _, h, w) in zip(crops, boxes, strict=True)):
        raise InputError(f"{path}: smaller than its boxes in info.mat, or not [H, W, 3]")
    return [np.clip(crop, 0, 1).astype(np.float32) for crop in crops]


def bundle(boxes: list[np.ndarray]) -> dict[str, object]:
    """Makes the contents of one image's file: denoised boxes, float [H, W, 3] in [0, 1]."""
    cell = np.empty(len(boxes), dtype=object)  # savemat writes a row of cells
    for index, box in enumerate(boxes):
        cell[index] = np.clip(box, 0, 1).astype(np.float32)
    return {"Idenoised": cell, "israw": False, "eval_version": "1.0"}


def main(argv: list[str] | None = None) -> None:
    """Runs it.

    Raises:
      InputError: a wrong flag or denoiser; no DND there, or a file of it is missing or unreadable.
    """
    parser = ArgumentParser(
        prog="python -m experiments.dnd_submission",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--denoiser", required=True, help="bundled name, workdir or model folder")
    parser.add_argument("--dnd", required=True, type=Path, help="folder of info.mat")
    parser.add_argument("--output", required=True, type=Path, help="folder of the submission")
    args = parser.parse_args(argv)
    unwind_on_signals()
    use_compilation_cache()
    report.check_output(args.output, [args.dnd, args.dnd / "images_srgb"])
    if not (args.dnd / "info.mat").is_file():
        raise InputError(f"{args.dnd} has no info.mat; give the folder that DND unpacks to")
    boxes_of_images = read_boxes(args.dnd / "info.mat")
    files = [
        args.dnd / "images_srgb" / f"{number:04d}.mat"
        for number in range(1, len(boxes_of_images) + 1)
    ]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise InputError(f"{missing[0]} is missing: info.mat has boxes for it")
    denoise = load_denoiser(args.denoiser)
    args.output.mkdir(parents=True, exist_ok=True)
    for index, boxes in progress(boxes_of_images, len(boxes_of_images), "image"):
        target = args.output / files[index].name
        if target.exists():
            continue
        denoised = [np.asarray(denoise(noisy)) for noisy in read(files[index], boxes)]
        with replacing(target) as temporary, temporary.open("wb") as stream:
            scipy.io.savemat(stream, bundle(denoised))
    print(f"{len(files)} images, {sum(map(len, boxes_of_images))} boxes: {args.output}")


if __name__ == "__main__":
    run_command(main)

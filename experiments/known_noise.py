"""Compares a denoiser with BM3D on noise of known levels, put on clean images.

  python -m experiments.known_noise --photos=BSDS500/test --pairs=POLYU/val [--noise=white|camera]

White noise is Gaussian; a camera's is that of a sensor of published levels, developed and no more,
as photos of base ISO have it (nt_jax/noise/camera.py). Clean images are photographs, and the clean
ones of pairs: of each folder --images, evenly spaced, the middle of each. Lines are the noisy
image; the denoiser that is told nothing, the true spectrum, or reads it, of a blind one the first
alone; and BM3D (`pip install bm3d`, whose terms are non-commercial), told the level. Noise is
clipped to [0, 1] and not rounded. Prints the mean PSNR of the images in dB, without a margin of 16
pixels that all see.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import jax
import numpy as np

from experiments.world_pairs import maker
from experiments.your_camera import make_bm3d
from nt_jax import metrics, prng
from nt_jax.compilation import use_compilation_cache
from nt_jax.data.catalogue.sources import find_pairs, find_photos
from nt_jax.errors import ArgumentParser, InputError, parse_seed, run_command
from nt_jax.evaluation import report
from nt_jax.families.denoiser.step import condition_of
from nt_jax.images import read_rgb, to_float
from nt_jax.inference.denoiser import Denoiser
from nt_jax.inference.loading import load_denoiser
from nt_jax.noise import camera
from nt_jax.paths import parse_path

_MARGIN = 16
_ROWS = "denoiser,bm3d"

# Denoised images by the name of their line in the table, and what makes them of a clean image and
# the noisy one.
Lines = dict[str, np.ndarray]
Make = Callable[[np.ndarray, np.ndarray], Lines]
# What puts noise of a level, 0 to 255 scale, on a clean image, by the image's number.
Put = Callable[[np.ndarray, float, int], np.ndarray]


def put_white(seed: int) -> Put:
    """Puts white Gaussian noise on float32 [H, W, 3], clipped to [0, 1]."""

    def put(clean: np.ndarray, level: float, index: int) -> np.ndarray:
        noise = np.random.default_rng((seed, index)).standard_normal(clean.shape)
        return np.clip(clean + level / 255 * noise, 0, 1).astype(np.float32)

    return put


def put_camera(seed: int) -> Put:
    """Puts a camera's developed noise on float32 [H, W, 3]: of one setting at all levels."""
    make = maker(camera.PUBLISHED)

    def put(clean: np.ndarray, level: float, index: int) -> np.ndarray:
        key = prng.fold_in(jax.random.key(seed), index)
        return np.asarray(make(key, clean, np.float32(level / 255), np.float32(0)))

    return put


_NOISES = {"white": put_white, "camera": put_camera}


def by_denoiser(denoiser: Denoiser, clean: np.ndarray, noisy: np.ndarray) -> Lines:
    """Denoises float32 [H, W, 3]; each line's name says what the denoiser knows of the noise."""
    lines = {"blind": replace(denoiser, condition=None).fixed(noisy)}
    if denoiser.network.conditions:
        condition = np.asarray(condition_of(noisy[None] - clean[None])[0])
        lines["told the spectrum"] = replace(denoiser, condition=condition).fixed(noisy)
    if denoiser.reader is not None:
        lines["reading it"] = denoiser(noisy)
    return {name: np.asarray(image) for name, image in lines.items()}


def score(images: Sequence[np.ndarray], level: float, make: Make, put: Put) -> dict[str, float]:
    """Averages the PSNR in dB of each line over images.

    Args:
      images: clean ones, float32 [H, W, 3] in [0, 1].
      level: standard deviation of the noise, 0 to 255 scale.
      make: denoises, see `by_denoiser`.
      put: puts the noise on, see `put_white`.
    """
    inner = slice(_MARGIN, -_MARGIN)
    scores: dict[str, list[float]] = {}
    for index, clean in enumerate(images):
        noisy = put(clean, level, index)
        for name, image in ({"noisy": noisy} | make(clean, noisy)).items():
            found = metrics.psnr(clean[None, inner, inner], image[None, inner, inner])[0]
            scores.setdefault(name, []).append(float(found))
    return {name: float(np.mean(values)) for name, values in scores.items()}


def _middles(files: Sequence, count: int, side: int) -> list[np.ndarray]:
    """Reads evenly spaced images' middles, a margin around them."""
    side, count = side + 2 * _MARGIN, min(count, len(files))
    images = []
    for index in range(count):
        image = to_float(read_rgb(files[index * len(files) // count]))
        top, left = ((size - side) // 2 for size in image.shape[:2])
        if min(top, left) < 0:
            raise InputError(f"{files[index]} is smaller than {side}x{side}; lower --side")
        images.append(image[top : top + side, left : left + side])
    return images


def main(argv: list[str] | None = None) -> None:
    """Runs it.

    Raises:
      InputError: a wrong flag, folder or image.
    """
    parser = ArgumentParser(prog="python -m experiments.known_noise", description=__doc__)
    parser.add_argument("--photos", nargs="+", default=[], type=parse_path, help="folders")
    parser.add_argument("--pairs", nargs="+", default=[], type=parse_path, help="folders")
    parser.add_argument("--denoiser", default="small-denoiser", help="name or folder")
    parser.add_argument("--rows", default=_ROWS, help="which, comma-separated")
    parser.add_argument("--noise", default="white", choices=_NOISES, help="its kind")
    parser.add_argument("--levels", default="2,4,8,16,30", help="0 to 255 scale, comma-separated")
    parser.add_argument("--images", default=5, type=int, help="of each folder")
    parser.add_argument("--side", default=128, type=int, help="of the scored middle, pixels")
    parser.add_argument("--seed", default=0, type=parse_seed, help="of the noise")
    args = parser.parse_args(argv)
    use_compilation_cache()
    try:
        levels = [float(level) for level in args.levels.split(",")]
    except ValueError as error:
        raise InputError(f"--levels={args.levels}: expected numbers") from error
    sets = {str(folder): find_photos(folder) for folder in args.photos}
    sets |= {str(folder): [pair.clean for pair in find_pairs(folder)] for folder in args.pairs}
    if not sets or args.images < 1 or args.side < 2 * _MARGIN:
        raise InputError(f"needs --photos or --pairs, an image and {2 * _MARGIN} pixels or more")
    rows = args.rows.split(",")
    if unknown := [row for row in rows if row not in _ROWS.split(",")]:
        raise InputError(f"--rows: unknown row {unknown[0]!r}; known are {_ROWS}")
    denoiser = load_denoiser(args.denoiser)
    put = _NOISES[args.noise](args.seed)

    def make(level: float, clean: np.ndarray, noisy: np.ndarray) -> Lines:
        lines = by_denoiser(denoiser, clean, noisy) if "denoiser" in rows else {}
        if "bm3d" in rows:
            lines["BM3D"] = np.clip(make_bm3d(level)(noisy), 0, 1)
        return lines

    for folder, files in sets.items():
        images = _middles(files, args.images, args.side)
        columns = [score(images, level, partial(make, level), put) for level in levels]
        lines = [[name, *(f"{column[name]:.2f}" for column in columns)] for name in columns[0]]
        print(f"{folder}, images: {len(images)}")
        print(report.markdown_table(["level", *args.levels.split(",")], lines), flush=True)


if __name__ == "__main__":
    run_command(main)

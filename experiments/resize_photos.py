"""Makes photographs of other sharpness for training: smaller, aliased or larger ones.

  python -m experiments.resize_photos --photos=DIR --output=DIR --factor=F [--side=960] [--seed=0]
  python -m experiments.resize_photos --photos=DIR --output=DIR --every=K

What a network takes for noise depends on how fine detail can be. `--factor` below 1 makes it finer
(Lanczos); above 1 it makes photographs as soft as cameras' own at full resolution (bicubic), of a
window of each that gives `--side` pixels at most, at a place that the seed draws. `--every=K` keeps
every K-th pixel of every K-th row: the aliased detail of photographs reduced without averaging.
Results under 160 pixels a side are left out. Writes into a folder that is new or empty, all or
nothing.
"""

import numpy as np
from PIL import Image

from experiments import parts
from nt_jax.data.catalogue import sources
from nt_jax.errors import ArgumentParser, InputError, parse_seed, run_command, unwind_on_signals
from nt_jax.files import progress
from nt_jax.paths import expand, parse_path

_SMALLEST = 160
_SIDE = 960


def resized(photo: np.ndarray, factor: float, side: int, rng: np.random.Generator) -> np.ndarray:
    """Scales a photograph, or a window of it where it becomes larger: uint8 [H, W, 3]."""
    if factor > 1:
        window = round(side / factor)
        top, left = (int(rng.integers(max(s - window, 0) + 1)) for s in photo.shape[:2])
        photo = photo[top : top + window, left : left + window]
    height, width = (max(round(s * factor), 1) for s in photo.shape[:2])
    how = Image.Resampling.BICUBIC if factor > 1 else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(photo).resize((width, height), how))


def subsampled(photo: np.ndarray, every: int) -> np.ndarray:
    """Keeps every K-th pixel of every K-th row."""
    return photo[every // 2 :: every, every // 2 :: every]


def main() -> None:
    """Runs it.

    Raises:
      InputError: a wrong flag or folder.
    """
    parser = ArgumentParser(prog="python -m experiments.resize_photos", description=__doc__)
    parser.add_argument("--photos", required=True, help="folder of photographs")
    parser.add_argument("--output", required=True, type=parse_path, help="folder to write PNG to")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--factor", type=float, help="of the size")
    how.add_argument("--every", type=int, help="keep every K-th pixel")
    parser.add_argument("--side", type=int, help=f"of enlarged windows, pixels; {_SIDE} by default")
    parser.add_argument("--seed", type=parse_seed, help="of the windows' places")
    args = parser.parse_args()
    side = _SIDE if args.side is None else args.side
    if side < _SMALLEST:
        raise InputError(f"--side is {_SMALLEST} or more")
    if (args.factor is None and args.every < 1) or (args.every is None and not args.factor > 0):
        raise InputError("--factor is above 0 and --every 1 or more")
    windows = args.factor is not None and args.factor > 1
    if not windows and not (args.side is None and args.seed is None):
        raise InputError("--side and --seed are of windows, for --factor above 1 alone")
    rng, written = np.random.default_rng(args.seed or 0), 0
    unwind_on_signals()
    with parts.new_folder(args.output, [expand(args.photos)]) as folder:
        photos = sources.find_photos(args.photos)
        for number, file in progress(photos, len(photos), "photo", "resize"):
            photo = sources.read_rgb(file)
            if args.factor is None:
                result = subsampled(photo, args.every)
            else:
                result = resized(photo, args.factor, side, rng)
            if min(result.shape[:2]) >= _SMALLEST:
                Image.fromarray(np.ascontiguousarray(result)).save(folder / f"{number:05}.png")
                written += 1
    print(f"wrote {written} of {len(photos)} photographs to {args.output}")


if __name__ == "__main__":
    run_command(main)

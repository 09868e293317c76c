"""Puts the noise of real pairs on other photographs, whose clean version is known.

  python -m experiments.transplant_noise --pairs=DIR --photos=DIR[,DIR...] --output=DIR
    [--each=6] [--size=256] [--seed=0]

A network that learns from few pairs learns their scenes by heart. Of each pair, `--each` windows of
`--size` pixels: channel by channel, the mean of their noise by brightness and its level by
brightness and detail are taken out and those of the new photograph put in, on a window of a
photograph turned at random and brought near the pair's brightness and contrast. Cameras whose noise
reduction keeps edges leave several times as much noise on detail as on plain parts. How sharp the
photographs are matters: `resize_photos`.
Writes OUTPUT/clean/NUMBER.png and OUTPUT/noisy/NUMBER.png into a folder that is new or empty, all
or nothing; the same seed writes the same.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from experiments import parts
from nt_jax.data.catalogue import sources
from nt_jax.errors import ArgumentParser, InputError, parse_seed, run_command, unwind_on_signals
from nt_jax.files import progress
from nt_jax.paths import expand, parse_path

_BINS = 12
_FEWEST = 200  # pixels of a bin
_ROUNDING = 0.3  # deviation that 8 bits leave of no noise
_GAINS = (0.25, 4.0)  # of a level, at most
_ROUNDS, _LEAST_FACTOR = 3, 0.05
_CONTRASTS = (0.3, 1.3)
_OWN_BRIGHTNESS = 0.3

Curve = Callable[[np.ndarray], np.ndarray]
Statistic = Callable[[np.ndarray], np.floating]


def detail(image: np.ndarray) -> np.ndarray:
    """Computes the logarithm of the deviation of luma in windows of 7x7: [H, W, 3] -> [H, W]."""
    luma = image.mean(-1, dtype=np.float64)
    square, mean = (ndimage.uniform_filter(x, 7, mode="reflect") for x in (luma**2, luma))
    return np.log(np.sqrt(np.maximum(square - mean**2, 0)) + _ROUNDING)


def curves(values: np.ndarray) -> Callable[[np.ndarray, Statistic], Curve]:
    """Prepares curves of noise by a value of each pixel: (noise [H, W], statistic) -> its curve."""
    edges = np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1])
    bins = np.searchsorted(edges, values, side="right")
    parts = [part for number in range(_BINS) if (part := bins == number).sum() > _FEWEST]
    parts = parts or [np.ones_like(bins, bool)]
    at = [values[part].mean() for part in parts]

    def measure(noise: np.ndarray, statistic: Statistic) -> Curve:
        found = [statistic(noise[part]) for part in parts]
        return lambda v: np.interp(v, at, found)

    return measure


def transplant(clean: np.ndarray, noisy: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Puts the noise of a pair on `other`: float [H, W, 3] of 0 to 255 each, not clipped."""
    channels = []
    details = detail(clean), detail(other)
    by_detail = curves(details[0])
    images = (image.transpose(2, 0, 1) for image in (clean, noisy - clean, other))
    for old, noise, new in zip(*images, strict=True):
        by_light = curves(old)
        mean = by_light(noise, np.mean)
        centred = noise - mean(old)
        # The level is a product of a curve of brightness and one of detail, fitted in turn.
        old_factor, new_factor = np.ones_like(old), np.ones_like(new)
        for _ in range(_ROUNDS):
            level = by_light(centred / old_factor, np.std)
            old_level, new_level = (level(values) + _ROUNDING for values in (old, new))
            factor = by_detail(centred / old_level, np.std)
            old_factor, new_factor = (np.maximum(factor(d), _LEAST_FACTOR) for d in details)
        gain = new_level * new_factor / (old_level * old_factor)
        channels.append(new + mean(new) + centred * np.clip(gain, *_GAINS))
    return np.stack(channels, axis=-1)


def matched(photo: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Brings a photograph near a clean image's brightness and contrast, within 0 to 255."""
    contrast = np.clip(clean.std() / max(photo.std(), 1.0), *_CONTRASTS)
    own, wanted = (a.mean((0, 1)) for a in (photo, clean))
    centre = _OWN_BRIGHTNESS * own + (1 - _OWN_BRIGHTNESS) * wanted
    return np.clip((photo - own) * contrast + centre, 0, 255)


def write(
    pairs: Sequence[sources.Pair],
    photos: Sequence[np.ndarray],
    output: Path,
    each: int,
    size: int,
    seed: int,
) -> int:
    """Writes all images and says how many pairs they are; pairs smaller than `size` are left out.

    `photos`: uint8 [H, W, 3] each.

    Raises:
      InputError: no photograph is as large as `size`.
    """
    rng = np.random.default_rng(seed)
    photos = [photo for photo in photos if min(photo.shape[:2]) >= size]
    if not photos:
        raise InputError(f"no photograph has {size} pixels a side: choose a smaller --size")
    written = 0
    for _, pair in progress(pairs, len(pairs), "pair", "transplant"):
        clean, noisy = (
            sources.read_rgb(file).astype(np.float32) for file in (pair.clean, pair.noisy)
        )
        if min(clean.shape[:2]) < size:
            continue
        for _ in range(each):
            old, old_noisy = parts.window(rng, size, clean, noisy)
            (photo,) = parts.window(rng, size, photos[int(rng.integers(len(photos)))])
            photo = np.rot90(photo, int(rng.integers(4)))[:, :: 1 - 2 * int(rng.integers(2))]
            new = np.round(matched(photo.astype(np.float32), old))
            parts.write_pair(output, written, new, transplant(old, old_noisy, new))
            written += 1
    return written


def main() -> None:
    """Runs it.

    Raises:
      InputError: a wrong flag or folder, or photographs that are too small.
    """
    parser = ArgumentParser(prog="python -m experiments.transplant_noise", description=__doc__)
    parser.add_argument("--pairs", required=True, help="folder of clean and noisy images")
    parser.add_argument("--photos", required=True, help="folders of photographs")
    parser.add_argument("--output", required=True, type=parse_path, help="folder to write")
    parser.add_argument("--each", type=int, default=6, help="new images of each pair")
    parser.add_argument("--size", type=int, default=256, help="their side, pixels")
    parser.add_argument("--seed", type=parse_seed, default=0, help="of all choices")
    args = parser.parse_args()
    if min(args.each, args.size) < 1:
        raise InputError("--each and --size are 1 or more")
    folders = sources.parse_spec(args.photos)
    if any(weight is not None for _, weight in folders):
        raise InputError("--photos: weights mean nothing here; each photograph is as likely")
    unwind_on_signals()
    inputs = [expand(args.pairs), *(expand(name) for name, _ in folders)]
    with parts.new_folder(args.output, inputs) as folder:
        photos = [
            sources.read_rgb(photo) for name, _ in folders for photo in sources.find_photos(name)
        ]
        pairs = sources.find_pairs(args.pairs)
        written = write(pairs, photos, folder, args.each, args.size, args.seed)
    print(f"wrote {written} pairs to {args.output}")


if __name__ == "__main__":
    run_command(main)

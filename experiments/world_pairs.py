"""Puts noise of the noise world, of chosen levels, on photographs: pairs to train readers on.

  python -m experiments.world_pairs --photos=DIR[=WEIGHT],... --output=DIR --levels=LOW,HIGH
    [--lags=LOW,HIGH] [--jpeg=SHARE] [--quality=LOW,HIGH] [--count=640] [--size=192] [--seed=0]

Training draws levels as cameras have them, of 255 hardly ever one below 2; but who has never seen
weak noise takes fine detail for it. Of each pair a window of a photograph gets noise whose level is
drawn from --levels, as likely in each octave: a fifth of the pairs white noise, two fifths a
camera's of published levels, developed and no more, two fifths one of the whole world
(nt_jax/noise/processing.py), of which --jpeg are saved as JPEG of --quality. With --lags only noise
whose correlation of luma with the next pixel is in that range is taken.
Writes OUTPUT/clean/NUMBER.png and OUTPUT/noisy/NUMBER.png into a folder that is new or empty, all
or nothing; the same seed writes the same.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import parts
from nt_jax import metrics, prng
from nt_jax.data.catalogue import sources
from nt_jax.errors import ArgumentParser, InputError, parse_seed, run_command, unwind_on_signals
from nt_jax.files import progress
from nt_jax.noise import camera
from nt_jax.paths import expand, parse_path

_WHITE, _DEVELOPED = 0.2, 0.4  # shares
_LEAST_SIZE = 64
_TRIES = 100  # of a pair, until its correlation is as wanted

Range = tuple[float, float]
# Of (key, clean, deviation, quality of JPEG or 0): noisy.
Make = Callable[[jax.Array, np.ndarray, np.float32, np.float32], jax.Array]


def maker(options: camera.Options) -> Make:
    """Compiles what puts noise of a wanted level on a patch, in [0, 1] units."""

    @jax.jit
    def make(key: jax.Array, clean: jax.Array, deviation: jax.Array, quality: jax.Array):
        setting_key, noise_key = prng.split(key)
        setting = camera.sample_setting(setting_key, options)
        processing = setting.processing
        if processing is not None:  # JPEG's losses are no noise to be matched
            plain = processing._replace(jpeg_quality=jnp.float32(0))
            setting = setting._replace(processing=plain)
        setting = camera.match_level(noise_key, clean, setting, deviation)
        if processing is not None:
            saved = processing._replace(jpeg_quality=quality)
            setting = setting._replace(processing=saved)
        return camera.add_noise(noise_key, clean, setting)

    return make


def noisy_patch(
    rng: np.random.Generator,
    makers: tuple[Make, Make],
    clean: np.ndarray,
    levels: Range,
    jpeg: float,
    quality: Range,
) -> np.ndarray:
    """Puts noise of a drawn kind and level on a patch: uint8 [H, W, 3] each.

    Args:
      rng: draws everything.
      makers: of developed noise and of the whole world's.
      clean: the patch.
      levels: range of the standard deviation, 0 to 255 scale.
      jpeg: share of the whole world's noise that is saved as JPEG.
      quality: range of its quality.
    """
    level = np.exp(rng.uniform(*np.log(levels)))
    kind, compressed, words = rng.random(), rng.random() < jpeg, rng.integers(2**32, size=2)
    if kind < _WHITE:
        noisy = clean + level * rng.standard_normal(clean.shape)
    else:
        make = makers[kind >= _WHITE + _DEVELOPED]
        saved = np.float32(rng.uniform(*quality) if compressed else 0)
        key = prng.of_words(words.astype(np.uint32))
        noisy = 255 * np.asarray(make(key, clean / np.float32(255), np.float32(level / 255), saved))
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def write(
    photos: list[tuple[np.ndarray, float]],
    output: Path,
    levels: Range,
    lags: Range,
    jpeg: float,
    quality: Range,
    count: int,
    size: int,
    seed: int,
) -> None:
    """Writes `count` pairs of `size` pixels a side.

    `photos`: uint8 [H, W, 3] each, and how likely.

    Raises:
      InputError: no noise of such a correlation is found.
    """
    rng = np.random.default_rng(seed)
    makers = maker(camera.PUBLISHED), maker(camera.Options(processed=True))
    weights = np.array([weight for _, weight in photos])
    weights /= weights.sum()
    for number, _ in progress(range(count), count, "pair", "make noise"):
        for _ in range(_TRIES):
            photo, _ = photos[rng.choice(len(photos), p=weights)]
            (clean,) = parts.window(rng, size, photo)
            noisy = noisy_patch(rng, makers, clean, levels, jpeg, quality)
            luma = (noisy.astype(np.float32) - clean).mean(-1)
            found = metrics.lag_autocorrelation(np.stack([luma] * 3, axis=-1)[None], 1)[0]
            if lags[0] <= float(found) <= lags[1]:
                break
        else:
            raise InputError(f"--lags={lags[0]},{lags[1]}: no such noise in {_TRIES} draws")
        parts.write_pair(output, number, clean, noisy)


def _range(text: str) -> Range:
    """Reads LOW,HIGH; argparse tells what is wrong."""
    try:
        low, high = (float(number) for number in text.split(","))
    except ValueError:
        low, high = 1.0, 0.0
    if not low <= high:
        raise argparse.ArgumentTypeError(f"expected LOW,HIGH; got {text!r}")
    return low, high


def main() -> None:
    """Runs it.

    Raises:
      InputError: a wrong flag or folder, or no photograph is as large as --size.
    """
    parser = ArgumentParser(prog="python -m experiments.world_pairs", description=__doc__)
    parser.add_argument("--photos", required=True, help="folders of photographs, with weights")
    parser.add_argument("--output", required=True, type=parse_path, help="folder to write")
    parser.add_argument("--levels", required=True, type=_range, help="of the noise, of 255")
    parser.add_argument("--lags", default=(-1.0, 1.0), type=_range, help="correlation of luma")
    parser.add_argument("--jpeg", default=0.25, type=float, help="share saved as JPEG")
    parser.add_argument("--quality", default=(92.0, 100.0), type=_range, help="of JPEG, 1 to 100")
    parser.add_argument("--count", default=640, type=int, help="of the pairs")
    parser.add_argument("--size", default=192, type=int, help="their side, pixels")
    parser.add_argument("--seed", default=0, type=parse_seed, help="of all draws")
    args = parser.parse_args()
    if args.count < 1 or args.size < _LEAST_SIZE or not 0 <= args.jpeg <= 1:
        raise InputError(f"--count is 1 or more, --size {_LEAST_SIZE}, and --jpeg from 0 to 1")
    if args.levels[0] <= 0 or not 1 <= args.quality[0] <= args.quality[1] <= 100:
        raise InputError("--levels are above 0, and --quality is from 1 to 100")
    folders = [(expand(name), weight) for name, weight in sources.parse_spec(args.photos)]
    unwind_on_signals()
    with parts.new_folder(args.output, [folder for folder, _ in folders]) as output:
        photos = []
        for folder, weight in folders:
            read = [sources.read_rgb(file) for file in sources.find_photos(folder)]
            large = [photo for photo in read if min(photo.shape[:2]) >= args.size]
            photos += [(photo, (weight or 1.0) / len(large)) for photo in large]
        if not photos:
            raise InputError(f"no photograph has {args.size} pixels a side: lower --size")
        ranges = args.levels, args.lags, args.jpeg, args.quality
        write(photos, output, *ranges, args.count, args.size, args.seed)
    print(f"wrote {args.count} pairs to {args.output}")


if __name__ == "__main__":
    run_command(main)

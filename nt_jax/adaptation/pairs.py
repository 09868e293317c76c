"""Clean patches with the noise of somebody's photos, as a folder of pairs."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nt_jax.adaptation.inputs import SIDE
from nt_jax.adaptation.survey import PhotoNoise
from nt_jax.data.catalogue.sources import ImageFile
from nt_jax.images import Photo, from_float, read_rgb, to_float, write_photo
from nt_jax.inference.denoiser import Denoiser
from nt_jax.inference.model import Model
from nt_jax.inference.spectrum import match_spectrum

# Around a patch, denoised with it: a denoiser sees less at an edge.
_MARGIN = 32
# One in so many patches, and images where there are as many, is for judging the denoiser.
_ONE_IN = 8
TRAIN, HELD_OUT = "train", "held_out"


def make_pairs(
    model: Model,
    denoiser: Denoiser,
    photos: Sequence[PhotoNoise],
    clean: Sequence[ImageFile],
    folder: Path,
    count: int,
    seed: int,
) -> Iterator[Path]:
    """Writes `count` pairs below `folder`; what is there already stays.

    The clean patch is one of a photo, denoised by the denoiser for all cameras: what this camera
    takes is sharp and soft in its own way, and photographs of others lead a denoiser astray. With
    `clean` every second patch is of those; a photograph of twice a patch's side is reduced by half
    first, which takes away most of its own noise and compression. The noise gets the spectrum of
    the photo at the patch's place, and on a patch of `clean` photographs that of a random place.

    Patch i depends on the arguments and i alone. One in eight goes into `held_out`, the others into
    `train`, each with folders `gt` and `noisy`; from eight images on, the two share none.

    Args:
      model: makes the noise.
      denoiser: see above.
      photos: at least one. Those whose noise the model cannot make are left out, if not all.
      clean: photographs of any camera, or none; like the photos no smaller than a patch.
      folder: where to.
      count: how many.
      seed: of all random choices, at least 0.

    Yields:
      The noisy file of each pair, once both are written.

    Raises:
      InputError: an image cannot be read, or nothing can be written.
    """
    for name in (TRAIN, HELD_OUT):
        for part in ("gt", "noisy"):
            (folder / name / part).mkdir(parents=True, exist_ok=True)
    known = [photo for photo in photos if not photo.noise.out_of_bounds] or list(photos)
    for i in range(count):
        held_out = i % _ONE_IN == _ONE_IN - 1
        name = f"{i:05}.png"
        target = folder / (HELD_OUT if held_out else TRAIN) / "noisy" / name
        if not target.is_file():
            rng = np.random.default_rng((seed, i))
            photo = known[_choose(len(known), held_out, rng)]
            if clean and i // _ONE_IN % 2:
                patch = _clean_patch(clean[_choose(len(clean), held_out, rng)], rng)
                piece = _cut(photo.path, SIDE, rng)
            else:
                patch, piece = _denoised_patch(photo.path, denoiser, rng)
            noisy = add_noise(model, patch, photo, piece, int(rng.integers(2**31)))
            patch = match_tone(patch, np.asarray(denoiser(noisy)))
            write_photo(target.parents[1] / "gt" / name, Photo(patch))
            # Last: it says that the pair is whole.
            write_photo(target, Photo(from_float(noisy, patch.dtype, grey=False)))
        yield target


def add_noise(
    model: Model, clean: np.ndarray, photo: PhotoNoise, piece: np.ndarray, seed: int
) -> np.ndarray:
    """Puts a photo's noise on a clean image.

    Args:
      model: makes the noise, and reads its spectrum if it can.
      clean: [H, W, 3], uint8 or float in [0, 1].
      photo: what is known of its noise.
      piece: of the photo, which the noise gets the spectrum of; as `clean`, of any size.
      seed: of the noise.

    Returns:
      float32 [H, W, 3] in [0, 1].
    """
    noisy = np.empty(clean.shape, np.float32)
    noise = photo.noise
    tiles = model.transfer_tiles(clean, noise.embedding, seed=seed, gain=noise.gain, clipped=False)
    for tile in tiles:
        noisy[tile.rows, tile.columns] = tile.pixels
    below = to_float(clean)
    return np.clip(below + match_spectrum(model, below, noisy - below, to_float(piece)), 0, 1)


def match_tone(patch: np.ndarray, denoised: np.ndarray) -> np.ndarray:
    """Gives a clean patch the tones of another image of it, a parabola for each channel.

    Where black clips it, a camera's noise has a mean, and so has the generator's, but not quite the
    same. The denoiser for all cameras has learned the cameras' from true pairs; to train it further
    on the generator's would shift its colours.

    Args:
      patch: uint8 [H, W, 3].
      denoised: float32 of that shape in [0, 1]: the patch with generated noise, denoised.

    Returns:
      uint8 [H, W, 3], of the parabolas that come nearest in the mean square.
    """
    tones = to_float(patch).reshape(-1, 3)
    matched = np.empty_like(tones)
    for channel, (tone, wanted) in enumerate(zip(tones.T, denoised.reshape(-1, 3).T, strict=True)):
        powers = np.stack([np.ones_like(tone), tone, tone**2], axis=1)
        shift = powers @ np.linalg.lstsq(powers, wanted - tone)[0]
        matched[:, channel] = tone + shift
    return from_float(np.clip(matched, 0, 1).reshape(patch.shape), patch.dtype, grey=False)


def _choose(count: int, held_out: bool, rng: np.random.Generator) -> int:
    """Chooses one of so many images; with eight or more, of those held out or those not."""
    numbers = np.arange(count)
    last = numbers % _ONE_IN == _ONE_IN - 1
    return int(rng.choice(numbers[last == held_out] if last.any() else numbers))


def _cut(source: ImageFile, side: int, rng: np.random.Generator) -> np.ndarray:
    """Cuts uint8 [side, side, 3], or what the image has of it, at a random place."""
    image = read_rgb(source)
    top, left = (int(rng.integers(max(0, size - side) + 1)) for size in image.shape[:2])
    return image[top : top + side, left : left + side]


def _denoised_patch(
    path: Path, denoiser: Denoiser, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts a patch and denoises it: uint8 [SIDE, SIDE, 3], and the noisy patch."""
    crop = _cut(path, SIDE + 2 * _MARGIN, rng)
    top, left = ((size - SIDE) // 2 for size in crop.shape[:2])
    inside = slice(top, top + SIDE), slice(left, left + SIDE)
    return from_float(np.asarray(denoiser(crop))[inside], crop.dtype, grey=False), crop[inside]


def _clean_patch(source: ImageFile, rng: np.random.Generator) -> np.ndarray:
    """Cuts a clean patch: uint8 [SIDE, SIDE, 3], at half the size where there is enough."""
    crop = _cut(source, 2 * SIDE, rng)
    if min(crop.shape[:2]) < 2 * SIDE:
        return np.ascontiguousarray(crop[:SIDE, :SIDE])
    reduced = to_float(crop).reshape(SIDE, 2, SIDE, 2, 3).mean((1, 3))
    return from_float(reduced, crop.dtype, grey=False)

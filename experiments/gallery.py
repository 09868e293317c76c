"""The pictures of docs/gallery.md: eight noises of the camera model, carried to other photographs.

  python -m experiments.gallery --output=docs/gallery [--model=small]

Puts a noise of `nt_jax/noise/camera.py` on a crop of one of scikit-image's photographs, runs
`nt_jax.transfer` on it and a crop of another, with no flags but the files, and draws both beside
the true noise on the same crop. Writes OUTPUT/NAME.jpg of each noise and prints the table.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from skimage import data

from nt_jax import metrics, prng, transfer
from nt_jax.errors import ArgumentParser, run_command
from nt_jax.evaluation.oracles import to_bytes
from nt_jax.evaluation.report import markdown_table
from nt_jax.images import Photo, read_photo, write_photo
from nt_jax.noise import camera
from nt_jax.noise.processing import plain_processing

_SIDE = 256
_SHOWN, _ZOOM = 96, 2  # pixels a side of a picture, and how large each of them is drawn
_GAIN = 4
_GAP = 6
_QUALITY = 90


class Noise(NamedTuple):
    """One row of the gallery.

    Attributes:
      level: of 255, of the reference's noise.
      processing: where it differs from a camera without a mosaic that does nothing to its noise.
      malvar: 1 for Malvar's demosaicking, 0 for bilinear.
      reference, clean: crops of `crops`.
      grey: whether both are grey.
    """

    level: float
    processing: dict[str, Any]
    reference: str
    clean: str
    malvar: float = 1.0
    grey: bool = False


NOISES = {
    "weak": Noise(3, {}, "rocket", "coffee"),
    "strong": Noise(30, {}, "coffee", "chelsea"),
    "mosaic": Noise(12, {"mosaic": True}, "chelsea", "astronaut"),
    "bilinear": Noise(18, {"mosaic": True}, "astronaut", "motorcycle", malvar=0.0),
    "smoothed": Noise(10, {"mosaic": True, "narrow": (1.0, 2.0)}, "motorcycle", "coffee"),
    "blotches": Noise(
        8, {"narrow": (0.6, 3.0), "wide": (4.0, 6.0), "blotches": (0.2, 0.5)}, "coffee", "rocket"
    ),
    "jpeg": Noise(
        10,
        {"mosaic": True, "narrow": (0.6, 1.5), "jpeg_quality": 75.0, "subsampled": True},
        "astronaut",
        "chelsea",
    ),
    "grey": Noise(15, {"level": (1.0, 0.0)}, "chelsea", "astronaut", grey=True),
}


def crops() -> dict[str, np.ndarray]:
    """Cuts crops with both flat places and detail, uint8 [256, 256, 3]."""
    whole = {
        "astronaut": (data.astronaut(), 0, 130),
        "chelsea": (data.chelsea(), 20, 60),
        "coffee": (data.coffee(), 60, 180),
        "motorcycle": (data.stereo_motorcycle()[0], 150, 300),
        "rocket": (data.rocket(), 120, 190),
    }
    return {
        name: photo[top : top + _SIDE, left : left + _SIDE]
        for name, (photo, top, left) in whole.items()
    }


def _as_grey(photo: np.ndarray) -> np.ndarray:
    return np.repeat(np.rint(photo.mean(axis=-1, keepdims=True)).astype(np.uint8), 3, axis=-1)


def add_noise(noise: Noise, photos: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """Puts the noise of one camera and exposure on photos, uint8 [H, W, 3] each.

    The first gets it at `noise.level`; the others as that camera would at the same setting.
    """
    key = prng.key(seed)
    setting = camera.sample_setting(key, camera.Options(processed=True))
    setting = setting._replace(
        processing=plain_processing(**{"mosaic": False} | noise.processing),
        malvar=jnp.float32(noise.malvar),
        tone=jnp.float32(0.3),
    )
    images = [jnp.asarray(photo, jnp.float32) / 255 for photo in photos]
    level = jnp.float32(noise.level / 255)
    setting = jax.jit(camera.match_level)(key, images[0], setting, level)
    put = jax.jit(camera.add_noise)
    keys = prng.split(prng.fold_in(key, 2), len(images))
    return [
        to_bytes(255 * np.asarray(put(key, image, setting)))
        for key, image in zip(keys, images, strict=True)
    ]


def by_command(folder: Path, reference: np.ndarray, clean: np.ndarray, model: str) -> np.ndarray:
    """Gives what `nt_jax.transfer` writes for two images, uint8 [H, W] or [H, W, 3]."""
    files = {name: folder / f"{name}.png" for name in ("reference", "clean", "output")}
    write_photo(files["reference"], Photo(reference))
    write_photo(files["clean"], Photo(clean))
    transfer.main([f"--model={model}", *(f"--{name}={path}" for name, path in files.items())])
    return read_photo(files["output"]).pixels


def numbers(noisy: np.ndarray, clean: np.ndarray) -> tuple[float, float]:
    """Measures the level of the noise, of 255, and its correlation with the next pixel."""
    noise = noisy.astype(np.float32) - clean.astype(np.float32)
    return float(noise.std()), float(np.mean(metrics.lag_autocorrelation(noise, 1)))


def draw(images: Sequence[np.ndarray]) -> Image.Image:
    """Draws the middles of uint8 [H, W, 3] images beside each other, every pixel as a square."""
    start = (_SIDE - _SHOWN) // 2
    side = _SHOWN * _ZOOM
    canvas = Image.new("RGB", (len(images) * (side + _GAP) - _GAP, side), "white")
    for index, image in enumerate(images):
        crop = np.ascontiguousarray(image[start : start + _SHOWN, start : start + _SHOWN])
        picture = Image.fromarray(crop).resize((side, side), Image.Resampling.NEAREST)
        canvas.paste(picture, (index * (side + _GAP), 0))
    return canvas


def row(noise: Noise, seed: int, model: str) -> tuple[Image.Image, list[float]]:
    """Draws a noise as a picture, and measures level and lag 1 of true and generated noise."""
    photos = crops()
    pair = [photos[noise.reference], photos[noise.clean]]
    if noise.grey:
        pair = [_as_grey(photo) for photo in pair]
    reference, true = add_noise(noise, pair, seed)
    clean = pair[1]
    planes = 0 if noise.grey else slice(None)
    with tempfile.TemporaryDirectory() as folder:
        made = by_command(Path(folder), reference[..., planes], clean[..., planes], model)
    if noise.grey:
        made = np.repeat(made[..., None], 3, axis=-1)
    magnified = [
        to_bytes(127.5 + _GAIN * (image.astype(np.float32) - clean)) for image in (true, made)
    ]
    picture = draw([reference, clean, made, *magnified])
    return picture, [*numbers(true, clean), *numbers(made, clean)]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs it.

    Raises:
      InputError: a wrong flag or model.
    """
    parser = ArgumentParser(prog="python -m experiments.gallery", description=__doc__)
    parser.add_argument("--output", required=True, type=Path, help="folder to write to")
    parser.add_argument("--model", default="small", help="bundled name, workdir or model folder")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed, (name, noise) in enumerate(NOISES.items()):
        picture, found = row(noise, seed, args.model)
        picture.save(args.output / f"{name}.jpg", quality=_QUALITY, subsampling=0)
        rows.append([name, *(f"{value:.{1 + i % 2}f}" for i, value in enumerate(found))])
    header = ["noise", "level, true", "lag 1, true", "level, generated", "lag 1, generated"]
    print(markdown_table(header, rows))


if __name__ == "__main__":
    run_command(main)

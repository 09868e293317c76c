"""Shows what comes out for noise unlike anything trained on: pictures and errors.

  python -m experiments.unseen_noise --output=DIR [--model=small]

Puts salt and pepper, blurred noise, stripes and JPEG's artefacts on two of scikit-image's
photographs, takes the noise of one as reference and transfers it to the other. The row to compare
with is white Gaussian noise, which is trained on. Writes OUTPUT/results.md and .json (levels,
neighbours' correlation, AKLD and KS of each) and unseen.png.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage
from skimage import data

from nt_jax import metrics
from nt_jax.compilation import use_compilation_cache
from nt_jax.errors import ArgumentParser, run_command
from nt_jax.evaluation import report
from nt_jax.evaluation.oracles import to_bytes
from nt_jax.evaluation.samples import Images
from nt_jax.inference.loading import load_noisetransfer
from nt_jax.inference.model import Model

SEED = 0
_SIDE = 256
_SHOWN = 96  # pixels a side of a picture, small enough to see single ones
_GAIN = 4
# Of the additive noises, 0 to 255 scale.
_SIGMA = 20

# (image, uint8 [H, W, 3], and a generator) -> noisy image, not clipped.
Noise = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def white(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Adds Gaussian noise, each value for itself."""
    return image + rng.normal(0, _SIGMA, image.shape)


def salt_and_pepper(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turns 5 % of the pixels black or white."""
    draws = rng.random(image.shape[:2])[..., None]
    return np.where(draws < 0.025, 0, np.where(draws > 0.975, 255, image))


def blurred(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Adds Gaussian noise, correlated over several pixels.

    It has a blur of 1.5 pixels and is brought back to its level.
    """
    noise = ndimage.gaussian_filter(rng.normal(size=image.shape), (1.5, 1.5, 0))
    return image + _SIGMA * noise / noise.std()


def stripes(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Makes each row brighter or darker, as a sensor's rows read out with an offset."""
    return image + rng.normal(0, _SIGMA, (len(image), 1, 1))


def artefacts(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Compresses the image to JPEG of quality 10; nothing is random."""
    del rng
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=10)
    return np.asarray(Image.open(file))


NOISES: dict[str, Noise] = {
    "white Gaussian (trained on)": white,
    "salt and pepper": salt_and_pepper,
    "blurred Gaussian": blurred,
    "stripes": stripes,
    "JPEG artefacts": artefacts,
}


def transfer_all(
    model: Model, clean: np.ndarray, photo: np.ndarray
) -> dict[str, tuple[Images, np.ndarray]]:
    """Makes clean, reference and truly noisy image, and the generated one, by noise.

    Args:
      model: any.
      clean: gets the noise, uint8 [H, W, 3].
      photo: with the noise it is the reference, likewise.
    """
    found = {}
    for name, noise in NOISES.items():
        rng = np.random.default_rng(SEED)
        reference, noisy = (to_bytes(noise(image, rng)) for image in (photo, clean))
        generated = to_bytes(
            255 * np.asarray(model.transfer(clean, reference=reference, seed=SEED))
        )
        found[name] = Images(clean=clean, reference=reference, noisy=noisy), generated
    return found


def errors(images: Images, generated: np.ndarray) -> dict[str, float]:
    """Measures level (0 to 255 scale) and lag-1 correlation, true and generated, AKLD and KS."""
    noises = [
        image.astype(np.float32) - images.clean.astype(np.float32)
        for image in (images.noisy, generated)
    ]
    levels = [float(noise.std()) for noise in noises]
    lags = [float(np.mean(metrics.lag_autocorrelation(noise, 1))) for noise in noises]
    three = images.clean, images.noisy, generated
    return {
        "level, true": levels[0],
        "level": levels[1],
        "lag 1, true": lags[0],
        "lag 1": lags[1],
        "AKLD": float(metrics.akld(*three)[0]),
        "KS": float(metrics.ks(*three)[0]),
    }


def draw(found: Mapping[str, tuple[Images, np.ndarray]]) -> Figure:
    """Draws a row a noise: true, generated, and both noises, times 4."""
    figure = Figure(figsize=(9, 2.35 * len(found)), layout="constrained")
    grid = figure.subplots(len(found), 4, squeeze=False)
    for row, (name, (images, generated)) in zip(grid, found.items(), strict=True):
        clean = images.clean.astype(np.float32)
        columns = {"true": images.noisy / 255, "generated": generated / 255}
        columns |= {
            f"{title} noise x{_GAIN}": 0.5 + _GAIN * (image - clean) / 255
            for title, image in (("true", images.noisy), ("generated", generated))
        }
        for axis, (title, pixels) in zip(row, columns.items(), strict=True):
            axis.imshow(np.clip(pixels[:_SHOWN, :_SHOWN], 0, 1), interpolation="nearest")
            axis.set(xticks=[], yticks=[], frame_on=False)
            axis.set_title(title, fontsize=8)
        row[0].set_ylabel(name, fontsize=8)
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Runs it.

    Raises:
      InputError: a wrong flag or model.
    """
    parser = ArgumentParser(prog="python -m experiments.unseen_noise", description=__doc__)
    parser.add_argument("--output", required=True, type=Path, help="folder to write to")
    parser.add_argument("--model", default="small", help="bundled name, workdir or model folder")
    args = parser.parse_args(argv)
    report.check_output(args.output, [])
    use_compilation_cache()
    model = load_noisetransfer(args.model)
    clean, photo = data.astronaut()[:_SIDE, 128 : 128 + _SIDE], data.coffee()[:_SIDE, :_SIDE]
    found = transfer_all(model, clean, photo)
    scores = {name: errors(*pair) for name, pair in found.items()}
    rows = [
        [
            name,
            *(f"{value:.1f}" if "level" in key else f"{value:.2f}" for key, value in row.items()),
        ]
        for name, row in scores.items()
    ]
    header = ["noise", *next(iter(scores.values()))]
    text = f"{report.markdown_table(header, rows)}\nmodel: {args.model}, seed: {SEED}.\n"
    results = {"arguments": {"model": args.model, "seed": SEED}, "noises": scores}
    report.write_results(args.output, results, text, {"unseen": draw(found)})
    print(f"{text}\nresults: {args.output}")


if __name__ == "__main__":
    run_command(main)

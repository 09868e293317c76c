"""Draws the noise of each model beside the true noise: docs/peers.md's picture.

  python -m experiments.peers_picture --model=small,runs/danet,runs/c2n --output=peers.jpg
  python -m experiments.peers_picture --model=... --pairs=SIDD_VAL --image=3 --output=peers.jpg

Draws a row for the true noise and one for each model, of any family: the noisy patch, its noise
times 4, and the noise's power spectral density. A model is told what it asks for of the pair that
is drawn, a reference is its noisy image. Without --pairs that is one of scikit-image's photographs
with noise of our camera model: a picture without a pixel of anybody's data.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from experiments import gallery, row_names
from nt_jax import prng
from nt_jax.broken import Broken
from nt_jax.compilation import use_compilation_cache
from nt_jax.errors import ArgumentParser, InputError, run_command
from nt_jax.evaluation import generation
from nt_jax.evaluation.report import check_output
from nt_jax.evaluation.samples import Images, read_images, samples_of_pairs, usable_pairs
from nt_jax.files import replacing

TRUE = "true noise"
SEED = 0
_SHOWN = 96  # pixels a side of a picture, small enough to see single ones
_GAIN = 4
# Side of the blocks over which a spectrum is a mean.
_BLOCK = 32


def spectrum(noise: np.ndarray) -> np.ndarray:
    """Computes the power spectral density of noise [H, W, 3], frequency 0 in the middle: [32, 32].

    Mean over channels and half-overlapping blocks under a Hann window (Welch 1967). White noise of
    deviation s has about s² everywhere.
    """
    taper = np.hanning(_BLOCK + 1)[:-1]
    window = np.outer(taper, taper)
    centred = noise - noise.mean(axis=(0, 1))
    blocks = np.lib.stride_tricks.sliding_window_view(centred, (_BLOCK, _BLOCK), axis=(0, 1))
    blocks = blocks[:: _BLOCK // 2, :: _BLOCK // 2]  # [h, w, 3, 32, 32]
    power = np.abs(np.fft.fft2(window * blocks)) ** 2 / np.square(window).sum()
    return np.fft.fftshift(power.mean(axis=(0, 1, 2)))


def draw(clean: np.ndarray, noisy: Mapping[str, np.ndarray]) -> Figure:
    """Draws a row for each noisy version of a clean patch, uint8 [H, W, 3], sides of 32 or more."""
    spectra = [
        np.log10(np.maximum(spectrum(image.astype(np.float32) - clean), 1e-2))
        for image in noisy.values()
    ]
    low, high = np.min(spectra), np.max(spectra)
    figure = Figure(figsize=(7.5, 2.5 * len(noisy)), layout="constrained")
    grid = figure.subplots(len(noisy), 3, squeeze=False)
    top, left = (max(0, side - _SHOWN) // 2 for side in clean.shape[:2])
    for axes, (title, image), power in zip(grid, noisy.items(), spectra, strict=True):
        noise = image.astype(np.float32) - clean
        level, lag1 = gallery.numbers(image, clean)
        pictures = {
            title: image,
            f"its noise, times {_GAIN}: level {level:.1f}, lag-1 {lag1:.2f}": np.clip(
                127.5 + _GAIN * noise, 0, 255
            ).astype(np.uint8),
        }
        for axis, (text, pixels) in zip(axes, pictures.items(), strict=False):
            axis.imshow(pixels[top : top + _SHOWN, left : left + _SHOWN], interpolation="nearest")
            axis.set_title(text, fontsize=8)
        drawn = axes[2].imshow(power, vmin=low, vmax=high)
        axes[2].set_title("its power spectral density", fontsize=8)
        figure.colorbar(drawn, ax=axes[2], label="log10, 0 to 255 scale²")
        for axis in axes:
            axis.set_axis_off()
    return figure


def pair_of(pairs: Path | None, number: int) -> Images:
    """Reads the pair of that number, or makes a photograph with noise of the camera model.

    Raises:
      InputError: there is none.
    """
    if pairs:
        samples = samples_of_pairs(usable_pairs(pairs, Broken(skip=False)))
        if not 0 <= number < len(samples):
            raise InputError(f"--image={number}: {pairs} has those from 0 to {len(samples) - 1}")
        return read_images(samples[number])
    noise = gallery.NOISES["smoothed"]
    clean = gallery.crops()[noise.clean]
    (noisy,) = gallery.add_noise(noise, [clean], SEED)
    return Images(clean, noisy, reference=noisy, reference_clean=clean)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs it.

    Raises:
      InputError: a wrong flag, model or image.
    """
    parser = ArgumentParser(prog="python -m experiments.peers_picture", description=__doc__)
    parser.add_argument("--model", required=True, help="bundled names or folders, comma-separated")
    parser.add_argument("--pairs", type=Path, help="folder of pairs")
    parser.add_argument("--image", type=int, help="of --pairs, from 0")
    parser.add_argument("--output", required=True, type=Path, help="picture to write")
    args = parser.parse_args(argv)
    if args.image is not None and not args.pairs:
        raise InputError("--image is the number of a pair of --pairs, which is missing")
    kind = args.output.suffix[1:].lower()
    kinds = FigureCanvasBase.get_supported_filetypes()
    if kind not in kinds:
        raise InputError(f"--output={args.output}: name a picture with one of .{', .'.join(kinds)}")
    check_output(args.output.parent, [])
    use_compilation_cache()
    models = row_names.load_generators(args.model)
    images = pair_of(args.pairs, args.image or 0)
    noisy = {TRUE: images.noisy}
    for name, title in row_names.titles_of(models).items():
        generate = generation.of_model(models[name])
        noisy[title] = generation.as_file(generate(images, prng.key(SEED)))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    figure = draw(images.clean, noisy)
    with replacing(args.output) as temporary:
        figure.savefig(temporary, dpi=100, format=kind)
    print(f"noise of {', '.join(noisy)}: {args.output}")


if __name__ == "__main__":
    run_command(main)

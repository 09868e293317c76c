"""The noise of real cameras, moved to a photograph by the bundled model: README's picture.

  python -m experiments.real_noise --output=runs/real_noise.png
  python -m experiments.real_noise --pairs="NAME=CLEAN,NOISY" --pairs=... --output=...

Draws what experiments/cameras holds: of one noisy photo of each camera what the model keeps of it
(a camera file, `nt_jax.NoiseBank`) and, of its true noise, the histogram and the autocorrelation;
no pixel of it. The second form makes these two files anew first. A photo that is given should be
one that the model was not trained on.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from skimage import data

import nt_jax
from nt_jax import metrics
from nt_jax.errors import ArgumentParser, InputError, run_command
from nt_jax.images import Photo, read_rgb, write_photo

CAMERAS = Path(__file__).parent / "cameras"
_BANK, _TRUTH = "cameras.npz", "truth.json"
_LAGS = range(9)
# Of the histogram, on the 0-255 scale.
_WIDEST = 40
_SIDE = 192
_GAIN = 4


def looks(clean: np.ndarray, noisy: np.ndarray) -> dict[str, Any]:
    """Measures level, histogram and autocorrelation of a noise.

    Args:
      clean, noisy: uint8 [H, W, 3].

    Returns:
      `level`: standard deviation, on the 0-255 scale; `histogram`: share of the values -40 to 40;
      `autocorrelation`: at distances of 0 to 8 pixels, mean of both axes and the channels.
    """
    noise = noisy.astype(np.int32) - clean
    counts = np.bincount((noise + 255).ravel(), minlength=511)[255 - _WIDEST : 256 + _WIDEST]
    at = [np.mean(metrics.lag_autocorrelation(np.float32(noise), lag)) for lag in _LAGS[1:]]
    return {
        "level": float(noise.std()),
        "histogram": (counts / noise.size).tolist(),
        "autocorrelation": [1.0, *map(float, at)],
    }


def keep(pairs: dict[str, tuple[Path, Path]], folder: Path, model: str) -> None:
    """Writes the camera file of the noisy photos, and the looks of their true noise.

    Args:
      pairs: clean and noisy photo by the camera's name.
      folder: where to.
      model: what embeds them.

    Raises:
      InputError: a photo cannot be read; no such model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    truth = {}
    with tempfile.TemporaryDirectory() as photos:
        for name, paths in pairs.items():
            clean, noisy = map(read_rgb, paths)
            truth[name] = looks(clean, noisy)
            write_photo(Path(photos) / f"{name}.png", Photo(noisy))
        nt_jax.NoiseBank.from_photos(photos, model).save(folder / _BANK)
    (folder / _TRUTH).write_text(json.dumps(truth, indent=1) + "\n")


def put(bank: nt_jax.NoiseBank, number: int, clean: np.ndarray) -> np.ndarray:
    """Puts the noise of the photo of that number on a clean one, uint8 [H, W, 3]."""
    seed = next(seed for seed in range(2**32) if bank.draw(seed).reference == number)
    return bank(clean, seed)


def draw(folder: Path, clean: np.ndarray, output: Path) -> None:
    """Draws a row per camera: the photograph with its noise, the noise, and both noises' looks.

    Args:
      folder: as `keep` wrote it.
      clean: photograph, uint8 [H, W, 3] with sides of 192 or more.
      output: the picture to write.

    Raises:
      InputError: nothing was kept there, or of another model than that of today.
    """
    from matplotlib.figure import Figure

    bank = nt_jax.NoiseBank.load(folder / _BANK)
    truth = json.loads((folder / _TRUTH).read_text())
    figure = Figure(figsize=(11, 2.6 * len(bank)), layout="constrained")
    rows = figure.subplots(len(bank), 4, squeeze=False)
    for number, (name, axes) in enumerate(zip(bank.names, rows, strict=True)):
        title = Path(name).stem
        noisy = put(bank, number, clean)
        true, made = truth[title], looks(clean, noisy)
        noise = noisy.astype(np.float32) - clean
        pictures = noisy, np.clip(127.5 + _GAIN * noise, 0, 255).astype(np.uint8)
        said = title, f"its noise, times {_GAIN}"
        for axis, picture, text in zip(axes, pictures, said, strict=False):
            axis.imshow(picture[:_SIDE, :_SIDE], interpolation="nearest")
            axis.set_axis_off()
            axis.set_title(text, fontsize=9)
        values = np.arange(-_WIDEST, _WIDEST + 1)
        for label, of, colour in (("true", true, "k"), ("generated", made, "C1")):
            axes[2].plot(values, of["histogram"], colour, label=f"{label}, level {of['level']:.1f}")
            axes[3].plot(_LAGS, of["autocorrelation"], colour, marker=".", label=label)
        axes[2].set_title("histogram", fontsize=9)
        axes[3].set_title("correlation by distance, pixels", fontsize=9)
        for axis in axes[2:]:
            axis.legend(fontsize=7)
            axis.grid(alpha=0.3)
            axis.tick_params(labelsize=7)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=100)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs it.

    Raises:
      InputError: a wrong flag, photo or model.
    """
    parser = ArgumentParser(prog="python -m experiments.real_noise", description=__doc__)
    parser.add_argument("--output", required=True, type=Path, help="picture to write")
    parser.add_argument("--pairs", action="append", default=[], help="NAME=CLEAN,NOISY; repeat it")
    parser.add_argument("--model", default="small", help="bundled name, workdir or model folder")
    parser.add_argument("--cameras", default=CAMERAS, type=Path, help="folder of what is kept")
    args = parser.parse_args(argv)
    pairs = {}
    for given in args.pairs:
        name, _, paths = given.partition("=")
        clean, comma, noisy = paths.partition(",")
        if not (name and comma):
            raise InputError(f"--pairs={given}: expected NAME=CLEAN,NOISY")
        pairs[name] = Path(clean), Path(noisy)
    if pairs:
        keep(pairs, args.cameras, args.model)
    draw(args.cameras, data.coffee()[60:, 180:][:256, :256], args.output)
    print(f"noise of real cameras: {args.output}")


if __name__ == "__main__":
    run_command(main)

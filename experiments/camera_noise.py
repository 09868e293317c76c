"""Does the camera model of nt_jax.noise.camera look like a real camera's noise?

  python -m experiments.camera_noise --pairs=DIR --output=DIR [--cameras=16] [--seed=0]

For every pair, statistics of the real noise beside those of camera noise put on the clean image:
with random cameras whose level is matched to the real standard deviation, and with random cameras
and levels. Writes OUTPUT/camera_noise.md and .png. Means over the cameras, ± their standard
deviation. Made for full-resolution crops, such as those of SIDD: resampling an image takes away
the spatial correlation that this compares.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from nt_jax import metrics, prng
from nt_jax.data.catalogue import sources
from nt_jax.errors import ArgumentParser, InputError, parse_seed, run_command
from nt_jax.evaluation.report import check_output
from nt_jax.files import progress, replacing
from nt_jax.images import cut_middle
from nt_jax.noise import camera

LEVEL_BINS = 8
SPECTRUM_BINS = 48
MATCH_SIZE = 256  # side of the middle part on which levels are matched
SHOWN, SHOWN_SIZE = 5, 96  # pairs in the figure, pixels a side of what is shown of each

COLUMNS = (
    "std",
    "std R",
    "std G",
    "std B",
    "bias R",
    "bias G",
    "bias B",
    "lag-1 h",
    "lag-1 v",
    "corr RG",
    "corr RB",
    "corr GB",
    *(f"{(2 * i + 1) / 2 / LEVEL_BINS:.2f}" for i in range(LEVEL_BINS)),
)
_DECIMALS = (*[1] * 7, *[2] * 5, *[1] * LEVEL_BINS)


class Row(NamedTuple):
    """Noise of one kind on one image.

    Attributes:
      pair: the pair's name.
      source: "real", "matched" or "random".
      values: [cameras, columns], COLUMNS of each camera; NaN where no pixel has that intensity.
      spectrum: [SPECTRUM_BINS], power in dB over white noise of the same variance.
      example: float32 [H, W, 3], the noisy image of the first camera.
    """

    pair: str
    source: str
    values: np.ndarray
    spectrum: np.ndarray
    example: np.ndarray


def statistics(clean: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """Measures the COLUMNS of one image, [H, W, 3] in [0, 1].

    Levels and biases are on the 0-255 scale.
    """
    noise = noisy - clean
    horizontal = [_correlation(noise[:, 1:, c], noise[:, :-1, c]) for c in range(3)]
    vertical = [_correlation(noise[1:, :, c], noise[:-1, :, c]) for c in range(3)]
    between = np.asarray(metrics.channel_correlation(noise))[0]
    curve = np.asarray(metrics.noise_level_curve(clean, noisy, LEVEL_BINS)[0])[0]
    return np.array(
        [
            noise.std() * 255,
            *(noise.std((0, 1)) * 255),
            *(noise.mean((0, 1)) * 255),
            np.mean(horizontal),
            np.mean(vertical),
            between[0, 1],
            between[0, 2],
            between[1, 2],
            *(curve * 255),
        ]
    )


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def spectrum(noise: np.ndarray) -> np.ndarray:
    """Computes the spectrum, [SPECTRUM_BINS] in dB, relative to white noise of equal variance."""
    power = np.asarray(metrics.radial_power_spectrum(noise, SPECTRUM_BINS))[0]
    return 10 * np.log10(np.maximum(power, 1e-12) / max(noise.var(), 1e-12))


@jax.jit
def random_camera(key: jax.Array, clean: jax.Array) -> jax.Array:
    """Draws camera noise of a random camera at a random level."""
    setting_key, noise_key = prng.split(key)
    setting = camera.sample_setting(setting_key, camera.PUBLISHED)
    return camera.add_noise(noise_key, clean, setting)


@jax.jit
def matched_camera(
    key: jax.Array, clean: jax.Array, middle: jax.Array, deviation: jax.Array
) -> jax.Array:
    """Draws camera noise of a random camera, its standard deviation matched on `middle`."""
    setting_key, noise_key = prng.split(key)
    setting = camera.sample_setting(setting_key, camera.PUBLISHED)
    setting = camera.match_level(noise_key, middle, setting, deviation)
    return camera.add_noise(noise_key, clean, setting)


def measure(name: str, clean: np.ndarray, noisy: np.ndarray, keys: jax.Array) -> list[Row]:
    """Measures the three rows of one pair, float32 [H, W, 3] in [0, 1], with one camera a key."""
    middle = cut_middle(clean, MATCH_SIZE)
    deviation = jnp.float32((cut_middle(noisy, MATCH_SIZE) - middle).std())
    rows = [Row(name, "real", statistics(clean, noisy)[None], spectrum(noisy - clean), noisy)]
    for source, draw in (
        ("matched", lambda key: matched_camera(key, clean, middle, deviation)),
        ("random", lambda key: random_camera(key, clean)),
    ):
        images = [np.asarray(draw(key)) for key in keys]
        values = np.stack([statistics(clean, image) for image in images])
        mean_spectrum = np.mean([spectrum(image - clean) for image in images], axis=0)
        rows.append(Row(name, source, values, mean_spectrum, images[0]))
    return rows


def table(rows: list[Row]) -> str:
    """Writes Markdown; the last three rows are means over the pairs."""
    lines = [
        "Noise on the 0-255 scale; columns 0.06 to 0.94: standard deviation by clean intensity.",
        "",
        "| pair | noise | " + " | ".join(COLUMNS) + " |",
        "|---|---|" + "---:|" * len(COLUMNS),
    ]

    def line(name: str, source: str, mean: np.ndarray, spread: np.ndarray | None) -> str:
        cells = []
        for i, decimals in enumerate(_DECIMALS):
            if np.isnan(mean[i]):
                cells.append("–")
                continue
            cells.append(f"{mean[i]:.{decimals}f}")
            if spread is not None:
                cells[-1] += f" ± {spread[i]:.{decimals}f}"
        return f"| {name} | {source} | " + " | ".join(cells) + " |"

    for row in rows:
        spread = row.values.std(axis=0) if len(row.values) > 1 else None
        lines.append(line(row.pair, row.source, row.values.mean(axis=0), spread))
    for source in dict.fromkeys(row.source for row in rows):
        means = np.stack([row.values.mean(axis=0) for row in rows if row.source == source])
        counts = (~np.isnan(means)).sum(axis=0)
        mean = np.where(counts, np.nansum(means, axis=0) / np.maximum(counts, 1), np.nan)
        lines.append(line("mean", source, mean, None))
    return "\n".join(lines) + "\n"


def draw(rows: list[Row], clean: list[np.ndarray], path: Path) -> None:
    """Draws a row of panels a pair: clean, real, matched, noise levels, spectra."""
    pairs = list(dict.fromkeys(row.pair for row in rows))[:SHOWN]
    figure = Figure(figsize=(14, 2.7 * len(pairs)), layout="constrained")
    panels = figure.subplots(len(pairs), 5, squeeze=False)
    centres = (np.arange(LEVEL_BINS) + 0.5) / LEVEL_BINS
    frequencies = (np.arange(SPECTRUM_BINS) + 0.5) / (2 * SPECTRUM_BINS)
    styles = {"real": ("k", "o"), "matched": ("tab:orange", "s"), "random": ("tab:blue", "x")}
    for axes, name, original in zip(panels, pairs, clean, strict=False):
        own = {row.source: row for row in rows if row.pair == name}
        deviation = own["real"].values[0, 0]
        shown = (
            ("clean", original),
            (f"real, std {deviation:.0f}", own["real"].example),
            ("camera model, same std", own["matched"].example),
        )
        for axis, (title, image) in zip(axes, shown, strict=False):
            axis.imshow(cut_middle(image, SHOWN_SIZE), interpolation="nearest", vmin=0, vmax=1)
            axis.set_title(title, fontsize=9)
            axis.axis("off")
        for source in ("real", "matched"):
            colour, marker = styles[source]
            levels = own[source].values[:, -LEVEL_BINS:]
            axes[3].errorbar(
                centres, levels.mean(axis=0), levels.std(axis=0), color=colour, marker=marker,
                markersize=4, capsize=2, label=source,
            )  # fmt: skip
        axes[3].set(xlabel="clean intensity", ylim=(0, None), xlim=(0, 1))
        axes[3].set_title("noise std, 0-255", fontsize=9)
        for source, row in own.items():
            axes[4].plot(frequencies, row.spectrum, color=styles[source][0], label=source)
        axes[4].set(xlabel="cycles per pixel", ylim=(-15, 8))
        axes[4].set_title("power, dB over white", fontsize=9)
        for axis in axes[3:]:
            axis.legend(fontsize=7, frameon=False)
            axis.tick_params(labelsize=7)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def main(argv: list[str] | None = None) -> None:
    """Runs the comparison.

    Raises:
      InputError: a wrong flag or image.
    """
    parser = ArgumentParser(prog="python -m experiments.camera_noise", description=__doc__)
    parser.add_argument("--pairs", required=True, help="folder of clean and noisy images")
    parser.add_argument("--output", required=True, type=Path, help="folder to write to")
    parser.add_argument("--cameras", default=16, type=int, help="random cameras an image")
    parser.add_argument("--seed", default=0, type=parse_seed)
    args = parser.parse_args(argv)
    if args.cameras < 1:
        raise InputError(f"--cameras={args.cameras}: needs 1 or more")
    check_output(args.output, [Path(folder) for folder, _ in sources.parse_spec(args.pairs)])
    pairs = sources.load_pairs(args.pairs)
    smallest = min(min(clean.shape[:2]) for _, clean, _ in pairs)
    if smallest < 2 * SPECTRUM_BINS:
        raise InputError(f"{args.pairs}: an image is smaller than {2 * SPECTRUM_BINS} pixels")
    keys = prng.split(prng.key(args.seed), (len(pairs), args.cameras))
    rows, originals = [], []
    for index, (pair, *images) in progress(pairs, len(pairs), "pair"):
        clean, noisy = (image / np.float32(255) for image in images)
        rows += measure(pair.name, clean, noisy, keys[index])
        originals.append(clean)
    args.output.mkdir(parents=True, exist_ok=True)
    markdown = table(rows)
    with replacing(args.output / "camera_noise.md") as temporary:
        temporary.write_text(markdown, encoding="utf-8")
    draw(rows, originals, args.output / "camera_noise.png")
    print(markdown)
    print(f"written to {args.output}")


if __name__ == "__main__":
    run_command(main)

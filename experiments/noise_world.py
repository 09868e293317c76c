"""Is the noise of real images among what the noise world draws? A picture and a table.

Each image, and each of many samples of `camera` noise with processing on photographs, is a point
of nine numbers, measured on its middle 128x128. An image is inside the cloud if its fifth-nearest
sample is no farther than those of 99 % of the samples themselves (numbers divided by the samples'
standard deviation).
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy.spatial import cKDTree

from nt_jax import readings
from nt_jax.data.catalogue import sources
from nt_jax.errors import InputError
from nt_jax.files import replacing
from nt_jax.filters import local_moments
from nt_jax.images import cut_middle, to_float
from nt_jax.noise import camera

SIDE = 128
NUMBERS = (
    "level, log2 of 255",
    "lag 1",
    "lag 2",
    "channel correlation",
    "bias / level",
    "slope of the level curve",
    "blotches of luma, log2",
    "blotches of colour, log2",
    "level on detail over plain parts, log2",
)
_PANELS = ((0, 1), (1, 2), (0, 3), (1, 3), (0, 4), (0, 5), (1, 6), (3, 7), (0, 8))
_ROUNDING = 0.3  # grey levels that 8 bits leave of no noise
_NEIGHBOUR, _QUANTILE = 5, 0.99


@jax.jit
def describe(clean: jax.Array, noisy: jax.Array) -> jax.Array:
    """Measures the numbers of images [N, H, W, 3] in [0, 1]: [N, 9]; see `NUMBERS`."""
    measured = readings.decode(readings.measure(noisy - clean, clean).values)
    brightness = clean.mean(-1, keepdims=True)
    centred = brightness - brightness.mean((1, 2), keepdims=True)
    noise = noisy - clean
    squares = jnp.square(noise - noise.mean((1, 2), keepdims=True)).mean(-1, keepdims=True)
    variance = squares.mean((1, 2))
    slope = (centred * squares).mean((1, 2)) / (jnp.square(centred).mean((1, 2)) + 1e-4)
    lags = measured.autocorrelation
    at = [readings.LAGS.index(lag) for lag in ((0, 1), (1, 0), (0, 2), (2, 0))]
    columns = [
        0.5 * jnp.log2(jnp.square(255 * jnp.exp(measured.log_level)).mean(-1)),
        (lags[:, at[0]] + lags[:, at[1]]) / 2,
        (lags[:, at[2]] + lags[:, at[3]]) / 2,
        measured.channel_correlation.mean(-1),
        measured.bias.mean(-1),
        jnp.clip(0.1 * (slope / variance)[:, 0], -1, 1),
        measured.blotches[:, 0],
        measured.blotches[:, 1],
        _level_on_detail(brightness, squares),
    ]
    return jnp.stack(columns, axis=1)


def _level_on_detail(brightness: jax.Array, squares: jax.Array) -> jax.Array:
    """Compares the noise of the quarter with most detail and of that with least: log2, [N]."""
    _, detail = local_moments(brightness)
    bounds = jnp.quantile(detail, jnp.array([0.25, 0.75]), axis=(1, 2), keepdims=True)

    def level(part: jax.Array) -> jax.Array:
        mean = (squares * part).sum((1, 2, 3)) / part.sum((1, 2, 3))
        return jnp.sqrt(mean) + _ROUNDING / 255

    return jnp.log2(level(detail >= bounds[1]) / level(detail <= bounds[0]))


def describe_pairs(folder: str) -> np.ndarray:
    """Measures the numbers of all pairs of a folder that are large enough, [N, 9].

    Raises:
      InputError: there is none.
    """
    rows = []
    for pair in sources.find_pairs(folder):
        clean, noisy = (sources.read_rgb(path) for path in (pair.clean, pair.noisy))
        if min(clean.shape[:2]) >= SIDE:
            clean, noisy = (to_float(cut_middle(image, SIDE)) for image in (clean, noisy))
            rows.append(np.asarray(describe(clean[None], noisy[None]))[0])
    if not rows:
        raise InputError(f"{folder}: no pair has {SIDE} pixels a side, as the noise world needs")
    return np.stack(rows)


def sample_world(photos: list[str], count: int, seed: int = 0) -> np.ndarray:
    """Measures the numbers of `count` samples on random patches of photographs, [count, 9].

    Photographs that are smaller than a patch are left out.

    Raises:
      InputError: all are, or the samples are too few for a cloud.
    """
    if count <= _NEIGHBOUR:
        raise InputError(f"--world={count}: needs {_NEIGHBOUR + 1} samples or more")
    images = [sources.read_rgb(path) for folder in photos for path in sources.find_photos(folder)]
    images = [image for image in images if min(image.shape[:2]) >= SIDE]
    if not images:
        raise InputError(
            f"{','.join(photos)}: no photograph has {SIDE} pixels a side, as the noise world needs"
        )
    rng = np.random.default_rng(seed)
    options = camera.Options(processed=True)

    @jax.jit
    def draw(key: jax.Array, clean: jax.Array) -> jax.Array:
        setting_key, noise_key = jax.random.split(key)
        setting = camera.sample_setting(setting_key, options)
        return describe(clean[None], camera.add_noise(noise_key, clean, setting)[None])[0]

    rows = []
    for number in range(count):
        image = images[number % len(images)]
        top, left = (rng.integers(side - SIDE + 1) for side in image.shape[:2])
        patch = image[top : top + SIDE, left : left + SIDE] / np.float32(255)
        rows.append(np.asarray(draw(jax.random.key(seed + number), patch)))
    return np.stack(rows)


def inside(world: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Tells which points lie in the cloud of the samples: bool [N]."""
    scale = world.std(axis=0)
    tree = cKDTree(world / scale)
    own = tree.query(world / scale, k=_NEIGHBOUR + 1)[0][:, -1]
    found = tree.query(points / scale, k=_NEIGHBOUR)[0][:, -1]
    return found <= np.quantile(own, _QUANTILE)


def table(world: np.ndarray, real: dict[str, np.ndarray]) -> str:
    """Writes Markdown: how many images of each folder are inside."""
    lines = ["| data set | images | inside the noise world |", "|---|---:|---:|"]
    for name, points in real.items():
        lines.append(f"| {name} | {len(points)} | {inside(world, points).sum()} |")
    return "\n".join(lines) + "\n"


def draw(world: np.ndarray, real: dict[str, np.ndarray], path: Path) -> None:
    """Draws scatter plots of pairs of numbers: samples grey, real images coloured."""
    figure = Figure(figsize=(14, 12), layout="constrained")
    for axis, (x, y) in zip(figure.subplots(3, 3).flat, _PANELS, strict=True):
        axis.scatter(world[:, x], world[:, y], s=4, color="0.8", label="noise world")
        for name, points in real.items():
            axis.scatter(points[:, x], points[:, y], s=12, label=name)
        axis.set(xlabel=NUMBERS[x], ylabel=NUMBERS[y])
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=80, format=path.suffix[1:])

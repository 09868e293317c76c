"""Compares what somebody with one camera can do about its noise: a table per camera.

python -m experiments.your_camera --pairs=POLYU/unseen_camera,SIDD_VAL_BLOCKS --output=OUT \
  --rows=bundled,adapted-1,adapted-5,adapted-30,pairs-2,ceiling,bm3d,nlm --minutes=10

Half of the pairs of a camera's folder are "yours", every second one, and the others are scored; but
crops of one photograph are never on both sides. Rows are
  bundled    the bundled denoiser for every camera
  adapted-N  `nt_jax.adapt` on N of your noisy photos, or as many as there are; no clean one
  pairs-K    the same on all your noisy photos and K of your true pairs
  ceiling    the bundled denoiser trained further on your true pairs, for as many steps; every
             fourth, and what is of its photograph, tells it when to stop
  bm3d, nlm  BM3D (`pip install bm3d`, whose terms are non-commercial) and OpenCV's non-local
             means, each with a strength that a person sets by hand, the best of several for each
             image, and with the level that scikit-image estimates
  zsn2n-K    ZS-N2N, trained on the scored image alone for K steps (2000 in the paper)
For rows too slow for all of it, --images and --side score fewer images, or the middle of each. A
row that is finished is not made again: the same command with the same --output resumes.
"""

import argparse
import re
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import parts, zero_shot
from nt_jax import adapt
from nt_jax.adaptation import finetune
from nt_jax.broken import Broken
from nt_jax.compilation import use_compilation_cache
from nt_jax.data.catalogue.references import photograph
from nt_jax.data.catalogue.sources import Pair, find_pairs, parse_spec, read_rgb
from nt_jax.errors import ArgumentParser, InputError, quiet_decoders, run_command
from nt_jax.evaluation import denoising, report, statistics
from nt_jax.files import replacing
from nt_jax.images import SMALLEST_SIDE, Photo, to_float, write_photo
from nt_jax.inference.loading import load_denoiser

_ROWS = (
    "bundled,adapted-1,adapted-5,adapted-30,pairs-1,pairs-2,pairs-5,ceiling,bm3d,nlm,"
    f"zsn2n-{zero_shot.STEPS}"
)
_ROW = re.compile(r"bundled|ceiling|bm3d|nlm|(adapted|pairs|zsn2n)-[1-9]\d*")
_START = "small-denoiser"
# Strengths to choose from by hand, 0 to 255 scale; for NLM it is the filter's own.
_SIGMAS = (5.0, 10.0, 15.0, 25.0, 40.0, 65.0)
_METRICS = {"psnr": ("PSNR, dB", 2), "ssim_plain": ("SSIM, plain", 4)}
_ONE_IN = 4  # of your pairs tells the ceiling's training when to stop

Scores = dict[str, list[float]]
Denoise = Callable[[np.ndarray], np.ndarray]


class Scored(NamedTuple):
    """Scored images of a camera's folder.

    Attributes:
      images: at most so many, evenly spaced; None for all.
      side: of the middle that counts, in pixels; None for whole images.
    """

    images: int | None
    side: int | None

    def scenes(self, pairs: list[Pair]) -> list[denoising.Scene]:
        """Lists these images of the pairs."""
        count = min(self.images or len(pairs), len(pairs))
        chosen = [pairs[index * len(pairs) // count] for index in range(count)]
        return [
            scene._replace(rows=self._middle(scene.rows), columns=self._middle(scene.columns))
            for scene in denoising.scenes_of_pairs(chosen)
        ]

    def _middle(self, window: slice) -> slice:
        length = window.stop - window.start
        side = min(self.side or length, length)
        start = window.start + (length - side) // 2
        return slice(start, start + side)


def make_bm3d(sigma: float) -> Denoise:
    """Makes BM3D for a noise level, 0 to 255 scale; raises InputError where it is missing."""
    try:
        from bm3d import bm3d_rgb
    except ImportError as error:
        raise InputError("bm3d is missing: pip install bm3d") from error
    return lambda noisy: bm3d_rgb(to_float(noisy), sigma / 255)


def _nlm(sigma: float) -> Denoise:
    import cv2

    return lambda noisy: (
        cv2.fastNlMeansDenoisingColored(noisy, None, sigma, sigma).astype(np.float32) / 255
    )


def _estimated(make: Callable[[float], Denoise]) -> Denoise:
    from skimage.restoration import estimate_sigma

    return lambda noisy: make(
        255 * float(estimate_sigma(to_float(noisy), channel_axis=-1, average_sigmas=True))
    )(noisy)


def _score(
    denoise: dict[str, Denoise], scored: list[denoising.Scene]
) -> tuple[dict[str, Scores], float]:
    """Computes scores by row, the noisy input's too, and the seconds that all took per image."""
    begun = time.monotonic()
    evaluation = denoising.evaluate(denoise, scored, Broken(False))
    seconds = (time.monotonic() - begun) / len(scored) / len(denoise)
    return evaluation.scores, seconds


def _by_hand(
    make: Callable[[float], Denoise], scored: list[denoising.Scene]
) -> tuple[Scores, float]:
    """Picks for each image the scores of the strength with the best PSNR, as a person would."""
    scores, seconds = _score({str(sigma): make(sigma) for sigma in _SIGMAS}, scored)
    scores.pop(denoising.NOISY)
    best = np.argmax([rows["psnr"] for rows in scores.values()], axis=0)
    rows = list(scores.values())
    chosen = {
        metric: [rows[index][metric][image] for image, index in enumerate(best)]
        for metric in _METRICS
    }
    return chosen, seconds


def _by_photograph(pairs: list[Pair], one_in: int) -> tuple[list[Pair], list[Pair]]:
    """Splits pairs into about one in so many, the first one's photograph on, and the others.

    All pairs of a photograph go to one side.
    """
    crops: dict[str, list[Pair]] = {}
    for pair in pairs:
        crops.setdefault(photograph(pair), []).append(pair)
    chosen: list[Pair] = []
    others: list[Pair] = []
    for of_photograph in crops.values():
        short = one_in * len(chosen) <= len(chosen) + len(others)
        (chosen if short else others).extend(of_photograph)
    return chosen, others


def _counted(pairs: list[Pair]) -> str:
    return f"{len(pairs)} pairs of {len(set(map(photograph, pairs)))} photographs"


def _copied(pairs: list[Pair], folder: Path, roles: tuple[str, ...]) -> Path:
    """Writes the pairs' images to a folder, in one folder per role if there are two."""
    for role in roles:
        target = folder / role if len(roles) > 1 else folder
        target.mkdir(parents=True, exist_ok=True)
        for index, pair in enumerate(pairs):
            source = pair.clean if role == "gt" else pair.noisy
            if isinstance(source, Path):
                shutil.copyfile(source, target / f"{index:04}{source.suffix.lower()}")
            else:  # of a folder that `prepare` wrote
                write_photo(target / f"{index:04}.png", Photo(read_rgb(source)))
    return folder


def _adapted(yours: list[Pair], photos: int, pairs: int, work: Path, minutes: float) -> Path:
    flags = [f"--noisy={_copied(yours[:photos], work / 'noisy', ('noisy',))}"]
    if pairs:
        flags.append(f"--pairs={_copied(yours[:pairs], work / 'pairs', ('gt', 'noisy'))}")
    adapt.main([*flags, f"--minutes={minutes}", f"--output={work / 'denoiser'}"])
    return work / "denoiser"


def _ceiling(yours: list[Pair], work: Path, minutes: float) -> Path:
    """Trains the bundled denoiser on true pairs, stopped on some of them; returns the workdir."""
    held_out, train = _by_photograph(yours, _ONE_IN)
    train = train or yours
    for name, chosen in (("train", train), ("held_out", held_out)):
        _copied(chosen, work / name, ("gt", "noisy"))
    config = finetune.recipe(_START, load_denoiser(_START), work, "", adapt.steps_for(minutes))
    finetune.finetune(config, work / "run", time.monotonic() + 60 * minutes)
    return work / "run"


def _make_row(
    row: str, yours: list[Pair], scored: list[denoising.Scene], work: Path, minutes: float
) -> dict[str, tuple[Scores, float]]:
    """Computes scores and seconds per image, by the title of each line of the table."""
    kind, _, number = row.partition("-")
    chosen: Any
    if kind == "bundled":
        chosen = load_denoiser(_START)
    elif kind == "adapted":
        chosen = load_denoiser(_adapted(yours, int(number), 0, work, minutes))
    elif kind == "pairs":
        chosen = load_denoiser(_adapted(yours, len(yours), int(number), work, minutes))
    elif kind == "ceiling":
        chosen = load_denoiser(_ceiling(yours, work, minutes))
    elif kind == "zsn2n":
        chosen = partial(zero_shot.denoise, steps=int(number))
    else:
        make = {"bm3d": make_bm3d, "nlm": _nlm}[row]
        estimated, seconds = _score({row: _estimated(make)}, scored)
        return {
            f"{row}, by hand": _by_hand(make, scored),
            f"{row}, estimated": (estimated[row], seconds),
        }
    scores, seconds = _score({row: chosen}, scored)
    lines = {row: (scores[row], seconds)}
    return lines if row != "bundled" else {"noisy": (scores[denoising.NOISY], 0.0)} | lines


class Camera(NamedTuple):
    """A camera's folder of pairs.

    Attributes:
      folder: its path.
      yours, others: pairs that are yours, and those of other photographs, to be scored.
    """

    folder: str
    yours: list[Pair]
    others: list[Pair]


def _find_camera(folder: str) -> Camera:
    yours, others = _by_photograph(find_pairs(folder), 2)
    if not others:
        raise InputError(f"{folder}: needs pairs of two photographs or more")
    return Camera(folder, yours, others)


def _table(camera: Camera, rows: list[str], output: Path, minutes: float, which: Scored) -> str:
    """Writes the table of one camera."""
    folder, yours, others = camera
    scored = which.scenes(others)
    files = parts.fingerprint(
        image for pair in (*yours, *others) for image in (pair.clean, pair.noisy)
    )
    asked = {"minutes": minutes, "protocol": report.PROTOCOL, "files": files} | which._asdict()
    photographs = [scene.photograph for scene in scored]
    lines = []
    for row in rows:
        print(f"{folder}: {row}", flush=True)
        work = output / f"{row}-{minutes:g}"  # what was trained for longer is another denoiser
        make = partial(_make_row, row, yours, scored, work, minutes)
        made = parts.kept(output / f"{row}.json", asked, make)
        for title, (scores, seconds) in made.items():
            cells = (
                report.cell(statistics.mean(scores[name], photographs), digits)
                for name, (_, digits) in _METRICS.items()
            )
            lines.append([title, *cells, f"{seconds:.1f}"])
    titles = [title for title, _ in _METRICS.values()]
    part = f", the middle {which.side}x{which.side} of each" if which.side else ""
    heading = (
        f"{folder}: {_counted(yours)} are yours, {_counted(others)} are others', of which"
        f" {len(scored)} are scored{part}\n\n"
    )
    return heading + report.markdown_table(["row", *titles, "s per image"], lines)


@quiet_decoders()
def main(argv: list[str] | None = None) -> None:
    """Runs it.

    Raises:
      InputError: a wrong flag, folder or image.
    """
    parser = ArgumentParser(
        prog="python -m experiments.your_camera",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pairs", required=True, help="a folder of true pairs per camera")
    parser.add_argument("--output", required=True, type=Path, help="folder to write to")
    parser.add_argument("--rows", default=_ROWS, help="which, comma-separated")
    parser.add_argument("--minutes", default=20.0, type=float, help="of each training")
    parser.add_argument("--images", type=int, help="scored of a camera, instead of every second")
    parser.add_argument("--side", type=int, help="of the middle that is scored, in pixels")
    args = parser.parse_args(argv)
    for name, fewest in (("images", 1), ("side", SMALLEST_SIDE)):
        value = getattr(args, name)
        if value is not None and value < fewest:
            raise InputError(f"--{name}={value}: needs {fewest} or more")
    use_compilation_cache()
    which, rows = Scored(args.images, args.side), args.rows.split(",")
    if unknown := [row for row in rows if not _ROW.fullmatch(row)]:
        raise InputError(f"--rows: unknown row {unknown[0]!r}; known are {_ROWS}")
    cameras = [_find_camera(folder) for folder, _ in parse_spec(args.pairs)]
    report.check_output(args.output, [Path(camera.folder) for camera in cameras])
    texts = []
    for number, camera in enumerate(cameras):
        folder = Path(camera.folder)
        output = args.output / f"{number}-{folder.parent.name}-{folder.name}"
        output.mkdir(parents=True, exist_ok=True)
        texts.append(_table(camera, rows, output, args.minutes, which))
        text = "\n\n".join(texts) + f"\n\nTraining: {args.minutes:g} minutes. {report.PROTOCOL}\n"
        with replacing(args.output / "results.md") as temporary:
            temporary.write_text(text)
        print(texts[-1], flush=True)


if __name__ == "__main__":
    run_command(main)

"""Puts the noise of a reference photo on clean photos, files to files.

  python -m nt_jax.transfer --reference=noisy.jpg --clean=photo.png --output=result.png
  python -m nt_jax.transfer --reference=a.jpg,b.jpg --clean=photos --output=noisy_photos

PNG and TIFF with 8 or 16 bits, JPEG, WebP and BMP, raw files with `rawpy`; the output's extension
is its format. A grey image gets the noise of the green channel, at its level. Of a folder, the i-th
image in the order of file names (i = 0, 1, ...) gets the random seed SEED + i.
`--report[=page.html]` (or .png) shows how the noise on the first image matches that of the first
reference. `--shard=I/N` makes each N-th image of a folder from the I-th on, as the whole would be
made, and leaves out what is finished: docs/scale.md.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nt_jax.data.catalogue.layouts import check_clean
from nt_jax.errors import (
    ArgumentParser,
    InputError,
    quiet_decoders,
    run_command,
    unwind_on_signals,
)
from nt_jax.images import read_photo, to_float
from nt_jax.inference.files import (
    Job,
    is_done,
    make_folders,
    noise_of_photos,
    pair_up,
    plan,
    run_jobs,
)
from nt_jax.inference.shards import WHOLE, check_record, parse_shard, record_of
from nt_jax.paths import exists, expand, is_folder, parse_path, split_names

if TYPE_CHECKING:
    from nt_jax.inference.reference import ReferenceNoise
    from nt_jax.inference.tiles import Tile


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m nt_jax.transfer", description=__doc__.split("\n")[0])
    parser.add_argument("--reference", required=True, help="noisy IMAGE[,IMAGE...]; averaged")
    parser.add_argument("--clean", required=True, type=parse_path, help="image or folder of images")
    parser.add_argument(
        "--output", required=True, type=parse_path, help="image, or a folder's folder"
    )
    parser.add_argument("--model", default="small", help="bundled name, workdir or model folder")
    parser.add_argument("--seed", default=0, type=int, help="of the first image, 0 to 2**32 - 1")
    parser.add_argument("--strength", default=1.0, type=float, help="factor of the noise")
    parser.add_argument(
        "--calibrate",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="scale the noise to the level that is read; by default where a model can read",
    )
    parser.add_argument("--tile", default=512, type=int, help="pixels a side worked on at a time")
    parser.add_argument(
        "--skip_broken", action="store_true", help="go on without a folder's broken images"
    )
    parser.add_argument(
        "--shard", type=parse_shard, help="I/N: a part of the folder, without what is finished"
    )
    parser.add_argument(
        "--report", nargs="?", const="", help="page to write, .html or .png; by default at OUTPUT"
    )
    parser.add_argument(
        "--reference_clean",
        type=parse_path,
        help="clean first reference, for the report",
    )
    return parser


def _report_path(value: str | None, jobs: list[Job], clean: Path, output: Path) -> Path | None:
    """Decides where the report goes; None where none is wanted."""
    if value == "":
        return output / "report.html" if is_folder(clean) else jobs[0].target.with_suffix(".html")
    return expand(value) if value else None


def describe(noise: "ReferenceNoise") -> Iterator[str]:
    """Says in lines what is read off references, and how generated noise is scaled to it."""
    if noise.reading is None:
        return
    level = noise.reading.level
    channels = ", ".join(
        f"{name} {value:.1f}" for name, value in zip(("red", "green", "blue"), level, strict=True)
    )
    yield (
        f"reference: noise of level {noise.reading.total_level:.1f} of 255 ({channels}), "
        f"correlation with the next pixel {noise.reading.lag1:.2f}"
    )
    gains = " ".join(f"{value:.2f}" for value in noise.gain)
    if (noise.gain != 1).any():
        yield f"calibrated: generated noise times {gains}"
    if (noise.ring_gain != 1).any():
        luma, colour = noise.ring_gain.reshape(2, -1)
        yield (
            f"calibrated: luma times {luma[0]:.2f} (coarse) to {luma[-1]:.2f} (fine), colour times "
            f"{colour[0]:.2f} to {colour[-1]:.2f}"
        )
    if noise.out_of_bounds:
        wanted = " ".join(f"{value:.2f}" for value in noise.wanted)
        yield (
            f"warning: that level asks for factors of {wanted}, out of bounds: the model hardly "
            "knows such noise"
        )
    if noise.spectrum_out_of_bounds:
        yield (
            "warning: the spectrum asks for factors out of bounds: the noise will be finer or "
            "coarser than the photo's"
        )


@quiet_decoders()
def main(argv: list[str] | None = None) -> None:
    """Runs the command.

    Raises:
      InputError: a wrong flag, model or image.
    """
    args = _parser().parse_args(argv)
    unwind_on_signals()
    names = split_names(args.reference, lambda name: exists(expand(name)))
    if not names:
        raise InputError("--reference is empty; name a noisy image")
    references = [expand(name) for name in names]
    if is_folder(args.clean):
        check_clean(args.clean)
    if args.shard and (not is_folder(args.clean) or args.report is not None):
        raise InputError("--shard is for a folder of clean images, without --report")
    pairs = pair_up(args.clean, args.output)
    kept = [*references, *([args.reference_clean] if args.reference_clean else [])]
    jobs = plan(pairs, kept, args.seed, args.skip_broken, args.shard or WHOLE)
    photos = [read_photo(path) for path in references]
    report = _report_path(args.report, jobs, args.clean, args.output)
    if report:
        from nt_jax.evaluation.comparison import check_report, write_report

        taken = [*kept, *(path for pair in pairs for path in pair)]
        check_report(report, references[0], args.reference_clean, taken)
    elif args.reference_clean:
        raise InputError("--reference_clean is for the report: give --report=FILE.html too")

    from nt_jax.compilation import use_compilation_cache
    from nt_jax.inference.checks import check_options
    from nt_jax.inference.loading import load_noisetransfer

    check_options(args.seed, args.strength, len(pairs))
    use_compilation_cache()
    model = load_noisetransfer(args.model)
    tiles = {job: len(model.windows(*job.size, args.tile)) for job in jobs}
    noise = noise_of_photos(model, photos, args.calibrate)
    photos.clear()
    for line in describe(noise):
        print(line)
    if args.shard:
        images = [image.relative_to(args.clean) for image, _ in pairs]
        flags = {"seed": args.seed, "strength": args.strength, "calibrate": args.calibrate}
        check_record(args.output, record_of(images, references, model.metadata, flags))
        jobs = [job for job in jobs if not is_done(job)]
        done = len(tiles) - len(jobs)
        print(f"shard: {len(tiles)} of {len(pairs)} images, {done} of them finished already")
    make_folders([job.target for job in jobs] + ([report] if report else []), args.output)
    options = {"strength": args.strength, "tile": args.tile} | noise.gains
    levels: dict[Job, float] = {}

    def work(job: Job, pixels: np.ndarray) -> Iterator["Tile"]:
        squares, count = 0.0, 0
        for tile in model.transfer_tiles(pixels, noise.embedding, seed=job.seed, **options):
            put_on = tile.pixels - to_float(pixels[tile.rows, tile.columns])
            squares += float(np.square(put_on, dtype=np.float64).sum())
            count += put_on.size
            yield tile
        levels[job] = 255 * math.sqrt(squares / count)

    run_jobs(
        jobs,
        work,
        total=sum(tiles[job] for job in jobs),
        note=lambda job: f"  seed {job.seed}  noise of level {levels[job]:.1f}",
    )
    if report:
        first = jobs[0]
        write_report(report, references[0], args.reference_clean, first.source, first.target)
        print(f"report: {report}")


if __name__ == "__main__":
    run_command(main)

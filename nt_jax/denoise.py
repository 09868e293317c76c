"""Removes the noise of photos, files to files.

  python -m nt_jax.denoise --input=noisy.jpg --output=clean.png
  python -m nt_jax.denoise --input=photos --output=clean_photos --denoiser=runs/denoiser

PNG and TIFF with 8 or 16 bits, JPEG, WebP and BMP, raw files with `rawpy`; the output's extension
is its format, and a folder's images keep their names. Any size, in tiles;
`nt_jax/inference/denoiser.py` tells what that means.
"""

from nt_jax.errors import ArgumentParser, quiet_decoders, run_command, unwind_on_signals
from nt_jax.inference.files import make_folders, pair_up, plan, run_jobs
from nt_jax.paths import parse_path


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m nt_jax.denoise", description=__doc__.split("\n")[0])
    parser.add_argument("--input", required=True, type=parse_path, help="image or folder of images")
    parser.add_argument(
        "--output", required=True, type=parse_path, help="image, or a folder's folder"
    )
    parser.add_argument(
        "--denoiser", default="small-denoiser", help="bundled name, workdir or model folder"
    )
    parser.add_argument(
        "--ensemble", action="store_true", help="average all eight orientations: better, 8x slower"
    )
    parser.add_argument(
        "--strength",
        default=1.0,
        type=float,
        help="factor on the level of the noise that is read off a photo, 1/4 to 4",
    )
    parser.add_argument(
        "--tile", type=int, help="pixels a side worked on at a time; 512 or more by default"
    )
    parser.add_argument(
        "--skip_broken", action="store_true", help="go on without a folder's broken images"
    )
    return parser


@quiet_decoders()
def main(argv: list[str] | None = None) -> None:
    """Runs the command.

    Raises:
      InputError: a wrong flag, denoiser or image.
    """
    args = _parser().parse_args(argv)
    unwind_on_signals()
    jobs = plan(pair_up(args.input, args.output), skip_broken=args.skip_broken)

    from nt_jax.compilation import use_compilation_cache
    from nt_jax.inference.loading import load_denoiser

    use_compilation_cache()
    denoiser = load_denoiser(args.denoiser)
    denoiser.check_strength(args.strength)
    tiles = sum(len(denoiser.windows(*job.size, args.tile)) for job in jobs)
    make_folders([job.target for job in jobs], args.output)
    run_jobs(
        jobs,
        lambda _, pixels: denoiser.denoise_tiles(
            pixels, tile=args.tile, ensemble=args.ensemble, strength=args.strength
        ),
        total=tiles,
    )


if __name__ == "__main__":
    run_command(main)

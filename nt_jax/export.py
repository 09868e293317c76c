"""Writes a model or denoiser as a file that other programs run.

  python -m nt_jax.export --format=onnx --model=small --output=generator.onnx [--size=512]
  python -m nt_jax.export --format=onnx --denoiser=runs/denoiser --output=denoiser.onnx
  python -m nt_jax.export --format=dtmodel --denoiser=runs/denoiser --output=ID.dtmodel
  python -m nt_jax.export --format=safetensors --denoiser=runs/dncnn --output=dncnn.safetensors

`--model` writes the generator, its random maps being inputs, and beside it the embedding network,
`NAME_embed.EXT`. A denoiser that reads each photo's noise is written for the noise of some photos,
`--noisy=PHOTOS`, else blind, or `--with_reader` in a file beside it, `NAME_read.EXT`. `stablehlo`
runs in JAX and XLA, `onnx` in onnxruntime and others, `dtmodel` in darktable, `safetensors` (of a
DnCNN) in what loads models with spandrel. Sizes, layouts and names: `nt_jax/inference/export.py`
and docs/export.md.
"""

from argparse import ArgumentTypeError, Namespace
from typing import TYPE_CHECKING

from nt_jax.errors import ArgumentParser, InputError, run_command, unwind_on_signals
from nt_jax.paths import is_folder, parse_path

if TYPE_CHECKING:
    from nt_jax.inference.denoiser import Denoiser

_FORMATS = ("onnx", "stablehlo", "dtmodel", "safetensors")


def _size(text: str) -> tuple[int, int]:
    """Reads N or HxW as (height, width); argparse tells what is wrong."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise ArgumentTypeError(f"expected N or HxW, such as 512 or 480x640; got {text!r}")
    return int(sides[0]), int(sides[-1])


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m nt_jax.export", description=__doc__.split("\n")[0])
    parser.add_argument("--format", required=True, choices=_FORMATS, help="of the file")
    parser.add_argument("--model", help="bundled name, workdir or model folder, or")
    parser.add_argument("--denoiser", help="bundled name, workdir or folder of a denoiser")
    parser.add_argument(
        "--noisy",
        type=parse_path,
        help="photo or folder whose noise the denoiser's file is for",
    )
    parser.add_argument(
        "--strength", type=float, default=1.0, help="factor on the level that is read off --noisy"
    )
    parser.add_argument(
        "--with_reader",
        action="store_true",
        help="write the denoiser's reader too, NAME_read.EXT; onnx and stablehlo",
    )
    parser.add_argument("--output", required=True, type=parse_path, help="file to write")
    parser.add_argument("--size", type=_size, help="N or HxW pixels, static; by default any size")
    parser.add_argument("--author", default="nt_jax", help="of the weights, for a dtmodel's card")
    parser.add_argument("--license", default="Apache-2.0", help="of the weights, likewise")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Runs the command.

    Raises:
      InputError: a wrong flag, model or output.
    """
    args = _parser().parse_args(argv)
    unwind_on_signals()
    if (args.model is None) == (args.denoiser is None):
        raise InputError("give either --model or --denoiser")
    if not is_folder(args.output.parent):
        raise InputError(f"{args.output.parent}: no such folder; make it, or choose another output")
    if is_folder(args.output):
        raise InputError(f"{args.output} is a folder; name a file")
    if args.format == "dtmodel" and (args.model or args.size):
        raise InputError(
            "--format=dtmodel takes a --denoiser, and no --size: darktable's is 768x768"
        )
    if args.format == "safetensors" and (args.model or args.size):
        raise InputError("--format=safetensors takes a --denoiser, and no --size: it runs on any")
    if args.model and (args.noisy or args.with_reader):
        raise InputError("--noisy and --with_reader go with a --denoiser")
    if args.with_reader and (args.noisy or args.format not in ("onnx", "stablehlo")):
        raise InputError("--with_reader goes with --format=onnx or stablehlo, and without --noisy")
    if args.strength != 1 and not args.noisy:
        raise InputError("--strength goes with --noisy")

    from nt_jax.inference import darktable, spandrel
    from nt_jax.inference.export import export_denoiser, export_generator
    from nt_jax.inference.loading import load

    if args.format == "dtmodel":
        darktable.check_target(args.output)
        denoiser = _load_denoiser(args)
        notes = darktable.write_dtmodel(
            denoiser, args.output, author=args.author, license=args.license
        )
        for note in notes:
            print(f"warning: {note}")
        written = [args.output]
    elif args.format == "safetensors":
        spandrel.check_target(args.output)
        spandrel.write_safetensors(_load_denoiser(args), args.output)
        written = [args.output]
    elif args.denoiser:
        denoiser = _load_denoiser(args)
        written = export_denoiser(
            denoiser, args.output, args.format, args.size, with_reader=args.with_reader
        )
    else:
        written = export_generator(load(args.model), args.output, args.format, args.size)
    for path in written:
        print(f"wrote {path}, {path.stat().st_size / 1e6:.1f} MB")


def _load_denoiser(args: Namespace) -> "Denoiser":
    """Loads it; where it reads noise, says what becomes of that, and reads `--noisy`."""
    from nt_jax.inference.loading import load_denoiser

    denoiser = load_denoiser(args.denoiser)
    if args.noisy:
        return _knowing(denoiser, args)
    if denoiser.reader and not args.with_reader:
        told = "is blind" if denoiser.condition is None else "knows that of the photos adapted to"
        print(
            f"note: this denoiser reads each photo's noise; the file has no reader and {told};"
            " --noisy=PHOTOS makes it for the noise of those"
        )
    return denoiser


def _knowing(denoiser: "Denoiser", args: Namespace) -> "Denoiser":
    from nt_jax.adaptation.inputs import find_noisy
    from nt_jax.files import progress
    from nt_jax.images import read_photo

    denoiser.check_strength(args.strength)
    photos = find_noisy(args.noisy, args.output)
    shown = progress(photos, len(photos), "photo")
    return denoiser.knowing((read_photo(path).pixels for _, path in shown), args.strength)


if __name__ == "__main__":
    run_command(main)

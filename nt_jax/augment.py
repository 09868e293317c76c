"""Makes training pairs from clean images: the noise of your camera, in others' folder layouts.

  python -m nt_jax.augment --noisy=noisy_photos --save_bank=camera.npz
  python -m nt_jax.augment --bank=camera.npz --clean=photos --output=pairs --layout=basicsr

`basicsr` (BasicSR, NAFNet, Restormer) writes `input_crops` and `target_crops`, `kair` writes `L`
and `H`; both as 8-bit RGB PNG with equal names, `--count` pairs of each image. The p-th pair has
the seed SEED + p, and `augment.json` says what each was made of. Started again with the same flags
it goes on where it ended. In Python: `nt_jax.NoiseBank`.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nt_jax.data.catalogue.layouts import check_clean
from nt_jax.errors import (
    ArgumentParser,
    InputError,
    quiet_decoders,
    run_command,
    unwind_on_signals,
)
from nt_jax.files import progress, replacing
from nt_jax.images import Photo, read_photo, read_rgb, write_photo
from nt_jax.inference.files import images_to_work_on, make_folders
from nt_jax.inference.noise_bank import NoiseBank
from nt_jax.paths import exists, is_folder, parse_path

__all__ = ["LAYOUTS", "NoiseBank", "make_pairs"]

# Names of the folders of noisy and of clean images.
LAYOUTS = {"basicsr": ("input_crops", "target_crops"), "kair": ("L", "H")}
_RECORD = "augment.json"


class _Pair(NamedTuple):
    """One pair to make: the clean image's name, that of the pair's files, and its seed."""

    clean: Path
    name: str
    seed: int


def make_pairs(
    bank: NoiseBank, clean: Path, output: Path, layout: str, count: int = 1, seed: int = 0
) -> int:
    """Writes `count` noisy versions of every image in a folder, each beside a copy of the image.

    Wrong input is told before anything is written. Files appear whole or not at all, and pairs
    that are there already are not made again. Prints a line about what of the folder is left out.

    Args:
      bank: of the noise.
      clean: folder of images, in any format that `transfer` reads, and the folders below it.
      output: folder to write, empty or of an earlier start of the same.
      layout: a key of `LAYOUTS`.
      count: pairs of each image, 1 or more.
      seed: of the first pair.

    Returns:
      How many pairs were written now.

    Raises:
      InputError: an argument is none of the above, or an image is broken.
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout: expected {' or '.join(LAYOUTS)}; got {layout!r}")
    pairs = _plan(clean, output, count, seed)
    record = _record(bank, pairs, {"layout": layout, "count": count, "seed": seed})
    _check_output(output, record)
    for name in dict.fromkeys(pair.clean for pair in pairs):
        read_photo(clean / name)
    folders = noisy, target = [output / name for name in LAYOUTS[layout]]
    make_folders([folder / pairs[0].name for folder in folders], output)
    with replacing(output / _RECORD) as temporary:
        temporary.write_text(json.dumps(record, indent=1))
    missing = [p for p in pairs if not all((folder / p.name).exists() for folder in folders)]
    for _, pair in progress(missing, len(missing), "pair"):
        pixels = read_rgb(clean / pair.clean)
        made = bank(pixels, pair.seed)
        try:
            write_photo(target / pair.name, Photo(pixels))
            write_photo(noisy / pair.name, Photo(made))
        except BaseException:  # half a pair would shift all that follow where folders are zipped
            for folder in folders:
                (folder / pair.name).unlink(missing_ok=True)
            raise
    return len(missing)


def _plan(clean: Path, output: Path, count: int, seed: int) -> list[_Pair]:
    if count < 1:
        raise InputError(f"count: expected 1 or more; got {count}")
    if exists(output) and not is_folder(output):
        raise InputError(f"{output} is a file; name an output folder")
    if output.resolve() == clean.resolve():
        raise InputError(f"{output} holds the clean images; choose another output")
    check_clean(clean)
    images = images_to_work_on(clean, output)
    if not 0 <= seed <= 2**32 - len(images) * count:
        raise InputError(
            f"seed: expected 0 to 2**32 - {len(images) * count} for that many pairs; got {seed}"
        )
    pairs: list[_Pair] = []
    taken: dict[str, Path] = {}
    digits = len(str(count - 1))
    for image in images:
        # Flat, as the trainers pair by the file's name alone.
        stem = "_".join(image.with_suffix("").parts)
        if taken.setdefault(stem, image) != image:
            raise InputError(
                f"{clean / image} and {clean / taken[stem]} would both become {stem}; rename one"
            )
        for version in range(count):
            name = f"{stem}_{version:0{digits}}.png" if count > 1 else f"{stem}.png"
            pairs.append(_Pair(image, name, seed + len(pairs)))
    names = [pair.name for pair in pairs]
    if len(set(names)) < len(names):  # such as a.png twice beside a_0.png
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"two pairs would be called {twice}; rename one of the clean images")
    return pairs


def _record(bank: NoiseBank, pairs: Sequence[_Pair], options: dict[str, Any]) -> dict[str, Any]:
    """Records what the pairs are made of, for the reader and to know an earlier start again."""
    digest = hashlib.sha256()
    for array in (bank.embeddings, bank.gains, bank.ring_gains, bank.weights):
        digest.update(array.tobytes())
    made = {
        pair.name: {
            "clean": pair.clean.as_posix(),
            "reference": bank.names[bank.draw(pair.seed).reference],
            "seed": pair.seed,
        }
        for pair in pairs
    }
    return options | {"model": bank.model, "bank": digest.hexdigest(), "pairs": made}


def _check_output(output: Path, record: dict[str, Any]) -> None:
    """Raises InputError where the folder holds anything but an earlier start of the same."""
    path = output / _RECORD
    if exists(path):
        try:
            before = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read ({error}); choose another output") from error
        if before != record:
            raise InputError(
                f"{output} holds pairs of another bank, seed, count or clean images; choose "
                "another output, or the same flags to go on"
            )
    elif is_folder(output) and any(output.iterdir()):
        raise InputError(f"{output} is not empty; choose another output")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m nt_jax.augment", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--bank", type=parse_path, help="camera file (.npz) to take the noise from, or"
    )
    parser.add_argument("--noisy", type=parse_path, help="folder of noisy photos to take it from")
    parser.add_argument("--model", help="bundled name, workdir or model folder; by default small")
    parser.add_argument("--save_bank", type=parse_path, help="camera file to write, with --noisy")
    parser.add_argument("--clean", type=parse_path, help="folder of clean images")
    parser.add_argument("--output", type=parse_path, help="folder of the pairs")
    parser.add_argument("--layout", choices=LAYOUTS, help="whose folders to write")
    parser.add_argument("--count", default=1, type=int, help="pairs of each clean image")
    parser.add_argument("--seed", default=0, type=int, help="of the first pair, 0 to 2**32 - 1")
    return parser


@quiet_decoders()
def main(argv: list[str] | None = None) -> None:
    """Runs the command.

    Raises:
      InputError: a wrong flag, model, camera file or image.
    """
    args = _parser().parse_args(argv)
    unwind_on_signals()
    if (args.bank is None) == (args.noisy is None):
        raise InputError("give either --bank=FILE.npz or --noisy=DIR")
    if args.bank and args.save_bank:
        raise InputError("--save_bank goes with --noisy: there is a camera file already")
    wanted = {"clean": args.clean, "output": args.output, "layout": args.layout}
    given = [name for name, value in wanted.items() if value is not None]
    if len(given) < 3 and (given or not args.save_bank):
        lacking = ", ".join(f"--{name}" for name in wanted if name not in given)
        raise InputError(f"give {lacking} too; see --help")

    if given:  # before the photos are embedded, which takes a while
        check_clean(args.clean)

    from nt_jax.compilation import use_compilation_cache

    use_compilation_cache()
    if args.bank:
        bank = NoiseBank.load(args.bank, args.model)
    else:
        bank = NoiseBank.from_photos(args.noisy, args.model or "small")
    if given:
        written = make_pairs(bank, args.clean, args.output, args.layout, args.count, args.seed)
        print(f"{written} pairs written to {args.output}")
    if args.save_bank:
        print(f"camera file: {bank.save(args.save_bank)}, noise of {len(bank)} photos")


if __name__ == "__main__":
    run_command(main)

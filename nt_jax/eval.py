"""Scores a generator, a denoiser or embeddings: a table, results.json and figures in a folder.

  python -m nt_jax.eval generation --model=runs/small --pairs=PAIRS --output=scores
  python -m nt_jax.eval generation --clean=A --noisy=B --generated=C --output=scores
  python -m nt_jax.eval generation --method=mine:add_noise --pairs=PAIRS --output=scores --baselines
  python -m nt_jax.eval denoising --denoiser=runs/ridnet --pairs=PAIRS --output=scores
  python -m nt_jax.eval denoising --denoiser=runs/ridnet --clean=PHOTOS --noise=gaussian --output=A
  python -m nt_jax.eval embedding --model=runs/small --pairs=PAIRS --output=scores
  python -m nt_jax.eval noise --model=runs/small --images=PHOTOS --output=scores

The second scores any program's outputs: three folders with equal names; the third, a function
(clean, reference, key) -> noisy. `--reference=self` shows the scored noisy image itself, as
published tables do; `other`, another of its group.
"""

import argparse

from nt_jax.errors import (
    ArgumentParser,
    InputError,
    parse_seed,
    quiet_decoders,
    run_command,
    unwind_on_signals,
)
from nt_jax.paths import parse_path

# Flags of synthetic noise: the default, the part of the noise that it is of, and its scale.
_LEVELS = {
    "sigma": ("25", "gaussian", "0 to 255 scale"),
    "lam": ("30", "poisson", "photons at white"),
}


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m nt_jax.eval", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    generation = commands.add_parser("generation", help="AKLD, KS, spatial structure, C2ST")
    generation.add_argument("--reference", choices=("self", "other"), help="self by default")
    generation.add_argument("--noisy", type=parse_path, help="folder of real noisy images")
    generation.add_argument(
        "--generated", type=parse_path, help="folder of another program's outputs"
    )
    generation.add_argument("--method", action="append", default=[], help="MODULE:FUNCTION, a row")
    generation.add_argument("--baselines", action="store_true", help="rows of simple noises too")
    denoising = commands.add_parser("denoising", help="PSNR and SSIM")
    denoising.add_argument("--denoiser", default="small-denoiser", help="bundled name or folder")
    denoising.add_argument("--ensemble", action="store_true", help="average all eight orientations")
    denoising.add_argument("--strength", default=1.0, type=float, help="as of denoise, 1/4 to 4")
    denoising.add_argument("--noise", help="gaussian, poisson or poisson_gaussian, on --clean")
    for name, (default, _, scale) in _LEVELS.items():
        about = f"{scale}, NUMBER or LOW:HIGH; {default} by default"
        denoising.add_argument(f"--{name}", help=about)
    embedding = commands.add_parser("embedding", help="retrieval, noise level, PCA and t-SNE")
    noise = commands.add_parser("noise", help="what a model reads off photos, next to the truth")
    noise.add_argument("--images", type=parse_path, help="folder of noisy photos")
    for command in (generation, embedding, noise):
        command.add_argument("--model", help="bundled name, workdir or model folder")
    for command in (generation, denoising):
        command.add_argument("--clean", type=parse_path, help="folder of clean images")
    runs = {generation: _generation, denoising: _denoising, embedding: _embedding, noise: _noise}
    for command, run in runs.items():
        command.set_defaults(run=run)
        command.add_argument("--pairs", type=parse_path, help="folder of clean/noisy pairs")
        command.add_argument(
            "--output", required=True, type=parse_path, help="folder for the results"
        )
        if command is not noise:  # where nothing is random
            command.add_argument("--seed", default=0, type=parse_seed, help="of all that is random")
        command.add_argument("--skip_broken", action="store_true", help="pass over unusable images")
    denoising.set_defaults(seed=None)  # only with --noise anything is random
    return parser


@quiet_decoders()
def main(argv: list[str] | None = None) -> None:
    """Runs the command; raises InputError for a wrong flag, model or image."""
    args = _parser().parse_args(argv)
    unwind_on_signals()
    from nt_jax.compilation import use_compilation_cache
    from nt_jax.devices import check_devices

    use_compilation_cache()
    check_devices()
    print(f"{args.run(args)}\nresults: {args.output}")


def _generation(args: argparse.Namespace) -> str:
    try:
        from nt_jax.evaluation import generation
    except ModuleNotFoundError as error:  # optax trains the classifier test
        raise InputError(f"{error.name} is not installed: pip install 'nt_jax[train]'") from error
    folders = (args.clean, args.noisy, args.generated)
    shared = (args.output, args.seed, args.skip_broken)
    generator = args.model or args.method
    if generator and args.pairs and not any(folders):
        asked = (args.model, args.pairs, args.reference or "self")
        return generation.run_pairs(*asked, *shared, args.method, args.baselines)
    if all(folders) and not (generator or args.pairs or args.reference):
        return generation.run_folders(*folders, *shared, args.baselines)
    raise InputError("give --model or --method, and --pairs; or --clean, --noisy and --generated")


def _denoising(args: argparse.Namespace) -> str:
    from nt_jax.evaluation import denoising

    shared = (args.output, args.seed or 0, args.skip_broken, args.ensemble, args.strength)
    levels = {}
    for name, (default, part, _) in _LEVELS.items():
        given = getattr(args, name)
        if given is not None and part not in (args.noise or "").split("_"):
            raise InputError(f"--{name}={given} is of {part} noise; give --noise={part}")
        levels[name] = default if given is None else given
    if args.pairs and not (args.clean or args.noise):
        if args.seed is not None:
            raise InputError(f"--seed={args.seed} is of --noise; with --pairs nothing is random")
        return denoising.run(args.denoiser, args.pairs, None, *shared)
    if args.clean and args.noise and not args.pairs:
        noise = denoising.make_noise(args.noise, **levels)
        return denoising.run(args.denoiser, args.clean, noise, *shared)
    raise InputError("give --pairs, or --clean and --noise=gaussian|poisson|poisson_gaussian")


def _embedding(args: argparse.Namespace) -> str:
    from nt_jax.evaluation import embedding

    if not (args.model and args.pairs):
        raise InputError("give --model and --pairs")
    return embedding.run(args.model, args.pairs, args.output, args.seed, args.skip_broken)


def _noise(args: argparse.Namespace) -> str:
    from nt_jax.evaluation import noise

    if not args.model or bool(args.images) == bool(args.pairs):
        raise InputError("give --model, and --images or --pairs")
    return noise.run(args.model, args.images, args.pairs, args.output, args.skip_broken)


if __name__ == "__main__":
    run_command(main)

"""Makes a denoiser for one camera from its noisy photos, without a clean one of them.

  python -m nt_jax.adapt --noisy=photos --output=my_denoiser
  python -m nt_jax.adapt --noisy=photos --clean=sharp_photos --pairs=few_pairs --output=my_denoiser
  python -m nt_jax.denoise --denoiser=my_denoiser --input=photos --output=denoised

Reads the noise of the photos and says what it is like; puts it on the same photos as the bundled
denoiser leaves them, and on clean photographs where there are some; trains that denoiser further on
these, and on true pairs where there are some; stops by itself when held-out patches gain no more,
or when the time is over. The output is a denoiser's folder, with a report: half way from the
bundled denoiser to the trained one, or with true pairs the trained one. The same command resumes.
"""

import json
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nt_jax.adaptation.inputs import SIDE, check_places, check_sizes, find_noisy
from nt_jax.data.catalogue import sources
from nt_jax.errors import ArgumentParser, InputError, quiet_decoders, run_command, unwind_on_signals
from nt_jax.files import replacing
from nt_jax.images import WRITABLE
from nt_jax.paths import exists, is_file, is_folder, parse_path

_ASKED, _START, _PAIRS, _RUN, _REPORT = "adapt.json", "start", "pairs", "run", "report.html"
_BESIDE = (_ASKED, _START, _PAIRS, _RUN, _REPORT, "report.png")
# For each minute asked for: what two CPU cores do, a fifth of the time for the pairs.
_PAIRS_A_MINUTE, _STEPS_A_MINUTE = 8, 50
_FEWEST_PAIRS, _FEWEST_STEPS = 16, 20


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m nt_jax.adapt", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--noisy", required=True, type=parse_path, help="noisy photos, or one of them"
    )
    parser.add_argument("--clean", type=parse_path, help="clean photographs, of any camera")
    parser.add_argument(
        "--pairs", type=parse_path, help="true pairs of this camera, if there are any"
    )
    parser.add_argument("--output", required=True, type=parse_path, help="folder for the denoiser")
    parser.add_argument("--minutes", default=20.0, type=float, help="time to take, about")
    parser.add_argument("--model", default="small", help="what makes the noise: name or folder")
    parser.add_argument(
        "--denoiser", default="small-denoiser", help="what to begin with: name or folder"
    )
    parser.add_argument("--seed", default=0, type=int, help="of everything random")
    return parser


def _is_done(output: Path, asked: dict[str, Any]) -> bool:
    """Tells whether an earlier start of the same has come to its end.

    Raises:
      InputError: something else lies there.
    """
    record = output / _ASKED
    if is_file(record):
        # Older records do not name the photos.
        try:
            before = {"photos": asked["photos"], **json.loads(record.read_text())}
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{record} is damaged ({error}); choose another output") from error
        done = before.pop("done", False)
        if before != asked:
            changed = [name for name in asked if before.get(name) != asked[name]]
            what = f"another --{changed[0]} ({before.get(changed[0])})"
            if changed == ["photos"]:
                what = "other photos in --noisy"
            raise InputError(
                f"{output} was begun with {what}: set it back to resume, or choose another output"
            )
        return done
    if exists(output) and (not is_folder(output) or any(output.iterdir())):
        raise InputError(f"{output} exists and is no denoiser of this command; choose another")
    return False


def steps_for(minutes: float) -> int:
    """Turns minutes into a number of training steps."""
    return max(_FEWEST_STEPS, round(_STEPS_A_MINUTE * minutes))


def _note(output: Path, asked: dict[str, Any]) -> None:
    from nt_jax.inference.files import make_folders

    make_folders([output / _ASKED], output)
    with replacing(output / _ASKED) as temporary:
        temporary.write_text(json.dumps(asked, indent=2) + "\n")


def use_of(output: Path, noisy: Path) -> str:
    """Writes the command that denoises the noisy photos, or the one, for a shell."""
    name = f"{output.resolve().name}-denoised"
    if not is_folder(noisy):  # a file; raw files are not written
        name += noisy.suffix if noisy.suffix.lower() in WRITABLE else ".tif"
    flags = {"denoiser": output, "input": noisy, "output": name}
    given = [f"--{flag}={value}" for flag, value in flags.items()]
    return shlex.join(["python", "-m", "nt_jax.denoise", *given])


@quiet_decoders()
def main(argv: list[str] | None = None) -> None:
    """Runs the command.

    Raises:
      InputError: a wrong flag, model, denoiser or image.
      PreemptedError: SIGTERM or SIGINT came while training; the same command resumes.
    """
    args = _parser().parse_args(argv)
    unwind_on_signals()
    if not 0 < args.minutes < 1e5:
        raise InputError(f"--minutes={args.minutes:g}: needs more than 0")
    if not 0 <= args.seed < 2**31:
        raise InputError(f"--seed={args.seed}: needs 0 or more, below 2^31")
    others = {name: getattr(args, name) for name in ("clean", "pairs") if getattr(args, name)}
    check_places(args.output, args.noisy, others)
    noisy = find_noisy(args.noisy, args.output)
    asked: dict[str, Any] = {
        name: str(value) for name, value in vars(args).items() if name != "output"
    }
    asked["photos"] = {str(path): path.stat().st_size for path in noisy}
    if _is_done(args.output, asked):
        print(f"{args.output} is done already: {args.output / _REPORT}")
        return
    deadline = time.monotonic() + 60 * args.minutes

    clean = sources.find_photos(args.clean) if args.clean else []
    check_sizes([*noisy, *clean], SIDE)
    pairs = sources.find_pairs(args.pairs) if args.pairs else []
    true = [image for pair in pairs for image in (pair.clean, pair.noisy)]
    try:
        from nt_jax.adaptation import finetune
    except ImportError as error:
        raise InputError(
            f"{error.name} is missing: pip install 'nt_jax[train]', as for any training"
        ) from error
    from nt_jax.adaptation.pairs import make_pairs
    from nt_jax.adaptation.report import write_report
    from nt_jax.adaptation.survey import describe, survey
    from nt_jax.checkpointing import save_model
    from nt_jax.compilation import use_compilation_cache
    from nt_jax.devices import check_devices
    from nt_jax.files import progress
    from nt_jax.inference.denoiser import LINEAGE, READER
    from nt_jax.inference.loading import load_denoiser, load_noisetransfer
    from nt_jax.inference.workdir import load_workdir

    use_compilation_cache()
    check_devices()
    kept, folder, run = (args.output / name for name in (_START, _PAIRS, _RUN))
    # A run that --denoiser names may have gone on since the first start.
    model = load_noisetransfer(args.model)
    start = load_denoiser(kept if is_folder(kept) else args.denoiser)
    if not model.can_read:
        raise InputError(f"--model={args.model} cannot read noise off a photo; choose another")
    true_pairs = str(args.pairs) if args.pairs else ""
    config = finetune.recipe(str(kept), start, folder, true_pairs, steps_for(args.minutes))
    config.seed = args.seed
    check_sizes(true, config.data.patch_size)
    # Before anything is written: a photo may be broken.
    found = [survey(model, start, path) for _, path in progress(noisy, len(noisy), "photo")]
    lines = describe(found)
    print(*lines, sep="\n", flush=True)
    _note(args.output, asked)
    if not is_folder(kept):
        # Training would go on from a run's weights, not from their average, which was loaded.
        save_model(kept, dict(start.metadata), start.variables)

    count = max(_FEWEST_PAIRS, round(_PAIRS_A_MINUTE * args.minutes))
    made = make_pairs(model, start, found, clean, folder, count, args.seed)
    for _ in progress(range(count), count, "pair"):
        next(made)
    steps = finetune.finetune(config, run, deadline)

    metadata, variables = load_workdir(run)
    after = replace(start, params=variables["denoiser"])
    if not pairs:
        # Photos show a part of the camera's noise, with one photo a single level of it.
        after = finetune.half_way(start, after.params)
    scores = finetune.score(start, after, folder)
    said = [
        f"on held-out patches, denoised photos with that noise: noisy {scores.noisy:.2f} dB,"
        f" denoised {scores.before:.2f} before and {scores.after:.2f} dB after {steps}"
        " steps; look at the report before you rely on it"
    ]
    if scores.after <= scores.before:
        said.append("training gained nothing, so this is the denoiser it began with")
        metadata, after = dict(start.metadata), start
    base = {name: start.metadata[name] for name in LINEAGE if name in start.metadata}
    adapted = {
        "photos": len(found),
        "steps": steps,
        "held_out_psnr": scores._asdict(),
        "base": {"name": args.denoiser} | base,
    }
    conditions = [photo.condition for photo in found if photo.condition is not None]
    if conditions:
        # For programs that read no noise: see `Denoiser.condition`.
        adapted["condition"] = np.mean(conditions, axis=0).tolist()
    metadata |= {"adapted": adapted}
    if start.reader is not None:
        metadata[READER] = start.metadata[READER]
    save_model(args.output, metadata, after.variables, beside=_BESIDE)
    command = use_of(args.output, args.noisy)
    write_report(args.output / _REPORT, found, lines, said, model, start, after, command)
    _note(args.output, asked | {"done": True})
    print(*said, f"report: {args.output / _REPORT}", f"to use it: {command}", sep="\n")
    sys.stdout.flush()


if __name__ == "__main__":
    run_command(main)

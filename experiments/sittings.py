"""Trains for some minutes and packs the run into small files, to go on elsewhere another time.

python -m experiments.sittings --parts=PARTS --minutes=25 -- \
  --config=configs/noisetransfer.py:base --workdir=runs/base --config.data.photos=CLEAN_PHOTOS \
  --config.data.pairs=SIDD_SMALL_256/train=3,SIDD_FULLRES=1,POLYU/train=1

What follows `--` goes to `python -m nt_jax.main`. For machines that are lent for less time than a
run takes and give back small files only. If the workdir is not there it is unpacked from PARTS
first. When the time is over the run saves and stops; its config, metrics and newest checkpoint are
then packed into PARTS as `part-0000`, ..., at most 15 MiB each, with their checksums in
`parts.json`. The same command goes on; it ends with 0 when the run is finished, with 143 when it
was stopped in time, else as the run did. PARTS of a failed run stay as they were.
"""

import argparse
import hashlib
import json
import signal
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from nt_jax.checkpointing import CONFIG_FILE, checkpoint_steps
from nt_jax.errors import EXIT_PREEMPTED, ArgumentParser, InputError, run_command
from nt_jax.files import replacing

_PART_BYTES = 15 * 2**20
_INDEX = "parts.json"
# Of a workdir, beside its newest checkpoint.
_KEPT = (CONFIG_FILE, "metrics.jsonl", "data.json", "summary.json")


def pack(workdir: Path, parts: Path) -> list[Path]:
    """Writes what a run needs to go on as files of at most 15 MiB; returns them.

    Raises:
      InputError: the workdir has no checkpoint, or nothing can be written.
    """
    steps = checkpoint_steps(workdir)
    if not steps:
        raise InputError(f"{workdir} has no checkpoint yet; give it more --minutes")
    names = [name for name in _KEPT if (workdir / name).is_file()]
    parts.mkdir(parents=True, exist_ok=True)
    index: dict[str, str] = {}
    with tempfile.TemporaryFile() as archive:
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name in (*names, f"checkpoints/{steps[-1]}"):
                tar.add(workdir / name, name)
        archive.seek(0)
        while content := archive.read(_PART_BYTES):
            # The digest in the name: parts of the sitting before are whole until the index changes.
            digest = hashlib.sha256(content).hexdigest()
            name = f"part-{len(index):04}-{digest[:8]}"
            index[name] = digest
            with replacing(parts / name) as temporary:
                temporary.write_bytes(content)
    with replacing(parts / _INDEX) as temporary:
        temporary.write_text(json.dumps(index, indent=1) + "\n")
    for old in parts.glob("part-*"):
        if old.name not in index:
            old.unlink()
    return [parts / name for name in index]


def unpack(parts: Path, workdir: Path) -> None:
    """Makes the workdir that was packed.

    Raises:
      InputError: a part is missing or damaged, or holds something that is no such workdir.
    """
    try:
        index = json.loads((parts / _INDEX).read_text())
        with tempfile.TemporaryFile() as archive:
            for name, digest in index.items():
                content = (parts / Path(name).name).read_bytes()
                if hashlib.sha256(content).hexdigest() != digest:
                    raise InputError(f"{parts / name} is damaged; copy it again")
                archive.write(content)
            archive.seek(0)
            workdir.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=workdir.parent) as scratch:
                with tarfile.open(fileobj=archive) as tar:
                    tar.extractall(f"{scratch}/run", filter="data")  # nothing outside of it
                Path(f"{scratch}/run").rename(workdir)
    except (OSError, ValueError, tarfile.TarError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{parts} cannot be unpacked: {error}; copy its files again") from error


def train(arguments: list[str], minutes: float) -> int:
    """Runs the training command for at most so long; returns its exit code."""
    process = subprocess.Popen([sys.executable, "-m", "nt_jax.main", *arguments])
    try:
        return process.wait(60 * minutes)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        return process.wait()
    finally:
        process.kill()


def main(argv: list[str] | None = None) -> None:
    """The command.

    Raises:
      InputError: a wrong flag, damaged parts, or nothing to pack.
      SystemExit: the run did not end with 0.
    """
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", required=True, type=Path, help="folder of the packed run")
    parser.add_argument("--minutes", required=True, type=float, help="of training")
    parser.add_argument("arguments", nargs="+", help="of nt_jax.main, after --")
    args = parser.parse_args(argv)
    workdirs = [a.partition("=")[2] for a in args.arguments if a.startswith("--workdir=")]
    if len(workdirs) != 1:
        raise InputError("give --workdir=DIR once, after --")
    if not args.minutes > 0:
        raise InputError(f"--minutes={args.minutes}: needs more than 0")
    workdir = Path(workdirs[0])
    if not workdir.exists() and (args.parts / _INDEX).exists():
        unpack(args.parts, workdir)
    code = train(args.arguments, args.minutes)
    if code not in (0, EXIT_PREEMPTED):
        raise SystemExit(code)
    packed = pack(workdir, args.parts)
    size = sum(part.stat().st_size for part in packed)
    print(f"packed {workdir} into {len(packed)} file(s), {size / 1e6:.1f} MB: {args.parts}")
    raise SystemExit(code)


if __name__ == "__main__":
    run_command(main)

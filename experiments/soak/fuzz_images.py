"""Feeds damaged and hostile image files to `transfer` and `prepare` and looks for faults.

python experiments/soak/fuzz_images.py --files=2000

Each file goes alone through `python -m nt_jax.transfer`'s main, all together, as photographs and
as noisy halves of pairs, through `nt_jax.prepare`'s, and some of them through the commands as
processes of their own. A file must be taken, with its output whole, or refused with one line and
exit code 2 and nothing written. All else is a fault: another exception, a second line, a hang, a
remnant, more than 3 GB of memory. Ends with 1 if there was any.

Files are mutations of small images of all formats: flipped bits, cut ends, wrong headers, extreme
numbers, huge declared sizes, decompression bombs, damaged metadata. A seed gives the same files.
"""

import argparse
import contextlib
import functools
import io
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, TextIO

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

import numpy as np

from experiments.soak.image_bombs import bombs
from experiments.soak.image_mutations import mutations, sound_files
from nt_jax import prng
from nt_jax.errors import InputError

LIMIT_BYTES = 3 * 10**9
LIMIT_S = 120  # for one file
BOMB_LIMIT_S = 1800  # that holds 200 megapixels


class Hang(BaseException):
    """A file took longer than it may."""


def _ring(number: int, frame: FrameType | None) -> None:
    raise Hang


def peak_bytes() -> int:
    """Reads the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@functools.cache
def _stream_of_stderr() -> TextIO:
    """Opens one stream for all commands: a library's log keeps the one it first met."""
    return open(2, "w", buffering=1, closefd=False)


@contextlib.contextmanager
def _all_stderr(said: list[str]) -> Iterator[None]:
    """Appends what is written to stderr meanwhile, by libraries in C too."""
    saved = os.dup(2)
    with tempfile.TemporaryFile("w+") as file:
        os.dup2(file.fileno(), 2)
        try:
            with contextlib.redirect_stderr(_stream_of_stderr()):
                yield
        finally:
            _stream_of_stderr().flush()
            os.dup2(saved, 2)
            os.close(saved)
            file.seek(0)
            said.append(file.read())


class Outcomes:
    """Counts what became of the files, and keeps what went wrong."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.largest = ("nothing", 0.0)
        self.slowest = ("nothing", 0.0)

    def fault(self, name: str, what: str) -> None:
        # Not to where the commands' own lines go.
        print(f"FAULT {name}: {what}", file=sys.__stdout__, flush=True)
        self.faults.append(f"{name}: {what}")

    def run(self, name: str, command: Callable[[], None], limit_s: int = LIMIT_S) -> str:
        """Runs a command; "taken", "refused" or "fault"."""
        before, begun = peak_bytes(), time.monotonic()
        handler = signal.signal(signal.SIGALRM, _ring)
        said: list[str] = []
        outcome = "taken"
        signal.alarm(limit_s)
        try:
            with _all_stderr(said):
                command()
        except InputError as error:
            outcome = "refused"
            if not str(error):
                self.fault(name, "refused without a word")
        except (SystemExit, KeyboardInterrupt):
            raise
        except Hang:
            outcome = "fault"
            self.fault(name, f"takes longer than {limit_s} s")
        except BaseException:
            outcome = "fault"
            self.fault(name, traceback.format_exc())
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, handler)
        if said[0]:
            self.fault(name, f"says besides: {said[0][:500]}")
        self.slowest = max(self.slowest, (name, time.monotonic() - begun), key=lambda pair: pair[1])
        grown = float(peak_bytes())
        if grown > before:
            self.largest = (name, grown)
        if grown > LIMIT_BYTES >= before:
            self.fault(name, f"takes {grown / 1e9:.1f} GB")
        self.counts[outcome] += 1
        return outcome


def tiny_model(folder: Path) -> Path:
    """Writes a model of random weights, as small as can be: the files are what is tried."""

    from nt_jax.checkpointing import save_model
    from nt_jax.models.networks import init_networks, layouts, make_networks
    from nt_jax.models.parameters import unstack

    sizes = {
        "width": 4,
        "embedding_size": 8,
        "blocks": (1, 1, 1),
        "discriminator_blocks": (1, 1, 1),
        "embedding_bound": "tanh",
        "gan_trunk": "block",
    }
    networks = make_networks(SimpleNamespace(**sizes))
    parts = zip(init_networks(prng.key(0), networks), layouts(networks), strict=True)
    generator, key_encoder = (unstack(params, layout) for (params, _), layout in parts)
    variables = {"generator": generator, "key_encoder": key_encoder}
    save_model(folder, {"kind": "noisetransfer", "model": sizes}, variables)
    return folder


def everything(folder: Path) -> set[str]:
    """Lists all there is below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def _without_network(model: Any, clean: np.ndarray, *_: Any, tile: int, **__: Any) -> Iterator[Any]:
    """Replaces `Model.transfer_tiles` for bombs, where the network would take minutes."""
    from nt_jax.inference.tiles import over_tiles

    return over_tiles(clean, model.windows(*clean.shape[:2], tile), lambda inputs, *_: inputs)


def fuzz_transfer(files: list[Path], work: Path, outcomes: Outcomes) -> None:
    """Runs each file alone through transfer's main; the bombs' pixels pass by the network."""
    from nt_jax import transfer
    from nt_jax.images import read_photo
    from nt_jax.inference import loading
    from nt_jax.inference.model import Model

    loading.load = functools.cache(loading.load)  # type: ignore[assignment]
    with_network = Model.transfer_tiles
    output = work / "transferred"
    output.mkdir()
    for path in files:
        target = output / f"{path.stem}.png"
        flags = [f"--model={work / 'model'}", f"--reference={work / 'reference.png'}", "--tile=512"]
        command = functools.partial(
            transfer.main, [*flags, f"--clean={path}", f"--output={target}"]
        )
        bomb = not path.name[0].isdigit()
        limit_s = BOMB_LIMIT_S if bomb else LIMIT_S
        Model.transfer_tiles = _without_network if bomb else with_network  # type: ignore
        with contextlib.redirect_stdout(io.StringIO()):
            outcome = outcomes.run(f"transfer {path.name}", command, limit_s)
        expected = {target.name} if outcome == "taken" else set()
        if everything(output) != expected:
            outcomes.fault(path.name, f"{outcome}, and there is {everything(output)}")
        if outcome == "taken":
            read_photo(target)
        for left in output.iterdir():
            left.unlink()


def fuzz_prepare(files: list[Path], work: Path, outcomes: Outcomes) -> None:
    """Runs all files together through prepare's main: photographs, then noisy halves of pairs."""
    from nt_jax import prepare
    from nt_jax.data.catalogue import prepared

    photos, pairs = work / "photos", work / "pairs"
    photos.mkdir()
    pairs.mkdir()
    sound = sound_files()["rgb.png"]
    for folder, names in ((photos, "ab"), (pairs, ("gt", "noisy"))):
        for name in names:
            (folder / f"sound_{name}.png").write_bytes(sound)
    for path in files:
        (photos / path.name).hardlink_to(path)
        (pairs / f"{path.stem}_noisy{path.suffix}").hardlink_to(path)
        if path.name[0].isdigit():
            (pairs / f"{path.stem}_gt.png").write_bytes(sound)
        else:  # a bomb beside a bomb
            (pairs / f"{path.stem}_gt{path.suffix}").hardlink_to(path)
    for kind, folder in (("photos", photos), ("pairs", pairs)):
        flags = [f"--dataset={kind}", f"--raw_dir={folder}", f"--data_dir={work / 'data'}"]
        for choice in ("fail", "skip"):
            command = functools.partial(prepare.main, [*flags, f"--on_error={choice}"])
            with contextlib.redirect_stdout(io.StringIO()):
                outcome = outcomes.run(f"prepare {kind} {choice}", command, BOMB_LIMIT_S)
            expected = "refused" if choice == "fail" else "taken"
            if outcome != expected:
                outcomes.fault(f"prepare {kind} {choice}", f"{outcome}, not {expected}")
        if outcome != "taken":
            continue
        made = work / "data" / kind
        images = {tile["image"] for tile in prepared.read_index(made)}
        skipped = len((made / "skipped.txt").read_text().splitlines())
        outcomes.counts[f"{kind} prepared"] += len(images)
        outcomes.counts[f"{kind} skipped"] += skipped
        if len(images) + skipped != len(files) + (2 if kind == "photos" else 1):
            outcomes.fault(f"prepare {kind}", f"{len(images)} taken and {skipped} skipped")


def fuzz_processes(files: list[Path], work: Path, outcomes: Outcomes) -> None:
    """Runs each file alone through `python -m nt_jax.transfer`."""
    output = work / "by_process"
    for path in files:
        command = [sys.executable, "-m", "nt_jax.transfer", f"--model={work / 'model'}"]
        command += [f"--reference={work / 'reference.png'}", f"--clean={path}"]
        with (work / "stderr").open("w+") as stderr:
            process = subprocess.Popen(
                [*command, f"--output={output / 'made.png'}"],
                cwd=REPOSITORY,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
            _, status, usage = os.wait4(process.pid, 0)
            stderr.seek(0)
            lines = stderr.read().splitlines()
        code = process.returncode = os.waitstatus_to_exitcode(status)
        taken = (code, lines) == (0, []) and everything(output) == {"made.png"}
        one_line = len(lines) == 1 and lines[0].startswith("error: ")
        refused = code == 2 and one_line and not output.exists()
        if not (taken or refused):
            outcomes.fault(f"process {path.name}", f"{code} {lines[-8:]}")
        memory = path.name, usage.ru_maxrss * 1024.0
        outcomes.largest = max(outcomes.largest, memory, key=lambda pair: pair[1])
        if memory[1] > LIMIT_BYTES:
            outcomes.fault(f"process {path.name}", f"takes {memory[1] / 1e9:.1f} GB")
        outcomes.counts["taken" if taken else "refused" if refused else "fault"] += 1
        shutil.rmtree(output, ignore_errors=True)


Phase = Callable[[list[Path], Path, Outcomes], None]


def _phase(phase: Phase, files: list[Path], work: Path) -> Outcomes:
    outcomes = Outcomes()
    phase(files, work, outcomes)
    return outcomes


def _apart(phase: Phase, files: list[Path], work: Path) -> Outcomes:
    """Runs a phase in a process of its own, as memory counts, and says how it went."""
    begun = time.monotonic()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        outcomes = pool.submit(_phase, phase, files, work).result()
    counts = ", ".join(f"{name} {count}" for name, count in sorted(outcomes.counts.items()))
    print(
        f"{phase.__name__}: {counts}; {len(outcomes.faults)} faults; peak memory"
        f" {outcomes.largest[1] / 1e9:.2f} GB at {outcomes.largest[0]}; slowest"
        f" {outcomes.slowest[0]} {outcomes.slowest[1]:.0f} s; {time.monotonic() - begun:.0f} s",
        flush=True,
    )
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=2000, help="how many mutations")
    parser.add_argument("--processes", type=int, default=20, help="of them as processes too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder to keep the files in")
    parser.add_argument("--only", choices=("prepare", "transfer", "processes"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        folder = args.keep or work / "files"
        folder.mkdir(parents=True)
        for name, data in [*mutations(args.files, args.seed), *bombs().items()]:
            (folder / name).write_bytes(data)
        files = sorted(folder.iterdir())
        (work / "reference.png").write_bytes(sound_files()["rgb.png"])
        tiny_model(work / "model")
        some = random.Random(args.seed).sample(files, min(args.processes, len(files)))
        phases: dict[str, tuple[Phase, list[Path]]] = {
            "prepare": (fuzz_prepare, files),
            "transfer": (fuzz_transfer, files),
            "processes": (fuzz_processes, some),
        }
        faults = sum(
            len(_apart(phase, chosen, work).faults)
            for name, (phase, chosen) in phases.items()
            if args.only in (None, name)
        )
    print(f"{len(files)} files, {faults} faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()

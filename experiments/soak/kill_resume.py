"""Kills a training run with a signal again and again and compares it with an undisturbed one.

python experiments/soak/kill_resume.py --config=configs/noisetransfer.py:smoke --kills=10 \
  --config.train.steps=150 --config.train.checkpoint_every=3 --config.data.loader=tfdata

Other --config... flags go to the training command. Kills fall by turns into a save, anywhere after
the first step of the restarted run, into a save, and anywhere while it starts. Ends with 0 if both
runs have bitwise the same state, the same metrics.jsonl and the same scores, and nothing is left of
the saves that were cut off; else with 1.
"""

import argparse
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

import jax

from nt_jax.checkpointing import checkpoint_steps, load_state
from nt_jax.errors import EXIT_PREEMPTED

_FIRST_LINE, _FIRST_STEP = "data:", "first step"


def command(light: bool, workdir: Path, options: list[str]) -> list[str]:
    """Builds the training command, or that of the tests, which starts faster."""
    program = ["tests/light_main.py"] if light else ["-m", "nt_jax.main"]
    return [sys.executable, "-u", *program, f"--workdir={workdir}", *options]


def run_killed(
    arguments: list[str],
    workdir: Path,
    kills: int,
    seed: int,
    number: signal.Signals = signal.SIGKILL,
    most_lines: int = 5,
    delay: float = 0.05,
) -> tuple[Counter[str], list[float]]:
    """Runs a command to its end with so many kills on the way.

    Args:
      arguments: the command.
      workdir: that it trains in.
      kills: how many.
      seed: of the moments.
      number: the signal that kills.
      most_lines: of metrics.jsonl that may appear before a kill in a step.
      delay: seconds at most from the moment that was waited for to the kill.

    Returns:
      How many kills fell where, and the seconds from each to the end of the process.

    Raises:
      RuntimeError: the command fails, or ends before all the kills.
    """
    chance = random.Random(seed)
    moments = itertools.cycle(("save", "step", "save", "start"))
    code = -number if number == signal.SIGKILL else EXIT_PREEMPTED
    killed: Counter[str] = Counter()
    seconds = []
    while True:
        process = subprocess.Popen(
            arguments, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout
        if killed.total() < kills:
            moment = next(moments)
            for line in process.stdout:
                if line.startswith(_FIRST_LINE if moment == "start" else _FIRST_STEP):
                    break
            if moment == "save":
                wait(process, lambda: unfinished(workdir))
            elif moment == "step":
                wanted = count_lines(workdir) + chance.randint(0, most_lines)
                wait(process, lambda wanted=wanted: count_lines(workdir) >= wanted)
            time.sleep(chance.uniform(0, 3 if moment == "start" else delay))
        saving, sent = unfinished(workdir), time.monotonic()
        if killed.total() < kills:
            process.send_signal(number)
        _, errors = process.communicate()
        if process.returncode == 0:
            break
        if process.returncode != code:
            raise RuntimeError(f"exit code {process.returncode}: {errors}")
        seconds.append(time.monotonic() - sent)
        if number == signal.SIGKILL:  # which leaves what was not finished
            saving = unfinished(workdir)
        killed["during a save" if saving else f"in a {moment}"] += 1
    if killed.total() < kills:
        raise RuntimeError(f"the run ended after {killed.total()} kills: give it more steps")
    return killed, seconds


def wait(process: subprocess.Popen, condition: Callable[[], bool]) -> None:
    """Returns when the condition is met, or the process has ended."""
    while process.poll() is None and not condition():
        time.sleep(0.001)


def count_lines(workdir: Path) -> int:
    """Counts the lines of metrics.jsonl so far."""
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def unfinished(workdir: Path) -> bool:
    """Tells whether a checkpoint is half written."""
    try:
        return any("tmp" in entry.name for entry in os.scandir(workdir / "checkpoints"))
    except FileNotFoundError:
        return False


def differences(ours: Path, expected: Path) -> list[str]:
    """Lists what differs between two finished runs."""
    found = []
    if (ours / "metrics.jsonl").read_bytes() != (expected / "metrics.jsonl").read_bytes():
        found.append("metrics.jsonl")
    scores = [json.loads((run / "summary.json").read_text()) for run in (ours, expected)]
    found += [
        f"{when} of summary.json"
        for when in scores[1]
        if when != "seconds" and scores[0].get(when) != scores[1][when]
    ]
    if unfinished(ours):
        found.append("what is left of a save that was cut off")
    if checkpoint_steps(ours) != checkpoint_steps(expected):
        found.append("steps of the checkpoints")
    (_, _, a), (_, _, b) = load_state(ours), load_state(expected)
    if jax.tree.structure(a) != jax.tree.structure(b):
        return [*found, "structure of the state"]
    for (path, x), y in zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True):
        if x.dtype != y.dtype or x.tobytes() != y.tobytes():
            found.append(jax.tree_util.keystr(path))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=10, help="how many times")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--signal", choices=("SIGKILL", "SIGTERM", "SIGINT"), default="SIGKILL")
    parser.add_argument("--light", action="store_true", help="without TensorBoard: starts faster")
    args, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        expected, ours = Path(folder) / "undisturbed", Path(folder) / "killed"
        subprocess.run(
            command(args.light, expected, options),
            cwd=REPOSITORY,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        killed, seconds = run_killed(
            command(args.light, ours, options),
            ours,
            args.kills,
            args.seed,
            signal.Signals[args.signal],
        )
        found = differences(ours, expected)
        lines = len((ours / "metrics.jsonl").read_text().splitlines())
    moments = ", ".join(f"{count} {moment}" for moment, count in sorted(killed.items()))
    verdict = f"differ in {', '.join(found)}" if found else "are bitwise the same"
    print(f"{args.kills} kills ({moments}), {lines} lines of metrics: the runs {verdict}")
    print(f"from {args.signal} to the end of the process {max(seconds):.1f} s at most")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()

"""Kills a training run with SIGKILL again and again and compares it with an undisturbed one.

python experiments/soak/kill_resume.py --config=configs/noisetransfer.py:smoke --kills=10 \
  --config.data.loader=tfdata

Other --config... flags go to the training command. Every second kill waits for a checkpoint to be
under way and falls into it; the others fall anywhere after the first step of the restarted run.
Ends with 0 if both runs have bitwise the same state and the same metrics.jsonl, else with 1.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

import jax
import numpy as np

from nt_jax.checkpointing import checkpoint_steps, load_state

_PROMPT = "first step"


def command(workdir: Path, options: list[str]) -> list[str]:
    """The training command."""
    return [sys.executable, "-u", "-m", "nt_jax.main", f"--workdir={workdir}", *options]


def run_killed(workdir: Path, options: list[str], kills: int, chance: random.Random) -> int:
    """Runs to the end with so many kills on the way; how many fell into a save."""
    in_save = done = 0
    while True:
        process = subprocess.Popen(
            command(workdir, options), cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        if done < kills:
            for line in process.stdout:
                if line.startswith(_PROMPT):
                    break
            if process.poll() is None:
                in_save += _kill(process, workdir, during_save=done % 2 == 0, chance=chance)
                done += 1
        process.stdout.read()
        process.wait()
        if process.returncode == 0:
            return in_save
        if process.returncode != -signal.SIGKILL:
            raise SystemExit(f"the run ended with exit code {process.returncode}")


def _kill(
    process: subprocess.Popen, workdir: Path, during_save: bool, chance: random.Random
) -> bool:
    """Kills at a random moment, or as soon as a save is under way; whether one was."""
    stop = time.monotonic() + (60 if during_save else chance.uniform(0, 2))
    while time.monotonic() < stop and process.poll() is None:
        if during_save and _saving(workdir):
            break
        time.sleep(0.001)
    saving = _saving(workdir)
    process.kill()
    return saving


def _saving(workdir: Path) -> bool:
    try:
        return any("tmp" in entry.name for entry in os.scandir(workdir / "checkpoints"))
    except OSError:
        return False


def differences(ours: Path, expected: Path) -> list[str]:
    """What differs between two finished runs."""
    found = []
    if (ours / "metrics.jsonl").read_bytes() != (expected / "metrics.jsonl").read_bytes():
        found.append("metrics.jsonl")
    if checkpoint_steps(ours) != checkpoint_steps(expected):
        found.append("steps of the checkpoints")
    (_, _, a), (_, _, b) = load_state(ours), load_state(expected)
    if jax.tree.structure(a) != jax.tree.structure(b):
        return [*found, "structure of the state"]
    for (path, x), y in zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True):
        if not np.array_equal(x, y):
            found.append(jax.tree_util.keystr(path))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=10, help="how many times")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        expected, ours = Path(folder) / "undisturbed", Path(folder) / "killed"
        subprocess.run(
            command(expected, options), cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL
        )
        in_save = run_killed(ours, options, args.kills, random.Random(args.seed))
        found = differences(ours, expected)
    verdict = f"differ in {', '.join(found)}" if found else "are bitwise the same"
    print(f"{args.kills} kills, {in_save} of them during a save: the runs {verdict}")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()

"""Trains on two processes, kills one of them again and again, and compares the results.

python experiments/soak/two_processes.py --config=configs/noisetransfer.py:smoke --kills=4 \
  --config.train.steps=24

Other --config... flags go to the training command. Prints how fast the other process ended after
each kill, and how far the pair's state is from that of one process with two devices, which works on
the same shapes. (On one device sums round otherwise; a photon count of the noise may then fall to
the other side, and Adam makes much of little.) Ends with 0 if the killed pair has bitwise the state
and metrics.jsonl of an undisturbed pair, and that is within 1e-5 of one process's; else with 1.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

import jax
import numpy as np

from experiments.soak.kill_resume import count_lines, differences, wait
from nt_jax.checkpointing import checkpoint_steps, load_state

_TOLERANCE = 1e-5


def one(workdir: Path, options: list[str], *more: str, devices: int = 2) -> subprocess.Popen:
    """Starts one process of the training command, without TensorBoard, which takes long."""
    program = [sys.executable, "-u", "tests/light_main.py", f"--workdir={workdir}"]
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [*program, *options, *more],
        env=os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}"},
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def pair(workdir: Path, options: list[str]) -> list[subprocess.Popen]:
    """Starts the same on two processes with a device each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"--coordinator=localhost:{free.getsockname()[1]}"
    more = [coordinator, "--num_processes=2"]
    return [
        one(workdir, options, *more, f"--process_id={number}", devices=1) for number in range(2)
    ]


def finish(processes: list[subprocess.Popen]) -> list[str]:
    """Gives what each printed; raises RuntimeError if one fails."""
    texts = [process.communicate() for process in processes]
    for process, (_, errors) in zip(processes, texts, strict=True):
        if process.returncode:
            raise RuntimeError(f"exit code {process.returncode}: {errors}")
    return [output for output, _ in texts]


def kill_one(
    processes: list[subprocess.Popen], workdir: Path, victim: int, lines: int
) -> tuple[int, float, str]:
    """Kills a process when metrics.jsonl has so many lines and there is a checkpoint.

    Returns:
      The other's exit code, the seconds until it ended, and the last line it wrote.
    """
    wait(
        processes[0],
        lambda: count_lines(workdir) >= lines and bool(checkpoint_steps(workdir)),
    )
    processes[victim].kill()
    killed = time.monotonic()
    other = processes[1 - victim]
    _, errors = other.communicate(timeout=120)
    seconds = time.monotonic() - killed
    processes[victim].communicate()
    return other.returncode, seconds, (errors.strip().splitlines() or [""])[-1]


def furthest(ours: Path, expected: Path) -> float:
    """Computes the largest difference of two runs' states."""
    (_, _, a), (_, _, b) = load_state(ours), load_state(expected)
    gaps = jax.tree.map(lambda x, y: np.abs(np.subtract(x, y, dtype=np.float64)).max(), a, b)
    return float(max(jax.tree.leaves(gaps)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=4, help="how many times")
    args, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        alone, undisturbed, killed = (Path(folder) / name for name in ("alone", "pair", "killed"))
        finish([one(alone, options)])
        finish(pair(undisturbed, options))
        lines = count_lines(undisturbed)
        for number in range(args.kills):
            processes = pair(killed, options)
            at = (number + 1) * lines // (args.kills + 1)
            code, seconds, text = kill_one(processes, killed, number % 2, at)
            print(f"killed process {number % 2}: exit code {code} in {seconds:.1f} s: {text}")
            if code == 0 or seconds > 60:
                sys.exit(1)
        finish(pair(killed, options))
        found, gap = differences(killed, undisturbed), furthest(undisturbed, alone)
    verdict = f"differ in {', '.join(found)}" if found else "are bitwise the same"
    print(f"{args.kills} kills: the pairs {verdict}; from one process's state {gap:.2g} at most")
    sys.exit(bool(found) or gap > _TOLERANCE)


if __name__ == "__main__":
    main()

"""Trains peers of the paper under one budget, one after the other, and releases their models.

  python -m experiments.peers_budget --rows=srgbflow,danet,c2n,neca,naflow,noisetransfer \
    --minutes=90 --pairs=SIDD_TRAIN --photos=PHOTOS --val=SIDD_VAL --output=DIR

A row is a recipe of configs/peers.py, or `noisetransfer`, this program's small recipe, which has
losses that its paper has not; each is trained for --steps or for --minutes, whichever are over
first, compilation and evaluations included. Writes the workdir DIR/runs/ROW and the model DIR/ROW
of each, for the tables' --model. The same command resumes; with more --minutes or other --rows it
adds to what is there. With --size=smoke and a few steps all of it takes minutes, without data.
"""

import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from configs import noisetransfer, peers
from experiments import budget
from experiments.release_model import release
from nt_jax.checkpointing import checkpoint_steps, read_summary
from nt_jax.compilation import use_compilation_cache
from nt_jax.errors import ArgumentParser, InputError, PreemptedError, run_command

OURS = "noisetransfer"


def config_of(row: str, size: str, steps: int) -> ConfigDict:
    """Makes a row's recipe of that size, ended after the steps.

    Raises:
      InputError: there is no such row.
    """
    config = noisetransfer.get_config(size) if row == OURS else peers.get_config(f"{row}-{size}")
    budget.shorten(config, steps)
    return config


def train(config: ConfigDict, workdir: Path, minutes: float) -> None:
    """Trains until the config's steps or the minutes are over; those of earlier runs count.

    Raises:
      InputError: the config cannot run, or the workdir was begun with another.
      DivergedError: it became non-finite.
      PreemptedError: a signal stopped it; the same call goes on.
    """
    left = 60 * minutes - read_summary(workdir).get("seconds", 0.0)
    if left <= 0:
        print(f"{workdir}: finished before, {minutes:g} minutes", flush=True)
        return
    over = time.monotonic() + left
    # The loop then saves, as on any such signal.
    timer = threading.Timer(left, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        budget.train(config, workdir)
    except PreemptedError:
        if time.monotonic() < over:
            raise
    finally:
        timer.cancel()


def main(argv: Sequence[str] | None = None) -> None:
    """Runs it.

    Raises:
      InputError: a wrong flag, row or folder, or too few minutes for a first checkpoint.
      DivergedError: a training became non-finite.
      PreemptedError: a signal stopped it; the same command goes on.
    """
    parser = ArgumentParser(prog="python -m experiments.peers_budget", description=__doc__)
    parser.add_argument("--rows", required=True, help="comma-separated")
    parser.add_argument("--minutes", type=float, default=90.0, help="of each row's training")
    parser.add_argument("--steps", type=int, default=5000, help="of each row's training")
    parser.add_argument("--size", choices=("small", "smoke"), default="small", help="of recipes")
    parser.add_argument("--pairs", default="", help="to train on, as config.data.pairs")
    parser.add_argument("--photos", default="skimage", help="to train on, as config.data.photos")
    parser.add_argument("--val", default="", help="held-out pairs, as config.eval.pairs")
    parser.add_argument("--output", required=True, type=Path, help="folder of the models")
    args = parser.parse_args(argv)
    if not (args.minutes > 0 and args.steps > 0):
        raise InputError("--minutes and --steps need more than 0")
    use_compilation_cache()
    rows = [row.strip() for row in args.rows.split(",") if row.strip()]
    configs = {row: config_of(row, args.size, args.steps) for row in rows}
    for row, config in configs.items():
        config.data.pairs, config.data.photos = args.pairs, args.photos
        config.eval.pairs = args.val
        if args.pairs and args.val and config.data.real_fraction == 1:
            config.eval.photos = ""  # synthetic noise is not what it learns
        workdir = args.output / "runs" / row
        train(config, workdir, args.minutes)
        if not checkpoint_steps(workdir):
            raise InputError(f"{workdir} has no checkpoint yet; give more --minutes")
        about = release(workdir, args.output / row)
        print(f"{row}: {about['step']} steps, {about['seconds'] / 3600:.2f} hours", flush=True)


if __name__ == "__main__":
    run_command(main)

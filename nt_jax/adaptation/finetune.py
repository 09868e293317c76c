"""Training of a denoiser on pairs made for one camera, from a denoiser for all."""

import json
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from nt_jax.adaptation.inputs import SIDE
from nt_jax.adaptation.pairs import HELD_OUT, TRAIN
from nt_jax.configs.denoiser import get_config
from nt_jax.files import replacing
from nt_jax.inference.denoiser import Denoiser
from nt_jax.paths import is_file
from nt_jax.training.logs import read_metrics
from nt_jax.training.loop import train_and_evaluate

_EVERY = 50  # steps between evaluations, at most
# Evaluations without a gain of so much, in dB, after which training ends.
_PATIENCE, _GAIN = 4, 0.01
_PSNR = "eval/psnr"
_OUTCOME = "outcome.json"


class Outcome(NamedTuple):
    """Scores that training reached on the held-out patches.

    Attributes:
      before, after: PSNR in dB of the denoiser it began with, and at the end.
      noisy: PSNR in dB of the patches themselves.
      steps: updates done.
    """

    before: float
    after: float
    noisy: float
    steps: int


def recipe(denoiser: str, start: Denoiser, pairs: Path, true_pairs: str, steps: int) -> ConfigDict:
    """Makes the training config.

    Args:
      denoiser: name or folder of the denoiser to begin with.
      start: the same, loaded.
      pairs: folder that `make_pairs` wrote.
      true_pairs: folder of true pairs of this camera, half of the rows then; "" for none.
      steps: updates at most.
    """
    config = get_config("blind-small")
    config.model.kind = start.metadata["kind"]
    config.model.width = start.metadata["model"]["features"]
    config.model.blocks = start.metadata["model"]["blocks"]
    config.denoiser.noise = "real"
    config.data.photos = ""
    config.data.pairs = f"{pairs / TRAIN}=1" + (f",{true_pairs}=1" if true_pairs else "")
    config.data.real_fraction = 1.0
    config.train.init_from = denoiser
    config.train.steps = steps
    config.train.learning_rate = 5e-5
    config.train.ema_decay = 0.99
    config.train.checkpoint_every = config.eval.every = max(5, min(_EVERY, steps // 4))
    config.train.log_every = 20
    config.eval.photos = ""
    config.eval.pairs = str(pairs / HELD_OUT)
    config.eval.patches = 32
    config.eval.patch_size = SIDE
    return config


def finetune(config: Any, workdir: Path, deadline: float) -> Outcome:
    """Trains until the steps are done, the time is over, or the held-out patches gain no more.

    Resumes from the workdir's newest checkpoint. Where training has ended before, whichever of the
    three it was, nothing is trained.

    Args:
      config: from `recipe`.
      workdir: folder of the run.
      deadline: of `time.monotonic`; training ends at the next evaluation after it.
    """

    def enough(step: int, results: dict[str, float]) -> bool:
        del results
        if time.monotonic() > deadline:
            return True
        best, without_gain = -math.inf, 0
        for at, score in _scores(workdir):
            if at <= step:
                gains = score > best + _GAIN
                best, without_gain = (score, 0) if gains else (best, without_gain + 1)
        return without_gain >= _PATIENCE

    record = workdir / _OUTCOME
    if is_file(record):
        return Outcome(**json.loads(record.read_text()))
    summary = train_and_evaluate(config, workdir, enough)
    start, end = summary["start"], summary["end"]
    outcome = Outcome(start[_PSNR], end[_PSNR], start["eval/noisy_psnr"], summary["steps"])
    with replacing(record) as temporary:
        temporary.write_text(json.dumps(outcome._asdict(), indent=2) + "\n")
    return outcome


def _scores(workdir: Path) -> list[tuple[int, float]]:
    records = read_metrics(workdir / "metrics.jsonl")
    return [(record["step"], record[_PSNR]) for record in records if _PSNR in record]

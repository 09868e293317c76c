"""Training of a denoiser on pairs made for one camera, from a denoiser for all."""

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from nt_jax.adaptation.inputs import SIDE
from nt_jax.adaptation.pairs import HELD_OUT, TRAIN
from nt_jax.broken import Broken
from nt_jax.configs.denoiser import get_config
from nt_jax.data.catalogue.sources import find_pairs
from nt_jax.evaluation import denoising
from nt_jax.files import replacing
from nt_jax.inference.denoiser import Denoiser
from nt_jax.models.parameters import Tree, mean
from nt_jax.paths import is_file
from nt_jax.training.logs import read_metrics
from nt_jax.training.loop import train_and_evaluate

_EVERY = 50  # steps between evaluations, at most
# Evaluations without a gain of so much, in dB, after which training ends.
_PATIENCE, _GAIN = 4, 0.01
_PSNR = "eval/psnr"
_OUTCOME = "outcome.json"


class Scores(NamedTuple):
    """PSNR in dB, means over the held-out patches.

    Attributes:
      noisy: of the patches themselves.
      before, after: denoised by the denoiser for all cameras, and by the adapted one.
    """

    noisy: float
    before: float
    after: float


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
    config.model.finest_blocks = start.metadata["model"].get("finest_blocks", 0)
    config.model.conditioned = bool(start.network.conditions)
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


def finetune(config: Any, workdir: Path, deadline: float) -> int:
    """Trains until the steps are done, the time is over, or the held-out patches gain no more.

    Resumes from the workdir's newest checkpoint. Where training has ended before, whichever of the
    three it was, nothing is trained.

    Args:
      config: from `recipe`.
      workdir: folder of the run.
      deadline: of `time.monotonic`; training ends at the next evaluation after it.

    Returns:
      The updates done.
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
        return int(json.loads(record.read_text())["steps"])
    steps = int(train_and_evaluate(config, workdir, enough)["steps"])
    with replacing(record) as temporary:
        temporary.write_text(json.dumps({"steps": steps}) + "\n")
    return steps


def half_way(start: Denoiser, trained: Tree) -> Denoiser:
    """Makes the denoiser whose parameters are the mean of a denoiser's and of what it became.

    It keeps most of what the training gained, and of what the denoiser could do before on noise
    that the training has not seen (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR
    2022).
    """
    return replace(start, params=mean(start.params, trained))


def score(before: Denoiser, after: Denoiser, pairs: Path) -> Scores:
    """Scores two denoisers on the held-out patches of the folder that `make_pairs` wrote."""
    scenes = denoising.scenes_of_pairs(find_pairs(pairs / HELD_OUT))
    rows = {"before": before, "after": after}
    scores = denoising.evaluate(rows, scenes, Broken(skip=False)).scores
    return Scores(*(float(np.mean(scores[row]["psnr"])) for row in (denoising.NOISY, *rows)))


def _scores(workdir: Path) -> list[tuple[int, float]]:
    records = read_metrics(workdir / "metrics.jsonl")
    return [(record["step"], record[_PSNR]) for record in records if _PSNR in record]

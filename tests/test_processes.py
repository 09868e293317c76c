"""Two processes train as one; when one is killed the other ends, and both resume."""

import json
import os
import sys
from unittest import mock

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from light_run import light

from experiments.soak.two_processes import finish, furthest, kill_one, pair
from nt_jax.checkpointing import checkpoint_steps
from nt_jax.errors import InputError
from nt_jax.main import parse
from nt_jax.training import loop
from nt_jax.training.cluster import join_cluster

STEPS = 8
# The denoiser starts sooner; the generator's pair is trained by experiments/soak/two_processes.py.
OPTIONS = ["--config=configs/denoiser.py:smoke", f"--config.train.steps={STEPS}"]
OPTIONS += [f"--config.eval.every={STEPS}"]


@pytest.fixture(autouse=True)
def a_device_each(monkeypatch):
    flags = os.environ["XLA_FLAGS"].split()
    monkeypatch.setenv("XLA_FLAGS", " ".join(flag for flag in flags if "device_count" not in flag))


def train_alone(workdir):
    """Trains in this process, on two devices."""
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    with (
        light(),
        mock.patch.object(loop, "data_mesh", return_value=mesh),
        mock.patch.object(sys, "argv", ["main", f"--workdir={workdir}", *OPTIONS]),
    ):
        loop.train_and_evaluate(*parse()[:2])


def test_a_pair_that_lost_one_resumes_and_ends_where_one_process_ends(tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    train_alone(alone)

    code, seconds, text = kill_one(pair(together, OPTIONS), together, victim=1, lines=4)
    assert code != 0
    assert seconds < 60
    assert "another" in text
    assert 2 <= checkpoint_steps(together)[-1] < STEPS

    spoken = finish(pair(together, OPTIONS))
    assert "resumed from the checkpoint of step" in spoken[0]
    said = [line for line in spoken[1].splitlines() if "[Gloo]" not in line]  # a library's
    assert not said  # process 0 speaks for both
    assert furthest(together, alone) < 1e-5
    lines = [json.loads(line) for line in (together / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(STEPS + 1))


def test_processes_that_do_not_fit_together():
    with pytest.raises(InputError, match="--process_id=2 must be"):
        join_cluster("localhost:1", 2, 2)


def test_alone_nothing_is_joined(monkeypatch):
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    join_cluster(None, None, None)

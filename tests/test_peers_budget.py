"""Peers trained under one budget: what each is trained on, and when it ends."""

import json
import os
import signal
import threading
import time
from unittest import mock

import pytest

from experiments import budget, peers_budget
from nt_jax.errors import InputError, PreemptedError
from nt_jax.training.interrupts import Interrupts


def wait_for_a_signal(config, workdir):
    """Stands in for a training that would go on for a minute."""
    with Interrupts() as interrupts:
        for _ in range(6000):
            time.sleep(0.01)
            if interrupts.received:
                raise PreemptedError("stopped")
    raise AssertionError("no signal")


def test_a_training_ends_with_its_minutes(tmp_path):
    with mock.patch.object(budget, "train", wait_for_a_signal):
        peers_budget.train(None, tmp_path, minutes=0.2 / 60)
        # A signal before is not the timer's.
        other = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
        other.start()
        with pytest.raises(PreemptedError):
            peers_budget.train(None, tmp_path, minutes=10)
    for timer in [t for t in threading.enumerate() if isinstance(t, threading.Timer)]:
        timer.join(5)
        assert not timer.is_alive(), "one that would end what comes next"


def test_minutes_of_before_count(tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps({"seconds": 600.0}))
    with mock.patch.object(budget, "train", side_effect=AssertionError("trained")):
        peers_budget.train(None, tmp_path, minutes=10)
    with mock.patch.object(budget, "train") as train:
        peers_budget.train(None, tmp_path, minutes=11)
    assert train.call_count == 1


def test_all_rows_have_the_same_data_and_steps(tmp_path):
    flags = ["--rows=danet,noisetransfer", "--steps=1000", "--minutes=5", f"--output={tmp_path}"]
    flags += ["--pairs=PAIRS", "--photos=PHOTOS", "--val=VAL"]
    released = {"step": 1000, "seconds": 60.0}
    with (
        mock.patch.object(budget, "train") as train,
        mock.patch.object(peers_budget, "checkpoint_steps", return_value=[1000]),
        mock.patch.object(peers_budget, "release", return_value=released) as release,
    ):
        peers_budget.main(flags)
    configs = [call.args[0] for call in train.call_args_list]
    assert [config.family for config in configs] == ["danet", "noisetransfer"]
    for config in configs:
        assert config.train.steps == 1000
        assert (config.data.pairs, config.data.photos, config.eval.pairs) == (
            "PAIRS",
            "PHOTOS",
            "VAL",
        )
    # What learns true pairs alone is scored on nothing else.
    assert [bool(config.eval.photos) for config in configs] == [False, True]
    assert max(configs[0].train.halve_at) < 1000, "the schedule is shortened with the steps"
    paths = [call.args for call in release.call_args_list]
    assert paths[0] == (tmp_path / "runs" / "danet", tmp_path / "danet")


def test_wrong_flags(tmp_path):
    output = f"--output={tmp_path}"
    for flags in (["--rows=none"], ["--rows=c2n", "--minutes=0"], ["--rows=c2n", "--steps=0"]):
        with pytest.raises(InputError):
            peers_budget.main([*flags, output])
    with mock.patch.object(budget, "train"), pytest.raises(InputError, match="no checkpoint yet"):
        peers_budget.main(["--rows=c2n", output])

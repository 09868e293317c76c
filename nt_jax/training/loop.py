"""Training from a config to a summary: restore or initialise, step, log, evaluate, save."""

import json
import math
import pathlib
import signal
import time
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nt_jax.checkpointing import CONFIG_FILE, Checkpointer
from nt_jax.data.pipeline import make_loader
from nt_jax.errors import DivergedError, InputError, PreemptedError
from nt_jax.training import logs
from nt_jax.training.task import Task, check_common, task_class

SUMMARY_FILE = "summary.json"


def train_and_evaluate(config: Any, workdir: pathlib.Path) -> dict[str, Any]:
    """Trains until `config.train.steps`, resuming from the workdir's newest checkpoint.

    Args:
      config: a training config (`configs/common.py` tells every field); what it trains is
        `task.task_class(config)`.
      workdir: folder of the run; see `docs` of its files in README.

    Returns:
      The summary, as written to `summary.json`.

    Raises:
      InputError: a config that cannot run, or that does not fit the workdir's checkpoints.
      DivergedError: a loss or gradient norm was not finite; the last checkpoint stays.
      PreemptedError: SIGTERM or SIGINT came; the state is saved.
    """
    mesh = data_mesh()
    check_common(config, mesh)
    task = task_class(config)(config)
    loader = make_loader(
        config.data, batch_size=config.train.batch_size, seed=config.seed, mesh=mesh
    )
    workdir.mkdir(parents=True, exist_ok=True)
    saved = json.loads(config.to_json())
    with Checkpointer(workdir, saved, config.train.keep_checkpoints) as checkpointer:
        state = _restore_or_init(config, task, mesh, checkpointer)
        if jax.process_index() == 0:
            _write_json(workdir / CONFIG_FILE, saved)
        run = _Run(config, workdir, task, mesh, checkpointer, state)
        try:
            with _Interrupts() as interrupts:
                return run.train(loader, interrupts)
        except OSError as error:  # a full disk, a folder that is gone
            raise InputError(
                f"{workdir} cannot be written ({error.strerror}); the last checkpoint is kept: make"
                " room, and the same command resumes"
            ) from error
        finally:
            run.close()


def data_mesh() -> Mesh:
    """All devices of all processes along one axis, over which batches are split."""
    return Mesh(np.array(jax.devices()), ("data",))


class _Run:
    """One process's part of a training run, from the restored state on.

    All processes compute and save; the first alone writes logs and pictures.
    """

    def __init__(
        self,
        config: Any,
        workdir: pathlib.Path,
        task: Task,
        mesh: Mesh,
        checkpointer: Checkpointer,
        state: Any,
    ) -> None:
        self.config, self.workdir, self.task, self.mesh = config, workdir, task, mesh
        self.checkpointer, self.state = checkpointer, state
        self.start = int(state.step)
        self.key = jax.random.fold_in(jax.random.key(config.seed), 1)
        self.records: logs.Records | None = None
        if jax.process_index() == 0:
            self.records = logs.Records(workdir, self.start, config.train.steps)
            logs.log_parameters(workdir / "parameters.txt", task.parameters(state))

    def close(self) -> None:
        if self.records:
            self.records.close()

    def train(self, loader: Any, interrupts: "_Interrupts") -> dict[str, Any]:
        config, train = self.config, self.config.train
        summary = _read_summary(self.workdir)
        if self.start == 0:
            summary = {"start": self.evaluate(0)}
            if self.records:
                self.records.write(0, summary["start"])
        elif self.start >= train.steps:
            logs.say(f"{self.workdir} is already at step {self.start}")
            return summary
        step_function = self.task.make_step(self.mesh)
        begun = time.monotonic()
        batches = loader(self.start)
        pending: tuple[int, dict[str, jax.Array]] | None = None
        evaluation: dict[str, float] = {}
        for step in range(self.start + 1, train.steps + 1):
            waiting = time.monotonic()
            batch = next(batches)
            if self.records:
                self.records.progress.waited_s += time.monotonic() - waiting
            images = {name: batch[name] for name in self.task.inputs}
            self.state, metrics = step_function(
                self.state, images, jax.random.fold_in(self.key, step)
            )
            # The step before is read while this one runs, so the device never waits for the log.
            if pending:
                self.report(pending[0], self.check(*pending), {})
            pending = (step, metrics)
            if step == self.start + 1:
                jax.block_until_ready(self.state)
                seconds = time.monotonic() - begun
                logs.say(f"first step, compiled with its data: {seconds:.1f} s")
                if self.records:
                    self.records.progress.restart(step)
            last = step == train.steps
            stop = interrupts.agreed()
            due = last or step % config.eval.every == 0
            if due or stop or step % train.checkpoint_every == 0:
                values = self.check(*pending)
                pending = None
                evaluation = self.evaluate(step) if due else {}
                self.report(step, values, evaluation)
                if due:
                    self.draw_curves()
                self.checkpointer.save(step, self.state)
                self.save_summary(summary)
                if stop:
                    self.checkpointer.wait()
                    raise PreemptedError(
                        f"stopped by {signal.Signals(stop).name} after saving step {step};"
                        " the same command resumes"
                    )
        self.checkpointer.wait()
        summary |= {"end": evaluation, "steps": train.steps, "seed": config.seed}
        summary["seconds"] = summary.get("seconds", 0) + round(time.monotonic() - begun, 1)
        self.save_summary(summary)
        return summary

    def save_summary(self, summary: dict[str, Any]) -> None:
        if self.records:
            _write_json(self.workdir / SUMMARY_FILE, summary)

    def check(self, step: int, metrics: dict[str, jax.Array]) -> dict[str, float]:
        """The numbers of a finished step; raises DivergedError if one is not finite."""
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if not all(math.isfinite(value) for value in values.values()):
            terms = "  ".join(f"{name}={value:.6g}" for name, value in values.items())
            raise DivergedError(
                f"step {step} is not finite (seed {self.config.seed}, batch {step - 1}): {terms};"
                f" the last checkpoint in {self.workdir} is kept"
            )
        return values

    def report(self, step: int, values: dict[str, float], extra: dict[str, float]) -> None:
        """Logs the numbers of a finished step."""
        if not self.records:
            return
        logged = values if step % self.config.train.log_every == 0 else {}
        self.records.write(step, logged | extra)
        shown = [name for name in self.task.shown if name in values]
        text = "  ".join(f"{name} {values[name]:.3f}" for name in shown)
        self.records.progress.step(step, text)

    def evaluate(self, step: int) -> dict[str, float]:
        """Scores the held-out patches and writes sample pictures."""
        key = jax.random.fold_in(jax.random.key(self.config.seed), 2)
        results, pictures = self.task.evaluate(self.state, key)
        if self.records:
            samples = self.workdir / "samples"
            samples.mkdir(exist_ok=True)
            logs.save_grid(samples / f"step_{step:07d}.png", pictures)
            picture = self.task.picture
            self.records.tensorboard.images(step, {f"samples/{picture}": pictures[picture]})
        text = "  ".join(f"{name} {results[f'eval/{name}']:.3f}" for name in self.task.headline)
        logs.say(f"held-out patches at step {step}: {text}")
        return results

    def draw_curves(self) -> None:
        """Draws the evaluations so far."""
        names = [f"eval/{name}" for name in self.task.curves]
        if names and self.records:
            numbers = self.workdir / "metrics.jsonl"
            logs.save_curves(self.workdir / "samples" / "curves.png", numbers, names)


def _restore_or_init(config: Any, task: Task, mesh: Mesh, checkpointer: Checkpointer) -> Any:
    everywhere = NamedSharding(mesh, P())

    def fresh() -> Any:
        return task.init(jax.random.key(config.seed))

    def check(step: int, saved: dict[str, Any]) -> None:
        missing = [section for section in task.sections if section not in saved]
        if missing:
            raise InputError(
                f"the checkpoint of step {step} is of another kind of model: its config has no"
                f" section {missing[0]}; choose another workdir"
            )
        for section in task.sections:
            wanted = json.loads(config.to_json())[section]
            for name in wanted:
                if saved[section].get(name) != wanted[name]:
                    raise InputError(
                        f"the checkpoint of step {step} has config.{section}.{name}="
                        f"{saved[section].get(name)}, not {wanted[name]}; choose another workdir"
                        " or set it back"
                    )

    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere),
        jax.eval_shape(fresh),
    )
    found = checkpointer.restore(abstract, check)
    if found is None:
        return jax.jit(fresh, out_shardings=everywhere)()
    step, state = found
    logs.say(f"resumed from the checkpoint of step {step}")
    return state


def _read_summary(workdir: pathlib.Path) -> dict[str, Any]:
    path = workdir / SUMMARY_FILE
    return json.loads(path.read_text()) if path.exists() else {}


def _write_json(path: pathlib.Path, value: dict[str, Any]) -> None:
    scratch = path.with_suffix(".tmp")
    scratch.write_text(json.dumps(value, indent=2) + "\n")
    scratch.replace(path)


class _Interrupts:
    """Remembers SIGTERM or SIGINT; a second one ends the process at once."""

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def agreed(self) -> int:
        """The signal that any process received, so that all stop after the same step."""
        if jax.process_count() == 1:
            return self.received
        return int(multihost_utils.process_allgather(np.int32(self.received)).max())

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.received = number
        signal.signal(number, signal.SIG_DFL)

    def __enter__(self) -> "_Interrupts":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

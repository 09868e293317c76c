"""Training from a config to a summary: restore or initialise, step, log, evaluate, save."""

import contextlib
import json
import math
import pathlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import flax
import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nt_jax import families, prng
from nt_jax.checkpointing import (
    CONFIG_FILE,
    SUMMARY_FILE,
    Checkpointer,
    checkpoint_steps,
    read_summary,
)
from nt_jax.data.sampling.pipeline import make_loader
from nt_jax.errors import DivergedError, InputError, PreemptedError
from nt_jax.fields import check_config, check_resume
from nt_jax.files import replace_text
from nt_jax.training import logs
from nt_jax.training.cluster import failing_alone
from nt_jax.training.interrupts import Interrupts
from nt_jax.training.lock import alone_in
from nt_jax.training.task import Task

# (step, results of its evaluation) -> whether training may end there.
Enough = Callable[[int, dict[str, float]], bool]


def train_and_evaluate(
    config: Any, workdir: pathlib.Path, enough: Enough | None = None
) -> dict[str, Any]:
    """Trains until `config.train.steps`, resuming from the workdir's newest checkpoint.

    Args:
      config: a training config (`configs/common.py` tells every field); what it trains is
        `config.family`.
      workdir: folder of the run; docs/train.md lists its files.
      enough: asked after each evaluation but that of the start; for a single process.

    Returns:
      The summary, as written to `summary.json`.

    Raises:
      InputError: a config that cannot run, or that does not fit the workdir's checkpoints, or
        another run is in the workdir.
      DivergedError: a loss or gradient norm was not finite; the last checkpoint stays.
      PreemptedError: SIGTERM or SIGINT came; the state is saved.
    """
    with Interrupts() as interrupts:
        with interrupts.leaving_loses_nothing():
            mesh = data_mesh()
            check_config(config, mesh.size)
            task = families.find(families.name_of(config)).task_class()(config)
            loader = make_loader(
                config.data,
                batch_size=config.train.batch_size,
                seed=config.seed,
                mesh=mesh,
                record=workdir / "data.json",
            )
            fresh = _fresh_state(config, task)
            # Before the workdir is made: a wrong config leaves none behind.
            resumes = bool(checkpoint_steps(workdir))
            inherited = {} if resumes else _inherited(config.train.init_from, task, fresh)
        saved = json.loads(config.to_json())
        with _written(workdir):
            workdir.mkdir(parents=True, exist_ok=True)
        with failing_alone(), alone_in(workdir):
            with _written(workdir):
                checkpointer = Checkpointer(workdir, saved, config.train.keep_checkpoints)
            # Failing alone comes first: closing the checkpointer would wait for other processes.
            with checkpointer, failing_alone():
                state = _restore_or_init(config, fresh, inherited, mesh, checkpointer)
                with _written(workdir):
                    if jax.process_index() == 0:
                        replace_text(workdir / CONFIG_FILE, _json(saved))
                    run = _Run(config, workdir, task, mesh, checkpointer, interrupts, state)
                try:
                    run.train(loader, enough)
                finally:
                    run.close()
    return run.summary


@contextlib.contextmanager
def _written(workdir: pathlib.Path) -> Iterator[None]:
    """Says in one line that the workdir cannot be written: a full disk, a folder that is gone."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{workdir} cannot be written ({error.strerror or error}); the last checkpoint is"
            " kept: make room, and the same command resumes"
        ) from error


def data_mesh() -> Mesh:
    """Lays all devices of all processes along one axis, over which batches are split."""
    return Mesh(np.array(jax.devices()), ("data",))


class _Run:
    """One process's part of a training run, from the restored state on.

    All processes compute and save; the first alone writes logs and pictures.

    Attributes:
      state: the newest.
      summary: scores at the `start` and at the newest evaluation, the `end`; `steps` done then,
        `seed`; `seconds` that training took until the newest save or evaluation.
    """

    def __init__(
        self,
        config: Any,
        workdir: pathlib.Path,
        task: Task,
        mesh: Mesh,
        checkpointer: Checkpointer,
        interrupts: Interrupts,
        state: Any,
    ) -> None:
        self.config, self.workdir, self.task, self.mesh = config, workdir, task, mesh
        self.checkpointer, self.interrupts, self.state = checkpointer, interrupts, state
        self.start = int(state.step)
        self.keys = prng.keys_of_run(config.seed)
        self.summary = read_summary(workdir) if self.start else {}
        self.seconds_before = self.summary.get("seconds", 0)
        self.begun = time.monotonic()
        self.records: logs.Records | None = None
        if jax.process_index() == 0:
            self.records = logs.Records(workdir, self.start, config.train.steps)
            logs.log_parameters(workdir / "parameters.txt", task.parameters(state))

    def close(self) -> None:
        if self.records:
            with _written(self.workdir):
                self.records.close()

    def train(self, loader: Any, enough: Enough | None) -> None:
        train, steps = self.config.train, self.config.train.steps
        if self.due(self.start) and not self.evaluated():
            self.evaluate_unless_told_to_stop(self.start)
        if self.start >= steps:
            logs.say(f"{self.workdir} is already at step {self.start}")
            return
        begun = time.monotonic()
        with self.interrupts.leaving_loses_nothing():
            step_function = self.task.make_step(self.mesh)
            batches = loader(self.start)
        pending: tuple[int, dict[str, jax.Array]] | None = None
        for step in range(self.start + 1, steps + 1):
            waiting = time.monotonic()
            batch = next(batches)
            if self.records:
                self.records.waited_s += time.monotonic() - waiting
            images = {name: batch[name] for name in self.task.inputs}
            self.state, metrics = step_function(
                self.state, images, prng.fold_in(self.keys.maps, step)
            )
            # The step before is read while this one runs, so the device never waits for the log.
            if pending:
                self.report(*pending)
            pending = (step, metrics)
            if step == self.start + 1:
                jax.block_until_ready(self.state)
                seconds = time.monotonic() - begun
                logs.say(f"first step, compiled with its data: {seconds:.1f} s")
                if self.records:
                    self.records.restart(step)
            stop = self.interrupts.agreed()
            if stop or self.due(step) or step % train.checkpoint_every == 0:
                self.report(*pending)
                pending = None
                self.save(step)
                if stop:
                    self.checkpointer.wait()
                    raise PreemptedError(
                        f"stopped by {signal.Signals(stop).name} after saving step {step};"
                        " the same command resumes"
                    )
                # After the save: whatever stops the run from here on, resuming evaluates again.
                if self.due(step):
                    self.evaluate_unless_told_to_stop(step)
                    if enough and enough(step, self.summary["end"]):
                        break
        self.checkpointer.wait()
        self.write_summary()
        # Process 0 has more to write, and the others would not wait long for it on the way out.
        multihost_utils.sync_global_devices("end of training")

    def due(self, step: int) -> bool:
        """Tells whether a step's state is evaluated."""
        return step % self.config.eval.every == 0 or step == self.config.train.steps

    def evaluated(self) -> bool:
        """Tells whether the start's state was evaluated before, as process 0's metrics say."""
        newest = self.records.metrics_file.newest if self.records else {}
        found = newest.get("step") == self.start and any(
            name.startswith("eval/") for name in newest
        )
        return bool(multihost_utils.broadcast_one_to_all(np.int32(found)))

    def save(self, step: int) -> None:
        """Starts saving the state, what was logged until then first."""
        # By NumPy: a reduction of each leaf takes seconds to compile.
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(self.state)):
            raise self.diverged(step, "every term was finite, but not the state after it")
        if self.records:
            with _written(self.workdir):
                self.records.sync()
        self.checkpointer.save(step, self.state)
        self.write_summary()

    def write_summary(self) -> None:
        seconds = self.seconds_before + time.monotonic() - self.begun
        self.summary["seconds"] = round(seconds, 1)
        if self.records:
            with _written(self.workdir):
                replace_text(self.workdir / SUMMARY_FILE, _json(self.summary))

    def report(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Logs the numbers of a finished step; raises DivergedError if one is not finite."""
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if not all(math.isfinite(value) for value in values.values()):
            terms = "  ".join(f"{name}={value:.6g}" for name, value in values.items())
            raise self.diverged(step, terms)
        if not self.records:
            return
        with _written(self.workdir):
            self.records.write(step, values if step % self.config.train.log_every == 0 else {})
        shown = [name for name in self.task.shown if name in values]
        text = "  ".join(f"{name} {values[name]:.3f}" for name in shown)
        self.records.show(step, text)

    def diverged(self, step: int, why: str) -> DivergedError:
        self.checkpointer.wait()
        kept = checkpoint_steps(self.workdir)
        start = f"the checkpoint of step {kept[-1]}, which is kept" if kept else "the start"
        return DivergedError(
            f"step {step} is not finite (seed {self.config.seed}, batch {step - 1}): {why};"
            f" the same command replays it, from {start}:"
        )

    def evaluate_unless_told_to_stop(self, step: int) -> None:
        """Runs `evaluate`; a signal ends it as soon as the save under way is done."""
        try:
            with self.interrupts.leaving_loses_nothing():
                self.evaluate(step)
        except PreemptedError:
            self.checkpointer.wait()
            raise

    def evaluate(self, step: int) -> None:
        """Scores the held-out patches and writes sample pictures."""
        results, pictures = self.task.evaluate(self.state, self.keys.evaluation)
        shown = [name for name in self.task.headline if f"eval/{name}" in results]
        text = "  ".join(f"{name} {results[f'eval/{name}']:.3f}" for name in shown)
        logs.say(f"held-out patches at step {step}: {text}")
        if step == 0:
            self.summary["start"] = results
        self.summary |= {"end": results, "steps": step, "seed": self.config.seed}
        self.write_summary()
        if self.records:
            with _written(self.workdir):
                self.draw(step, results, pictures)
                # Last: a line with an evaluation says that it is done.
                self.records.write(step, results)

    def draw(self, step: int, results: dict[str, float], pictures: dict[str, np.ndarray]) -> None:
        """Draws sample pictures and the evaluations so far."""
        assert self.records
        samples = self.workdir / "samples"
        samples.mkdir(exist_ok=True)
        logs.save_grid(samples / f"step_{step:07d}.png", pictures)
        picture = self.task.picture
        self.records.tensorboard.images(step, {f"samples/{picture}": pictures[picture]})
        # A family's recipes may score different things.
        names = [f"eval/{name}" for name in self.task.curves if f"eval/{name}" in results]
        if names and step:
            before = logs.read_metrics(self.workdir / "metrics.jsonl")
            logs.save_curves(samples / "curves.png", [*before, {"step": step} | results], names)


def _fresh_state(config: Any, task: Task) -> Callable[[], Any]:
    """Jits the making of a run's first state: traced once, for its shapes and for itself."""
    return jax.jit(lambda: task.init(prng.keys_of_run(config.seed).initialisation))


def _restore_or_init(
    config: Any,
    fresh: Callable[[], Any],
    inherited: dict[str, Any],
    mesh: Mesh,
    checkpointer: Checkpointer,
) -> Any:
    everywhere = NamedSharding(mesh, P())
    changed: list[str] = []

    def check(step: int, saved: dict[str, Any]) -> None:
        changed[:] = check_resume(step, saved, json.loads(config.to_json()))

    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere),
        jax.eval_shape(fresh),
    )
    found = checkpointer.restore(abstract, check)
    if found is None:

        def start(inherited: dict[str, Any]) -> Any:
            return fresh().replace(**inherited)

        return jax.jit(start, out_shardings=everywhere)(inherited)
    step, state = found
    with_changes = f", from here on with {', '.join(changed)}" if changed else ""
    logs.say(f"resumed from the checkpoint of step {step}{with_changes}")
    return state


def _inherited(workdir: str, task: Task, fresh: Callable[[], Any]) -> dict[str, Any]:
    """Fields of the state that start as those of another run; none without one."""
    if not workdir:
        return {}
    step, saved = task.networks_of(workdir)
    abstract = jax.eval_shape(fresh)
    fields: dict[str, Any] = {}
    for name, source in task.inherits.items():
        wanted = getattr(abstract, name)
        if wanted is None:  # no average is kept
            continue
        leaves = flax.serialization.to_state_dict(wanted)
        if jax.tree.map(np.shape, saved.get(source)) != jax.tree.map(np.shape, leaves):
            raise InputError(
                f"config.train.init_from={workdir}: its {source.replace('_', ' ')} has other sizes"
                " than config.model asks for; choose another or change config.model"
            )
        # Networks may have been released with 16 bits.
        same = jax.tree.map(
            lambda leaf, as_in: np.asarray(leaf, as_in.dtype), saved[source], leaves
        )
        fields[name] = flax.serialization.from_state_dict(wanted, same)
    logs.say(f"starts with the networks of {workdir} at step {step}")
    return fields


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"

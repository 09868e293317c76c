"""Training from a config to a summary: restore or initialise, step, log, evaluate, save."""

import json
import math
import pathlib
import signal
import time
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nt_jax.checkpointing import CONFIG_FILE, Checkpointer
from nt_jax.data.pipeline import make_loader
from nt_jax.errors import DivergedError, InputError, PreemptedError
from nt_jax.models.networks import Networks, make_networks
from nt_jax.training import heldout, logs, moco
from nt_jax.training.state import TrainState, init_state
from nt_jax.training.steps import jit_train_step

SUMMARY_FILE = "summary.json"
_SAMPLES_OF_KIND = 2


def train_and_evaluate(config: Any, workdir: pathlib.Path) -> dict[str, Any]:
    """Trains until `config.train.steps`, resuming from the workdir's newest checkpoint.

    Args:
      config: a training config (`configs/common.py` tells every field).
      workdir: folder of the run; see `docs` of its files in README.

    Returns:
      The summary, as written to `summary.json`.

    Raises:
      InputError: a config that cannot run, or that does not fit the workdir's checkpoints.
      DivergedError: a loss or gradient norm was not finite; the last checkpoint stays.
      PreemptedError: SIGTERM or SIGINT came; the state is saved.
    """
    mesh = data_mesh()
    _check(config, mesh)
    networks = make_networks(config.model, jnp.dtype(config.model.dtype))
    held_out = heldout.make_heldout(config)
    loader = make_loader(
        config.data, batch_size=config.train.batch_size, seed=config.seed, mesh=mesh
    )
    workdir.mkdir(parents=True, exist_ok=True)
    saved = json.loads(config.to_json())
    with Checkpointer(workdir, saved, config.train.keep_checkpoints) as checkpointer:
        state = _restore_or_init(config, networks, mesh, checkpointer)
        (workdir / CONFIG_FILE).write_text(json.dumps(saved, indent=2) + "\n")
        run = _Run(config, workdir, networks, mesh, held_out, checkpointer, state)
        try:
            with _Interrupts() as interrupts:
                return run.train(loader, interrupts)
        finally:
            run.close()


def data_mesh() -> Mesh:
    """All devices of all processes along one axis, over which batches are split."""
    return Mesh(np.array(jax.devices()), ("data",))


class _Run:
    """One process's part of a training run, from the restored state on."""

    def __init__(
        self,
        config: Any,
        workdir: pathlib.Path,
        networks: Networks,
        mesh: Mesh,
        held_out: heldout.HeldOut,
        checkpointer: Checkpointer,
        state: TrainState,
    ) -> None:
        self.config, self.workdir, self.networks, self.mesh = config, workdir, networks, mesh
        self.held_out, self.checkpointer, self.state = held_out, checkpointer, state
        self.start = int(state.step)
        self.key = jax.random.fold_in(jax.random.key(config.seed), 1)
        self.generate = heldout.make_generate(networks)
        self.metrics_file = logs.MetricsFile(workdir / "metrics.jsonl", self.start)
        self.tensorboard = logs.TensorBoard(workdir)
        self.progress = logs.Progress(self.start, config.train.steps)
        logs.log_parameters(
            workdir / "parameters.txt",
            {"generator": state.generator, "discriminator": state.discriminator},
        )

    def close(self) -> None:
        self.metrics_file.close()
        self.tensorboard.close()
        self.progress.close()

    def train(self, loader: Any, interrupts: "_Interrupts") -> dict[str, Any]:
        config, train = self.config, self.config.train
        summary = _read_summary(self.workdir)
        if self.start == 0:
            summary = {"start": self.evaluate(0)}
            self.write(0, summary["start"])
        elif self.start >= train.steps:
            print(f"{self.workdir} is already at step {self.start}", flush=True)
            return summary
        step_function = jit_train_step(config, self.networks, self.mesh)
        begun = time.monotonic()
        batches = loader(self.start)
        pending: tuple[int, dict[str, jax.Array]] | None = None
        evaluation: dict[str, float] = {}
        for step in range(self.start + 1, train.steps + 1):
            waiting = time.monotonic()
            batch = next(batches)
            if step > self.start + 1:
                self.progress.waited_s += time.monotonic() - waiting
            images = {name: batch[name] for name in ("clean", "noisy", "reference")}
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
                print(f"first step, compiled with its data: {seconds:.1f} s", flush=True)
                self.progress.restart(step)
            last = step == train.steps
            stop = interrupts.received
            due = last or step % config.eval.every == 0
            if due or stop or step % train.checkpoint_every == 0:
                values = self.check(*pending)
                pending = None
                evaluation = self.evaluate(step) if due else {}
                self.report(step, values, evaluation)
                self.checkpointer.save(step, self.state)
                summary_path = self.workdir / SUMMARY_FILE
                _write_json(summary_path, summary)
                if stop:
                    self.checkpointer.wait()
                    raise PreemptedError(
                        f"stopped by {signal.Signals(stop).name} after saving step {step};"
                        " the same command resumes"
                    )
        self.checkpointer.wait()
        summary |= {"end": evaluation, "steps": train.steps, "seed": config.seed}
        summary["seconds"] = summary.get("seconds", 0) + round(time.monotonic() - begun, 1)
        _write_json(self.workdir / SUMMARY_FILE, summary)
        return summary

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
        logged = values if step % self.config.train.log_every == 0 else {}
        self.write(step, logged | extra)
        shown = ("loss_g", "loss_d", "recon", "contrastive_accuracy", "d_real", "d_fake")
        self.progress.step(step, "  ".join(f"{n} {values[n]:.3f}" for n in shown if n in values))

    def write(self, step: int, values: dict[str, float]) -> None:
        if values:
            self.metrics_file.write(step, values)
            self.tensorboard.scalars(step, values)

    def evaluate(self, step: int) -> dict[str, float]:
        """Scores the held-out patches and writes sample pictures."""
        key = jax.random.fold_in(jax.random.key(self.config.seed), 2)
        results, images = heldout.evaluate(self.generate, self.state, self.held_out, key)
        rows = np.concatenate(
            [
                np.flatnonzero(np.array(self.held_out.kind) == kind)[-_SAMPLES_OF_KIND:]
                for kind in dict.fromkeys(self.held_out.kind)
            ]
        )
        clean, noisy = self.held_out.clean[rows], self.held_out.noisy[rows]
        generated = images["other"][rows]
        grid = {
            "reference": self.held_out.reference[rows],
            "clean": clean,
            "generated": generated,
            "true noisy": noisy,
            "generated noise x4": 0.5 + 4 * (generated - clean),
            "true noise x4": 0.5 + 4 * (noisy - clean),
        }
        folder = self.workdir / "samples"
        folder.mkdir(exist_ok=True)
        logs.save_grid(folder / f"step_{step:07d}.png", grid)
        self.tensorboard.images(step, {"samples/generated": np.clip(generated, 0, 1)})
        shown = ("akld", "ks", "level_correlation", "akld_other", "level_correlation_other")
        text = "  ".join(f"{name} {results[f'eval/{name}']:.3f}" for name in shown)
        print(f"held-out patches at step {step}: {text}", flush=True)
        return results


def _check(config: Any, mesh: Mesh) -> None:
    train, model = config.train, config.model
    moco.check_queue(model.queue_length, train.batch_size)
    if train.batch_size % mesh.size:
        raise InputError(
            f"config.train.batch_size={train.batch_size} is not a multiple of the"
            f" {mesh.size} devices"
        )
    choices = {
        "embedding_bound": ("tanh", "l2"),
        "gan_trunk": ("block", "head"),
        "dtype": ("float32", "bfloat16"),
    }
    for name, allowed in choices.items():
        if model[name] not in allowed:
            raise InputError(
                f"config.model.{name}={model[name]!r}; choose from {', '.join(allowed)}"
            )
    for section, name in (
        ("train", "steps"),
        ("train", "batch_size"),
        ("train", "checkpoint_every"),
        ("train", "keep_checkpoints"),
        ("train", "log_every"),
        ("model", "width"),
        ("model", "embedding_size"),
        ("eval", "every"),
        ("eval", "patches"),
    ):
        if config[section][name] < 1:
            raise InputError(f"config.{section}.{name}={config[section][name]} must be at least 1")
    for section in ("data", "eval"):
        side = config[section].patch_size
        # GF reflects 10 pixels and the third level is a quarter of the side.
        if side % 4 or side < 12:
            raise InputError(
                f"config.{section}.patch_size={side} must be a multiple of 4 and at least 12"
            )


def _restore_or_init(
    config: Any, networks: Networks, mesh: Mesh, checkpointer: Checkpointer
) -> TrainState:
    everywhere = NamedSharding(mesh, P())

    def fresh() -> TrainState:
        return init_state(config, networks, jax.random.key(config.seed))

    step = checkpointer.latest_step()
    if step is None:
        return jax.jit(fresh, out_shardings=everywhere)()
    for field in ("model", "variant"):
        saved = checkpointer.saved_config(step)[field]
        wanted = json.loads(config.to_json())[field]
        different = [name for name in wanted if saved.get(name) != wanted[name]]
        if different:
            name = different[0]
            raise InputError(
                f"the checkpoint of step {step} has config.{field}.{name}={saved.get(name)},"
                f" not {wanted[name]}; choose another workdir or set it back"
            )
    shapes = jax.eval_shape(fresh)
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), shapes
    )
    state = checkpointer.restore(step, abstract)
    print(f"resumed from the checkpoint of step {step}", flush=True)
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

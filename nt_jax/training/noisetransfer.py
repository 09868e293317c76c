"""NoiseTransfer as a task of the training loop."""

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from nt_jax.errors import InputError
from nt_jax.inference.embeddings import crop_of_trained
from nt_jax.models.networks import make_networks
from nt_jax.models.parameters import Array, Tree
from nt_jax.training import heldout, logs, moco
from nt_jax.training.state import TrainState, init_state
from nt_jax.training.steps import jit_train_step
from nt_jax.training.task import Evaluation, Step, Task

_SAMPLES_OF_KIND = 2


class NoiseTransferTask(Task):
    """Generator and discriminator."""

    titles: ClassVar = {
        "akld": "AKLD (reference: itself)",
        "ks": "KS (reference: itself)",
        "level_correlation": "noise-level correlation (reference: itself)",
        "akld_other": "AKLD (reference: another image)",
        "ks_other": "KS (reference: another image)",
        "level_correlation_other": "noise-level correlation (reference: another image)",
    }
    headline = ("akld", "ks", "level_correlation", "akld_other", "level_correlation_other")
    curves = ()
    picture = "generated"
    shown = ("loss_g", "loss_d", "recon", "contrastive_accuracy", "d_real", "d_fake")
    sections = ("model", "variant")
    inherits: ClassVar = {
        "generator": "generator",
        "generator_average": "generator",
        "generator_spectral": "generator_spectral",
        "discriminator": "discriminator",
        "discriminator_spectral": "discriminator_spectral",
        "key_encoder": "key_encoder",
        "key_spectral": "key_spectral",
        "queue": "queue",
    }

    def __init__(self, config: Any) -> None:
        moco.check_queue(config.model.queue_length, config.train.batch_size)
        if config.model.embedding_size + config.model.width < 4:
            raise InputError(
                f"config.model.embedding_size={config.model.embedding_size} and"
                f" width={config.model.width} leave no room for a modulation; need 4 together"
            )
        if config.losses.reading and not config.model.reader:
            raise InputError("config.losses.reading needs a head: set config.model.reader=True")
        self.config = config
        self.inputs = ("clean", "noisy", "reference")
        self._networks = make_networks(config.model, jnp.dtype(config.model.dtype))
        self._held_out = held_out = heldout.make_heldout(config)
        if not held_out.has_other.all():
            count, total = int(held_out.has_other.sum()), len(held_out.has_other)
            logs.say(
                f"held-out patches: {count} of {total} have another photograph with the same noise"
                " for a reference; scores that end in _other are of these"
            )
        self._generate = heldout.make_generate(
            self._networks, crop_of_trained(config.data.patch_size)
        )

    def init(self, key: Array) -> TrainState:
        return init_state(self.config, self._networks, key)

    def parameters(self, state: TrainState) -> dict[str, Tree]:
        return {"generator": state.generator, "discriminator": state.discriminator}

    def make_step(self, mesh: Mesh) -> Step:
        return jit_train_step(self.config, self._networks, mesh)

    def evaluate(self, state: TrainState, key: Array) -> Evaluation:
        held_out = self._held_out
        results, images = heldout.evaluate(self._generate, state, held_out, key)
        rows = heldout.last_of_each_kind(held_out, _SAMPLES_OF_KIND)
        clean, noisy, generated = held_out.clean[rows], held_out.noisy[rows], images["other"][rows]
        pictures = {
            "reference": held_out.reference[rows],
            "clean": clean,
            self.picture: np.clip(generated, 0, 1),
            "true noisy": noisy,
            "generated noise x4": 0.5 + 4 * (generated - clean),
            "true noise x4": 0.5 + 4 * (noisy - clean),
        }
        return Evaluation(results, pictures)

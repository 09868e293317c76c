"""NoiseTransfer: one generator for all noise, told by a reference (Lee and Kim, ACCV 2022)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nt_jax.families.noisetransfer import release
from nt_jax.fields import COUNT, DTYPE, FLAG, SHARE, WEIGHT, choice, number, several

if TYPE_CHECKING:
    from nt_jax.families.noisetransfer.task import NoiseTransferTask
    from nt_jax.inference.model import Model

FIELDS = {
    "model.width": COUNT,
    "model.blocks": several(COUNT, 3),
    "model.discriminator_blocks": several(COUNT, 3),
    "model.embedding_size": COUNT,
    "model.embedding_bound": choice("tanh", "l2"),
    "model.gan_trunk": choice("block", "head"),
    "model.reader": FLAG,
    "model.log_squares": FLAG,
    "model.queue_length": COUNT,
    "model.momentum": SHARE,
    "model.dtype": DTYPE,
    "variant.batch_negatives": FLAG,
    "variant.halved_gan_d": FLAG,
    "variant.power_iterations": COUNT,
    "losses.noise_d": WEIGHT,
    "losses.gan_d": WEIGHT,
    "losses.noise_g": WEIGHT,
    "losses.gan_g": WEIGHT,
    "losses.noise_fm": WEIGHT,
    "losses.gan_fm": WEIGHT,
    "losses.recon": WEIGHT,
    "losses.noise_level": WEIGHT,
    "losses.wasserstein": WEIGHT,
    "losses.reading": WEIGHT,
    "losses.autocorrelation": WEIGHT,
    "losses.temperature": number(0, above=True),
}


def task_class() -> type["NoiseTransferTask"]:
    """Imports the task, which needs optax."""
    from nt_jax.families.noisetransfer.task import NoiseTransferTask

    return NoiseTransferTask


def released(
    config: Mapping[str, Any], state: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Makes a model folder's content of a checkpoint: see `families.Family`."""
    return release.released(config, state)


def load(metadata: Mapping[str, Any], variables: Mapping[str, Any], dtype: str) -> "Model":
    """Builds the model: see `families.Family`."""
    return release.load(metadata, variables, dtype)

"""NoiseTransfer: one generator for all noise, told by a reference (Lee and Kim, ACCV 2022)."""

from typing import TYPE_CHECKING, Any

from nt_jax.families.noisetransfer import losses
from nt_jax.families.noisetransfer.release import load, released
from nt_jax.fields import COUNT, DTYPE, FLAG, SHARE, WEIGHT, choice, no_references, number, several

if TYPE_CHECKING:
    from nt_jax.families.noisetransfer.task import NoiseTransferTask

__all__ = ["FIELDS", "RELATIONS", "load", "released", "task_class"]

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
    **{f"losses.{name}": WEIGHT for name in (*losses.DISCRIMINATOR, *losses.GENERATOR)},
    "losses.temperature": number(0, above=True),
}


def queue_in_batches(config: Any) -> str:
    """Says what is wrong unless whole batches fill the queue, so that no write wraps around."""
    length, batch_size = config.model.queue_length, config.train.batch_size
    if length % batch_size == 0:
        return ""
    return (
        f"config.model.queue_length={length} is not a multiple of"
        f" config.train.batch_size={batch_size}; change one of them"
    )


def room_for_modulation(config: Any) -> str:
    """Says what is wrong if the embedding and the width are too small for a hidden layer."""
    size, width = config.model.embedding_size, config.model.width
    if size + width >= 4:
        return ""
    return (
        f"config.model.embedding_size={size} and width={width} leave no room for a modulation;"
        " need 4 together"
    )


def head_that_reads(config: Any) -> str:
    """Says what is wrong if there is a loss on a head that is not there."""
    if not config.losses.reading or config.model.reader:
        return ""
    return "config.losses.reading needs a head: set config.model.reader=True"


# What the fields ask of each other: each gives "" or what is wrong.
RELATIONS = (queue_in_batches, room_for_modulation, head_that_reads, no_references)


def task_class() -> type["NoiseTransferTask"]:
    """Imports the task, which needs optax."""
    from nt_jax.families.noisetransfer.task import NoiseTransferTask

    return NoiseTransferTask

"""Denoisers, trained on true, synthetic or generated noise (paper sections 4.3 and 4.4)."""

from typing import TYPE_CHECKING, Any

from nt_jax.errors import InputError
from nt_jax.families.denoiser.release import load, released
from nt_jax.fields import COUNT, DTYPE, FLAG, TEXT, choice, integer, no_references
from nt_jax.models.denoisers import KINDS, layout_of, make_denoiser

if TYPE_CHECKING:
    from nt_jax.families.denoiser.task import DenoiserTask

__all__ = ["FIELDS", "RELATIONS", "load", "released", "task_class"]

FIELDS = {
    "model.kind": choice(*KINDS),
    "model.width": COUNT,
    "model.blocks": COUNT,
    "model.finest_blocks": integer(0),
    "model.conditioned": FLAG,
    "model.dtype": DTYPE,
    "denoiser.noise": choice("generated", "real", "synthetic"),
    "denoiser.model": TEXT,
    "denoiser.loss": choice("l1", "psnr"),
    "denoiser.crop": integer(0),
}


def pairs_of_real_noise(config: Any) -> str:
    """Says what is wrong if training on real noise has no pairs."""
    if config.denoiser.noise != "real" or config.data.pairs:
        return ""
    return "training on real noise needs pairs: give --config.data.pairs=DIR"


def references_of_generated_noise(config: Any) -> str:
    """Says what is wrong if the model that makes the noise looks at references and has none."""
    if config.denoiser.noise != "generated" or not (wrong := no_references(config)):
        return ""
    from nt_jax.inference.loading import load  # which imports this module's family

    return wrong if "reference" in load(config.denoiser.model).told else ""


def crop_within_patch(config: Any) -> str:
    """Says what is wrong if the crop leaves too little of a patch."""
    crop, patch = config.denoiser.crop, config.data.patch_size
    if crop <= (patch - 8) // 2:
        return ""
    return (
        f"config.denoiser.crop={crop} must be 0 or more and leave 8 pixels of"
        f" config.data.patch_size={patch}"
    )


def sizes_of_network(config: Any) -> str:
    """Says what is wrong if the network cannot have this width or see patches of this size."""
    model = config.model
    of_unet = {"conditions": int(model.conditioned), "finest_blocks": model.finest_blocks}
    try:
        network = make_denoiser(model.kind, model.width, model.blocks, **of_unet)
        layout_of(network)
    except InputError as error:
        return str(error)
    seen = config.data.patch_size - 2 * config.denoiser.crop
    for name, side in (("data.patch_size", seen), ("eval.patch_size", config.eval.patch_size)):
        if side % network.alignment:
            return (
                f"config.{name}: {model.kind} sees {side} pixels a side, which must be a multiple"
                f" of {network.alignment}"
            )
    return ""


# What the fields ask of each other: each gives "" or what is wrong.
RELATIONS = (
    pairs_of_real_noise,
    references_of_generated_noise,
    crop_within_patch,
    sizes_of_network,
)


def task_class() -> type["DenoiserTask"]:
    """Imports the task, which needs optax."""
    from nt_jax.families.denoiser.task import DenoiserTask

    return DenoiserTask

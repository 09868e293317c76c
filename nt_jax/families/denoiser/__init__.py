"""Denoisers, trained on true, synthetic or generated noise (paper sections 4.3 and 4.4)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nt_jax.families.denoiser import release
from nt_jax.fields import COUNT, DTYPE, TEXT, choice, integer
from nt_jax.models.denoisers import KINDS

if TYPE_CHECKING:
    from nt_jax.families.denoiser.task import DenoiserTask
    from nt_jax.inference.denoiser import Denoiser

FIELDS = {
    "model.kind": choice(*KINDS),
    "model.width": COUNT,
    "model.blocks": COUNT,
    "model.dtype": DTYPE,
    "denoiser.noise": choice("generated", "real", "synthetic"),
    "denoiser.model": TEXT,
    "denoiser.crop": integer(0),
}


def task_class() -> type["DenoiserTask"]:
    """Imports the task, which needs optax."""
    from nt_jax.families.denoiser.task import DenoiserTask

    return DenoiserTask


def released(
    config: Mapping[str, Any], state: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Makes a model folder's content of a checkpoint: see `families.Family`."""
    return release.released(config, state)


def load(metadata: Mapping[str, Any], variables: Mapping[str, Any], dtype: str) -> "Denoiser":
    """Builds the denoiser: see `families.Family`."""
    return release.load(metadata, variables, dtype)

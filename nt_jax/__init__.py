"""NoiseTransfer in JAX: put the noise of one reference photo on clean images.

The names below load what they need when first used: importing the package takes no time.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nt_jax import metrics
    from nt_jax.errors import InputError
    from nt_jax.inference.denoiser import Denoiser
    from nt_jax.inference.loading import load, load_denoiser
    from nt_jax.inference.model import Model
    from nt_jax.inference.noise_bank import NoiseBank

__all__ = ["Denoiser", "InputError", "Model", "NoiseBank", "load", "load_denoiser", "metrics"]

_MODULES = {
    "Denoiser": "nt_jax.inference.denoiser",
    "InputError": "nt_jax.errors",
    "Model": "nt_jax.inference.model",
    "NoiseBank": "nt_jax.inference.noise_bank",
    "load": "nt_jax.inference.loading",
    "load_denoiser": "nt_jax.inference.loading",
}


def __getattr__(name: str) -> Any:
    if name == "metrics":
        return importlib.import_module("nt_jax.metrics")
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'nt_jax' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)

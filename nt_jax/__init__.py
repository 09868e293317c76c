"""NoiseTransfer in JAX: put the noise of one reference photo on clean images.

The names below load what they need when first used: importing the package takes no time.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nt_jax import metrics
    from nt_jax.errors import InputError
    from nt_jax.inference.model import Denoiser, Model, load, load_denoiser

__all__ = ["Denoiser", "InputError", "Model", "load", "load_denoiser", "metrics"]


def __getattr__(name: str) -> Any:
    if name == "metrics":
        return importlib.import_module("nt_jax.metrics")
    if name == "InputError":
        return importlib.import_module("nt_jax.errors").InputError
    if name in __all__:
        return getattr(importlib.import_module("nt_jax.inference.model"), name)
    raise AttributeError(f"module 'nt_jax' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)

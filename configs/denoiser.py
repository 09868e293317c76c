"""The recipe that `nt_jax/configs/denoiser.py` holds and explains, by its path in a checkout."""

from nt_jax.configs.denoiser import get_config

__all__ = ["get_config"]

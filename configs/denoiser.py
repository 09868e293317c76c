"""The recipe of `nt_jax/configs/denoiser.py`, where it is explained."""

from nt_jax.configs.denoiser import get_config

__all__ = ["get_config"]

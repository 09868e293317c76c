"""The recipe of `nt_jax/configs/reader.py`, where it is explained."""

from nt_jax.configs.reader import get_config

__all__ = ["get_config"]

"""The recipe of `nt_jax/configs/quickstart.py`, where it is explained."""

from nt_jax.configs.quickstart import get_config

__all__ = ["get_config"]

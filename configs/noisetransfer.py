"""The recipe of `nt_jax/configs/noisetransfer.py`, where it is explained."""

from nt_jax.configs.noisetransfer import get_config

__all__ = ["get_config"]

"""The recipe of `nt_jax/configs/peers.py`, where it is explained."""

from nt_jax.configs.peers import get_config

__all__ = ["get_config"]

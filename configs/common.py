"""The fields of every recipe: see `nt_jax/configs/common.py`, where they are explained."""

from nt_jax.configs.common import base_config

__all__ = ["base_config"]

"""The recipe that `nt_jax/configs/quickstart.py` holds and explains, by its path in a checkout."""

from nt_jax.configs.quickstart import get_config

__all__ = ["get_config"]

"""Peers of the paper: noise generators of others, docs/peers.md.

  python -m nt_jax.main --config=configs/peers.py:srgbflow-small --workdir=runs/srgbflow \
    --config.data.pairs=SIDD_DIR --config.eval.pairs=SIDD_VAL_DIR

ARG is NAME, NAME-small or NAME-smoke. NAME is one of
  srgbflow  sRGB Flow, by camera and ISO of the pairs' names (default)
Without pairs they learn synthetic noise of photographs. -small is for 2 CPU cores; -smoke takes
seconds and needs no data.
"""

from ml_collections import ConfigDict

from nt_jax.configs.common import base_config
from nt_jax.errors import InputError


def get_config(arg: str = "srgbflow") -> ConfigDict:
    """The recipe named `arg`."""
    name, _, size = arg.partition("-")
    if name not in _PEERS or size not in ("", "small", "smoke"):
        raise InputError(
            f"no config argument '{arg}'; choose NAME, NAME-small or NAME-smoke with NAME one of"
            f" {', '.join(_PEERS)}"
        )
    config = base_config()
    config.family = name
    # Of NoiseTransfer.
    del config.variant, config.losses
    config.model = ConfigDict()
    # True pairs alone, where there are any, and no reference.
    config.data.real_fraction = 1.0
    config.data.real_reference = "none"
    config.train.l2 = 0.0
    _PEERS[name](config, size)
    if size:
        _small(config)
    if size == "smoke":
        _smoke(config)
    return config


def _srgbflow(config: ConfigDict, size: str) -> None:
    # Channels of the couplings' networks.
    config.model.width = 5
    # Blocks of the flow: a linear map by camera and ISO, two couplings.
    config.model.blocks = 1 if size == "smoke" else 4
    config.data.patch_size = 32
    config.train.batch_size = 138
    config.train.adam_b1 = 0.9
    config.train.adam_b2 = 0.999
    # The paper has 2,000 epochs; the flow is as small as that at both sizes.
    config.train.steps = 400_000
    if size:
        config.train.batch_size = 32
        config.train.learning_rate = 1e-3


def _small(config: ConfigDict) -> None:
    """The budget that all peers have alike."""
    config.train.steps = 5000
    config.train.checkpoint_every = 200
    config.train.log_every = 20
    config.eval.every = 500


def _smoke(config: ConfigDict) -> None:
    config.data.loader = "device"
    config.data.patch_size = 16
    # Camera noise takes half a minute to compile.
    config.data.noise_kinds = ("gaussian",)
    config.data.noise_kind_weights = (1.0,)
    config.train.batch_size = 4
    config.train.steps = 4
    config.train.checkpoint_every = 2
    config.train.log_every = 1
    config.eval.every = 4
    config.eval.patches = 2
    config.eval.patch_size = 32


_PEERS = {"srgbflow": _srgbflow}

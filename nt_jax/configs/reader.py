"""Readers of noise: networks that tell what the noise of a photo is like. Not in the paper.

  python -m nt_jax.main --config=configs/reader.py:ARG --workdir=runs/reader \
    --config.data.photos=CLEAN_PHOTOS --config.data.pairs=SIDD_DIR,POLYU_DIR

ARG is one of
  small     width 16, batch 32, patch 64: two hours on one CPU core (default)
  spectrum  the noise's power spectrum in place of level, correlations and the like: an hour on one
            CPU core, with --config.train.init_from=experiments/networks/reader to begin with the
            networks of a reader
  smoke     seconds, for tests; needs no data
"""

from ml_collections import ConfigDict

from nt_jax.configs.common import add_all_noise, base_config, make_smoke
from nt_jax.errors import InputError


def get_config(arg: str = "small") -> ConfigDict:
    """Makes the recipe named `arg`."""
    if arg not in _RECIPES:
        raise InputError(f"no config argument '{arg}'; choose from {', '.join(_RECIPES)}")
    config = base_config()
    config.family = "reader"
    for name in ("variant", "losses"):
        del config[name]
    config.model = model = ConfigDict()
    # Channels of the first scale. `train.init_from` may name a narrower reader.
    model.width = 16
    # What it reads: numbers of `nt_jax.readings`, or the power spectrum (`nt_jax.spectra`).
    model.reads = "readings"
    add_all_noise(config.data)
    config.data.patch_size = 64
    train = config.train
    train.batch_size = 32
    train.steps = 10_000
    train.learning_rate = 7e-4
    train.decay = "cosine"
    train.adam_b1 = 0.9
    train.adam_b2 = 0.999
    train.l2 = 0.0
    train.ema_decay = 0.999
    train.checkpoint_every = 200
    train.log_every = 20
    config.eval.every = 2000
    config.eval.patch_size = 64
    _RECIPES[arg](config)
    return config


def _small(config: ConfigDict) -> None:
    del config


def _spectrum(config: ConfigDict) -> None:
    config.model.reads = "spectrum"
    config.train.steps = 3000
    config.train.learning_rate = 5e-4
    config.train.ema_decay = 0.995
    config.eval.every = 500


def _smoke(config: ConfigDict) -> None:
    config.model.width = 4
    make_smoke(config)
    config.data.patch_size = 24


_RECIPES = {"small": _small, "spectrum": _spectrum, "smoke": _smoke}

"""NoiseTransfer.

  python -m nt_jax.main --config=configs/noisetransfer.py:ARG --workdir=runs/ARG \
    --config.data.photos=DIV2K_DIR --config.data.pairs=SIDD_DIR

ARG is one of
  paper     the paper's settings (default): width 64, batch 32, patch 96, 400,000 steps
  official  those of the authors' released program where it differs
  small     width 16, batch 8, patch 48: hours on 2 CPU cores
  base      width 64, batch 32, patch 96 in bfloat16: hours on one GPU, without TensorFlow
  smoke     seconds, for tests; needs no data
"""

from ml_collections import ConfigDict

from nt_jax.configs.common import base_config
from nt_jax.errors import InputError


def get_config(arg: str = "paper") -> ConfigDict:
    """Makes the recipe named `arg`."""
    if arg not in _RECIPES:
        raise InputError(f"no config argument '{arg}'; choose from {', '.join(_RECIPES)}")
    config = base_config()
    _RECIPES[arg](config)
    return config


def _paper(config: ConfigDict) -> None:
    del config


def _official(config: ConfigDict) -> None:
    config.model.embedding_bound = "l2"
    config.model.gan_trunk = "head"
    config.variant.batch_negatives = True
    config.variant.halved_gan_d = True
    config.variant.power_iterations = 5
    config.data.mixing = "uniform"
    config.data.noise_kind_weights = (0.2, 0.2, 0.6)
    config.data.real_reference = "same_iso"
    config.data.pair_clean_fraction = 0.2
    config.data.blur_pair_clean = True
    config.data.blend_probability = 0.5
    config.data.cutmix_probability = 0.5
    config.data.dequantise = True


def _wide_world(config: ConfigDict) -> None:
    """Makes a generator useful on cameras it never saw; not in the paper."""
    # With the paper's 0.999 the key encoder still resembles its random start after 1,000 steps.
    config.model.momentum = 0.99
    config.model.log_squares = True
    config.model.reader = True
    config.losses.reading = 10.0
    config.losses.autocorrelation = 10.0
    config.losses.noise_level = 10.0
    config.losses.wasserstein = 30.0
    config.data.real_fraction = 0.375
    config.data.noise_kinds = ("gaussian", "poisson", "poisson_gaussian", "camera")
    config.data.noise_kind_weights = (1.0, 1.0, 1.0, 5.0)
    config.data.camera_processing = True
    config.data.grey_fraction = 0.08


def _small(config: ConfigDict) -> None:
    _wide_world(config)
    config.model.width = 16
    config.data.patch_size = 48
    config.train.batch_size = 8
    config.train.learning_rate = 2e-4
    config.train.steps = 6000
    config.train.checkpoint_every = 200
    config.eval.every = 500
    config.train.log_every = 20


def _base(config: ConfigDict) -> None:
    _wide_world(config)
    config.model.dtype = "bfloat16"
    config.data.loader = "device"
    config.train.steps = 100_000


def _smoke(config: ConfigDict) -> None:
    _small(config)
    config.model.width = 4
    config.model.blocks = (1, 1, 1)
    config.model.discriminator_blocks = (1, 1, 1)
    config.model.embedding_size = 16
    config.model.queue_length = 64
    config.data.real_fraction = 0.5
    # Camera noise takes half a minute to compile.
    config.data.noise_kinds = ("gaussian", "poisson", "poisson_gaussian")
    config.data.noise_kind_weights = (1.0, 1.0, 1.0)
    config.data.loader = "device"
    config.data.patch_size = 16
    config.train.steps = 6
    # `small` keeps no average; tests cover it.
    config.train.ema_decay = 0.99
    config.train.checkpoint_every = 2
    config.train.log_every = 1
    config.eval.every = 3
    config.eval.patches = 2
    config.eval.patch_size = 32


_RECIPES = {
    "paper": _paper,
    "official": _official,
    "small": _small,
    "base": _base,
    "smoke": _smoke,
}

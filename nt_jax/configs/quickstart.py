"""Quickstart: minutes on 2 CPU cores, on photographs that come with scikit-image.

python -m nt_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

Goes on from the networks of the bundled `small`, which lie in the repository: run it there.
"""

from ml_collections import ConfigDict

from nt_jax.configs.noisetransfer import get_config as noisetransfer_config


def get_config() -> ConfigDict:
    """Configures a few careful steps of the generator, its encoder as it is."""
    config = noisetransfer_config("small")
    config.model.width = 24
    config.model.momentum = 1.0
    config.data.loader = "device"
    # Camera noise takes half a minute to compile.
    config.data.noise_kinds = ("gaussian", "poisson", "poisson_gaussian")
    config.data.noise_kind_weights = (1.0, 1.0, 1.0)
    config.train.init_from = "experiments/networks/small"
    config.train.learning_rate = 2e-5
    config.train.steps = 20
    config.train.checkpoint_every = 10
    config.train.keep_checkpoints = 1
    config.train.log_every = 1
    config.eval.every = 20
    config.eval.patches = 8
    return config

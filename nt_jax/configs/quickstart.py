"""Quickstart: minutes on 2 CPU cores, on photographs that come with scikit-image.

python -m nt_jax.main --config=configs/quickstart.py --workdir=runs/quickstart
"""

from ml_collections import ConfigDict

from nt_jax.configs.common import base_config


def get_config() -> ConfigDict:
    """Narrower and shallower networks than `small`, faster learning, and the noise-level loss."""
    config = base_config()
    config.model.width = 8
    config.model.blocks = (1, 1, 1)
    config.model.discriminator_blocks = (1, 1, 1)
    config.model.embedding_size = 32
    config.model.queue_length = 512
    # The paper's 0.999 would leave the key encoder near its random start for the whole run.
    config.model.momentum = 0.99
    config.data.patch_size = 32
    config.train.batch_size = 16
    config.train.learning_rate = 5e-4
    config.losses.noise_level = 10.0
    config.train.steps = 900
    config.train.checkpoint_every = 300
    config.train.keep_checkpoints = 1
    config.train.log_every = 10
    config.eval.every = 300
    return config

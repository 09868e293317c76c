"""Peers of the paper: noise generators of others, docs/peers.md.

  python -m nt_jax.main --config=configs/peers.py:srgbflow-small --workdir=runs/srgbflow \
    --config.data.pairs=SIDD_DIR --config.eval.pairs=SIDD_VAL_DIR

ARG is NAME, NAME-small or NAME-smoke. NAME is one of
  srgbflow  sRGB Flow, by camera and ISO of the pairs' names (default)
  danet     DANet's generator, trained together with its denoiser
  gdanet    the same on more data: SIDD, PolyU and RENOIR, all in --config.data.pairs
  c2n       C2N, of clean and noisy images that are no pairs
  neca      NeCA, one model for all cameras
  naflow    NAFlow, by camera and ISO of the pairs' names
  n2g       N2G, of images with Gaussian noise and others without any; also called n2g_g
  n2g_p     the same with Poisson noise
Without pairs they learn synthetic noise of photographs. -small is for 2 CPU cores; -smoke takes
seconds and needs no data.
"""

from collections.abc import Callable
from functools import partial

from ml_collections import ConfigDict

from nt_jax.configs.common import base_config
from nt_jax.errors import InputError


def get_config(arg: str = "srgbflow") -> ConfigDict:
    """Makes the recipe named `arg`."""
    name, _, size = arg.partition("-")
    name = _ALIASES.get(name, name)
    if name not in _PEERS or size not in ("", "small", "smoke"):
        raise InputError(
            f"no config argument '{arg}'; choose NAME, NAME-small or NAME-smoke with NAME one of"
            f" {', '.join(_PEERS)}"
        )
    config = base_config()
    config.family = _FAMILIES.get(name, name)
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


def _danet(config: ConfigDict, size: str) -> None:
    # Channels of the first of five levels of generator and denoiser, and of the critic's first.
    config.model.width = {"": 32, "small": 8, "smoke": 2}[size]
    config.model.critic_width = {"": 64, "small": 16, "smoke": 4}[size]
    config.losses = losses = ConfigDict()
    # Weight of the denoiser's absolute error, beside half of the critic's score.
    losses.restored = 1000.0
    # Weight of the generator's error of blurred noise, beside half of the critic's score.
    losses.generated = 10.0
    # Weight of the critic's gradient penalty.
    losses.penalty = 10.0
    # A power of two: the critic halves it down to 4.
    config.data.patch_size = 64 if size else 128
    train = config.train
    train.batch_size = 8 if size else 16
    # Updates of the critic before one of generator and denoiser, which is a step.
    train.critic_steps = 1 if size == "smoke" else 3
    train.critic_learning_rate = 2e-4
    # Of the generator and the critic; the denoiser has 0.9 and 0.999.
    train.adam_b1 = 0.5
    train.adam_b2 = 0.9
    # 70 epochs of 5,000 steps; halved at those epochs, of a small run at the same shares.
    train.steps = 350_000
    halved = (epoch / 70 for epoch in (20, 30, 40, 50, 60, 65))
    train.halve_at = _at_shares(5000 if size else 350_000, *halved)


def _c2n(config: ConfigDict, size: str) -> None:
    # Channels of the noise features and of the critic; even.
    config.model.width = {"": 64, "small": 16, "smoke": 4}[size]
    config.losses = losses = ConfigDict()
    # Weight of the squared mean of a batch's noise, beside the critic's score.
    losses.mean = 0.01
    # Weight of the critic's gradient penalty.
    losses.penalty = 10.0
    # Noisy images of other photographs than the clean ones.
    config.data.real_reference = "other_image"
    config.data.patch_size = 48 if size else 96
    train = config.train
    # These, the steps and the patches are ours: the public source does not tell them.
    train.batch_size = 8 if size else 16
    train.adam_b1 = 0.5
    train.adam_b2 = 0.9
    train.steps = 300_000


def _neca(config: ConfigDict, size: str) -> None:
    # Channels of the first of four levels of the network of grain, and of the critics' first.
    config.model.width = {"": 64, "small": 16, "smoke": 2}[size]
    config.model.critic_width = {"": 64, "small": 16, "smoke": 2}[size]
    # Channels of the networks of gain and level.
    config.model.level_width = 4 if size == "smoke" else 96
    config.losses = losses = ConfigDict()
    # Weights of the squared errors: the gain's, against the deviation of all of the noise; the
    # level's, against that of 7x7 pixels; the level's against the gain.
    losses.gain = 50.0
    losses.level = 10.0
    losses.evenness = 1.0
    # Weight of each critic's score in the generator's loss, and of each critic's gradient penalty.
    losses.adversarial = 0.1
    losses.penalty = 10.0
    config.data.patch_size = 48 if size else 96
    train = config.train
    train.batch_size = 8 if size else 16
    # Steps from one in which the critics judge the generator to the next; they learn in all.
    train.adversarial_every = 5
    train.adam_b1 = 0.5
    train.adam_b2 = 0.9
    # Ours: the program counts epochs of patches that it cuts beforehand.
    train.steps = 300_000


def _naflow(config: ConfigDict, size: str) -> None:
    # Channels of the networks inside of the affine maps.
    config.model.width = {"": 64, "small": 32, "smoke": 4}[size]
    # How often the flow halves the image.
    config.model.levels = 1 if size == "smoke" else 3
    config.data.patch_size = 64 if size else 160
    train = config.train
    train.batch_size = 8
    train.adam_b1 = 0.9
    train.adam_b2 = 0.99
    train.steps = 100_000
    train.halve_at = _at_shares(5000 if size else 100_000, 0.5, 0.75, 0.9, 0.95)
    if size:
        train.learning_rate = 5e-4


def _n2g(config: ConfigDict, size: str, kind: str) -> None:
    # Channels of the U-Net at full size.
    config.model.width = 2 if size == "smoke" else 32
    # All noise is synthetic; pairs, if any, give clean images.
    config.data.real_fraction = 0.0
    config.data.real_reference = "other_image"
    config.data.noise_kinds, config.data.noise_kind_weights = (kind,), (1.0,)
    config.data.patch_size = 64 if size else 128
    train = config.train
    train.batch_size = 4 if size else 1
    # The loss of the gradient counts in every step, after so many in every second, and so on.
    train.rarer_after = 500
    train.learning_rate = 1e-3 if size else 2e-4
    train.adam_b1 = 0.5
    train.adam_b2 = 0.999
    # Ours: the paper has 1,000 epochs, and a linear fall from the 500th on.
    train.steps = 500_000
    train.decay = "cosine"


def _at_shares(steps: int, *shares: float) -> tuple[int, ...]:
    """Computes the steps at these shares of a run."""
    return tuple(round(share * steps) for share in shares)


def _small(config: ConfigDict) -> None:
    """Sets the budget that all peers have alike."""
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


_PEERS: dict[str, Callable[[ConfigDict, str], None]] = {
    "srgbflow": _srgbflow,
    "danet": _danet,
    "gdanet": _danet,
    "c2n": _c2n,
    "neca": _neca,
    "naflow": _naflow,
    "n2g_g": partial(_n2g, kind="gaussian"),
    "n2g_p": partial(_n2g, kind="poisson"),
}
_ALIASES = {"n2g": "n2g_g"}
# Of recipes that are not called as their family.
_FAMILIES = {"gdanet": "danet", "n2g_g": "n2g", "n2g_p": "n2g"}

"""A denoiser on true, synthetic or generated noise: the paper's RIDNet, or one for every camera.

  python -m nt_jax.main --config=configs/denoiser.py:generated --workdir=runs/denoiser \
    --config.denoiser.model=runs/paper --config.data.pairs=SIDD_DIR --config.eval.pairs=SIDD_VAL_DIR

ARG is NOISE, NOISE-small or NOISE-smoke. NOISE is one of
  generated  a NoiseTransfer model puts the noise of a random other noisy image on clean patches
             (default). References are the pairs' noisy images; without pairs, photographs with
             synthetic noise, for which the paper has --config.train.l2=1e-6
  real       ground-truth pairs, which --config.data.pairs must name
  synthetic  Gaussian (sigma 0 to 50), Poisson (lambda 5 to 50) or both on photographs
  gaussian   Gaussian noise alone
  camera     noise of a camera's raw values, developed (not in the paper)
  blind      all of them in one U-Net, for cameras never seen: true pairs, where --config.data.pairs
             names some, beside the whole world of synthetic noise (not in the paper)
-small is for 2 CPU cores. -smoke takes seconds and needs no data but the model; `smoke` alone is
gaussian-smoke, which needs none.
"""

from ml_collections import ConfigDict

from nt_jax.configs.common import add_all_noise, base_config, make_smoke
from nt_jax.errors import InputError

_KINDS = {
    "generated": ("gaussian", "poisson", "poisson_gaussian"),
    "real": (),
    "synthetic": ("gaussian", "poisson", "poisson_gaussian"),
    "gaussian": ("gaussian",),
    "camera": ("camera",),
    "blind": ("gaussian", "poisson", "poisson_gaussian", "camera"),
}


def get_config(arg: str = "generated") -> ConfigDict:
    """Makes the recipe named `arg`."""
    noise, _, size = ("gaussian-smoke" if arg == "smoke" else arg).partition("-")
    if noise not in _KINDS or size not in _SIZES:
        raise InputError(
            f"no config argument '{arg}'; choose NOISE, NOISE-small or NOISE-smoke with NOISE one"
            f" of {', '.join(_KINDS)}"
        )
    config = _paper(noise)
    if noise == "blind":
        _blind(config)
    (_BLIND_SIZES if noise == "blind" else _SIZES)[size](config)
    return config


def _paper(noise: str) -> ConfigDict:
    config = base_config()
    config.family = "denoiser"
    # The generator's and the discriminator's.
    del config.variant, config.losses

    config.model = model = ConfigDict()
    # `ridnet`, `unet`, `dncnn` or `ffdnet`: nt_jax/models/denoisers.py.
    model.kind = "ridnet"
    # Channels of every layer, of a U-Net's first level; a multiple of 16 for RIDNet.
    model.width = 64
    # RIDNet's enhanced attention blocks; residual blocks of a U-Net's level, down and up; else
    # convolutions.
    model.blocks = 4
    # Those of a U-Net's finest level, at half size; 0 for model.blocks there, too.
    model.finest_blocks = 0
    # Whether a U-Net is conditioned on the power spectrum of the noise, which is measured in
    # training, and read off a photo by a network that `release_model --reader` joins to it.
    model.conditioned = False
    # Compute type of the convolutions, the noise model's too: float32 or bfloat16.
    model.dtype = "float32"

    config.denoiser = denoiser = ConfigDict()
    # What a clean patch is paired with: `generated` noise, the `real` noisy version, or
    # `synthetic` noise of data.noise_kinds, beside real pairs where data.real_fraction is not 0.
    denoiser.noise = noise if noise in ("generated", "real") else "synthetic"
    # NoiseTransfer model that generates: a bundled name, a workdir or a model folder.
    denoiser.model = "small"
    # `l1`, the mean absolute difference, or `psnr`, the mean of each patch's log square error.
    denoiser.loss = "l1"
    # Pixels cut off on each side of a patch once it is noisy; 88 becomes 80.
    denoiser.crop = 4

    data = config.data
    # A multiple of 4, before the cut.
    data.patch_size = 88
    # All rows are real pairs, or, for generated noise, clean images of pairs and other pairs' noisy
    # images; without pairs all rows are synthetic.
    data.real_fraction = 1.0 if noise in ("generated", "real") else 0.0
    # Unpaired references; true pairs need none, so one pair suffices.
    data.real_reference = "same_image" if noise == "real" else "other_image"
    # Of synthetic noise, true or to be imitated.
    if noise != "real":
        data.noise_kinds = _KINDS[noise]
        data.noise_kind_weights = (1.0,) * len(_KINDS[noise])
    data.sigma_range = (0.0, 50.0)
    data.lam_range = (5.0, 50.0)

    train = config.train
    # 200 epochs of 5,000 steps.
    train.steps = 1_000_000
    # Adam's moments, and L2 regularisation of the real and of the synthetic study.
    train.adam_b1 = 0.9
    train.adam_b2 = 0.999
    train.l2 = 1e-5 if noise in ("generated", "real") else 1e-6
    # Steps after which the learning rate is halved: epochs 150, 170 and 190.
    train.halve_at = (750_000, 850_000, 950_000)
    train.checkpoint_every = 5000

    evaluation = config.eval
    # Real pairs are evaluated on others, which config.eval.pairs must name.
    if noise == "real":
        evaluation.photos = ""
    evaluation.every = 5000
    # Whole blocks of SIDD's validation set.
    evaluation.patch_size = 256
    return config


def _blind(config: ConfigDict) -> None:
    """Denoises what no camera here has made; not in the paper."""
    config.model.kind = "unet"
    config.model.width = 48
    config.model.blocks = 2
    config.denoiser.crop = 0
    config.denoiser.loss = "psnr"

    data = config.data
    add_all_noise(data)
    data.patch_size = 128
    data.sigma_range = (0.0, 55.0)

    train = config.train
    train.batch_size = 16
    train.steps = 300_000
    train.learning_rate = 5e-4
    train.decay = "cosine"
    train.halve_at = ()
    train.l2 = 0.0
    train.ema_decay = 0.999


def _blind_small(config: ConfigDict) -> None:
    """Sets a budget of ten hours on one CPU core."""
    config.data.patch_size = 96
    config.train.batch_size = 8
    config.train.steps = 55_000
    config.train.checkpoint_every = 500
    config.train.log_every = 50
    config.eval.every = 5000
    config.eval.patches = 16


def _blind_smoke(config: ConfigDict) -> None:
    config.model.width = 16
    config.model.blocks = 1
    make_smoke(config)
    config.data.patch_size = 24


def _full(config: ConfigDict) -> None:
    del config


def _small(config: ConfigDict) -> None:
    config.model.width = 16
    config.model.blocks = 2
    config.data.patch_size = 48
    config.train.batch_size = 8
    config.train.learning_rate = 1e-3
    config.train.steps = 6000
    config.train.halve_at = (4500, 5100, 5700)
    config.train.ema_decay = 0.99
    config.train.checkpoint_every = 500
    config.train.log_every = 20
    config.eval.every = 500
    config.eval.patches = 12
    config.eval.patch_size = 128


def _smoke(config: ConfigDict) -> None:
    _small(config)
    config.model.blocks = 1
    config.data.loader = "device"
    config.data.patch_size = 24
    config.train.steps = 6
    config.train.halve_at = (4,)
    config.train.checkpoint_every = 2
    config.train.log_every = 1
    config.eval.every = 3
    config.eval.patches = 2
    config.eval.patch_size = 32


_SIZES = {"": _full, "small": _small, "smoke": _smoke}
_BLIND_SIZES = {"": _full, "small": _blind_small, "smoke": _blind_smoke}

"""Pieces shared by the recipes: the fields every training config has, each with its meaning."""

from ml_collections import ConfigDict


def base_config() -> ConfigDict:
    """Makes the `paper` preset on scikit-image's photographs; recipes change what differs."""
    config = ConfigDict()
    # What is trained: a folder of nt_jax/families, or a module of your own that the recipe imports.
    config.family = "noisetransfer"
    # Seed of initialisation, data and random maps.
    config.seed = 0

    config.model = model = ConfigDict()
    # Channels F of the first level of both networks.
    model.width = 64
    # Generator: residual blocks of levels 1, 2 and 3.
    model.blocks = (4, 3, 2)
    # Discriminator: residual blocks of levels 1, 2 and 3.
    model.discriminator_blocks = (2, 3, 4)
    # Size E of the noise embedding.
    model.embedding_size = 128
    # How the embedding is bounded: `tanh` (paper) or `l2` (released program).
    model.embedding_bound = "tanh"
    # What the gan branch's next level reads: the last residual `block` (paper) or the `head`'s
    # normalised features (released program).
    model.gan_trunk = "block"
    # The embedding also sees the strength of features, which instance norms hide; not in the paper.
    model.log_squares = False
    # A head reads numbers of the noise off the embedding (see losses.reading); not in the paper.
    model.reader = False
    # Negative keys kept; a multiple of the batch size.
    model.queue_length = 4096
    # Momentum of the key encoder; 1 leaves it as it is at the start (see train.init_from).
    model.momentum = 0.999
    # Compute type of the convolutions: float32 or bfloat16. Parameters stay float32.
    model.dtype = "float32"

    config.variant = variant = ConfigDict()
    # The other keys of the batch are negatives too (released program).
    variant.batch_negatives = False
    # L_gan of D is the mean of its two terms instead of their sum (released program).
    variant.halved_gan_d = False
    # Power iterations of D's spectral norms in a step; the released program makes one a pass.
    variant.power_iterations = 1

    config.losses = losses = ConfigDict()
    # Weights of the terms; 0 leaves a term out of the computation. L_D: contrast, adversarial.
    losses.noise_d = 1.0
    losses.gan_d = 1.0
    # L_G: contrast, adversarial, feature matching of both branches, blurred difference.
    losses.noise_g = 1.0
    losses.gan_g = 1.0
    losses.noise_fm = 100.0
    losses.gan_fm = 100.0
    losses.recon = 100.0
    # Difference of local log variances; not in the paper.
    losses.noise_level = 0.0
    # Distance of the histograms of the noise, channel by channel; not in the paper.
    losses.wasserstein = 0.0
    # L_D: what the head reads off an image's embedding, next to numbers measured on its own noise;
    # needs model.reader. L_G: correlations of the noise in space and between channels. Neither is
    # in the paper.
    losses.reading = 0.0
    losses.autocorrelation = 0.0
    # Temperature of InfoNCE.
    losses.temperature = 0.1

    config.data = data = ConfigDict()
    # `tfdata` crops on the host; `device` keeps all images on the accelerator, without TensorFlow.
    data.loader = "tfdata"
    # Side of the training patches in pixels, a multiple of 4.
    data.patch_size = 96
    # Clean photographs for synthetic noise: folders, comma-separated, each with an optional
    # `=WEIGHT` (default: its number of images), or `skimage`. A folder of images, or a split that
    # nt_jax.prepare wrote: `data/div2k/train`.
    data.photos = "skimage"
    # Real pairs, written likewise; empty for none.
    data.pairs = ""
    # Folder for the pixels of all images as a memory-mapped file; empty: they are kept in memory.
    data.cache = ""
    # Share of real pairs in a batch when mixing is `fixed`; without pairs every row is synthetic.
    data.real_fraction = 0.5
    # `fixed`: real_fraction of every batch; `uniform`: by number of images (released program).
    data.mixing = "fixed"
    # Synthetic kinds and their weights: gaussian, poisson, poisson_gaussian, camera (not in the
    # paper: noise on raw values, developed as a camera does).
    data.noise_kinds = ("gaussian", "poisson", "poisson_gaussian")
    data.noise_kind_weights = (1.0, 1.0, 1.0)
    # Range of the Gaussian sigma, on the 0-255 scale.
    data.sigma_range = (0.0, 70.0)
    # Range of the Poisson lambda: photons at white.
    data.lam_range = (5.0, 100.0)
    # Shot and read noise of `camera`: a JSON file of measured levels, a list of
    # {"camera": "S6", "iso": 800, "shot": 4e-3, "read": 2e-5} with variance shot * x + read for raw
    # values x in [0, 1]; empty for the distribution of Brooks et al. 2019.
    data.camera_levels = ""
    # Range of JPEG's quality after camera noise, 1 to 100; (0, 0) for no JPEG.
    data.camera_jpeg_quality = (0, 0)
    # Cameras reduce, smooth, sharpen and compress the noise of `camera`, each in its own way, and
    # levels have a wider range (nt_jax/noise/processing.py).
    data.camera_processing = False
    # Share of synthetic rows that are grey: one noise common to all channels.
    data.grey_fraction = 0.0
    # Reference of a real pair: another patch of the `same_image` (paper), or a patch of a random
    # noisy image of the `same_iso` (released program) or `same_group` (camera and ISO), or of any
    # `other_image` (the denoiser's unpaired references), or `none`, for synthetic rows too.
    data.real_reference = "same_image"
    # Clean image below the noise of a synthetic row's reference: `other_image` (paper) or another
    # patch of the `same_image` (released program, for denoisers on generated noise).
    data.synthetic_reference = "other_image"
    # Share of synthetic rows on the pairs' clean images; negative: by number of images.
    data.pair_clean_fraction = -1.0
    # Blur those clean images first (released program).
    data.blur_pair_clean = False
    # Real rows: probability of a common blend of noisy and clean, and of CutMix (released program).
    data.blend_probability = 0.0
    data.cutmix_probability = 0.0
    # Real rows: uniform +-1/2 grey level where the noise is not 0 (released program).
    data.dequantise = False

    config.train = train = ConfigDict()
    # Updates of both networks.
    train.steps = 400_000
    # Workdir of another run whose networks this one starts with, at step 0 and with new optimizers;
    # for a denoiser also a denoiser's folder or a bundled name; empty: random ones.
    train.init_from = ""
    # Examples in a batch, over all devices.
    train.batch_size = 32
    # Adam, and L2 regularisation added to its gradient.
    train.learning_rate = 1e-4
    # How the learning rate falls: `halve` at steps, or along a `cosine` to 0 at the last step.
    train.decay = "halve"
    # Steps at which the learning rate is halved.
    train.halve_at = ()
    train.adam_b1 = 0.5
    train.adam_b2 = 0.99
    train.l2 = 1e-7
    # Decay of the generator's moving average used for evaluation and release; 0 keeps none. In
    # the first steps less, (1 + step) / (10 + step). The embedding that the generator reads drifts,
    # unless momentum is 1: an average over many steps is of generators made for other embeddings.
    train.ema_decay = 0.0
    # Steps between checkpoints, and how many to keep.
    train.checkpoint_every = 2000
    train.keep_checkpoints = 2
    # Steps between lines of metrics.jsonl.
    train.log_every = 100

    config.eval = evaluation = ConfigDict()
    # Held-out photographs and pairs, written as in `data`; either may be empty.
    evaluation.photos = "skimage-heldout"
    evaluation.pairs = ""
    # Steps between evaluations with sample pictures; also before the first and after the last.
    evaluation.every = 2000
    # Held-out patches of each synthetic kind, and of real pairs.
    evaluation.patches = 24
    # Their side in pixels, a multiple of 4.
    evaluation.patch_size = 128
    return config


def add_all_noise(data: ConfigDict) -> None:
    """Sets the data of networks that must know the noise of any camera, without references."""
    data.loader = "device"
    data.real_reference = "none"
    # Of rows, where there are pairs.
    data.real_fraction = 0.4
    # The pairs' clean images are means of noisy ones and smaller than photographs.
    data.pair_clean_fraction = 0.2
    data.noise_kinds = ("gaussian", "poisson", "poisson_gaussian", "camera")
    data.noise_kind_weights = (1.0, 0.5, 1.0, 5.0)
    data.camera_processing = True
    data.grey_fraction = 0.08
    data.lam_range = (5.0, 400.0)


def make_smoke(config: ConfigDict) -> None:
    """Shortens a recipe to seconds: six steps, saved at every second, of quickly compiled noise."""
    data, train, evaluation = config.data, config.train, config.eval
    data.loader = "device"
    # Camera noise takes half a minute to compile.
    data.noise_kinds = ("gaussian", "poisson_gaussian")
    data.noise_kind_weights = (1.0, 1.0)
    train.batch_size = 8
    train.steps = 6
    train.ema_decay = 0.99
    train.checkpoint_every = 2
    train.log_every = 1
    evaluation.every = 3
    evaluation.patches = 2
    evaluation.patch_size = 32

"""Nothing hangs on settings of the process that no checkpoint records, and strict modes pass."""

import ast
import contextlib
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import save_tiny

import nt_jax
from configs import denoiser, noisetransfer
from nt_jax import metrics, noise, prng
from nt_jax.data.sampling import augment
from nt_jax.evaluation import c2st
from nt_jax.families.denoiser import state as denoiser_state
from nt_jax.families.denoiser import step as denoiser_step
from nt_jax.families.denoiser.task import make_denoise
from nt_jax.families.noisetransfer import state, step
from nt_jax.families.noisetransfer.task import make_generate
from nt_jax.inference.model import Model
from nt_jax.models.biased import init_biased
from nt_jax.models.networks import make_networks
from nt_jax.models.ridnet import RIDNet
from nt_jax.noise import camera

PACKAGE = pathlib.Path(nt_jax.__file__).parent
SIDE = 16


@contextlib.contextmanager
def strange_surroundings():
    """What users may have set for other programs, all at once."""
    with (
        jax.enable_x64(True),
        jax.numpy_rank_promotion("raise"),
        jax.numpy_dtype_promotion("strict"),
        jax.default_prng_impl("rbg"),
        jax.threefry_partitionable(False),
    ):
        yield


def trace(function, *arguments):
    """Traces in strange surroundings; fails on arrays of 64-bit floats, and on 64-bit results."""
    with strange_surroundings():
        jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    text = str(jaxpr)
    wide = re.search(r".*\b(f64|c128)\[\d.*", text)  # scalars are Python's own numbers
    assert not wide, wide[0]
    for leaf in jax.tree.leaves(shapes):
        assert jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) or leaf.dtype.itemsize <= 4


def crops(count=4):
    names = ("clean", "noisy", "reference_clean", "reference")
    names = (*names, *(f"mix_{name}" for name in names))
    shape = (count, SIDE, SIDE, 3)
    images = {name: jnp.zeros(shape, jnp.uint8) for name in names}
    flags = {n: jnp.zeros(count, bool) for n in ("real", "blur_clean", "blur_reference_clean")}
    return images | flags


KINDS = {
    "synthetic": {},
    "released": {"blend_probability": 0.5, "cutmix_probability": 0.5, "dequantise": True},
    "camera": {"camera_options": camera.PUBLISHED},
    "measured": {"camera_options": camera.Options(((1e-3, 1e-5), (2e-3, 1e-5)), (50.0, 90.0))},
    "processed": {"camera_options": camera.Options(processed=True), "grey_fraction": 0.5},
}


@pytest.mark.parametrize("name", KINDS)
def test_batches(name):
    side = {"blur": SIDE > 10, **KINDS[name]}
    weights = [1.0] * len(noise.KINDS)
    weights[0] = 0.0
    if "camera_options" not in side:
        weights[-1] = 0.0
    augmentation = augment.Augmentation(tuple(weights), (0.0, 70.0), (5.0, 100.0), **side)
    keys = prng.split(prng.key(0), 4)
    trace(lambda keys, crops: augment.finish(keys, crops, augmentation, 3), keys, crops())


def config_of(**changes):
    config = noisetransfer.get_config("smoke")
    with config.ignore_type():
        config.update_from_flattened_dict(changes)
    return config


EVERYTHING = {f"losses.{name}": 1.0 for name in noisetransfer.get_config("smoke").losses}
STEPS = {
    "every loss": EVERYTHING
    | {"model.reader": True, "model.log_squares": True, "train.ema_decay": 0.9},
    "official": {
        "model.embedding_bound": "l2",
        "model.gan_trunk": "head",
        "variant.power_iterations": 2,
        "variant.batch_negatives": True,
        "variant.halved_gan_d": True,
        "train.halve_at": (3,),
        "model.dtype": "bfloat16",
    },
}


@pytest.mark.parametrize("name", STEPS)
def test_steps_of_the_generator(name):
    config = config_of(**STEPS[name])
    networks = make_networks(config.model, jnp.dtype(config.model.dtype))
    images = jax.ShapeDtypeStruct((4, SIDE, SIDE, 3), jnp.float32)
    batch = dict.fromkeys(("clean", "noisy", "reference"), images)
    key = prng.key(0)

    def start(key):
        return state.init_state(config, networks, key)

    trace(start, key)
    first = jax.eval_shape(start, key)
    trace(lambda s, b, k: step.train_step(config, networks, s, b, k), first, batch, key)
    make = make_generate(networks, SIDE)
    trace(lambda s, x, k: make(s, x, x, k), first, images, key)


def test_steps_of_the_denoiser():
    config = denoiser.get_config("generated-smoke")
    network = denoiser_state.make_network(config)
    with_reader = config_of(**{"model.reader": True, "model.log_squares": True})
    networks = make_networks(with_reader.model)
    key = prng.key(0)

    def start(key):
        return denoiser_state.init_state(config, network, key)

    trace(start, key)
    params = jax.eval_shape(lambda key: state.init_state(with_reader, networks, key), key)

    def effective(params):
        layouts = step.layouts(networks)
        generator = step.effective(params.generator, params.generator_spectral, layouts[0])
        encoder = step.effective(params.key_encoder, params.key_spectral, layouts[1])
        return {"generator": generator, "key_encoder": encoder}

    images = jax.ShapeDtypeStruct((4, 2 * SIDE, 2 * SIDE, 3), jnp.float32)
    trained = jax.eval_shape(effective, params)
    for model in (None, Model(networks, trained, {"reference_crop": SIDE})):
        batch = {"clean": images, "reference" if model else "noisy": images}
        trace(
            lambda s, p, b, k, m=model: denoiser_step.train_step(config, network, m, s, p, b, k),
            *(jax.eval_shape(start, key), trained if model else None, batch, key),
        )
    trace(make_denoise(network), jax.eval_shape(start, key), images, images)


# --- The same numbers ----------------------------------------------------------------------------


def same(function):
    """Asserts that it gives the same bits; what it computes is small, as it compiles twice."""
    here = jax.tree.map(np.asarray, function())
    with strange_surroundings():
        there = jax.tree.map(np.asarray, function())
    for a, b in zip(jax.tree.leaves(here), jax.tree.leaves(there), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_draws():
    def draw():
        key = prng.key(3)
        run = prng.keys_of_run(2**32 - 1)
        return [
            *map(jax.random.key_data, (key, prng.split(key, 5), prng.fold_in(key, 2**32 - 1))),
            *map(jax.random.key_data, run),
            prng.bits(key, (3,)),
            prng.uniform(key, (7,), -0.5, 0.5),
            prng.normal(key, (2, 3)),
            jax.jit(lambda key: prng.normal(prng.split(key)[1], (5,)))(key),
        ]

    same(draw)


def test_keys_of_a_run_are_apart():
    keys = np.stack([jax.random.key_data(key) for key in prng.keys_of_run(0)])
    rows = [jax.random.key_data(prng.fold_in(prng.keys_of_run(0).data, row)) for row in range(64)]
    together = np.concatenate([keys, np.stack(rows)])
    assert len(np.unique(together, axis=0)) == len(together)


def test_synthetic_noise():
    clean = jnp.full((SIDE, SIDE, 3), 0.5, jnp.float32)
    weights = (0.0, 1.0, 1.0, 1.0, 0.0)

    def add():
        setting = noise.sample_setting(prng.key(1), weights, (0.0, 70.0), (5.0, 100.0))
        return noise.add_noise(prng.key(2), clean, setting), setting

    same(add)


def test_initial_parameters():
    network = RIDNet(16, 1)
    same(lambda: init_biased(prng.key(0), network))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_scores(dtype):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 2, 24, 20, 3))
    clean, noisy, made = images.astype(dtype) if dtype == np.uint8 else (images / 255).astype(dtype)
    for name in ("akld", "ks", "kld", "lag1_error", "psd_error", "noise_level_error"):
        same(lambda name=name: getattr(metrics, name)(clean, noisy, made))
    same(lambda: metrics.channel_correlation_error(clean, noisy, made))
    for name in ("psnr", "ssim", "ssim_plain", "noise_level_curve"):
        same(lambda name=name: getattr(metrics, name)(clean, noisy))
    same(lambda: metrics.akld_floor(clean, noisy, prng.key(0)))


def test_a_loaded_model(tmp_path):
    model = nt_jax.load(save_tiny(tmp_path / "m", discriminator=True, reader=True))
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (40, 36, 3), np.uint8)
    embedding = np.asarray(model.embed(photo))
    same(lambda: model.embed(np.stack([photo] * 2) / 255))
    same(lambda: model.transfer(photo, reference=[photo, photo[:20]], tile=16, strength=0.5))
    same(lambda: model.read_noise(photo))
    same(lambda: model.sample_maps(prng.key(0), (1, 16, 16)))
    maps = model.sample_maps(prng.key(0), (1, 16, 16))
    same(lambda: model.generate_noise(photo[:16, :16], embedding, maps))
    same(lambda: model.discriminate(photo[:16, :16], embedding, photo[:16, 16:32]))
    same(lambda: model.shift(embedding, model.level_direction(photo), 2.0))
    same(lambda: model.interpolate(embedding, -embedding, 0.3))


def test_the_classifier_of_the_evaluation():
    rng = np.random.default_rng(0)
    clean, noisy, made = rng.integers(0, 256, (3, 8, 16, 16, 3), np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(c2st, "_STEPS", 2)
        same(lambda: c2st.c2st(clean, noisy, made, np.arange(8), list("abcdefgh"), 0))


# --- One place -----------------------------------------------------------------------------------


def test_only_one_module_draws():
    for path in PACKAGE.rglob("*.py"):
        if path.name == "prng.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            drawing = isinstance(node, ast.Attribute) and node.attr == "random"
            assert not (drawing and getattr(node.value, "id", "") == "jax"), path

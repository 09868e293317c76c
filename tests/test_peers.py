"""The peers of the paper: sizes, losses against hand-computed values, runs end to end."""

import json
from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from skimage import data

import nt_jax
from configs.peers import get_config
from experiments.release_model import release
from nt_jax import families
from nt_jax.configs import peers
from nt_jax.data.catalogue.sources import SETTINGS, setting_number
from nt_jax.errors import InputError
from nt_jax.evaluation import generation
from nt_jax.evaluation.samples import Images
from nt_jax.families import IN_BATCHES
from nt_jax.families.c2n import losses as c2n_losses
from nt_jax.families.c2n import networks as c2n
from nt_jax.families.danet import losses as danet_losses
from nt_jax.families.danet.networks import Critic, UNet
from nt_jax.families.n2g import losses as n2g_losses
from nt_jax.families.n2g import networks as n2g
from nt_jax.families.naflow import flow as naflow
from nt_jax.families.neca import losses as neca_losses
from nt_jax.families.neca import networks as neca
from nt_jax.families.settings import draw_settings
from nt_jax.families.srgbflow import flow as srgbflow
from nt_jax.families.srgbflow.model import SRGBFlow
from nt_jax.fields import check_config
from nt_jax.models.parameters import Tree
from nt_jax.models.plain import (
    Conv,
    Doubling,
    adversarial,
    gradient_penalty,
    init_plain,
    wasserstein,
)
from nt_jax.training import loop

NAMES = tuple(peers._PEERS)


# Compiled whole: each operation of each shape would be a program.
init_flow = jax.jit(srgbflow.init_flow, static_argnums=1)
sample = jax.jit(srgbflow.sample, static_argnums=0)
init_pair_flow = jax.jit(naflow.init_params, static_argnums=1)


def count(params: Tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", ["", "-small", "-smoke"])
def test_recipes_can_run(name, size):
    config = get_config(name + size)
    check_config(config, 1)
    config.train.ema_decay = 0.9
    with pytest.raises(InputError, match="keeps no average"):
        check_config(config, 1)


@pytest.mark.parametrize("arg", ["none", "none-smoke", "srgbflow-none"])
def test_unknown_recipes(arg):
    with pytest.raises(InputError, match="choose NAME"):
        get_config(arg)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("gdanet", "n2g_p")])
def test_a_run_makes_a_model_that_is_a_row_of_the_tables(name, tmp_path):
    config = get_config(f"{name}-smoke")
    one = Mesh(np.array(jax.devices()[:1]), ("data",))
    with mock.patch.object(loop, "data_mesh", return_value=one):
        summary = loop.train_and_evaluate(config, tmp_path / "run")
    assert summary["steps"] == config.train.steps
    assert np.isfinite(summary["end"]["eval/akld"])
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    shown = families.find(config.family).task_class().shown
    steps = [line for line in map(json.loads, lines) if set(shown) <= set(line)]
    assert len(steps) == config.train.steps

    model = nt_jax.load(tmp_path / "run")
    assert model.metadata["kind"] == config.family
    about = release(tmp_path / "run", tmp_path / "model")
    assert about["seconds"] == summary["seconds"] > 0
    released = nt_jax.load(tmp_path / "model")
    same_in_16_bits = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6)
    jax.tree.map(same_in_16_bits, released.params, model.params)
    assert generation.parameters_of(released) == generation.parameters_of(model)
    clean = data.chelsea()[:40, :52]
    told = {name: clean for name in model.told if name != "camera"}
    first, again, other = (model.transfer(clean, seed=seed, **told) for seed in (0, 0, 1))
    assert first.shape == clean.shape
    assert first.dtype == np.float32
    assert 0 <= first.min() < first.max() <= 1
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    image = jnp.asarray(clean[None] / np.float32(255))
    batch = {name: image for name in ("clean", *model.told) if name in ("clean", *IN_BATCHES)}
    noise = jax.jit(model.noise)(model.params, batch, jax.random.key(0))
    assert noise.shape == batch["clean"].shape
    images = mock.create_autospec(Images, clean=clean, reference=clean, camera="S6_3200")
    images.reference_clean = clean
    assert generation.of_model(model)(images, jax.random.key(0)).shape == clean.shape


def moved(params, amount=0.1):
    """Parameters away from their start."""
    leaves, tree = jax.tree.flatten(params)
    draws = np.random.default_rng(0)
    return jax.tree.unflatten(
        tree, [leaf + amount * draws.standard_normal(leaf.shape, np.float32) for leaf in leaves]
    )


# --- sRGB Flow -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flow():
    """(flow, parameters away from their start), the full size."""
    module = srgbflow.Flow()
    return module, moved(init_flow(jax.random.key(0), module))


def noise_clean_settings(side):
    rng = np.random.default_rng(2)
    noise = rng.standard_normal((2, side, side, 3), np.float32)
    clean = rng.random((2, side, side, 3), np.float32)
    return noise, clean, np.array([7, len(SETTINGS)])


def test_srgbflow_has_the_published_size(flow):
    config = get_config("srgbflow").model
    assert srgbflow.Flow(config.blocks, config.width) == flow[0]
    assert count(flow[1]) == 6160


def test_srgbflow_is_invertible(flow):
    module, params = flow
    noise, clean, settings = noise_clean_settings(16)
    latents, _ = jax.jit(module.apply)({"params": params}, noise, clean, settings)
    decode = jax.jit(partial(module.apply, method="decode"))
    back = decode({"params": params}, latents, clean, settings)
    assert np.abs(latents - noise).max() > 0.1
    assert np.asarray(back) == pytest.approx(np.asarray(noise), abs=2e-4)


def test_srgbflow_knows_its_determinant(flow):
    module, params = flow
    noise, clean, settings = noise_clean_settings(2)

    @jax.jit
    @jax.vmap
    def of_one(noise, clean, setting):
        def encode(flat):
            x = flat.reshape(1, 2, 2, 3)
            latents, log = module.apply({"params": params}, x, clean[None], setting[None])
            return latents.ravel(), log.sum()

        return jax.jacobian(encode, has_aux=True)(noise.ravel())

    jacobians, logs = of_one(noise, clean, settings)
    _, expected = np.linalg.slogdet(np.asarray(jacobians, np.float64))
    assert np.abs(expected).min() > 0.1
    assert np.asarray(logs) == pytest.approx(expected, abs=1e-3)


def test_srgbflow_fresh_is_white_noise_of_ten_levels_and_tells_its_likelihood():
    module = srgbflow.Flow(1)
    params = jax.device_get(init_flow(jax.random.key(0), module))
    _, clean, settings = noise_clean_settings(64)
    noise = np.asarray(sample(module, params, clean, settings, jax.random.key(4)))
    assert 255 * float(noise.std()) == pytest.approx(10, rel=0.02)
    nats_of = jax.jit(partial(srgbflow.nats, module, params))
    nats = nats_of(noise, clean, settings)
    entropy = 0.5 * np.log(2 * np.pi * np.e * 10**2)
    assert float(nats) == pytest.approx(entropy, abs=0.03)
    level = np.full(noise.shape, 20 / 255, np.float32)  # two deviations
    by_hand = 0.5 * np.log(2 * np.pi * 10**2) + 2**2 / 2
    assert float(nats_of(level, clean, settings)) == pytest.approx(by_hand)


def test_srgbflow_is_told_camera_and_iso():
    module = srgbflow.Flow(1)
    params = jax.device_get(init_flow(jax.random.key(0), module))
    number = setting_number("S6_3200")
    assert SETTINGS[number] == "S6_3200"
    assert setting_number("S6_500") == setting_number("") == len(SETTINGS) == 25
    params["layers_0"]["log_scale"] = params["layers_0"]["log_scale"].copy()
    params["layers_0"]["log_scale"][number] = np.log(1 / 3)
    _, clean, _ = noise_clean_settings(32)
    settings = np.array([number, len(SETTINGS)])
    noise = np.asarray(sample(module, params, clean, settings, jax.random.key(4)))
    assert 255 * noise.std((1, 2, 3)) == pytest.approx([30, 10], rel=0.05)


def test_srgbflow_makes_noise_of_a_camera_that_training_knows_as_one_of_others():
    """All others are one class, which training saw too; without a name one is drawn."""
    module = srgbflow.Flow(1)
    flow = jax.device_get(init_flow(jax.random.key(0), module))
    flow["layers_0"]["log_scale"] = flow["layers_0"]["log_scale"].copy()
    flow["layers_0"]["log_scale"][3] = np.log(1 / 3)
    counts = np.zeros(26, np.int32)
    counts[[3, 25]] = 1000, 1
    model = SRGBFlow(module, {"flow": flow, "counts": counts}, {})
    clean = np.full((32, 32, 3), 128, np.uint8)
    levels = {
        camera: 255 * float((model.transfer(clean, camera=camera) - 128 / 255).std())
        for camera in ("", "NikonD800_6400", SETTINGS[3], SETTINGS[4])
    }
    assert levels == pytest.approx(
        {"": 30, "NikonD800_6400": 10, SETTINGS[3]: 30, SETTINGS[4]: 30}, rel=0.1
    )


def test_srgbflow_draws_settings_as_often_as_training_saw_them():
    counts = np.zeros(26, np.int32)
    counts[[3, 25]] = 300, 100
    drawn = np.asarray(draw_settings(counts, jax.random.key(0), 4000))
    assert set(drawn) == {3, 25}
    assert (drawn == 3).mean() == pytest.approx(0.75, abs=0.04)
    untrained = draw_settings(jnp.zeros(26, jnp.int32), jax.random.key(0), 4)
    assert set(np.asarray(untrained)) == {25}


# --- GANs ----------------------------------------------------------------------------------------


def size_of(module, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return count(jax.eval_shape(module.init, jax.random.key(0), *arguments)["params"])


def test_gradient_penalty_by_hand():
    real, fake = np.random.default_rng(0).standard_normal((2, 3, 4, 4, 2), np.float32)
    penalty = jax.jit(gradient_penalty, static_argnums=0)
    # A sum of n pixels has a gradient of 1 each, of length sqrt(n).
    steep = penalty(lambda x: x.sum((1, 2, 3)), real, fake, jax.random.key(1))
    assert float(steep) == pytest.approx((np.sqrt(32) - 1) ** 2, rel=1e-5)
    half = penalty(lambda x: x[:, 0, 0, 0] / 2, real, fake, jax.random.key(1))
    assert float(half) == pytest.approx(0.25, rel=1e-5)


def test_wasserstein_by_hand():
    real, generated = jnp.full((1, 2, 2, 1), 3.0), jnp.arange(4.0).reshape(1, 2, 2, 1)
    assert wasserstein(real, generated) == 1.5 - 3
    assert adversarial(generated) == -1.5


def test_plain_convolutions():
    x = np.arange(8, dtype=np.float32).reshape(1, 2, 4, 1)
    ones = {"kernel": np.ones((2, 2, 1, 1), np.float32), "bias": np.full(1, 0.5, np.float32)}
    doubled = jax.jit(Doubling(1).apply)({"params": ones}, x)
    np.testing.assert_array_equal(doubled[0, ..., 0], np.kron(x[0, ..., 0], np.ones((2, 2))) + 0.5)
    middle = {"kernel": np.zeros((3, 3, 1, 1), np.float32)}
    middle["kernel"][0, 1] = 1  # the pixel above
    above = jax.jit(Conv(1, reflect=True, biased=False).apply)({"params": middle}, x)
    np.testing.assert_array_equal(above[0, ..., 0], x[0, ::-1, :, 0])


# --- DANet ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "generator"), [("", 9_153_859), ("-small", 573_139)])
def test_danet_has_the_published_size(size, generator):
    config = get_config(f"danet{size}")
    unet = UNet(config.model.width)
    assert size_of(unet, (1, 32, 32, 4)) == generator
    assert size_of(unet, (1, 32, 32, 3)) == generator - 9 * config.model.width
    if not size:
        side = config.data.patch_size
        assert size_of(Critic(config.model.critic_width), (1, side, side, 6)) == 44_707_777


def test_danet_losses_by_hand():
    real, generated, restored = jnp.array([1.0, 3.0]), jnp.array([0.0, 4.0]), jnp.array([6.0, 2.0])
    assert danet_losses.critic_loss(real, generated, restored) == (2 + 4) / 2 - 2
    assert danet_losses.adversarial(real) == -1
    noise = jax.random.normal(jax.random.key(0), (1, 9, 9, 3))
    # A constant difference stays under any blur; of one pixel in 9x9 all 5x5 places see a part.
    assert float(danet_losses.blurred_difference(noise + 0.25, noise)) == pytest.approx(0.25)
    spot = noise.at[0, 4, 4].add(1.0)
    assert float(danet_losses.blurred_difference(spot, noise)) == pytest.approx(1 / 25, rel=1e-4)


def test_gdanet_is_danet_on_more_data():
    assert get_config("gdanet").to_json() == get_config("danet").to_json()


# --- C2N -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "generator"), [("", 2_154_068), ("-small", 135_332)])
def test_c2n_has_the_published_size(size, generator):
    width = get_config(f"c2n{size}").model.width
    module, image = c2n.Generator(width), (1, 32, 32, 3)
    assert size_of(module, *c2n.shapes_of(module, image)) == generator
    if not size:
        assert size_of(c2n.Critic(width), image) == 445_512


def test_c2n_loss_by_hand():
    noise = jnp.zeros((2, 2, 2, 3)).at[0, ..., 0].set(0.5).at[..., 1].set(-1.0)
    assert float(c2n_losses.squared_mean(noise)) == pytest.approx((0.25**2 + 1 + 0) / 3)


def test_c2n_has_noise_of_both_kinds_and_a_code_of_the_image():
    module, clean = c2n.Generator(4), jax.random.uniform(jax.random.key(0), (1, 8, 8, 3))
    shapes = c2n.shapes_of(module, clean.shape)
    params = init_plain(jax.random.key(1), module, shapes)
    draws = [jax.random.uniform(jax.random.key(i), shape) for i, shape in enumerate(shapes[1:])]
    apply = jax.jit(lambda *draws: module.apply({"params": params}, clean, *draws))
    before = apply(*draws)
    for i in range(3):
        changed = [draw + 0.5 if i == j else draw for j, draw in enumerate(draws)]
        assert np.abs(apply(*changed) - before).max() > 1e-5


def test_c2n_is_trained_without_pairs():
    config = get_config("c2n-smoke")
    config.data.real_reference = "same_image"
    with pytest.raises(InputError, match="other_image"):
        check_config(config, 1)


# --- NeCA ----------------------------------------------------------------------------------------


def test_neca_has_the_published_size():
    config, image = get_config("neca"), (1, 96, 96, 3)
    gain, level, correlation = neca.make_generator(config.model)
    assert size_of(gain, image) == 263_425
    assert size_of(level, image, (1, 1, 1, 1)) == 42_435
    assert size_of(correlation, image) == 7_790_723
    critic = neca.Critic(config.model.critic_width)
    assert config.data.patch_size == 96
    assert size_of(critic, image) == 14_145_801  # 14.1 M
    assert size_of(critic, (1, 32, 32, 3)) == 2_165_001  # 2.2 M
    small = neca.make_generator(get_config("neca-small").model)
    assert size_of(small.correlation, image) == 489_251


def test_neca_levels_by_hand():
    noise = np.zeros((2, 8, 8, 3), np.float32)
    noise[0, 3, 3, 0] = 1
    share = 1 / (8 * 8 * 3)
    by_hand = np.sqrt(share - share**2)
    assert neca_losses.global_level(noise).ravel() == pytest.approx([by_hand, 0])
    local = np.asarray(jax.jit(neca_losses.local_level)(noise))
    by_hand = np.sqrt(1 / 49 - 1 / 49**2)
    # Places from which the pixel is among the 7x7: 7 rows, of 0 to 6.
    np.testing.assert_allclose(local[0, :7, :7, 0], by_hand, rtol=1e-5)
    assert not local[0, 7].any()
    assert not local[..., 1:].any()
    gain = jnp.array([1.0, 3.0])[:, None, None, None]
    assert neca_losses.squared_error(jnp.zeros((2, 2, 2, 3)), gain) == 5
    assert neca_losses.cells(noise).shape == (2, 3, 3, 3)
    assert neca_losses.cells(noise)[0, 1, 1, 0] == 1


def test_neca_is_told_the_gain():
    generator = neca.make_generator({"level_width": 4, "width": 1})
    clean = np.random.default_rng(0).random((1, 12, 12, 3), np.float32)
    image = (1, 16, 16, 3)
    shapes = {"gain": (image,), "level": (image, (1, 1, 1, 1)), "correlation": (image,)}
    params = {
        name: init_plain(jax.random.key(1), getattr(generator, name), shape)
        for name, shape in shapes.items()
    }
    last = {"kernel": np.zeros((1, 1, 4, 1), np.float32), "bias": np.full(1, 2, np.float32)}
    params["gain"] = {**params["gain"], "last": last}
    make = jax.jit(partial(neca.make, generator))
    made = make(params, clean, clean, jax.random.key(2))
    assert made.gain == 2
    assert (made.level >= 0).all()
    # The rest is what the correlation adds, within the bounds of tanh.
    assert 0 < np.abs(made.noise - made.plain).max() < 1
    params["gain"]["last"]["bias"] = np.full(1, 4, np.float32)
    more = make(params, clean, clean, jax.random.key(2))
    assert np.abs(more.level - made.level).max() > 0.01


# --- NAFlow --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair_flow():
    """(flow of two levels, its parameters away from their start)."""
    module = naflow.Flow(2, 4)
    return module, moved(init_pair_flow(jax.random.key(0), module))


def test_naflow_sizes():
    for name, of_flow in (("naflow", 879_758), ("naflow-small", 404_366)):
        model = get_config(name).model
        module = naflow.Flow(model.levels, model.width)
        params = jax.eval_shape(partial(naflow.init_params, flow=module), jax.random.key(0))
        assert count(params["flow"]) == of_flow
        assert count(params["prior"]) == 26 * 2 * 192


def test_naflow_is_invertible_and_knows_its_determinant(pair_flow):
    module, params = pair_flow
    variables = {"params": params["flow"]}
    noise, clean, _ = noise_clean_settings(4)
    noise, clean = noise[:1], clean[:1]

    @jax.jit
    def encode(noise):
        def of(flat):
            latents, log = module.apply(variables, flat.reshape(noise.shape), clean)
            return latents.ravel(), (latents, log)

        return jax.jacobian(of, has_aux=True)(noise.ravel())

    jacobian, (latents, log) = encode(noise)
    assert latents.shape == (1, 1, 1, 48)
    _, expected = np.linalg.slogdet(np.asarray(jacobian, np.float64))
    assert np.abs(expected) > 0.1
    assert float(log[0]) == pytest.approx(expected, abs=1e-3)
    back = jax.jit(partial(module.apply, method="decode"))(variables, latents, clean)
    assert np.asarray(back) == pytest.approx(np.asarray(noise), abs=2e-4)


def test_naflow_likelihood_by_hand():
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((2, 3, 4, 5), np.float32)
    prior = {
        "mean": rng.standard_normal((26, 5), np.float32),
        "log_deviation": np.float32(0.3) * rng.standard_normal((26, 5), np.float32),
    }
    likelihoods = jax.jit(naflow.class_likelihoods)(prior, latents)
    z, mean, log = (np.asarray(x, np.float64) for x in (latents, *prior.values()))
    scaled = (z[:, :, :, None] - mean) / np.exp(log)
    by_hand = (-0.5 * scaled**2 - log - 0.5 * np.log(2 * np.pi)).sum(-1).mean((1, 2))
    np.testing.assert_allclose(likelihoods, by_hand, rtol=1e-4)

    # Of a fresh flow: white noise of ten levels.
    module = naflow.Flow(1, 4)
    params = init_pair_flow(jax.random.key(0), module)
    clean, noise = (np.full((1, 4, 4, 3), level, np.float32) for level in (0.5, 20 / 255))
    nats = jax.jit(partial(naflow.nats, module))(params, noise, clean, np.array([25]))
    assert float(nats) == pytest.approx(0.5 * np.log(2 * np.pi * 10**2) + 2**2 / 2, rel=1e-5)


def test_naflow_finds_the_camera_of_a_pair():
    module = naflow.Flow(1, 4)
    params = init_pair_flow(jax.random.key(0), module)
    # Three cameras of 5, 10 and 40 levels, the last of which training has not seen.
    levels = jnp.log(jnp.array([0.5, 1.0, 4.0]))[:, None]
    log_deviation = params["prior"]["log_deviation"].at[:3].set(levels)
    params["prior"] = {**params["prior"], "log_deviation": log_deviation}
    params["counts"] = jnp.zeros(26, jnp.int32).at[jnp.array([0, 1])].set(5)
    clean = jnp.full((3, 30, 31, 3), 0.5)
    sigma = jnp.array([5.0, 10.0, 40.0])[:, None, None, None] / 255
    noisy = clean + sigma * jax.random.normal(jax.random.key(3), clean.shape)
    batch = {"clean": clean, "reference": noisy, "reference_clean": clean}
    make = jax.jit(partial(naflow.make_noise, module))
    noise = make(params, batch, jax.random.key(4))
    assert noise.shape == clean.shape
    assert 255 * noise.std((1, 2, 3)) == pytest.approx([5, 10, 10], rel=0.05)
    # Without the reference's clean image it is one of the two that training saw.
    many = {"clean": jnp.full((16, 16, 16, 3), 0.5)}
    levels = np.asarray(255 * make(params, many, jax.random.key(4)).std((1, 2, 3)))
    distances = np.abs(levels[:, None] - [5, 10])
    assert distances.min(axis=1).max() < 1
    assert set(distances.argmin(axis=1)) == {0, 1}


def test_naflow_needs_patches_that_it_can_halve():
    config = get_config("naflow-smoke")
    config.model.levels = 5
    with pytest.raises(InputError, match="multiple of 32"):
        check_config(config, 1)


# --- N2G -----------------------------------------------------------------------------------------


def test_n2g_has_the_published_size():
    for name in ("n2g_g", "n2g_p-small"):
        assert size_of(n2g.Extractor(get_config(name).model.width), (1, 16, 16, 3)) == 841_359


def test_n2g_learns_one_kind_of_noise():
    assert get_config("n2g_g-small").data.noise_kinds == ("gaussian",)
    assert get_config("n2g_p-small").data.noise_kinds == ("poisson",)
    assert get_config("n2g-small").to_json() == get_config("n2g_g-small").to_json()


def test_n2g_losses_by_hand():
    noisy = jnp.zeros((1, 3, 3, 3)).at[0, 1, 1, 0].set(1.0)
    by_hand = [[0, 0.5], [0.5, -1]]
    np.testing.assert_array_equal(n2g_losses.gradient(noisy)[0, ..., 0], by_hand)
    difference = n2g_losses.gradient_difference(jnp.full_like(noisy, 0.3), noisy)
    assert float(difference) == pytest.approx((0.25 + 0.25 + 1) / 12)
    assert n2g_losses.squared_error(noisy, noisy + 2) == 4


def test_n2g_counts_the_gradient_ever_more_rarely():
    from nt_jax.families.n2g import task

    config = get_config("n2g_g-smoke")
    config.train.rarer_after = 2
    network = task.make_network(config)
    image = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3))
    state = jax.jit(lambda key: task.init_state(config, network, key))(jax.random.key(1))
    step = jax.jit(partial(task.train_step, config, network))
    counted = []
    for _ in range(6):
        state, values = step(state, {"clean": image, "reference": image}, jax.random.key(2))
        counted.append(bool(values["loss"] > values["squared_error"] + 1e-6))
    # Steps 1 to 6 with a rarity of 1, 2, 2, 3, 3, 4.
    assert counted == [True, True, False, False, False, False]


def test_n2g_moves_the_noise_of_the_reference_and_draws_signs():
    module = n2g.Extractor(1)
    params = init_plain(jax.random.key(0), module, ((1, 8, 8, 3),))
    # Restores 0 and takes all that it took off for noise.
    params["last"] = {"kernel": jnp.zeros((3, 3, 1, 3)), "bias": jnp.zeros(3)}
    params["noise"] = {"kernel": jnp.eye(3)[None, None], "bias": jnp.zeros(3)}
    reference = jnp.arange(1.0, 1 + 2 * 8 * 12 * 3).reshape(2, 8, 12, 3)
    batch = {"clean": jnp.zeros((2, 20, 10, 3)), "reference": reference}
    make = jax.jit(partial(n2g.make_noise, module))
    noise = np.asarray(make(params, batch, jax.random.key(1)))
    assert noise.shape == (2, 20, 10, 3)
    assert 0.4 < (noise > 0).mean() < 0.6
    sizes = np.abs(noise)
    np.testing.assert_array_equal(sizes[:, :12], sizes[:, 8:])  # goes on as it began
    for image, own in zip(sizes, np.asarray(reference), strict=True):
        assert set(image.ravel()) <= set(own.ravel())
        assert (image[:8, :10] != own[:8, :10]).all()


def test_n2g_doubles_with_corners_in_place():
    doubled = n2g.doubled(jnp.array([[[[0.0], [3.0]]]]))  # 1x2 -> 2x4
    np.testing.assert_allclose(doubled[0, ..., 0], [[0, 1, 2, 3]] * 2, atol=1e-6)

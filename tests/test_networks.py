"""Networks, their parameters and spectral norm."""

import math
from functools import partial
from types import SimpleNamespace

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from nt_jax.errors import InputError
from nt_jax.models import layers
from nt_jax.models.biased import init_biased
from nt_jax.models.discriminator import bound_embedding
from nt_jax.models.dncnn import DnCNN, FFDNet
from nt_jax.models.generator import SFT, map_shapes, sample_maps
from nt_jax.models.layers import (
    Conv,
    UpConv,
    convolve,
    depth_to_space,
    instance_norm,
    space_to_depth,
)
from nt_jax.models.networks import embed, init_networks, layouts, make_networks
from nt_jax.models.parameters import init_params, layout_of, stack, unstack
from nt_jax.models.ridnet import RIDNet
from nt_jax.models.spectral import (
    init_spectral,
    spectral_normalize,
    update_spectral,
)
from nt_jax.models.unet import UNet

SIZE = 16

# Compiled whole: operation by operation their many shapes take longer.
init_params_jit = jax.jit(init_params, static_argnums=1)
init_spectral_jit = jax.jit(init_spectral, static_argnames="iterations")
update_spectral_jit = jax.jit(update_spectral, static_argnames="iterations")
spectral_normalize_jit = jax.jit(spectral_normalize)


def model_config(**changes) -> SimpleNamespace:
    fields = {
        "width": 4,
        "blocks": (1, 1, 1),
        "discriminator_blocks": (1, 1, 1),
        "embedding_size": 8,
        "embedding_bound": "tanh",
        "gan_trunk": "block",
    }
    return SimpleNamespace(**(fields | changes))


def count(layout) -> int:
    return sum(len(paths) * math.prod(shape) for _, shape, paths in layout)


def random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def images(seed: int, *leading: int) -> np.ndarray:
    values = np.random.default_rng(seed).uniform(size=(*leading, SIZE, SIZE, 3))
    return values.astype(np.float32)


def random_params(seed: int, layout):
    """A tree of random values of sensible size, without compiling an initialiser."""
    rng = np.random.default_rng(seed)
    tree = {}
    for _, shape, paths in layout:
        for path in paths:
            values = rng.normal(size=shape) / math.sqrt(math.prod(shape[:-1]))
            tree[path] = np.float32(values if path[-1] == "kernel" else 1 + 0.1 * values)
    return flax.traverse_util.unflatten_dict(tree)


@pytest.fixture(scope="module")
def small():
    """(networks, parameter trees of generator and discriminator)."""
    networks = make_networks(model_config())
    return networks, [random_params(i, layout) for i, layout in enumerate(layouts(networks))]


# --- Sizes and initial values --------------------------------------------------------------------


def test_parameter_counts_at_full_size():
    config = model_config(
        width=64, embedding_size=128, blocks=(4, 3, 2), discriminator_blocks=(2, 3, 4)
    )
    generator, discriminator = layouts(make_networks(config))
    assert count(generator) == 7_384_832
    assert count(discriminator) == 9_382_272


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (RIDNet(), 1_499_347),
        (UNet(), 2_354_076),
        (UNet(finest_blocks=3), 2_354_076 + 2 * 2 * (9 * 48 * 48 + 48)),
        (DnCNN(), 557_443),
        (FFDNet(), 853_836 - 3 * 9 * 96),  # published, less the map of noise levels
    ],
)
def test_parameter_counts_of_the_denoisers(network, parameters):
    image = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), image)["params"]
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == parameters


def test_squares_become_pixels_and_pixels_squares():
    image = jnp.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    cells = space_to_depth(image)
    assert cells.shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(cells[1, 1, 2], image[1, 2:4, 4:6].ravel())
    np.testing.assert_array_equal(depth_to_space(cells), image)


def test_full_depth_takes_32_maps_at_their_own_resolution():
    shapes = map_shapes(2, 32, 64, (4, 3, 2))
    assert len(shapes) == 32
    assert shapes[:8] == shapes[-8:] == ((2, 32, 64, 1),) * 8
    assert shapes[8:14] == shapes[18:24] == ((2, 16, 32, 1),) * 6
    assert shapes[14:18] == ((2, 8, 16, 1),) * 4


def test_sampled_maps_are_standard_normal_independent_and_follow_the_key():
    maps = sample_maps(jax.random.key(1), 2, 64, 64, (1, 1, 1))
    again = sample_maps(jax.random.key(1), 2, 64, 64, (1, 1, 1))
    assert [m.shape for m in maps] == list(map_shapes(2, 64, 64, (1, 1, 1)))
    assert all(np.array_equal(a, b) for a, b in zip(maps, again, strict=True))
    first, second = np.ravel(maps[0]), np.ravel(maps[1])
    assert abs(first.mean()) < 0.05
    assert abs(first.std() - 1) < 0.05
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05


def test_initial_values_are_those_of_pytorch():
    for layout in layouts(make_networks(model_config(width=8, embedding_size=32))):
        stacks = init_params_jit(jax.random.key(0), layout)
        for name, shape, paths in layout:
            for path, leaf in zip(paths, np.asarray(stacks[name]), strict=True):
                if path[-1] == "kernel":
                    # A transposed convolution's fan-in is counted over its outputs.
                    inputs = shape[-1] if path[-2].startswith("up") else shape[-2]
                    check_uniform(leaf, math.prod(shape[:-2]) * inputs)
                else:
                    assert np.all(leaf == {"scale": 1, "shift": 0}[path[-1]])


def test_initial_values_of_the_denoiser():
    tree = flax.traverse_util.flatten_dict(init_biased(jax.random.key(0), RIDNet(16, 1)))
    assert tree["head", "bias"].shape == (16,)
    for path, leaf in tree.items():
        check_uniform(leaf, math.prod(tree[(*path[:-1], "kernel")].shape[:-1]))


def check_uniform(leaf, fan_in: int) -> None:
    scaled = np.ravel(leaf) * math.sqrt(fan_in)
    assert np.all(np.abs(scaled) <= 1)
    assert len(np.unique(scaled)) > 0.9 * scaled.size
    if scaled.size > 400:
        assert scaled.std() == pytest.approx(1 / math.sqrt(3), rel=0.1)
        assert scaled.mean() == pytest.approx(0, abs=0.1)


# --- Layers --------------------------------------------------------------------------------------


def test_beta_equals_the_layer_on_embedding_and_map_joined():
    x, embedding, z = random(0, 2, 6, 5, 7), random(1, 2, 9), random(2, 2, 6, 5, 1)
    hidden = (9 + 7) // 4
    params = {
        "gamma": {"reduce": {"kernel": random(3, 9, hidden)}},
        "beta": {"reduce": {"kernel": random(4, 10, hidden)}},
    }
    for seed, part in enumerate(params.values()):
        part["expand"] = {"kernel": random(5 + seed, hidden, 7)}

    def bottleneck(part, inputs):
        y = inputs @ params[part]["reduce"]["kernel"]
        return np.where(y > 0, y, 0.01 * y) @ params[part]["expand"]["kernel"]

    plane = np.broadcast_to(embedding[:, None, None], (2, 6, 5, 9))
    beta = bottleneck("beta", np.concatenate([plane, z], axis=-1))
    expected = x * (1 + bottleneck("gamma", plane)) + beta
    ours = jax.jit(SFT().apply)({"params": params}, x, embedding, z)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "stride", "channels", "features"),
    [
        *((3, 1, 32, 40), (2, 1, 32, 32), (3, 1, 4, 40), (3, 1, 3, 8), (3, 1, 8, 3), (7, 1, 3, 3)),
        *((4, 2, 8, 6), (2, 2, 3, 6), (3, 2, 4, 5)),
    ],
)
def test_gradients_are_the_convolutions_own(size, stride, channels, features, monkeypatch):
    monkeypatch.setattr(layers, "_PIXELS_TOGETHER", 60)  # two or more images, of six
    x, kernel = random(0, 2, 3, 6, 5, channels), random(1, size, size, channels, features)
    pad = (((size - stride + 1) // 2,) * 2,) * 2

    def plain(x, kernel):
        return jax.lax.conv_general_dilated(
            x.reshape(6, 6, 5, channels), kernel, (stride, stride), pad, dimension_numbers=_LAYOUT
        )

    @jax.jit
    def both(x, kernel, gradient):
        """(output, gradients of x and kernel) of the plain convolution and of ours."""
        found = []
        for function in (plain, lambda x, kernel: convolve(x, kernel, stride)):
            output, pull_back = jax.vjp(function, x, kernel)
            found.append((output, pull_back(gradient.reshape(output.shape))))
        return found

    shape = jax.eval_shape(plain, x, kernel).shape
    (expected, gradients), (ours, our_gradients) = both(x, kernel, random(2, *shape))
    np.testing.assert_allclose(ours.reshape(shape), expected, rtol=1e-5, atol=1e-5)
    for a, b in zip(our_gradients, gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)


_LAYOUT = ("NHWC", "HWIO", "NHWC")


def test_frozen_images_pass_their_gradient_on_but_give_the_kernel_none():
    x, gradient = random(0, 2, 4, 6, 5, 3), random(1, 2, 4, 6, 5, 7)
    kernel = {"kernel": random(2, 3, 3, 3, 7)}

    @partial(jax.jit, static_argnums=0)
    def pull_back(frozen, gradient):
        layer = Conv(7, frozen=frozen)
        return jax.vjp(lambda p, x: layer.apply({"params": p}, x), kernel, x)[1](gradient)

    of_kernel, of_x = pull_back((1, 2), gradient)
    only = np.zeros_like(gradient)
    only[:, 1] = gradient[:, 1]
    np.testing.assert_allclose(
        of_kernel["kernel"], pull_back((0, 0), only)[0]["kernel"], rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(of_x, pull_back((0, 0), gradient)[1], rtol=1e-5, atol=1e-5)


def test_up_convolution_is_a_convolution_of_the_dilated_input():
    x, kernel = random(0, 2, 5, 6, 3), random(1, 4, 4, 3, 7)
    expected = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), ((2, 2), (2, 2)), lhs_dilation=(2, 2), dimension_numbers=_LAYOUT
    )
    ours = jax.jit(UpConv(7).apply)({"params": {"kernel": kernel}}, x)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_up_convolution_of_any_size_gathers_nothing():
    """A gather of any size cannot be written as ONNX the second time in a process."""
    size = jax.export.symbolic_shape("b, h, w")
    x, kernel = jax.ShapeDtypeStruct((*size, 3), jnp.float32), random(1, 4, 4, 3, 7)
    traced = jax.jit(lambda x: UpConv(7).apply({"params": {"kernel": kernel}}, x)).trace(x)
    assert "gather" not in str(traced.jaxpr)


def test_instance_norm_is_per_sample_and_channel_with_biased_variance():
    x = np.asarray(random(0, 2, 3, 4, 5, 6)) * 3 + 1
    scale, shift = random(1, 2, 3, 1, 1, 6), random(2, 2, 3, 1, 1, 6)
    mean, variance = x.mean((2, 3), keepdims=True), x.var((2, 3), keepdims=True)
    expected = (x - mean) / np.sqrt(variance + 1e-5) * scale + shift
    np.testing.assert_allclose(
        jax.jit(instance_norm)(x, scale, shift), expected, rtol=1e-4, atol=1e-5
    )


def test_instance_norm_has_its_formulas_gradient():
    args = random(0, 2, 3, 4, 5), random(1, 2, 1, 1, 5), random(2, 2, 1, 1, 5)
    check_grads(jax.jit(instance_norm), args, order=1, modes=["rev"], rtol=1e-2)


def test_instance_norm_keeps_a_constant_plane_finite():
    x, one = np.full((1, 4, 4, 2), 0.7, np.float32), np.ones((1, 1, 1, 2), np.float32)
    np.testing.assert_allclose(jax.jit(instance_norm)(x, one, one), 1, atol=1e-4)
    gradient = jax.jit(jax.grad(lambda x: instance_norm(x, one, one).sum()))(x)
    assert np.all(np.isfinite(gradient))


def test_embedding_bounds():
    raw = random(0, 3, 8) * 4
    np.testing.assert_allclose(bound_embedding(raw, "tanh"), np.tanh(raw), rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(bound_embedding(raw, "l2"), axis=1), 1, rtol=1e-6)
    assert np.all(np.isfinite(bound_embedding(jnp.zeros((1, 8)), "l2")))


def test_denoiser_wants_features_its_attention_can_squeeze():
    with pytest.raises(InputError, match="24 features: use a multiple of 16"):
        init_biased(jax.random.key(0), RIDNet(24, 1))


# --- Networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("gan_trunk", ["block", "head"])
def test_joint_pass_of_the_discriminator_equals_separate_passes(small, gan_trunk):
    discriminator = small[0].discriminator.clone(gan_trunk=gan_trunk)
    params = small[1][1]
    noisy, clean, embedding = images(0, 2, 2), images(1, 2), random(2, 2, 8)

    @jax.jit
    def run(params):
        apply = lambda *args: discriminator.apply({"params": params}, *args)  # noqa: E731
        joint = apply(noisy, clean, embedding, noisy)
        noise = [apply(noisy[:, i : i + 1])[0] for i in range(2)]
        gan = [apply(None, clean, embedding, noisy[:, i : i + 1])[1] for i in range(2)]
        return joint, noise, gan

    joint, *separate = run(params)
    for together, apart in zip(joint, separate, strict=True):
        for ours, *parts in zip(*map(jax.tree.leaves, (together, *apart)), strict=True):
            expected = np.concatenate(parts, axis=1)
            np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_gan_trunk_variants_differ_from_level_2_on(small):
    args = (None, images(1, 1), random(2, 1, 8), images(0, 1, 1))
    logits = [
        jax.jit(small[0].discriminator.clone(gan_trunk=trunk).apply)(
            {"params": small[1][1]}, *args
        )[1].logits
        for trunk in ("block", "head")
    ]
    block, head = logits
    np.testing.assert_allclose(block[0], head[0], rtol=1e-5)
    assert np.abs(block[1] - head[1]).max() > 1e-3


def test_generator_depends_on_image_embedding_and_every_map(small):
    networks, (params, _) = small
    maps = sample_maps(jax.random.key(0), 1, SIZE, SIZE, (1, 1, 1))

    def loss(clean, embedding, maps):
        noise = networks.generator.apply({"params": params}, clean, embedding, maps)
        assert noise.shape == (1, SIZE, SIZE, 3)
        return jnp.square(noise).sum()

    gradients = jax.jit(jax.grad(loss, (0, 1, 2)))(images(0, 1), random(0, 1, 8), maps)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))


def test_bfloat16_computes_near_float32_and_keeps_its_types(small):
    networks, (generator, discriminator) = small
    half = make_networks(model_config(), jnp.bfloat16)
    variables = jax.eval_shape(lambda key: init_networks(key, half), jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}
    clean, noisy = images(0, 2), images(1, 2)
    maps = sample_maps(jax.random.key(0), 2, SIZE, SIZE, (1, 1, 1))

    def run(networks):
        key = embed(networks, discriminator, noisy)
        noise = networks.generator.apply({"params": generator}, clean, key, maps)
        _, gan = networks.discriminator.apply(
            {"params": discriminator}, None, clean, key, noisy[:, None]
        )
        return key, noise, gan.logits

    full, low = (jax.jit(lambda n=n: run(n))() for n in (networks, half))
    for expected, ours in zip(jax.tree.leaves(full), jax.tree.leaves(low), strict=True):
        assert ours.dtype == jnp.float32
        error = np.linalg.norm(ours - expected) / np.linalg.norm(expected)
        assert 0 < error < 0.05


def test_denoiser_starts_from_its_input_in_any_compute_type():
    params = init_biased(jax.random.key(0), RIDNet(16, 1))
    params["tail"] = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), params["tail"])
    noisy = images(0, 1)
    for dtype in (jnp.float32, jnp.bfloat16):
        denoised = jax.jit(RIDNet(16, 1, dtype).apply)({"params": params}, noisy)
        assert denoised.dtype == jnp.float32
        np.testing.assert_array_equal(denoised, noisy)


# --- Spectral norm -------------------------------------------------------------------------------

SHAPES = {"conv": (3, 3, 5, 7), "down": (4, 4, 3, 6), "dense": (9, 4), "logits": (8, 1)}


@pytest.fixture(scope="module")
def kernels():
    tree = {name: {"kernel": random(i, *shape)} for i, (name, shape) in enumerate(SHAPES.items())}
    return tree | {"norm": {"scale": random(9, 5)}}


def matrix(kernel) -> np.ndarray:
    return np.asarray(kernel).reshape(-1, kernel.shape[-1]).T


def test_power_iteration_converges_to_the_spectral_norm(kernels):
    vectors = jax.device_get(init_spectral_jit(jax.random.key(0), kernels, iterations=300))
    normalized = spectral_normalize_jit(kernels, vectors)
    for name in SHAPES:
        weight = matrix(kernels[name]["kernel"])
        u, v = vectors.u[name]["kernel"], vectors.v[name]["kernel"]
        assert u @ weight @ v == pytest.approx(np.linalg.norm(weight, 2), rel=1e-4)
        assert np.linalg.norm(matrix(normalized[name]["kernel"]), 2) == pytest.approx(1, rel=1e-4)
    assert "norm" not in vectors.u
    np.testing.assert_array_equal(normalized["norm"]["scale"], kernels["norm"]["scale"])


def test_one_power_iteration_updates_v_then_u(kernels):
    before = jax.device_get(init_spectral_jit(jax.random.key(0), kernels, iterations=1))
    after = update_spectral_jit(kernels, before)
    weight = matrix(kernels["conv"]["kernel"])
    v = weight.T @ before.u["conv"]["kernel"]
    u = weight @ (v / np.linalg.norm(v))
    np.testing.assert_allclose(after.v["conv"]["kernel"], v / np.linalg.norm(v), atol=1e-6)
    np.testing.assert_allclose(after.u["conv"]["kernel"], u / np.linalg.norm(u), atol=1e-6)
    twice = update_spectral_jit(kernels, before, iterations=2)
    once_more = update_spectral_jit(kernels, after)
    np.testing.assert_allclose(twice.u["down"]["kernel"], once_more.u["down"]["kernel"], atol=1e-6)


def test_stacks_are_treated_kernel_by_kernel(kernels):
    tree = kernels | {"twin": {"kernel": random(30, *SHAPES["conv"])}}
    layout = layout_of(tree)
    stacks = stack(tree, layout)
    assert stacks["kernel_3x3x5x7"].shape == (2, 3, 3, 5, 7)
    jax.tree.map(np.testing.assert_array_equal, unstack(stacks, layout), tree)

    vectors = init_spectral_jit(jax.random.key(0), stacks, iterations=300)
    assert vectors.u["kernel_3x3x5x7"].shape == (2, 7)
    normalized = unstack(jax.device_get(spectral_normalize_jit(stacks, vectors)), layout)
    for name in (*SHAPES, "twin"):
        norm = np.linalg.norm(matrix(tree[name]["kernel"]), 2)
        expected = tree[name]["kernel"] / norm
        np.testing.assert_allclose(normalized[name]["kernel"], expected, rtol=1e-3, atol=1e-4)


def test_gradient_treats_u_and_v_as_constants_and_flows_through_sigma(kernels):
    vectors = init_spectral_jit(jax.random.key(0), kernels, iterations=1)
    cotangent = random(20, *SHAPES["conv"])

    def loss(tree, vectors):
        return (spectral_normalize(tree, vectors)["conv"]["kernel"] * cotangent).sum()

    gradient, of_vectors = jax.jit(jax.grad(loss, (0, 1)))(kernels, vectors)
    weight, c = matrix(kernels["conv"]["kernel"]), matrix(cotangent)
    u, v = (np.asarray(tree["conv"]["kernel"]) for tree in (vectors.u, vectors.v))
    sigma = u @ weight @ v
    expected = c / sigma - (c * weight).sum() / sigma**2 * np.outer(u, v)
    np.testing.assert_allclose(matrix(gradient["conv"]["kernel"]), expected, rtol=1e-3, atol=1e-5)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(of_vectors))

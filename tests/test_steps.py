"""The training step on eight devices against a plainly written one on a single device."""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from configs.noisetransfer import get_config
from nt_jax.families.noisetransfer import losses
from nt_jax.families.noisetransfer.state import init_state
from nt_jax.families.noisetransfer.step import effective, jit_train_step, joint_losses, train_step
from nt_jax.models.generator import sample_maps
from nt_jax.models.networks import embed, layouts, make_networks
from nt_jax.models.spectral import update_spectral

BATCH, SIZE, QUEUE, STEPS = 8, 16, 24, 5


def make_config(preset: str = "paper"):
    config = get_config(preset)
    config.model.width = 4
    config.model.blocks = config.model.discriminator_blocks = (1, 1, 1)
    config.model.embedding_size = 8
    config.model.queue_length = QUEUE
    config.model.momentum = 0.9
    config.variant.power_iterations = 2
    config.train.batch_size = BATCH
    config.train.ema_decay = 0.3  # reached after the third step
    config.train.l2 = 1e-2  # large enough to see
    return config


def make_batch(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    clean, other = rng.uniform(0.2, 0.8, size=(2, BATCH, SIZE, SIZE, 3))
    sigma = rng.uniform(0.02, 0.15, size=(BATCH, 1, 1, 1))
    batch = {
        "clean": clean,
        "noisy": clean + sigma * rng.normal(size=clean.shape),
        "reference": other + sigma * rng.normal(size=clean.shape),
    }
    return {name: images.astype(np.float32) for name, images in batch.items()}


@functools.cache
def initial_state():
    config = make_config()
    networks = make_networks(config.model)
    function = jax.jit(lambda key: init_state(config, networks, key))
    compiled = function.lower(jax.random.key(0)).compile()
    return jax.device_get(compiled(jax.random.key(0)))


@pytest.fixture(scope="module")
def trained() -> tuple[list, list]:
    """States on the host, the initial one first, and the metrics of each step; eight devices."""
    config = make_config()
    assert len(jax.devices()) == 8
    mesh = Mesh(np.array(jax.devices()), ("data",))
    step_function = jit_train_step(config, make_networks(config.model), mesh)
    states, metrics = [initial_state()], []
    # Where the steps leave it: from elsewhere it would be another program.
    state = jax.device_put(initial_state(), NamedSharding(mesh, PartitionSpec()))
    for step in range(STEPS):
        state, values = step_function(state, make_batch(step), jax.random.key(step))
        states.append(jax.device_get(state))
        metrics.append(jax.device_get(values))
    return states, metrics


def assert_close(ours, expected, **tolerance) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), ours, expected)


# --- The plain step ------------------------------------------------------------------------------


class Parts(NamedTuple):
    """What a step is made of, before anything is updated."""

    generator_gradient: dict
    discriminator_gradient: dict
    generator_spectral: object
    discriminator_spectral: object
    key_spectral: object
    keys: np.ndarray


def parts_of(config, networks, state, batch, key) -> Parts:
    """Each network's loss written alone, with passes of their own and the other one detached."""
    generator_layout, discriminator_layout = layouts(networks)
    generator_spectral = update_spectral(state.generator, state.generator_spectral)
    discriminator_spectral = update_spectral(
        state.discriminator, state.discriminator_spectral, config.variant.power_iterations
    )
    key_spectral = update_spectral(state.key_encoder, state.key_spectral)
    encoder = effective(state.key_encoder, key_spectral, discriminator_layout)
    keys = embed(networks, encoder, batch["reference"])
    maps = sample_maps(key, BATCH, SIZE, SIZE, networks.generator.blocks)
    clean, noisy, weights = batch["clean"], batch["noisy"], config.losses

    def generate(stacks):
        params = effective(stacks, generator_spectral, generator_layout)
        return clean + networks.generator.apply({"params": params}, clean, keys, maps)

    def look(stacks, images):
        params = {"params": effective(stacks, discriminator_spectral, discriminator_layout)}
        return networks.discriminator.apply(params, images[:, None])[0]

    def judge(stacks, images):
        params = {"params": effective(stacks, discriminator_spectral, discriminator_layout)}
        return networks.discriminator.apply(params, None, clean, keys, images[:, None])[1]

    def contrast(noise):
        return losses.info_nce(
            noise.embedding[:, 0], keys, state.queue, weights.temperature, False
        )[0]

    real_noise, real_gan = look(state.discriminator, noisy), judge(state.discriminator, noisy)

    def loss_g(stacks):
        generated = generate(stacks)
        noise, gan = look(state.discriminator, generated), judge(state.discriminator, generated)
        return (
            weights.noise_g * contrast(noise)
            + weights.gan_g * losses.adversarial_generator(gan.logits)
            + weights.noise_fm * losses.feature_matching(real_noise.features, noise.features)
            + weights.gan_fm * losses.feature_matching(real_gan.features, gan.features)
            + weights.recon * losses.reconstruction(noisy, generated)
        )

    generated = generate(state.generator)

    def loss_d(stacks):
        noise, real = look(stacks, noisy), judge(stacks, noisy)
        fake = judge(stacks, generated)
        adversarial = losses.adversarial_discriminator(real.logits, fake.logits, False)
        return weights.noise_d * contrast(noise) + weights.gan_d * adversarial

    return Parts(
        jax.grad(loss_g)(state.generator),
        jax.grad(loss_d)(state.discriminator),
        generator_spectral,
        discriminator_spectral,
        key_spectral,
        keys,
    )


@pytest.fixture(scope="module")
def plain_parts():
    """`parts_of` on one device: (state, step) -> Parts."""
    config = make_config()
    networks = make_networks(config.model)
    function = jax.jit(lambda *args: parts_of(config, networks, *args))
    args = initial_state(), make_batch(0), jax.random.key(0)
    compiled = function.lower(*args).compile()
    return lambda state, step: jax.device_get(
        compiled(state, make_batch(step), jax.random.key(step))
    )


def moments(state, name: str) -> tuple[dict, dict]:
    optimizer = getattr(state, f"{name}_optimizer")
    return optax.tree.get(optimizer, "mu"), optax.tree.get(optimizer, "nu")


def mix(decay: float, old, new):
    return jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, old, new)


def test_every_step_is_made_of_the_plain_ones_parts(trained, plain_parts):
    config = make_config()
    train = config.train
    for step, (before, after) in enumerate(itertools.pairwise(trained[0])):
        parts = plain_parts(before, step)
        for name in ("generator", "discriminator"):
            gradient = getattr(parts, f"{name}_gradient")
            (m0, _), (m1, v1) = moments(before, name), moments(after, name)
            for stack, old in getattr(before, name).items():
                # Adam's first moment tells the gradient the step used, L2 regularisation included.
                used = (m1[stack] - train.adam_b1 * m0[stack]) / (1 - train.adam_b1)
                expected = gradient[stack] + train.l2 * old
                error = np.linalg.norm(used - expected) / np.linalg.norm(expected)
                assert error < 2e-3, (step, name, stack)
                corrected = m1[stack] / (1 - train.adam_b1 ** (step + 1))
                scale = np.sqrt(v1[stack] / (1 - train.adam_b2 ** (step + 1))) + 1e-8
                new = old - train.learning_rate * corrected / scale
                np.testing.assert_allclose(getattr(after, name)[stack], new, atol=1e-6)
        for name in ("generator_spectral", "discriminator_spectral", "key_spectral"):
            assert_close(getattr(after, name), getattr(parts, name), atol=1e-5)


def test_queue_key_encoder_and_average_follow(trained, plain_parts):
    config = make_config()
    for step, (before, after) in enumerate(itertools.pairwise(trained[0])):
        assert after.step == step + 1
        start = step * BATCH % QUEUE
        assert before.queue_pointer == start
        assert after.queue_pointer == (start + BATCH) % QUEUE
        queue = before.queue.copy()
        queue[start : start + BATCH] = plain_parts(before, step).keys
        np.testing.assert_allclose(after.queue, queue, atol=1e-5)
        key_encoder = mix(config.model.momentum, before.key_encoder, after.discriminator)
        assert_close(after.key_encoder, key_encoder, rtol=1e-6, atol=1e-8)
        decay = min(config.train.ema_decay, (1 + step) / (10 + step))
        average = mix(decay, before.generator_average, after.generator)
        assert_close(after.generator_average, average, rtol=1e-6, atol=1e-8)


def test_eight_devices_end_where_one_ends(trained, plain_parts):
    config = make_config()
    momentum = config.model.momentum
    state = initial_state()
    optimizers = dict.fromkeys(("generator", "discriminator"), (0.0, 0.0))
    for step in range(STEPS):
        parts = plain_parts(state, step)
        new = {}
        for name in optimizers:
            params, gradient = getattr(state, name), getattr(parts, f"{name}_gradient")
            new[name], optimizers[name] = adam(
                config.train, step, params, gradient, *optimizers[name]
            )
        queue = state.queue.copy()
        start = step * BATCH % QUEUE
        queue[start : start + BATCH] = parts.keys
        decay = min(config.train.ema_decay, (1 + step) / (10 + step))
        state = state.replace(
            **new,
            key_encoder=mix(momentum, state.key_encoder, new["discriminator"]),
            generator_average=mix(decay, state.generator_average, new["generator"]),
            generator_spectral=parts.generator_spectral,
            discriminator_spectral=parts.discriminator_spectral,
            key_spectral=parts.key_spectral,
            queue=queue,
        )
    for name in (
        *("generator", "discriminator", "key_encoder", "generator_average", "queue"),
        *("generator_spectral", "discriminator_spectral", "key_spectral"),
    ):
        assert_close(getattr(trained[0][-1], name), getattr(state, name), atol=1e-4)


def adam(train, step: int, params, gradient, m, v):
    """One update of PyTorch's Adam with weight_decay; moments are trees, or 0 at first."""
    if step == 0:
        m = v = jax.tree.map(np.zeros_like, params)
    gradient = jax.tree.map(lambda g, p: g + train.l2 * p, gradient, params)
    m = mix(train.adam_b1, m, gradient)
    v = mix(train.adam_b2, v, jax.tree.map(np.square, gradient))

    def update(p, m, v):
        m = m / (1 - train.adam_b1 ** (step + 1))
        v = v / (1 - train.adam_b2 ** (step + 1))
        return p - train.learning_rate * m / (np.sqrt(v) + 1e-8)

    return jax.tree.map(update, params, m, v), (m, v)


def test_initial_state_copies_the_discriminator_and_the_generator():
    state = initial_state()
    assert_close(state.key_encoder, state.discriminator, atol=0)
    assert_close(state.key_spectral, state.discriminator_spectral, atol=0)
    assert_close(state.generator_average, state.generator, atol=0)
    assert state.queue.shape == (QUEUE, 8)


def trace_step(config, networks):
    """Shapes of the state before and after a step and of its metrics, without running it."""
    before = jax.eval_shape(lambda key: init_state(config, networks, key), jax.random.key(0))
    after, metrics = jax.eval_shape(
        lambda *args: train_step(config, networks, *args), before, make_batch(0), jax.random.key(0)
    )
    return before, after, metrics


def test_no_average_without_decay():
    config = make_config()
    config.train.ema_decay = 0.0
    before, after, _ = trace_step(config, make_networks(config.model))
    assert before.generator_average is after.generator_average is None


# --- Variants ------------------------------------------------------------------------------------


def test_every_term_is_logged_and_everything_learns(trained):
    states, metrics = trained
    assert set(metrics[0]) == {
        *("noise_d", "noise_g", "noise_fm", "gan_d", "gan_g", "gan_fm", "recon"),
        *("loss_d", "loss_g", "d_real", "d_fake", "gradient_norm_d", "gradient_norm_g"),
        *("contrastive_accuracy", "contrastive_accuracy_generated"),
    }
    for values in metrics:
        assert all(np.isfinite(value) for value in values.values())
        assert values["loss_d"] == pytest.approx(values["noise_d"] + values["gan_d"], rel=1e-5)
        matching = values["noise_fm"] + values["gan_fm"] + values["recon"]
        total = values["noise_g"] + values["gan_g"] + 100 * matching
        assert values["loss_g"] == pytest.approx(total, rel=1e-5)
    for name in ("generator", "discriminator", "key_encoder"):
        moved = jax.tree.map(
            lambda a, b: np.abs(a - b).max(), getattr(states[0], name), getattr(states[-1], name)
        )
        assert min(jax.tree.leaves(moved)) > 1e-5


@pytest.mark.parametrize("preset", ["paper", "official", "base"])
def test_a_step_keeps_the_state_as_it_is_typed(preset):
    config = make_config(preset)
    networks = make_networks(config.model, jnp.dtype(config.model.dtype))
    before, after, metrics = trace_step(config, networks)
    # A weak type that the step makes strong would compile it twice.
    typed = lambda a: (a.shape, a.dtype, a.weak_type)  # noqa: E731
    assert jax.tree.map(typed, after) == jax.tree.map(typed, before)
    assert {(value.shape, str(value.dtype)) for value in metrics.values()} == {((), "float32")}


TERMS = ["noise_d", "gan_d", "noise_g", "gan_g", "noise_fm", "gan_fm", "recon"]
TERMS += ["noise_level", "wasserstein"]  # not in the paper


@functools.cache
def terms_with(**weights: float) -> set[str]:
    """Names of the terms that the joint losses compute, by tracing alone."""
    config = make_config()
    config.losses.update(weights)
    networks = make_networks(config.model)
    state, batch = initial_state(), make_batch(0)
    generator_layout, discriminator_layout = layouts(networks)

    def trace(state):
        generator = effective(state.generator, state.generator_spectral, generator_layout)
        discriminator = effective(
            state.discriminator, state.discriminator_spectral, discriminator_layout
        )
        maps = sample_maps(jax.random.key(0), BATCH, SIZE, SIZE, networks.generator.blocks)
        key = state.queue[:BATCH]
        return joint_losses(
            config, networks, generator, discriminator, batch, key, state.queue, maps
        )[1]

    return set(jax.eval_shape(trace, state)) & set(TERMS)


@pytest.mark.parametrize("term", TERMS)
def test_a_loss_of_weight_0_is_not_computed(term):
    everything = dict.fromkeys(TERMS, 1.0)
    assert terms_with(**everything) == set(TERMS)
    assert terms_with(**everything | {term: 0.0}) == set(TERMS) - {term}


def test_without_losses_on_it_a_branch_is_not_run():
    only = dict.fromkeys(TERMS, 0.0)
    assert terms_with(**only | {"recon": 1.0}) == {"recon"}
    assert terms_with(**only | {"gan_d": 1.0, "gan_g": 1.0}) == {"gan_d", "gan_g"}
    assert terms_with(**only | {"noise_d": 1.0}) == {"noise_d"}

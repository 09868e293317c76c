"""Loss terms against hand-computed values, their gradients, the queue and Adam."""

import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads
from scipy import ndimage, stats

from nt_jax.configs.noisetransfer import get_config
from nt_jax.errors import InputError
from nt_jax.families.noisetransfer import losses, moco
from nt_jax.fields import check_config
from nt_jax.training.optimizer import averaged, make_optimizer


def random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


# --- InfoNCE -------------------------------------------------------------------------------------

QUERY = np.float32([[2.0, 0.0], [0.0, 3.0]])
KEY = np.float32([[1.0, 0.0], [0.6, 0.8]])
QUEUE = np.float32([[0.0, 5.0], [-1.0, 0.0]])

# Compiled whole: each operation of each shape would be a program.
info_nce = jax.jit(losses.info_nce, static_argnames="batch_negatives")


def test_info_nce_by_hand():
    # Cosines: query 1: positive 1, queue 0 and -1; query 2: positive 0.8, queue 1 and 0.
    tau = 0.5
    first = -math.log(math.exp(2) / (math.exp(2) + 1 + math.exp(-2)))
    second = -math.log(math.exp(1.6) / (math.exp(1.6) + math.exp(2) + 1))
    loss, accuracy = info_nce(QUERY, KEY, QUEUE, tau, batch_negatives=False)
    assert loss == pytest.approx((first + second) / 2, rel=1e-6)
    assert accuracy == 0.5


def test_info_nce_with_the_batchs_other_keys():
    # Query 1 against key 2: 0.6; query 2 against key 1: 0.
    tau = 0.5
    first = -math.log(math.exp(2) / (math.exp(2) + 1 + math.exp(-2) + math.exp(1.2)))
    second = -math.log(math.exp(1.6) / (math.exp(1.6) + math.exp(2) + 1 + 1))
    loss, accuracy = info_nce(QUERY, KEY, QUEUE, tau, batch_negatives=True)
    assert loss == pytest.approx((first + second) / 2, rel=1e-6)
    assert accuracy == 0.5


def test_info_nce_of_one_positive_without_rivals_is_near_zero():
    query = np.float32([[1.0, 0.0]])
    loss, accuracy = info_nce(query, query, -query, 0.1, batch_negatives=True)
    assert loss == pytest.approx(math.log1p(math.exp(-20)), abs=1e-6)
    assert accuracy == 1


def test_info_nce_ignores_length_and_stays_finite_at_zero():
    args = random(0, 4, 8), random(1, 4, 8), random(2, 6, 8)
    expected, _ = info_nce(*args, 0.1, batch_negatives=True)
    scaled, _ = info_nce(5 * args[0], 0.2 * args[1], 3 * args[2], 0.1, batch_negatives=True)
    assert scaled == pytest.approx(float(expected), rel=1e-5)
    assert np.isfinite(info_nce(0 * args[0], *args[1:], 0.1, batch_negatives=True)[0])


@pytest.mark.parametrize("batch_negatives", [False, True])
def test_info_nce_gradient(batch_negatives):
    key, queue = random(1, 3, 5), random(2, 4, 5)

    def loss(query):
        return losses.info_nce(query, key, queue, 0.5, batch_negatives)[0]

    check_grads(jax.jit(loss), (random(0, 3, 5),), order=1, modes=["rev"], rtol=1e-2)
    gradient = jax.jit(jax.grad(loss))(random(0, 3, 5))
    # The masked similarity to its own key must not turn the gradient into NaN.
    assert np.all(np.isfinite(gradient))


# --- Adversarial losses and feature matching -----------------------------------------------------

REAL = [np.float32([[2.0, -1.0]]), np.float32([[0.5]])]
FAKE = [np.float32([[-3.0, 1.0]]), np.float32([[0.0]])]

adversarial_discriminator = jax.jit(losses.adversarial_discriminator, static_argnums=2)
adversarial_generator = jax.jit(losses.adversarial_generator)
feature_matching = jax.jit(losses.feature_matching)


def test_adversarial_losses_by_hand():
    # Binary cross-entropy with logits: softplus(-x) for target 1, softplus(x) for target 0.
    first = (softplus(-2) + softplus(1)) / 2 + (softplus(-3) + softplus(1)) / 2
    second = softplus(-0.5) + softplus(0)
    expected = (first + second) / 2
    assert adversarial_discriminator(REAL, FAKE, False) == pytest.approx(expected, rel=1e-6)
    halved = adversarial_discriminator(REAL, FAKE, True)
    assert halved == pytest.approx(expected / 2, rel=1e-6)
    generator = ((softplus(3) + softplus(-1)) / 2 + softplus(0)) / 2
    assert adversarial_generator(FAKE) == pytest.approx(generator, rel=1e-6)


def test_adversarial_losses_stay_finite_at_large_logits():
    large = [np.float32([1e4, -1e4])]
    assert adversarial_discriminator(large, large, False) == pytest.approx(1e4)
    assert adversarial_generator(large) == pytest.approx(5e3)


def test_adversarial_gradients():
    real, fake = [random(0, 2, 3), random(1, 4)], [random(2, 2, 3), random(3, 4)]
    for function, args in (
        (lambda r, f: adversarial_discriminator(r, f, True), (real, fake)),
        (losses.adversarial_generator, (fake,)),
    ):
        check_grads(jax.jit(function), args, order=1, modes=["rev"], rtol=1e-2)


def test_feature_matching_by_hand():
    # Mean over each level first, so that a small level weighs as much as a large one.
    expected = ((5 + 2) / 2 + 0.5) / 2
    assert feature_matching(REAL, FAKE) == pytest.approx(expected, rel=1e-6)


def test_feature_matching_gradient_reaches_the_generated_side_only():
    real, fake = jax.jit(jax.grad(losses.feature_matching, (0, 1)))(REAL, FAKE)
    assert all(np.all(g == 0) for g in real)
    np.testing.assert_allclose(fake[0], [[-0.25, 0.25]])
    np.testing.assert_allclose(fake[1], [[-0.5]])
    check_grads(jax.jit(lambda f: feature_matching(REAL, f)), (FAKE,), 1, modes=["rev"], rtol=1e-2)


# --- Blurred differences -------------------------------------------------------------------------

blur = jax.jit(losses.gaussian_blur)
reconstruction = jax.jit(losses.reconstruction)
noise_level = jax.jit(losses.noise_level)
wasserstein = jax.jit(losses.wasserstein)


def test_blur_is_a_gaussian_of_21_taps_with_reflected_borders():
    images = np.random.default_rng(0).uniform(size=(2, 24, 17, 3)).astype(np.float32)
    taps = np.exp(-0.5 * (np.arange(-10, 11) / 3.5) ** 2)
    taps /= taps.sum()
    expected = images.astype(np.float64)
    for axis in (1, 2):
        # scipy calls the reflection without the border pixel "mirror".
        expected = ndimage.convolve1d(expected, taps, axis=axis, mode="mirror")
    np.testing.assert_allclose(blur(images), expected, atol=1e-6)


def test_blur_keeps_a_constant():
    np.testing.assert_allclose(blur(jnp.full((1, 16, 16, 3), 0.3)), 0.3, rtol=1e-6)


def test_reconstruction_is_the_mean_difference_of_blurred_images():
    noisy, generated = random(0, 2, 16, 16, 3), random(1, 2, 16, 16, 3)
    expected = np.abs(blur(noisy) - blur(generated)).mean()
    assert reconstruction(noisy, generated) == pytest.approx(expected, rel=1e-5)
    assert reconstruction(noisy, noisy + 0.25) == pytest.approx(0.25, rel=1e-5)


def test_noise_level_is_the_log_ratio_of_local_variances():
    noise = random(0, 1, 16, 16, 3)
    assert noise_level(noise, noise) == 0
    # Twice the amplitude is four times the variance, everywhere.
    assert noise_level(noise, 2 * noise) == pytest.approx(math.log(4), rel=1e-4)


@pytest.mark.parametrize("loss", [reconstruction, noise_level])
def test_gradients_of_blurred_differences(loss):
    real = random(0, 1, 12, 12, 1)
    check_grads(
        jax.jit(lambda x: loss(real, x)), (random(1, 1, 12, 12, 1),), 1, modes=["rev"], rtol=1e-2
    )


def test_noise_level_gradient_is_finite_without_noise():
    zero = jnp.zeros((1, 12, 12, 1))
    gradient = jax.jit(jax.grad(losses.noise_level, 1))(random(0, 1, 12, 12, 1), zero)
    assert np.all(np.isfinite(gradient))


def test_wasserstein_is_scipys_over_the_deviation():
    noise, generated = random(0, 2, 9, 7, 3), 0.1 + 2 * random(1, 2, 9, 7, 3)
    expected = [
        stats.wasserstein_distance(real.ravel(), fake.ravel()) / real.std()
        for real, fake in zip(channels_of(noise), channels_of(generated), strict=True)
    ]
    assert wasserstein(noise, generated) == pytest.approx(np.mean(expected), rel=1e-4)
    # A mean that is off by the deviation; and of no noise, by grey levels.
    shifted = noise + noise.std((1, 2), keepdims=True)
    assert wasserstein(noise, shifted) == pytest.approx(1, rel=1e-4)
    assert wasserstein(0 * noise, 0 * noise + np.float32(2 / 255)) == pytest.approx(2, rel=1e-4)


def test_wasserstein_does_not_see_where_a_value_is():
    noise = random(0, 1, 8, 8, 3)
    assert wasserstein(noise, noise[:, ::-1]) == 0


def test_gradient_of_wasserstein():
    noise, generated = random(0, 1, 5, 5, 2), random(1, 1, 5, 5, 2)
    check_grads(lambda x: wasserstein(noise, x), (generated,), 1, modes=["rev"], rtol=1e-2)


def channels_of(images):
    return [image[..., channel] for image in np.asarray(images) for channel in range(3)]


# --- Queue, moving average, Adam -----------------------------------------------------------------


def test_queue_starts_normalised():
    queue = moco.init_queue(jax.random.key(0), 64, 16)
    np.testing.assert_allclose(np.linalg.norm(queue, axis=1), 1, rtol=1e-5)
    assert np.abs(queue.mean()) < 0.05


def test_queue_is_first_in_first_out_and_wraps():
    queue, pointer = jnp.zeros((6, 1)), jnp.int32(0)
    for step in range(1, 5):
        queue, pointer = moco.enqueue(queue, pointer, jnp.full((2, 1), float(step)))
        assert pointer == 2 * step % 6
    # The fourth batch took the place of the first.
    np.testing.assert_array_equal(queue[:, 0], [4, 4, 2, 2, 3, 3])


def test_queue_length_is_a_multiple_of_the_batch():
    config = get_config("smoke")
    config.model.queue_length = 64
    config.train.batch_size = 16
    check_config(config, 1)
    config.train.batch_size = 24
    with pytest.raises(InputError, match=r"queue_length=64 .*batch_size=24"):
        check_config(config, 1)


@pytest.mark.parametrize(("step", "expected"), [(0, 2.8), (8, 2.0), (10**6, 1.5)])
def test_average_forgets_its_start_quickly(step, expected):
    """It keeps 1/10, 9/18, and in the end the decay of 3/4."""
    average = averaged({"a": jnp.array(1.0)}, {"a": jnp.array(3.0)}, 0.75, jnp.int32(step))
    np.testing.assert_allclose(average["a"], expected, rtol=1e-6)


def test_adam_adds_l2_to_the_gradient_before_the_moments():
    train = SimpleNamespace(
        learning_rate=0.1, decay="halve", halve_at=(), adam_b1=0.5, adam_b2=0.99, l2=0.01
    )
    optimizer = make_optimizer(train)
    params = {"kernel": jnp.array([2.0, -1.0])}
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    expected, m, v = np.array([2.0, -1.0]), 0.0, 0.0
    for step, gradient in enumerate([[0.3, 0.0], [-0.1, 0.2]], start=1):
        updates, state = update({"kernel": jnp.array(gradient)}, state, params)
        params = optax.apply_updates(params, updates)
        # torch.optim.Adam(lr, betas, eps=1e-8, weight_decay=l2).
        g = np.array(gradient) + 0.01 * expected
        m = 0.5 * m + 0.5 * g
        v = 0.99 * v + 0.01 * g**2
        corrected = m / (1 - 0.5**step), v / (1 - 0.99**step)
        expected = expected - 0.1 * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
        np.testing.assert_allclose(params["kernel"], expected, rtol=1e-5)

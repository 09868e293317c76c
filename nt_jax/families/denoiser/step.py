"""The training step of a denoiser: one pure function of state, batch and key."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from nt_jax import prng, spectra
from nt_jax.families import Generator
from nt_jax.families.denoiser.state import DenoiserState
from nt_jax.models.denoisers import DenoiserNetwork, layout_of
from nt_jax.models.parameters import Array, Stacks, unstack
from nt_jax.training.optimizer import (
    JitStep,
    averaged,
    descend,
    learning_rate,
    make_optimizer,
)
from nt_jax.training.task import Batch, Metrics, Step

# Share of a batch's rows whose condition is unknown, so that the network can do without.
_UNKNOWN = 0.25
# Of a standardised spectrum, as large as those of a network that reads it off a photo: of all rings
# at once, and of each.
_ERROR_OF_ALL, _ERROR_OF_EACH = np.float32(0.08), np.float32(0.11)
# Share of the rows whose detail is read as noise, too. Its amplitude in the rings of luma and of
# colour is what the bundled reader reads off clean photographs (their median, times .6), its
# logarithm normal with that deviation.
_MISREAD, _DETAIL_SPREAD = 0.5, np.float32(0.8)
_DETAIL = np.float32(0.6) * np.array(
    [5.2, 4.4, 3.9, 3.6, 3.3, 2.8, 2.1, 1.3, 5.1, 3.7, 2.6, 1.8, 1.3, 0.9, 0.6, 0.4], np.float32
)
_NO_DETAIL = -9.0  # logarithm of its amplitude


def generate(generator: Generator, params: Any, batch: Batch, key: Array) -> Array:
    """Makes noisy versions of clean patches, clip(X + noise): [B, H, W, 3] (section 4.3).

    Args:
      generator: what makes the noise.
      params: its parameters.
      batch: `clean` X and what it is told, as `reference` Yr, noisy patches of other images;
        [B, H, W, 3] in [0, 1].
      key: PRNG key.
    """
    return jnp.clip(batch["clean"] + generator.noise(params, batch, key), 0, 1)


def l1_loss(denoised: Array, clean: Array) -> Array:
    """Computes the mean absolute difference (section 4.3)."""
    return jnp.abs(denoised - clean).mean()


def psnr_loss(denoised: Array, clean: Array) -> Array:
    """Averages the logarithm of each image's mean square error; [B, H, W, 3] each.

    A decibel counts as much on weak noise as on strong, of which most of an absolute difference is
    (Chen et al., HINet, CVPR Workshops 2021). Above 60 dB little is gained.
    """
    return jnp.log(jnp.square(denoised - clean).mean((1, 2, 3)) + 1e-6).mean()


def condition_of(noise: Array, key: Array | None = None) -> Array:
    """Measures the noise that a denoiser is conditioned on, as well as a photo could be read.

    Args:
      noise: noisy minus clean patches, [B, H, W, 3], in [0, 1] units.
      key: PRNG key of the errors, and of which rows are unknown; None for neither.

    Returns:
      float32 [B, spectra.CONDITIONS].
    """
    measured = spectra.measure(noise)
    if key is None:
        return spectra.condition(measured.values, measured.known)
    all_key, each_key, known_key = prng.split(key, 3)
    rows, rings = measured.values.shape
    values = _with_detail(measured.values, prng.fold_in(key, 3))
    values += _ERROR_OF_ALL * prng.normal(all_key, (rows, 1))
    values += _ERROR_OF_EACH * prng.normal(each_key, (rows, rings))
    known = prng.uniform(known_key, (rows, 1)) >= _UNKNOWN
    return jnp.where(known, spectra.condition(values, measured.known), 0)


def _with_detail(values: Array, key: Array) -> Array:
    """Adds the power of detail that is read as noise to some of standardised spectra [B, SIZE]."""
    detail_key, misread_key = prng.split(key)
    rows = len(values)
    detail = jnp.log(_DETAIL) + _DETAIL_SPREAD * prng.normal(detail_key, (rows, 1))
    is_misread = prng.uniform(misread_key, (rows, 1)) < _MISREAD
    detail = jnp.where(is_misread, detail, _NO_DETAIL)
    return spectra.encode(0.5 * jnp.logaddexp(2 * spectra.decode(values), 2 * detail))


def told(network: DenoiserNetwork, noise: Array, key: Array | None = None) -> tuple[Array, ...]:
    """Lists what a denoiser is given beside noisy patches: its `condition_of` them, or nothing."""
    return (condition_of(noise, key),) if network.conditions else ()


LOSSES = {"l1": l1_loss, "psnr": psnr_loss}


def train_step(
    config: Any,
    network: DenoiserNetwork,
    generator: Generator | None,
    state: DenoiserState,
    params: Any,
    batch: Batch,
    key: Array,
) -> tuple[DenoiserState, Metrics]:
    """Updates the denoiser once.

    Args:
      config: training config.
      network: the denoiser.
      generator: what makes the noise; None where the batch has it.
      state: state before the step.
      params: its parameters.
      batch: `clean`, and what the generator is told or, without one, `noisy`; [B, H, W, 3] in
        [0, 1].
      key: PRNG key of the generated noise, and of the condition's errors.

    Returns:
      (state after the step, {name: float32 scalar}); loss and gradient are at the state before.
    """
    noisy = generate(generator, params, batch, key) if generator else batch["noisy"]
    clean, noisy = (_crop(image, config.denoiser.crop) for image in (batch["clean"], noisy))
    conditions = told(network, noisy - clean, prng.fold_in(key, 1))

    def loss_of(params: Stacks) -> Array:
        denoised = network.apply(
            {"params": unstack(params, layout_of(network))}, noisy, *conditions
        )
        return LOSSES[config.denoiser.loss](jnp.asarray(denoised), clean)

    loss, gradient = jax.value_and_grad(loss_of)(state.params)
    optimizer = make_optimizer(config.train)
    trained, moments = descend(optimizer, gradient, state.optimizer, state.params)
    average = state.average
    if average is not None:
        average = averaged(average, trained, config.train.ema_decay, state.step)
    values = {
        "loss": loss,
        "gradient_norm": optax.tree.norm(gradient),
        "learning_rate": jnp.asarray(learning_rate(config.train)(state.step), jnp.float32),
    }
    return DenoiserState(state.step + 1, trained, moments, average), values


def _crop(image: Array, margin: int) -> Array:
    """Takes off `margin` pixels on each side, where a generator has seen the patch's border."""
    _, height, width, _ = image.shape
    return image[:, margin : height - margin, margin : width - margin]


def jit_train_step(
    config: Any, network: DenoiserNetwork, generator: Generator | None, mesh: Mesh
) -> Step:
    """Compiles `train_step` over the mesh's `data` axis, the state donated, all else replicated."""
    constants = (generator.params if generator else None,)
    # A generator may be anybody's: what its `repr` says of it is not known.
    return JitStep(
        train_step, config, (network, generator), mesh, constants, kept=generator is None
    )

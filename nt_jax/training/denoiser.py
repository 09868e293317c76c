"""Training of a denoiser on true, synthetic or generated noise (paper sections 4.3 and 4.4)."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from nt_jax import metrics, prng
from nt_jax.calibration import calibrate
from nt_jax.errors import InputError
from nt_jax.inference.embeddings import average, embed_each_crop
from nt_jax.inference.loading import load, load_denoiser
from nt_jax.inference.workdir import is_workdir
from nt_jax.models.biased import init_biased
from nt_jax.models.denoisers import DenoiserNetwork, layout_of, make_denoiser
from nt_jax.models.generator import sample_maps
from nt_jax.models.networks import Networks, generate_noise, make_networks
from nt_jax.models.parameters import Array, Stacks, Tree, stack, unstack
from nt_jax.training import heldout, moco
from nt_jax.training.state import learning_rate, make_optimizer
from nt_jax.training.task import Batch, Evaluation, Metrics, Step, Task

_EVALUATION_BATCH = 8
_SAMPLES_OF_KIND = 2
# Pixels that zero padding changes visibly; those beyond, up to the receptive field, it hardly does.
_FRAME = 16


class DenoiserState(flax.struct.PyTreeNode):
    """State that a denoiser's training carries from step to step.

    Attributes:
      step: int32 scalar, updates done.
      params: parameters, float32, stacked.
      optimizer: optax state.
      average: moving average of `params`, or None when `train.ema_decay` is 0.
    """

    step: Array
    params: Stacks
    optimizer: Any
    average: Stacks | None


class NoiseModel(flax.struct.PyTreeNode):
    """A trained NoiseTransfer model as an argument of the step.

    Attributes:
      networks: the modules.
      reference_crop: side of the crops that references are embedded by.
      generator, key_encoder: spectrally normalised parameters.
    """

    networks: Networks = flax.struct.field(pytree_node=False)
    reference_crop: int = flax.struct.field(pytree_node=False)
    generator: Tree
    key_encoder: Tree


def make_network(config: Any) -> DenoiserNetwork:
    """The denoiser of a training config."""
    model = config.model
    return make_denoiser(model.kind, model.width, model.blocks, jnp.dtype(model.dtype))


def init_state(config: Any, network: DenoiserNetwork, key: Array) -> DenoiserState:
    """State before the first step."""
    params = stack(init_biased(key, network), layout_of(network))
    return DenoiserState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        optimizer=make_optimizer(config.train).init(params),
        average=jax.tree.map(jnp.copy, params) if config.train.ema_decay else None,
    )


def generate(model: NoiseModel, batch: Batch, key: Array) -> Array:
    """Noisy versions of clean patches: clip(X + G(X, Dk(Yr), z)), [B, H, W, 3] (section 4.3).

    Noise of a model that can read is calibrated (calibration.py). Patches are reflected around
    their edges while noise is generated, so that it has no frame.

    Args:
      model: what makes the noise.
      batch: `clean` X and `reference` Yr, noisy patches of other images, [B, H, W, 3] in [0, 1].
      key: PRNG key of the random maps z.
    """
    around = ((0, 0), (_FRAME, _FRAME), (_FRAME, _FRAME), (0, 0))
    clean = jnp.pad(batch["clean"], around, mode="reflect")
    count, height, width, _ = clean.shape
    networks = model.networks
    patches, each = embed_each_crop(
        networks, model.key_encoder, batch["reference"], model.reference_crop
    )
    embedding = average(each, networks.discriminator.bound)
    map_key, calibration_key = prng.split(key)
    maps = sample_maps(map_key, count, height, width, networks.generator.blocks)
    noise = generate_noise(networks, model.generator, clean, embedding, maps)
    if networks.discriminator.readings:
        gain = calibrate(
            networks,
            model.key_encoder,
            model.generator,
            patches,
            each,
            embedding,
            calibration_key,
        ).gain
        noise *= gain[:, None, None]
    return _crop(jnp.clip(clean + noise, 0, 1), _FRAME)


def l1_loss(denoised: Array, clean: Array) -> Array:
    """Mean absolute difference."""
    return jnp.abs(denoised - clean).mean()


def train_step(
    config: Any,
    network: DenoiserNetwork,
    state: DenoiserState,
    model: NoiseModel | None,
    batch: Batch,
    key: Array,
) -> tuple[DenoiserState, Metrics]:
    """One update of the denoiser.

    Args:
      config: training config.
      network: the denoiser.
      state: state before the step.
      model: what makes the noise; None where the batch has it.
      batch: `clean`, and `reference` or, without a model, `noisy`; [B, H, W, 3] in [0, 1].
      key: PRNG key of the generated noise.

    Returns:
      (state after the step, {name: float32 scalar}); loss and gradient are at the state before.
    """
    noisy = generate(model, batch, key) if model else batch["noisy"]
    clean, noisy = (_crop(image, config.denoiser.crop) for image in (batch["clean"], noisy))

    def loss_of(params: Stacks) -> Array:
        denoised = network.apply({"params": unstack(params, layout_of(network))}, noisy)
        return l1_loss(jnp.asarray(denoised), clean)

    loss, gradient = jax.value_and_grad(loss_of)(state.params)
    optimizer = make_optimizer(config.train)
    updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    average = state.average
    if average is not None:
        decay = moco.early_decay(config.train.ema_decay, state.step)
        average = moco.moving_average(average, params, decay)
    values = {
        "loss": loss,
        "gradient_norm": optax.tree.norm(gradient),
        "learning_rate": jnp.asarray(learning_rate(config.train)(state.step), jnp.float32),
    }
    return DenoiserState(state.step + 1, params, optimizer_state, average), values


def _crop(image: Array, margin: int) -> Array:
    """Less `margin` pixels on each side, where a generator has seen the patch's border."""
    _, height, width, _ = image.shape
    return image[:, margin : height - margin, margin : width - margin]


def jit_train_step(
    config: Any, network: DenoiserNetwork, model: NoiseModel | None, mesh: Mesh
) -> Step:
    """`train_step` jitted over the mesh's `data` axis, the state donated, all else replicated."""
    everywhere = NamedSharding(mesh, P())
    by_example = NamedSharding(mesh, P("data"))

    def step(
        state: DenoiserState, model: NoiseModel | None, batch: Batch, key: Array
    ) -> tuple[DenoiserState, Metrics]:
        return train_step(config, network, state, model, batch, key)

    jitted = jax.jit(
        step,
        in_shardings=(everywhere, everywhere, by_example, everywhere),
        out_shardings=(everywhere, everywhere),
        donate_argnums=0,
    )
    model = jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(everywhere, np.asarray(leaf)), model
    )
    return lambda state, batch, key: jitted(state, model, batch, key)


def make_denoise(network: DenoiserNetwork) -> Callable[[DenoiserState, ArrayLike], Array]:
    """Jitted (state, noisy [N, P, P, 3]) -> denoised in [0, 1], by the average if there is one."""

    @jax.jit
    def denoise(params: Stacks, noisy: ArrayLike) -> Array:
        tree = unstack(params, layout_of(network))
        return jnp.clip(jnp.asarray(network.apply({"params": tree}, noisy)), 0, 1)

    return lambda state, noisy: denoise(
        state.params if state.average is None else state.average, noisy
    )


class DenoiserTask(Task):
    """A denoiser on one kind of noise, or on many."""

    titles: ClassVar = {
        "noisy_psnr": "PSNR of the noisy patches, dB",
        "psnr": "PSNR of the denoised, dB",
        "noisy_ssim": "SSIM of the noisy patches",
        "ssim": "SSIM of the denoised",
    }
    headline = ("noisy_psnr", "psnr", "noisy_ssim", "ssim")
    curves = ("psnr", "ssim")
    picture = "denoised"
    shown = ("loss",)
    sections = ("model", "denoiser")
    inherits: ClassVar = {"params": "params", "average": "params"}

    def __init__(self, config: Any) -> None:
        _check(config)
        self.config = config
        self._network = make_network(config)
        _check_sizes(config, self._network)
        self._model = _load_model(config) if config.denoiser.noise == "generated" else None
        self.inputs = ("clean", "reference") if self._model else ("clean", "noisy")
        self._held_out = heldout.make_heldout(config)
        self._noisy_scores = _scores(self._held_out, self._held_out.noisy, "noisy_")
        self._denoise = make_denoise(self._network)

    def init(self, key: Array) -> DenoiserState:
        return init_state(self.config, self._network, key)

    def parameters(self, state: DenoiserState) -> dict[str, Tree]:
        return {"denoiser": state.params}

    def networks_of(self, source: str) -> tuple[int, dict[str, Any]]:
        if is_workdir(source):
            return super().networks_of(source)
        denoiser = load_denoiser(source)
        params = jax.tree.map(np.asarray, stack(denoiser.params, layout_of(denoiser.network)))
        return denoiser.metadata.get("step", 0), {"params": params, "average": params}

    def make_step(self, mesh: Mesh) -> Step:
        return jit_train_step(self.config, self._network, self._model, mesh)

    def evaluate(self, state: DenoiserState, key: Array) -> Evaluation:
        del key
        held_out, parts = self._held_out, []
        for start in range(0, len(held_out.noisy), _EVALUATION_BATCH):
            rows = np.arange(start, start + _EVALUATION_BATCH) % len(held_out.noisy)
            parts.append(np.asarray(self._denoise(state, held_out.noisy[rows])))
        denoised = np.concatenate(parts)[: len(held_out.noisy)]
        rows = heldout.last_of_each_kind(held_out, _SAMPLES_OF_KIND)
        pictures = {
            "noisy": held_out.noisy[rows],
            self.picture: denoised[rows],
            "clean": held_out.clean[rows],
            "difference x4": 0.5 + 4 * (denoised[rows] - held_out.clean[rows]),
        }
        return Evaluation(self._noisy_scores | _scores(held_out, denoised), pictures)


def _scores(held_out: heldout.HeldOut, images: np.ndarray, prefix: str = "") -> dict[str, float]:
    """{`eval/psnr`: the mean over kinds, `eval/KIND/psnr`: over patches; SSIM likewise}."""
    results = {}
    for name, metric in (("psnr", metrics.psnr), ("ssim", metrics.ssim)):
        # In batches of one size, which is one program, in little memory.
        starts = range(0, len(images), _EVALUATION_BATCH)
        rows = [np.arange(start, start + _EVALUATION_BATCH) % len(images) for start in starts]
        values = [np.asarray(metric(held_out.clean[row], images[row])) for row in rows]
        scores = np.concatenate(values)[: len(images)]
        kinds = np.array(held_out.kind)
        by_kind = {kind: float(scores[kinds == kind].mean()) for kind in dict.fromkeys(kinds)}
        results[f"eval/{prefix}{name}"] = float(np.mean(list(by_kind.values())))
        results |= {f"eval/{kind}/{prefix}{name}": score for kind, score in by_kind.items()}
    return results


def _check(config: Any) -> None:
    if config.denoiser.noise == "real" and not config.data.pairs:
        raise InputError("training on real noise needs pairs: give --config.data.pairs=DIR")
    crop, patch = config.denoiser.crop, config.data.patch_size
    if not 0 <= crop <= (patch - 8) // 2:
        raise InputError(
            f"config.denoiser.crop={crop} must be 0 or more and leave 8 pixels of"
            f" config.data.patch_size={patch}"
        )


def _check_sizes(config: Any, network: DenoiserNetwork) -> None:
    """Raises InputError if the network cannot have this width or see patches of this size."""
    layout_of(network)
    seen = config.data.patch_size - 2 * config.denoiser.crop
    for name, side in (("data.patch_size", seen), ("eval.patch_size", config.eval.patch_size)):
        if side % network.alignment:
            raise InputError(
                f"config.{name}: {config.model.kind} sees {side} pixels a side, which must be a"
                f" multiple of {network.alignment}"
            )


def _load_model(config: Any) -> NoiseModel:
    """Raises InputError if there is no such model."""
    model = load(config.denoiser.model)
    networks = make_networks(
        SimpleNamespace(**model.metadata["model"]), jnp.dtype(config.model.dtype)
    )
    params = model.params
    return NoiseModel(networks, model.reference_crop, params["generator"], params["key_encoder"])

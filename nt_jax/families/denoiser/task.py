"""Denoisers as a task of the training loop."""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from nt_jax import metrics
from nt_jax.evaluation import heldout
from nt_jax.evaluation.heldout import Scores
from nt_jax.families import IN_BATCHES, Generator
from nt_jax.families.denoiser.state import DenoiserState, init_state, make_network
from nt_jax.families.denoiser.step import jit_train_step, told
from nt_jax.inference.loading import load, load_denoiser
from nt_jax.inference.workdir import is_workdir
from nt_jax.models.denoisers import DenoiserNetwork, layout_of, with_conditions
from nt_jax.models.parameters import Array, Stacks, Tree, stack, unstack
from nt_jax.training.task import Step, Task


@functools.cache
def make_denoise(network: DenoiserNetwork) -> Callable[[DenoiserState, Array, Array], Array]:
    """Compiles (state, noisy, clean [N, P, P, 3]) -> denoised in [0, 1], by the average if kept.

    What a network is conditioned on is measured on the noise itself, which nobody knows of a photo.
    """

    @jax.jit
    def denoise(params: Stacks, noisy: Array, clean: Array) -> Array:
        tree = unstack(params, layout_of(network))
        conditions = told(network, noisy - clean)
        return jnp.clip(jnp.asarray(network.apply({"params": tree}, noisy, *conditions)), 0, 1)

    return lambda state, noisy, clean: denoise(
        state.params if state.average is None else state.average, noisy, clean
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
    inherits: ClassVar = {"params": "params", "average": "params"}

    def __init__(self, config: Any) -> None:
        self.config = config
        self._network = make_network(config)
        self._generator = _load_generator(config) if config.denoiser.noise == "generated" else None
        told = self._generator.told if self._generator else ("noisy",)
        self.inputs = ("clean", *(name for name in told if name in (*IN_BATCHES, "noisy")))
        self._held_out = heldout.make_heldout(config)
        self._noisy_scores = _scores(self._held_out, self._held_out.noisy, "noisy_")
        self._denoise = make_denoise(self._network)

    def init(self, key: Array) -> DenoiserState:
        return init_state(self.config, self._network, key)

    def parameters(self, state: DenoiserState) -> dict[str, Tree]:
        return {"denoiser": state.params}

    def networks_of(self, source: str) -> tuple[int, dict[str, Any]]:
        if is_workdir(source):
            step, state = super().networks_of(source)
        else:
            denoiser = load_denoiser(source)
            params = stack(jax.device_get(denoiser.params), layout_of(denoiser.network))
            step, state = denoiser.metadata.get("step", 0), {"params": params, "average": params}
        params = with_conditions(state.get("params", {}), layout_of(self._network))
        return step, state | {"params": params}

    def make_step(self, mesh: Mesh) -> Step:
        return jit_train_step(self.config, self._network, self._generator, mesh)

    def evaluate(self, state: DenoiserState, key: Array) -> Scores:
        del key
        held_out = self._held_out
        denoise = partial(self._denoise, state)
        denoised = heldout.in_batches(denoise, held_out.noisy, held_out.clean)
        rows = heldout.sample_rows(held_out)
        pictures = {
            "noisy": held_out.noisy[rows],
            self.picture: denoised[rows],
            "clean": held_out.clean[rows],
            "difference x4": 0.5 + 4 * (denoised[rows] - held_out.clean[rows]),
        }
        return Scores(self._noisy_scores | _scores(held_out, denoised), pictures)


def _scores(held_out: heldout.HeldOut, images: np.ndarray, prefix: str = "") -> dict[str, float]:
    """Gives {`eval/psnr`: the mean over kinds, `eval/KIND/psnr`: over patches; SSIM likewise}."""
    results: dict[str, float] = {}
    for name, metric in (("psnr", metrics.psnr), ("ssim", metrics.ssim)):
        scores = heldout.in_batches(metric, held_out.clean, images)
        results |= heldout.by_kind(held_out, f"{prefix}{name}", scores)
    return results


def _load_generator(config: Any) -> Generator:
    """Loads what makes the noise; raises InputError if there is no such model."""
    return load(config.denoiser.model, config.model.dtype)

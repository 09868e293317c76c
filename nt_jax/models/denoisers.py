"""Denoisers by kind: one interface to all architectures, a file each.

A denoiser is a module made with `features`, `blocks` and `dtype` and called with noisy images
[N, H, W, 3]. It has
  alignment  what height and width must be multiples of, and a tile's position too
  radius     how many pixels away the image can change the output, attention apart
  conditions how many numbers of an image's noise it is conditioned on, 0 for a blind one; they are
             a second argument, [N, conditions]
and takes its parameters from `biased.init_biased`.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from nt_jax.errors import InputError
from nt_jax.models.dncnn import DnCNN, FFDNet
from nt_jax.models.parameters import Layout, Stacks, module_layout
from nt_jax.models.ridnet import RIDNet
from nt_jax.models.unet import UNet

DenoiserNetwork = RIDNet | UNet | DnCNN
KINDS: dict[str, type[DenoiserNetwork]] = {
    "ridnet": RIDNet,
    "unet": UNet,
    "dncnn": DnCNN,
    "ffdnet": FFDNet,
}


def make_denoiser(
    kind: str,
    features: int,
    blocks: int,
    dtype: Any = jnp.float32,
    conditions: int = 0,
    finest_blocks: int = 0,
) -> DenoiserNetwork:
    """Makes the module of a kind; the last two arguments are a U-Net's alone.

    Raises:
      InputError: there is no such kind, or it has no condition or levels.
    """
    if kind not in KINDS:
        raise InputError(f"no kind of denoiser '{kind}'; choose from {', '.join(KINDS)}")
    if KINDS[kind] is UNet:
        return UNet(features, blocks, finest_blocks, dtype, conditions)
    if conditions or finest_blocks:
        what = "condition" if conditions else "finest level"
        raise InputError(f"a {kind} has no {what}: choose unet")
    return KINDS[kind](features=features, blocks=blocks, dtype=dtype)


def layout_of(network: DenoiserNetwork) -> Layout:
    """Computes the parameter layout; it does not depend on the image size."""
    return module_layout(network, (1, 16, 16, 3))


def with_conditions(params: Stacks, layout: Layout) -> dict[str, Any]:
    """Adds what conditions a network to parameters of one that was not, or by shifts of biases.

    It is zeros, which change nothing.
    """
    zeros = {
        name: np.zeros((len(paths), *shape), np.float32)
        for name, shape, paths in layout
        if paths[0][-1] in ("condition", "gain")
    }
    return zeros | params

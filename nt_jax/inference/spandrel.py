"""A DnCNN as spandrel takes it, which ComfyUI and chaiNNer load models with: `.safetensors`.

spandrel knows an architecture by the names in the file: `model.0`, `model.2`, ... for the
convolutions of a DnCNN with ReLU between them and a bias each, from 8 of them on. Width and depth
it reads off the shapes, and the output it clips to [0, 1] as `Denoiser` does.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nt_jax.errors import InputError
from nt_jax.files import replacing

if TYPE_CHECKING:
    from nt_jax.inference.denoiser import Denoiser

SUFFIX = ".safetensors"
_FEWEST = 8


def check_target(path: Path) -> None:
    """Raises InputError where spandrel would not know a file's format by its name."""
    if path.suffix != SUFFIX:
        raise InputError(f"{path}: the file's name must end in {SUFFIX}")


def write_safetensors(denoiser: "Denoiser", path: Path) -> None:
    """Writes a DnCNN's parameters, float32, under spandrel's names.

    Args:
      denoiser: of kind `dncnn`, with 8 convolutions or more.
      path: NAME.safetensors.

    Raises:
      InputError: another denoiser, a parameter that is not there, safetensors is not installed, or
        the file cannot be written.
    """
    kind, blocks = denoiser.metadata["kind"], denoiser.network.blocks
    if kind != "dncnn":
        raise InputError(
            f"this denoiser is a {kind}, which spandrel does not know: export a dncnn, or this one "
            "as onnx"
        )
    if blocks < _FEWEST:
        raise InputError(
            f"this dncnn has {blocks} convolutions, and spandrel knows one by {_FEWEST} or more; "
            f"train one with config.model.blocks={_FEWEST} or more"
        )
    try:
        from safetensors.numpy import save
    except ImportError as error:
        raise InputError("this export needs safetensors: pip install 'nt_jax[export]'") from error
    arrays = {}
    for layer in range(blocks):
        name = f"conv{layer + 1}"
        try:
            kernel, bias = (denoiser.params[name][part] for part in ("kernel", "bias"))
        except KeyError as error:
            raise InputError(f"{name} of this dncnn lacks {error}; make it again") from error
        weight = np.asarray(kernel, np.float32).transpose(3, 2, 0, 1)
        # ReLUs are the odd numbers. The file takes an array's memory as it lies.
        arrays[f"model.{2 * layer}.weight"] = np.ascontiguousarray(weight)
        arrays[f"model.{2 * layer}.bias"] = np.asarray(bias, np.float32)
    with replacing(path) as temporary:
        temporary.write_bytes(save(arrays))

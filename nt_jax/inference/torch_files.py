"""Reads folders of released programs' checkpoints. Needs PyTorch."""

from pathlib import Path

import numpy as np

from nt_jax.errors import InputError
from nt_jax.inference import torch_format
from nt_jax.inference.torch_format import Network
from nt_jax.paths import is_file, is_folder

GENERATOR, KEY_ENCODER, DISCRIMINATOR = "VUNet.pt", "encoder_k.pt", "encoder_q.pt"
DENOISER = "ridnet_g.pt"
# Noise2Grad's, one folder for each kind of noise.
N2G = "latest_net_G.pth"

_READERS = {
    GENERATOR: torch_format.read_generator,
    KEY_ENCODER: torch_format.read_discriminator,
    DISCRIMINATOR: torch_format.read_discriminator,
    DENOISER: torch_format.read_ridnet,
    N2G: torch_format.read_n2g,
}


def read_folder(folder: Path) -> dict[str, Network]:
    """Reads the networks in `folder` by file name; files of other names are left alone.

    Raises:
      InputError: there is no checkpoint, noise generation lacks one of its two, one is not what its
        name says, or they do not fit each other, as of two programs.
    """
    if not is_folder(folder):
        raise InputError(f"{folder}: no such folder; name that of {', '.join(_READERS)}")
    networks = {
        name: reader(_load(folder / name), str(folder / name))
        for name, reader in _READERS.items()
        if is_file(folder / name)
    }
    if not networks:
        raise InputError(f"{folder} has none of {', '.join(_READERS)}; name the folder of these")
    if N2G in networks and len(networks) > 1:
        raise InputError(f"{folder} has {N2G} beside files of another program; separate them")
    others = (DENOISER, N2G)
    parts = {name: network.sizes for name, network in networks.items() if name not in others}
    if parts:
        _check_parts(parts, folder)
    return networks


def _check_parts(parts: dict[str, dict], folder: Path) -> None:
    for name in (GENERATOR, KEY_ENCODER):
        if name not in parts:
            raise InputError(f"{folder} has no {name}, without which no noise is made; add it")
    for name, sizes in parts.items():
        for size in ("width", "embedding_size"):
            if sizes[size] != parts[GENERATOR][size]:
                raise InputError(
                    f"{folder}: {GENERATOR} has {size} {parts[GENERATOR][size]}, {name}"
                    f" {sizes[size]}; take files of one model"
                )


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise InputError("reading .pt files needs PyTorch: pip install torch") from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}); fetch it again"
        ) from error
    except Exception as error:  # torch raises many kinds on damaged or foreign files
        raise InputError(
            f"{path} is damaged or was not written by torch.save; fetch it again"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise InputError(f"{path} holds no state dict, arrays by name; save module.state_dict()")
    for key, value in state.items():
        plain = value.layout == torch.strided and not value.is_meta
        if not plain or value.is_complex() or value.is_quantized:
            raise InputError(f"{path}: {key!r} is no plain array; save module.state_dict()")
    return {str(key): value.to(torch.float32).numpy() for key, value in state.items()}

"""Converts checkpoints of released PyTorch programs to model folders.

  python -m nt_jax.convert --torch_dir=DIR --output=DIR

DIR holds `VUNet.pt` and `encoder_k.pt`, which make noise, with `encoder_q.pt` for the
discriminator too; or `ridnet_g.pt`, the denoiser; or all four. `nt_jax.load(OUTPUT)` and
`nt_jax.load_denoiser(OUTPUT)` read the result; the denoiser is in `OUTPUT/denoiser`. Or it holds
Noise2Grad's `latest_net_G.pth`, of one kind of noise.
"""

import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nt_jax.checkpointing import check_replaceable, save_model
from nt_jax.devices import check_devices
from nt_jax.errors import ArgumentParser, InputError, run_command, unwind_on_signals
from nt_jax.inference import torch_files
from nt_jax.inference.torch_format import Network
from nt_jax.models.spectral import SpectralVectors, spectral_normalize
from nt_jax.paths import parse_path

DENOISER_FOLDER = "denoiser"


def convert(torch_dir: Path, output: Path) -> list[Path]:
    """Writes the model folders of the checkpoints in `torch_dir` and returns their paths.

    Raises:
      InputError: `read_folder`'s, before anything is written; or `output` cannot be written.
    """
    networks = torch_files.read_folder(torch_dir)
    source = {name: _digest(torch_dir / name) for name in networks}
    denoiser = networks.pop(torch_files.DENOISER, None)
    folders: dict[Path, tuple[dict[str, Any], dict[str, Any]]] = {}
    if extractor := networks.pop(torch_files.N2G, None):
        folders[output] = _n2g(extractor)
    if networks:
        folders[output] = _noisetransfer(networks)
    if denoiser:
        metadata = {"kind": "ridnet", "model": denoiser.sizes}
        folders[output / DENOISER_FOLDER] = metadata, {"denoiser": denoiser.params}
    try:
        for folder in folders:  # before any is replaced
            check_replaceable(folder)
        for folder, (metadata, variables) in folders.items():
            save_model(folder, metadata | {"source": source}, variables)
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror}") from error
    return list(folders)


def _noisetransfer(networks: dict[str, Network]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Builds metadata and variables, with the variants of the released program."""
    model = networks[torch_files.GENERATOR].sizes | {
        "discriminator_blocks": networks[torch_files.KEY_ENCODER].sizes["blocks"],
        "embedding_bound": "l2",
        "gan_trunk": "head",
    }
    names = {
        "generator": torch_files.GENERATOR,
        "key_encoder": torch_files.KEY_ENCODER,
        "discriminator": torch_files.DISCRIMINATOR,
    }
    variables = {
        variable: _normalized(networks[name], name)
        for variable, name in names.items()
        if name in networks
    }
    return {"kind": "noisetransfer", "model": model}, variables


def _n2g(extractor: Network) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"kind": "n2g", "model": extractor.sizes}, {"generator": extractor.params}


def _normalized(network: Network, name: str) -> dict[str, Any]:
    with np.errstate(all="ignore"):
        tree = spectral_normalize(network.params, SpectralVectors(network.u, network.v))
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)):
        raise InputError(f"{name}: a spectral norm is 0 or overflows; fetch the file again")
    return jax.tree.map(np.asarray, tree)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m nt_jax.convert", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--torch_dir", type=parse_path, required=True, help="folder of the .pt files"
    )
    parser.add_argument("--output", type=parse_path, required=True, help="model folder to write")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Runs the command.

    Raises:
      InputError: a wrong flag, checkpoint or output.
    """
    args = _parser().parse_args(argv)
    unwind_on_signals()
    check_devices()
    for folder in convert(args.torch_dir, args.output):
        print(f"wrote {folder}")


if __name__ == "__main__":
    run_command(main)

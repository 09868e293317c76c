"""Small models with random parameters, on disk, for the tests of inference."""

import json
from types import SimpleNamespace

import flax
import jax
import jax.numpy as jnp
import numpy as np

from nt_jax import spectra
from nt_jax.checkpointing import save_model
from nt_jax.model_folder import load_model
from nt_jax.models.biased import init_biased
from nt_jax.models.networks import layouts, make_networks
from nt_jax.models.noise_reader import NoiseReader
from nt_jax.models.unet import UNet

WIDTH, EMBEDDING_SIZE, BLOCKS = 4, 8, (1, 1, 1)


def save_tiny(folder, bound="tanh", blocks=BLOCKS, discriminator=False, reader=False):
    """Writes a model folder: width 4, embedding 8, kernels of about unit gain."""
    model = {
        "width": WIDTH,
        "embedding_size": EMBEDDING_SIZE,
        "blocks": blocks,
        "discriminator_blocks": BLOCKS,
        "embedding_bound": bound,
        "gan_trunk": "block",
        "reader": reader,
    }
    rng = np.random.default_rng(0)

    def draw(layout):
        flat = {}
        for _, shape, paths in layout:
            for path in paths:
                noise = rng.normal(size=shape).astype(np.float32)
                if path[-1] == "kernel":
                    flat[path] = noise / np.sqrt(np.prod(shape[:-1], dtype=np.float32))
                else:
                    flat[path] = 0.2 * noise + (path[-1] == "scale")
        return flax.traverse_util.unflatten_dict(flat)

    generator, encoder = layouts(make_networks(SimpleNamespace(**model)))
    variables = {"generator": draw(generator), "key_encoder": draw(encoder)}
    if discriminator:
        variables["discriminator"] = draw(encoder)
    save_model(folder, {"kind": "noisetransfer", "model": model}, variables)
    return folder


def amplitude(noise):
    """Amplitudes in grey levels of the mean power of an image's pieces of 64x64: [SIZE]."""
    rows, columns = (size // 64 for size in noise.shape[:2])
    pieces = noise.reshape(rows, 64, columns, 64, 3).transpose(0, 2, 1, 3, 4)
    measured = spectra.measure(jnp.asarray(pieces.reshape(-1, 64, 64, 3), jnp.float32))
    assert np.asarray(measured.known).all()
    logs = np.asarray(spectra.decode(measured.values))
    return np.sqrt(np.exp(2 * logs).mean(0))


def standardised(amplitudes):
    """Turns amplitudes into what `spectra.decode` takes, by two points of its line."""
    zero, one = (float(spectra.decode(np.float32(x))) for x in (0, 1))
    return ((np.log(amplitudes) - zero) / (one - zero)).astype(np.float32)


def save_tiny_spectrum_reader(folder, amplitudes):
    """Gives a model folder a reader that reads the same spectrum off any image."""
    name, numbers = "spectrum_reader", standardised(amplitudes)
    about = json.loads((folder / "model.json").read_text())
    about["model"][name] = WIDTH
    variables = load_model(folder)[1]
    reader = NoiseReader(WIDTH, len(numbers))
    params = init_biased(jax.random.key(0), reader)
    last = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), params["last"])
    last["bias"][: len(numbers)] = numbers
    save_model(folder, about, variables | {name: params | {"last": last}})


def save_tiny_denoiser(folder):
    """Writes a denoiser's folder: a U-Net of width 16 with one block."""
    params = init_biased(jax.random.key(0), UNet(16, 1))
    metadata = {"kind": "unet", "model": {"features": 16, "blocks": 1}, "step": 7}
    save_model(folder, metadata, {"denoiser": params})
    return folder

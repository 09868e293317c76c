"""Loaded generators that are told nothing: a clean image and a key give noise."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nt_jax import prng
from nt_jax.arrays import as_images
from nt_jax.models.parameters import Array, Tree

# (parameters, clean [B, H, W, 3] in [0, 1], key) -> unclipped noise [B, H, W, 3].
MakeNoise = Callable[[Tree, Array, Array], Array]


def released(
    config: Mapping[str, Any], state: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Makes a model folder's content of a checkpoint, the generator: see `families.Family`."""
    return {"model": {"width": config["model"]["width"]}}, {
        "generator": jax.tree.map(np.asarray, state["generator"])
    }


class Untold:
    """Generator that `nt_jax.load` gives of such a family; see `families.Generator`."""

    told = ()

    def __init__(self, make_noise: MakeNoise, params: Tree, metadata: Mapping[str, Any]) -> None:
        """Takes what makes the noise, its parameters, and what the folder says of it."""
        self.params, self.metadata = params, metadata
        self._make_noise = jax.jit(make_noise)

    def noise(self, params: Tree, batch: Mapping[str, Array], key: Array) -> Array:
        """Makes noise: see `families.Generator`."""
        return self._make_noise(params, batch["clean"], key)

    def transfer(self, clean: Any, *, seed: int = 0) -> np.ndarray:
        """Puts noise on an image, whole: [H, W, 3], uint8 or float -> float32 in [0, 1]."""
        image = jnp.asarray(as_images(clean, "clean"))
        noise = self._make_noise(self.params, image, prng.key(seed))
        return np.asarray(jnp.clip(image + noise, 0, 1)[0])

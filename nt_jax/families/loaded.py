"""Loaded generators that make an image's noise whole: pure functions of what they are told."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nt_jax import prng
from nt_jax.arrays import as_images
from nt_jax.errors import InputError
from nt_jax.families import TOLD
from nt_jax.models.parameters import Array, Tree

# (parameters, batch as of `families.Generator.noise`, key) -> unclipped noise [B, H, W, 3].
MakeNoise = Callable[[Tree, Mapping[str, Array], Array], Array]


def released(
    config: Mapping[str, Any], state: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Makes a model folder's content of a checkpoint, the generator: see `families.Family`."""
    return {"model": dict(config["model"])}, {
        "generator": jax.tree.map(np.asarray, state["generator"])
    }


class Loaded:
    """Generator that `nt_jax.load` gives of such a family; see `families.Generator`."""

    def __init__(
        self,
        make_noise: MakeNoise,
        params: Tree,
        metadata: Mapping[str, Any],
        told: tuple[str, ...] = (),
    ) -> None:
        """Takes what makes the noise, its parameters, what the folder says of it, and `told`."""
        self.params, self.metadata, self.told = jax.device_put(params), metadata, told
        self._make_noise = jax.jit(make_noise)

    def noise(self, params: Tree, batch: Mapping[str, Array], key: Array) -> Array:
        """Makes noise: see `families.Generator`."""
        seen = {name: batch[name] for name in ("clean", *self.told) if name in batch}
        return self._make_noise(params, seen, key)

    def transfer(self, clean: Any, *, seed: int = 0, **told: Any) -> np.ndarray:
        """Puts noise on an image, whole: [H, W, 3], uint8 or float -> float32 in [0, 1].

        Args:
          clean: uint8 or float in [0, 1].
          seed: of the noise.
          told: images of what `self.told` names, [h, w, 3]; `reference_clean` may be None.

        Raises:
          InputError: the model is told something else, or `reference` is missing.
        """
        for name in told:
            if name not in self.told:
                raise InputError(f"{name}: this model is not told {TOLD.get(name, 'such a thing')}")
        if "reference" in self.told and told.get("reference") is None:
            raise InputError(f"reference: this model needs {TOLD['reference']}")
        batch = {
            name: jnp.asarray(as_images(image, name))
            for name, image in {"clean": clean, **told}.items()
            if image is not None
        }
        noise = self._make_noise(self.params, batch, prng.key(seed))
        return np.asarray(jnp.clip(batch["clean"] + noise, 0, 1)[0])

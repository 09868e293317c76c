"""A loaded sRGB Flow."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nt_jax import prng
from nt_jax.arrays import as_images
from nt_jax.data.catalogue.sources import setting_number
from nt_jax.families.settings import draw_settings
from nt_jax.families.srgbflow.flow import Flow, sample
from nt_jax.models.parameters import Array, Tree


class SRGBFlow:
    """Generator that is told the camera and ISO; see `families.Generator`."""

    told = ("camera",)

    def __init__(self, flow: Flow, params: Tree, metadata: Mapping[str, Any]) -> None:
        """Takes the flow, its `flow` and `counts`, and what the folder says of it."""
        self.params, self.metadata, self._flow = params, metadata, flow
        self._sample = jax.jit(
            lambda params, clean, settings, key: sample(flow, params, clean, settings, key)
        )

    def noise(self, params: Tree, batch: Mapping[str, Array], key: Array) -> Array:
        """Makes noise of cameras and ISOs drawn as training saw them: see `families.Generator`."""
        setting_key, noise_key = prng.split(key)
        clean = batch["clean"]
        settings = draw_settings(params["counts"], setting_key, len(clean))
        return sample(self._flow, params["flow"], clean, settings, noise_key)

    def transfer(self, clean: Any, *, camera: str = "", seed: int = 0) -> np.ndarray:
        """Puts a camera's noise on an image: [H, W, 3] -> float32 [H, W, 3] in [0, 1].

        Args:
          clean: uint8 or float in [0, 1].
          camera: camera and ISO such as "S6_3200"; where they are "", not known, or training has
            not seen them, one is drawn that it has.
          seed: of the noise.
        """
        image = jnp.asarray(as_images(clean, "clean"))
        setting_key, noise_key = prng.split(prng.key(seed))
        number = setting_number(camera)
        settings = jnp.full(1, number, jnp.int32)
        if not camera or not self.params["counts"][number]:
            settings = draw_settings(self.params["counts"], setting_key, 1)
        noise = self._sample(self.params["flow"], image, settings, noise_key)
        return np.asarray(jnp.clip(image + noise, 0, 1)[0])

"""Families of models: what a family gives, and finding the one that a config or a file names.

A family is a module with the names of `Family`: a folder here, or a module of the user's own whose
dotted name is `config.family`. docs/extend.md adds one, page by page.
"""

import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import jax
import numpy as np

from nt_jax.errors import InputError

# What a generator may be told of the noise that it is to make, beside the clean image.
TOLD = {
    "reference": "a noisy image",
    "reference_clean": "that image's clean version",
    "camera": "camera and ISO",
}
# What of it the batches of training have.
IN_BATCHES = ("reference",)
# Names modules outside of this package, comma-separated, that a model's file may ask for.
VARIABLE = "NT_JAX_FAMILIES"


class Generator(Protocol):
    """A loaded model that puts noise on clean images.

    Attributes:
      told: names of `TOLD` that it looks at; () of noise that it knows by itself.
      params: pytree of arrays, an argument of `noise`.
      metadata: what the model's folder says about it.
    """

    @property
    def told(self) -> tuple[str, ...]: ...

    @property
    def params(self) -> Any: ...

    @property
    def metadata(self) -> Mapping[str, Any]: ...

    def transfer(self, clean: Any, *, seed: int = 0) -> np.ndarray:
        """Puts noise on an image: [H, W, 3], uint8 or float in [0, 1] -> float32 in [0, 1].

        What `told` names are further keyword arguments: `reference` and `reference_clean`
        [h, w, 3] of any size, uint8 or float in [0, 1]; `camera` such as "S6_3200", "" where it is
        not known.
        """
        ...

    def noise(self, params: Any, batch: Mapping[str, jax.Array], key: jax.Array) -> jax.Array:
        """Makes noise inside `jit`, unclipped float32 [B, H, W, 3].

        Args:
          params: `self.params`, so that they are no constants of the compiled program.
          batch: `clean`, and `reference` where `told` has it, [B, H, W, 3] float32 in [0, 1].
            Training batches have no more: what else a generator is told it draws from what it was
            trained on.
          key: PRNG key.
        """
        ...


class Family(Protocol):
    """A module that makes, trains and loads models of one kind."""

    # {"section.field": kind} of the config's fields beside `fields.COMMON`. It may also have
    # RELATIONS: functions of a config that say what is wrong between fields, "" where nothing is.
    FIELDS: Mapping[str, Any]

    def task_class(self) -> Any:
        """Imports and returns a `training.task.Task`; inference never calls this."""
        ...

    def released(
        self, config: Mapping[str, Any], state: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Makes the content of a model folder of a checkpoint.

        Args:
          config: of the run, as JSON has it.
          state: as nested dicts of NumPy arrays.

        Returns:
          (metadata with `model`, what `load` builds from; parameter trees by network name).
        """
        ...

    def load(self, metadata: Mapping[str, Any], variables: Mapping[str, Any], dtype: str) -> Any:
        """Builds the model, a `Generator` but for denoisers; convolutions compute in `dtype`.

        KeyError, AttributeError and TypeError count as damage of the folder.
        """
        ...


def name_of(config: Mapping[str, Any]) -> str:
    """Names the family of a training config; configs of before the field tell by their sections."""
    return config.get("family") or ("denoiser" if "denoiser" in config else "noisetransfer")


def find(name: str) -> Family:
    """Finds a family: a folder of this package, or a module of the user's own.

    A model's folder may come from anywhere, and importing a module runs it: one that is not of this
    package must have been imported, as a recipe does, or be listed in NT_JAX_FAMILIES.

    Raises:
      InputError: there is none of that name.
    """
    if name in names():
        return cast(Family, importlib.import_module(f"{__name__}.{name}"))
    if name in os.environ.get(VARIABLE, "").split(","):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise InputError(f"{VARIABLE} names {name}, which is no module: {error}") from error
    module = sys.modules.get(name)
    missing = [
        part for part in ("FIELDS", "task_class", "released", "load") if not hasattr(module, part)
    ]
    if missing:
        raise InputError(
            f"no family {name!r}: those of this package are {', '.join(names())}; a module of your"
            f" own must have been imported, or be named by {VARIABLE}, and have {missing[0]}"
        )
    return cast(Family, module)


def names() -> list[str]:
    """Lists the families of this package."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/__init__.py"))

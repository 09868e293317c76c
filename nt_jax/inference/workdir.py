"""A training workdir as the content of a model folder."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nt_jax import families
from nt_jax.checkpointing import CONFIG_FILE, load_state, read_summary
from nt_jax.models.parameters import Tree
from nt_jax.paths import expand, is_file


def is_workdir(folder: str | os.PathLike) -> bool:
    """Tells whether a folder looks like that of a training run."""
    return is_file(expand(folder) / CONFIG_FILE)


def load_workdir(workdir: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Tree]]:
    """Reads the newest checkpoint of a workdir: (metadata, parameter trees by network name).

    Trees are float32 NumPy arrays, ready for inference; `kind` is the family's name, a denoiser's
    that of its network; `seconds` is how long it was trained, where the workdir tells.

    Raises:
      InputError: no workdir, one without a readable checkpoint, or an unknown family.
    """
    config, step, state = load_state(workdir)
    # A run may have been packed with 16 bits, in which a spectral norm would be off.
    state = jax.tree.map(lambda leaf: _wide(np.asarray(leaf)), state)
    name = families.name_of(config)
    metadata, variables = families.find(name).released(config, state)
    summary = read_summary(expand(workdir))
    spent = {"seconds": summary["seconds"]} if "seconds" in summary else {}
    return {"kind": name} | metadata | {"step": step, **spent, "recipe": config}, variables


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if jnp.issubdtype(array.dtype, jnp.floating) else array

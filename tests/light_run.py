"""What makes a run of the tests light: a device that they share, and no pictures."""

import pathlib
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh


def data_mesh() -> Mesh:
    """Of one of the suite's eight fake devices, whose compiled programs are used again."""
    devices = jax.devices()
    return Mesh(np.array(devices[:1] if len(devices) == 8 else devices), ("data",))


def save_nothing(path: pathlib.Path, *_: Any) -> None:
    """In place of a picture."""
    path.touch()

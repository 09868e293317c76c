"""What makes a run of the tests light: a device that they share, and no pictures."""

import contextlib
import pathlib
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
import numpy as np
from jax.sharding import Mesh

from nt_jax.training import logs


def data_mesh() -> Mesh:
    """Of one of the suite's eight fake devices, whose compiled programs are used again."""
    devices = jax.devices()
    return Mesh(np.array(devices[:1] if len(devices) == 8 else devices), ("data",))


def save_nothing(path: pathlib.Path, *_: Any) -> None:
    """In place of a picture."""
    path.touch()


@contextlib.contextmanager
def light() -> Iterator[None]:
    """Runs of this process are as those of `light_main`: without TensorBoard and pictures."""
    # Not by `mock.patch.dict`: it would forget each module that is first imported meanwhile, and
    # with it what has been traced and compiled for its functions.
    clu = sys.modules.pop("clu", None)
    sys.modules |= dict[str, Any].fromkeys(["clu"])
    try:
        with mock.patch.multiple(logs, save_grid=save_nothing, save_curves=save_nothing):
            yield
    finally:
        del sys.modules["clu"]
        if clu is not None:
            sys.modules["clu"] = clu

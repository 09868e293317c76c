"""Batches of paired patches for training, as a pure function of (seed, step).

Element i of step s depends only on (seed, s * batch_size + i), its row number. So a run resumes
at any step without iterator state, and any number of processes or devices sees the same batches.

Two loaders with one interface: `tfdata` crops on the host with tf.data; `device` keeps all
images as uint8 on the accelerator and crops inside jit. They share the arithmetic of a row's
crops (`crops.crop_row`) and everything after it (`augment.finish`); only their random numbers
differ.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from nt_jax import prng
from nt_jax.data.sampling.augment import make_augmentation
from nt_jax.data.sampling.device_loader import device_batches
from nt_jax.data.sampling.plan import Batch, Plan
from nt_jax.data.sampling.tables import digest_of, make_tables
from nt_jax.data.sampling.tfdata_loader import tfdata_batches
from nt_jax.errors import InputError
from nt_jax.fields import check_data
from nt_jax.files import replacing


def _check_processes_agree(digest: str) -> None:
    own = np.frombuffer(digest.encode(), np.uint8)
    everywhere = np.reshape(multihost_utils.process_allgather(own), (-1, len(own)))
    if (everywhere != everywhere[0]).any():
        raise InputError(
            "the processes do not read the same images: give all the same folders, all readable"
        )


def _note_images(record: Path, now: dict[str, Any], start_step: int) -> None:
    """Notes the images and the kind of random numbers a run begins with; says so if it goes on with
    others.
    """
    try:
        before = json.loads(record.read_text()) if start_step else None
    except (OSError, ValueError):
        before = None
    if isinstance(before, dict):
        version = before.get("version", 1)
        if version != now["version"]:
            print(
                f"data: this run began with random numbers of version {version}, now they are of"
                f" version {now['version']}: from here on its batches, maps and held-out noise are"
                " not those of a run that was never stopped",
                flush=True,
            )
        if any(before.get(name) != now[name] for name in ("images", "digest")):
            print(
                f"data: not the images and weights that this run began with ({now['images']} images"
                f" now, {before.get('images')} then): from here on its batches are not those of a"
                " run that was never stopped",
                flush=True,
            )
    elif jax.process_index() == 0:
        with replacing(record) as temporary:
            temporary.write_text(json.dumps(now) + "\n")


_LOADERS = {"device": device_batches, "tfdata": tfdata_batches}


def make_loader(
    data_config: Any, *, batch_size: int, seed: int, mesh: Mesh, record: Path | None = None
) -> Callable[[int], Iterator[Batch]]:
    """Reads the images and returns `batches(start_step)`.

    Args:
      data_config: the fields of `config.data`; see configs/common.py.
      batch_size: rows of a global batch, a multiple of the mesh's `data` axis.
      seed: of all random choices, at least 0.
      mesh: has an axis `data`.
      record: file of the run in which the images are noted, so that one that resumes with others
        says so.

    Returns:
      A function from a step to an endless iterator of the global batches of that step, the next,
      and so on: `clean`, `noisy` and, unless real_reference is `none`, `reference` float32
      [B, P, P, 3] in [0, 1]; `kind` int32 [B], index into `noise.KINDS`; `sigma` (in [0, 1] units)
      and `lam` float32 [B], 0 where the kind has none; `setting` int32 [B], camera and ISO of a
      real pair by `sources.SETTINGS`, their count where it is none of these. Sharded over `data`.

    Raises:
      InputError: a field of the config is wrong, or more than 1 % of the images; names it.
    """
    check_data(data_config)
    n_shards = mesh.shape["data"]
    if batch_size < 1 or batch_size % n_shards:
        raise InputError(f"train.batch_size: {batch_size} is no multiple of the {n_shards} devices")
    augmentation = make_augmentation(data_config)
    tables = make_tables(data_config, batch_size)
    by_shard = tables.real_probability.reshape(n_shards, -1)
    most_synthetic = int((by_shard < 1).sum(axis=1).max())
    digest = digest_of(tables)
    _check_processes_agree(digest)
    images = {"images": len(tables.offsets), "digest": digest, "version": prng.VERSION}
    batches = _LOADERS[data_config.loader](
        Plan(tables, augmentation, most_synthetic, batch_size, seed, mesh)
    )

    def noted(start_step: int) -> Iterator[Batch]:
        if record:
            _note_images(record, images, start_step)
        return batches(start_step)

    return noted

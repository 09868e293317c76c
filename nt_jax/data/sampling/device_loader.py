"""The loader that keeps all images as uint8 on the accelerator and crops inside jit."""

import itertools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from nt_jax import prng
from nt_jax.data.sampling.crops import N_UNIFORMS, Operations, crop_row
from nt_jax.data.sampling.plan import Batch, Plan
from nt_jax.data.sampling.tables import Tables
from nt_jax.errors import InputError

_JAX = Operations(
    integer=lambda x: x.astype(jnp.int32),
    real=lambda x: x.astype(jnp.float32),
    where=jnp.where,
    count=lambda x: x.sum(dtype=jnp.int32),
    take=lambda table, i: table[i],
    minimum=jnp.minimum,
)


def device_crops(plan: Plan, rows: jax.Array, tables: Tables) -> dict[str, jax.Array]:
    """Cuts the crops of row numbers [b], from tables on the accelerator."""

    def crop(row: jax.Array, key: jax.Array) -> dict[str, jax.Array]:
        uniforms = prng.uniform(key, (N_UNIFORMS,))
        i = (row % plan.batch_size).astype(jnp.int32)
        return crop_row(tables, uniforms, i, plan.augmentation, _JAX)

    return jax.vmap(crop)(rows, plan.keys(rows)[0])


def device_batches(plan: Plan) -> Callable[[int], Iterator[Batch]]:
    """Returns a function from a step to the batches of that step, the next, and so on.

    Raises:
      InputError: there are too many pixels for 32-bit indices.
    """
    if len(plan.tables.pixels) > np.iinfo(np.int32).max:
        raise InputError(
            "data.loader: more than 2^31 - 1 pixels are too many for device: choose tfdata"
        )

    def replicate(array: np.ndarray) -> jax.Array:
        narrow = array.astype(np.int32) if array.dtype == np.int64 else array
        return jax.make_array_from_process_local_data(NamedSharding(plan.mesh, P()), narrow)

    tables = jax.tree.map(replicate, plan.tables)
    plan = plan._replace(tables=tables)  # lets go of the host's copy

    def make_rows(rows: jax.Array, tables: Tables) -> Batch:
        return plan.finish(rows, device_crops(plan, rows, tables))

    make = plan.jit_by_row(make_rows, P())

    def batches(start_step: int) -> Iterator[Batch]:
        return (make(step, tables) for step in itertools.count(start_step))

    return batches

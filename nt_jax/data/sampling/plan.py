"""Plan that both loaders follow: the images, the augmentation, and the split over devices."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from nt_jax import prng
from nt_jax.data.catalogue.sources import SETTINGS
from nt_jax.data.sampling import augment
from nt_jax.data.sampling.tables import Tables

Batch = dict[str, jax.Array]


class Plan(NamedTuple):
    """All that a loader needs. `most_synthetic`: synthetic rows of one device, at most."""

    tables: Tables
    augmentation: augment.Augmentation
    most_synthetic: int
    batch_size: int
    seed: int
    mesh: Mesh

    def keys(self, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Makes (keys of the crops, keys of all after) of row numbers [b]."""
        key = prng.keys_of_run(self.seed).data
        pairs = jax.vmap(lambda row: prng.split(prng.fold_in(key, row)))(rows)
        return pairs[:, 0], pairs[:, 1]

    def finish(self, rows: jax.Array, crops: dict[str, jax.Array]) -> Batch:
        keys = self.keys(rows)[1]
        batch = augment.finish(keys, crops, self.augmentation, self.most_synthetic)
        # Synthetic noise is no camera's, on whatever image.
        unknown = jnp.int32(len(SETTINGS))
        return batch | {"setting": jnp.where(crops["real"], crops["setting"], unknown)}

    def jit_by_row(
        self, function: Callable[[jax.Array, Any], Batch], spec: P
    ) -> Callable[[int, Any], Batch]:
        """Makes `function(rows, argument)` a function of (step, argument) split over `data`."""
        split = jax.shard_map(
            function, mesh=self.mesh, in_specs=(P("data"), spec), out_specs=P("data")
        )

        @jax.jit
        def of_first_row(first_row: jax.Array, argument: Any) -> Batch:
            return split(first_row + jnp.arange(self.batch_size, dtype=jnp.uint32), argument)

        return lambda step, argument: of_first_row(np.uint32(step * self.batch_size), argument)

"""The loader that crops on the host with tf.data."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from nt_jax.data.sampling.crops import N_UNIFORMS, Operations, crop_row
from nt_jax.data.sampling.plan import Batch, Plan
from nt_jax.data.sampling.tables import Tables


def tfdata_crops(plan: Plan, own: np.ndarray) -> Callable[[int], Iterator[dict[str, np.ndarray]]]:
    """Returns a function from a step to the crops of that step, the next, and so on.

    `own`: int64 [b], the rows of each batch to make, those of this process.
    """
    import tensorflow as tf  # only here: nothing else needs it, and it is slow to import

    tf.config.set_visible_devices([], "GPU")  # the accelerator is JAX's alone
    operations = Operations(
        integer=lambda x: tf.cast(x, tf.int64),
        real=lambda x: tf.cast(x, tf.float32),
        where=tf.where,
        count=lambda x: tf.reduce_sum(tf.cast(x, tf.int64)),
        take=tf.gather,
        minimum=tf.minimum,
    )
    # All pixels may fill most of the memory, and `convert_to_tensor` needs them three times over.
    pixels = plan.tables.pixels
    assert pixels.ctypes.data % 64 == 0, "TensorFlow ends the process on other addresses"
    shared = tf.experimental.dlpack.from_dlpack(pixels.__dlpack__())
    small = {k: tf.convert_to_tensor(v) for k, v in plan.tables._asdict().items() if k != "pixels"}
    tables = Tables(pixels=shared, **small)
    own_rows = tf.convert_to_tensor(own)

    @tf.autograph.experimental.do_not_convert  # it has no Python control flow on tensors
    def crop(number: Any) -> dict[str, Any]:
        i = own_rows[number % len(own)]
        row = (number // len(own)) * plan.batch_size + i
        uniforms = tf.random.stateless_uniform([N_UNIFORMS], [plan.seed, row])
        return crop_row(tables, uniforms, i, plan.augmentation, operations)

    def crops(start_step: int) -> Iterator[dict[str, np.ndarray]]:
        dataset = tf.data.Dataset.range(start_step * len(own), np.iinfo(np.int64).max)
        dataset = dataset.map(crop, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return dataset.batch(len(own), drop_remainder=True).prefetch(2).as_numpy_iterator()

    return crops


def tfdata_batches(plan: Plan) -> Callable[[int], Iterator[Batch]]:
    """Returns a function from a step to the batches of that step, the next, and so on."""
    sharding = NamedSharding(plan.mesh, P("data"))
    spans = sharding.addressable_devices_indices_map((plan.batch_size,)).values()
    own = np.unique(np.concatenate([np.arange(plan.batch_size)[span] for span in spans]))
    crops_from = tfdata_crops(plan, own)
    make = plan.jit_by_row(plan.finish, P("data"))

    def batches(start_step: int) -> Iterator[Batch]:
        for step, crops in enumerate(crops_from(start_step), start_step):
            yield make(
                step,
                {
                    name: jax.make_array_from_process_local_data(sharding, array)
                    for name, array in crops.items()
                },
            )

    return batches

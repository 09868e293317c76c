"""Batches of paired patches for training, as a pure function of (seed, step).

Element i of step s depends only on (seed, s * batch_size + i), its row number. So a run resumes
at any step without iterator state, and any number of processes or devices sees the same batches.

Two loaders with one interface: `tfdata` crops on the host with tf.data; `device` keeps all
images as uint8 on the accelerator and crops inside jit. They share the arithmetic of a row's
crops (`_crops`) and everything after it (`augment.finish`); only their random numbers differ.
"""

import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from nt_jax.data import augment, camera, noise, sources
from nt_jax.data.bank import load_bank
from nt_jax.errors import InputError
from nt_jax.outputs import replacing

Batch = dict[str, jax.Array]

_N_UNIFORMS = 16


class Tables(NamedTuple):
    """What a row's crops are drawn from. N images, photographs first; B rows in a batch.

    Attributes:
      pixels: uint8 [pixels, 3].
      offsets: int [N], first pixel of each clean image.
      noisy_offsets: int [N], first pixel of its noisy version.
      heights: int [N].
      widths: int [N].
      real_probability: float32 [B], that the i-th row of a batch is a real pair.
      real_cdf: float32 [N], cumulated probability of each image in a real row.
      clean_cdf: float32 [N], the same of the clean image of a synthetic row.
      clean_below: float32 [N], `clean_cdf` of the image before.
      next_clean: int [N], another image that a synthetic row may use.
      group_start: int [N], where in `group_members` an image's references begin.
      group_size: int [N], how many there are.
      group_members: int [M], image numbers, group by group.
      blurred: bool [N], images to blur in a synthetic row.
      grid: int [P], 0 .. P - 1.
    """

    pixels: Any
    offsets: Any
    noisy_offsets: Any
    heights: Any
    widths: Any
    real_probability: Any
    real_cdf: Any
    clean_cdf: Any
    clean_below: Any
    next_clean: Any
    group_start: Any
    group_size: Any
    group_members: Any
    blurred: Any
    grid: Any


class _Operations(NamedTuple):
    """The few operations that JAX and TensorFlow spell differently."""

    integer: Callable[[Any], Any]  # rounds towards 0
    real: Callable[[Any], Any]
    where: Callable[[Any, Any, Any], Any]
    count: Callable[[Any], Any]  # how many are true
    take: Callable[[Any, Any], Any]  # along the first axis
    minimum: Callable[[Any, Any], Any]


_JAX = _Operations(
    integer=lambda x: x.astype(jnp.int32),
    real=lambda x: x.astype(jnp.float32),
    where=jnp.where,
    count=lambda x: x.sum(dtype=jnp.int32),
    take=lambda table, i: table[i],
    minimum=jnp.minimum,
)


def _window(
    tables: Tables, image: Any, top: Any, left: Any, orientation: Any, op: _Operations
) -> Any:
    """Pixel numbers [P, P], relative to the image's first, of a turned and flipped patch.

    `top`, `left` and `orientation` are uniform in [0, 1); the 8 orientations are the 4 rotations
    by 90 degrees with and without a flip.
    """

    def choose(uniform: Any, n: Any) -> Any:
        return op.minimum(op.integer(uniform * op.real(n)), n - 1)

    patch = tables.grid.shape[0]
    width = op.take(tables.widths, image)
    top = choose(top, op.take(tables.heights, image) - patch + 1)
    left = choose(left, width - patch + 1)
    eighth = op.integer(orientation * 8.0)
    transpose, flip_rows, flip_columns = eighth // 4, (eighth // 2) % 2, eighth % 2
    i, j = tables.grid[:, None], tables.grid[None, :]
    row = i + transpose * (j - i)
    column = j + transpose * (i - j)
    row += flip_rows * (patch - 1 - 2 * row)
    column += flip_columns * (patch - 1 - 2 * column)
    return (top + row) * width + left + column


def _crops(
    tables: Tables, uniforms: Any, row: Any, with_mix: bool, op: _Operations
) -> dict[str, Any]:
    """The crops of one row, as `augment.finish` takes them.

    Args:
      tables: arrays or tensors.
      uniforms: float32 [_N_UNIFORMS] in [0, 1).
      row: number of the row within its batch.
      with_mix: whether to add the second crops of CutMix.
      op: JAX's or TensorFlow's operations.
    """
    u = [uniforms[i] for i in range(_N_UNIFORMS)]
    real = u[0] < op.take(tables.real_probability, row)

    real_image = op.count(tables.real_cdf <= u[1])
    n_references = op.take(tables.group_size, real_image)
    nth = op.minimum(op.integer(u[2] * op.real(n_references)), n_references - 1)
    real_reference = op.take(tables.group_members, op.take(tables.group_start, real_image) + nth)

    clean_image = op.count(tables.clean_cdf <= u[1])
    # The reference is any other image: the image's own share is cut out of the unit interval.
    below, above = op.take(tables.clean_below, clean_image), op.take(tables.clean_cdf, clean_image)
    rest = u[2] * (1.0 - (above - below))
    rest = op.where(rest < below, rest, rest + (above - below))
    rest = op.minimum(rest, np.float32(1 - 2**-24))
    clean_reference = op.count(tables.clean_cdf <= rest)
    # Rounding may lead back to the image itself, once in about a million draws.
    clean_reference = op.where(
        clean_reference == clean_image, op.take(tables.next_clean, clean_image), clean_reference
    )

    image = op.where(real, real_image, clean_image)
    reference = op.where(real, real_reference, clean_reference)
    starts = {
        "clean": op.take(tables.offsets, image),
        "noisy": op.take(tables.noisy_offsets, image),
        "reference_clean": op.take(tables.offsets, reference),
        "reference": op.take(tables.noisy_offsets, reference),
    }
    window = _window(tables, image, u[3], u[4], u[5], op)
    reference_window = _window(tables, reference, u[6], u[7], u[8], op)
    windows = {
        "clean": window,
        "noisy": window,
        "reference_clean": reference_window,
        "reference": reference_window,
    }
    crops = {name: op.take(tables.pixels, starts[name] + windows[name]) for name in starts}
    if with_mix:
        mix = _window(tables, image, u[9], u[10], u[11], op)
        reference_mix = _window(tables, reference, u[12], u[13], u[14], op)
        for name in starts:
            where = reference_mix if name.startswith("reference") else mix
            crops[f"mix_{name}"] = op.take(tables.pixels, starts[name] + where)
    return crops | {
        "real": real,
        "blur_clean": op.take(tables.blurred, image),
        "blur_reference_clean": op.take(tables.blurred, reference),
    }


def _fail(field: str, message: str) -> InputError:
    return InputError(f"data.{field}: {message}")


def _augmentation(config: Any) -> augment.Augmentation:
    names, weights = tuple(config.noise_kinds), tuple(config.noise_kind_weights)
    known = [kind for kind in noise.KINDS if kind != "real"]
    for name in names:
        if name not in known:
            raise _fail("noise_kinds", f"unknown kind {name!r}, known are {', '.join(known)}")
    if not names or len(set(names)) != len(names):
        raise _fail("noise_kinds", "needs one or more kinds, each once")
    if len(weights) != len(names) or min(weights) < 0 or sum(weights) <= 0:
        raise _fail("noise_kind_weights", "needs one weight of at least 0 for each of noise_kinds")
    for field, lowest in (("sigma_range", 0.0), ("lam_range", 1e-6)):
        bounds = tuple(getattr(config, field))
        if len(bounds) != 2 or not lowest <= bounds[0] <= bounds[1]:
            raise _fail(field, f"needs (low, high) with {lowest:g} <= low <= high, not {bounds}")
    for field in ("blend_probability", "cutmix_probability"):
        if not 0 <= getattr(config, field) <= 1:
            raise _fail(field, f"{getattr(config, field)} is not in [0, 1]")
    by_name = dict(zip(names, weights, strict=True))
    return augment.Augmentation(
        kind_weights=tuple(float(by_name.get(kind, 0.0)) for kind in noise.KINDS),
        sigma_range=(float(config.sigma_range[0]), float(config.sigma_range[1])),
        lam_range=(float(config.lam_range[0]), float(config.lam_range[1])),
        blur=bool(config.blur_pair_clean),
        blend_probability=float(config.blend_probability),
        cutmix_probability=float(config.cutmix_probability),
        dequantise=bool(config.dequantise),
        camera_options=camera.make_options(config),
    )


def _collect(spec: str, find: Callable[[str], list]) -> tuple[list, np.ndarray]:
    """(items, probability of each) of all sources; within a source all are equally likely."""
    items, shares = [], []
    for folder, weight in sources.parse_spec(spec):
        found = find(folder)
        items += found
        shares += [(len(found) if weight is None else weight) / len(found)] * len(found)
    return items, np.asarray(shares, np.float64) / max(sum(shares), 1e-30)


def _cumulated(probabilities: np.ndarray) -> np.ndarray:
    cdf = np.cumsum(probabilities)
    return (cdf / cdf[-1]).astype(np.float32)


def _real_probability(config: Any, batch_size: int, n_photos: int, n_pairs: int) -> np.ndarray:
    """float32 [B]. With fixed mixing the real rows are spread evenly over the batch.

    Without pairs every row is synthetic.
    """
    if config.mixing == "uniform":
        return np.full(batch_size, n_pairs / (n_pairs + n_photos), np.float32)
    if config.mixing != "fixed":
        raise _fail("mixing", f"unknown value {config.mixing!r}, known are fixed, uniform")
    fraction = float(config.real_fraction)
    if not 0 <= fraction <= 1:
        raise _fail("real_fraction", f"{fraction} is not in [0, 1]")
    if not n_pairs:
        fraction = 0.0
    edges = np.floor(np.arange(batch_size + 1) * fraction + 1e-6)
    return np.diff(edges).astype(np.float32)


def _clean_probability(config: Any, photos: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """float64 [N], how likely each image is in a synthetic row."""
    fraction = float(config.pair_clean_fraction)
    if fraction > 1:
        raise _fail("pair_clean_fraction", f"{fraction} is above 1")
    if not len(pairs):
        fraction = 0.0
    elif fraction < 0:
        fraction = len(pairs) / (len(photos) + len(pairs))
    if not len(photos) and fraction < 1:
        raise _fail("photos", "none given, and pair_clean_fraction leaves synthetic rows to them")
    return np.concatenate([(1 - fraction) * photos, fraction * pairs])


def _groups(config: Any, pairs: list[sources.Pair], n_photos: int) -> tuple[np.ndarray, ...]:
    """(group_start, group_size, group_members): the images a real row's reference may come from."""
    keys: dict[str, list] = {
        "same_image": [pair.image or i for i, pair in enumerate(pairs)],
        "same_group": [pair.group for pair in pairs],
        "same_iso": [pair.name if pair.iso is None else pair.iso for pair in pairs],
    }
    n = n_photos + len(pairs)
    start, size = np.zeros(n, np.int64), np.ones(n, np.int64)
    if config.real_reference == "other_image" and pairs:
        if len(pairs) == 1:
            raise _fail("pairs", "other_image as real_reference needs two pairs or more, found one")
        # In the list of all pairs twice over, the others of a pair follow it.
        start[n_photos:] = np.arange(len(pairs)) + 1
        size[n_photos:] = len(pairs) - 1
        return start, size, n_photos + np.arange(2 * len(pairs)) % len(pairs)
    if config.real_reference not in (*keys, "other_image"):
        known = ", ".join((*keys, "other_image"))
        raise _fail("real_reference", f"unknown value {config.real_reference!r}, known are {known}")
    members: list[int] = []
    by_key: dict[Any, list[int]] = {}
    for i, key in enumerate(keys.get(config.real_reference, []), n_photos):
        by_key.setdefault(key, []).append(i)
    for group in by_key.values():
        start[group], size[group] = len(members), len(group)
        members += group
    return start, size, np.asarray(members or [0], np.int64)


def _choices(
    config: Any,
    batch_size: int,
    photo_shares: np.ndarray,
    pairs: list[sources.Pair],
    pair_shares: np.ndarray,
) -> dict[str, np.ndarray]:
    """How rows choose among the images: the fields of `Tables` that do not concern pixels."""
    n_photos = len(photo_shares)
    real_probability = _real_probability(config, batch_size, n_photos, len(pairs))
    real = np.concatenate([np.zeros(n_photos), pair_shares])
    if real_probability.min() < 1:
        clean = _clean_probability(config, photo_shares, pair_shares)
        usable = np.flatnonzero(clean)
        if len(usable) < 2:
            raise _fail(
                "photos", "only one photograph: a synthetic row's reference needs a different one"
            )
    else:
        clean, usable = real, np.flatnonzero(real)
    if not pairs:
        real = clean
    later = np.searchsorted(usable, np.arange(len(clean)), side="right")
    start, size, members = _groups(config, pairs, n_photos)
    clean_cdf = _cumulated(clean)
    return {
        "real_probability": real_probability,
        "real_cdf": _cumulated(real),
        "clean_cdf": clean_cdf,
        "clean_below": np.concatenate([np.zeros(1, np.float32), clean_cdf[:-1]]),
        "next_clean": usable[later % len(usable)],
        "group_start": start,
        "group_size": size,
        "group_members": members,
        "blurred": np.arange(len(clean)) >= n_photos,
    }


def _make_tables(config: Any, batch_size: int) -> Tables:
    patch = int(config.patch_size)
    if patch < 8:
        raise _fail("patch_size", f"{patch} is too small, needs at least 8")
    problems: list[str] = []
    photos, photo_shares = _collect(config.photos, sources.find_photos)
    find_pairs = functools.partial(sources.find_pairs, problems=problems)
    pairs, pair_shares = _collect(config.pairs, find_pairs)
    if not photos and not pairs:
        raise _fail("photos", "neither photos nor pairs are given: name a folder, or skimage")
    # Once before the pixels are read, which takes long, for what is wrong with the config.
    choices = _choices(config, batch_size, photo_shares, pairs, pair_shares)
    bank = load_bank(photos, pairs, patch, config.cache, problems)
    if not bank.usable.all():
        usable_photo, usable_pair = np.split(bank.usable, [len(photos)])
        photo_shares, pair_shares = photo_shares[usable_photo], pair_shares[usable_pair]
        pairs = list(itertools.compress(pairs, usable_pair))
        choices = _choices(config, batch_size, photo_shares, pairs, pair_shares)
    real_rows = float(choices["real_probability"].sum())
    if jax.process_index() == 0:
        print(
            f"data: {len(photo_shares)} photographs, {len(pairs)} real pairs;"
            f" {real_rows:g} of {batch_size} rows in a batch are real",
            flush=True,
        )
    return Tables(
        pixels=bank.pixels,
        offsets=bank.offsets,
        noisy_offsets=bank.noisy_offsets,
        heights=bank.heights,
        widths=bank.widths,
        grid=np.arange(patch),
        **choices,
    )


def _digest(tables: Tables) -> str:
    """Of the images, in their order, and their probabilities: what the crops of a row depend on.

    Of the pixels only one in the middle of an image, and of a thousand images at most: reading all
    from a disk would take too long.
    """
    digest = hashlib.sha256()
    for name in (
        *("offsets", "noisy_offsets", "heights", "widths", "real_cdf", "clean_cdf"),
        *("group_start", "group_size", "group_members"),
    ):
        digest.update(np.ascontiguousarray(getattr(tables, name)).tobytes())
    some = np.unique(np.linspace(0, len(tables.offsets) - 1, 1000).astype(np.int64))
    middles = tables.heights[some] * tables.widths[some] // 2
    for offsets in (tables.offsets, tables.noisy_offsets):
        digest.update(tables.pixels[offsets[some] + middles].tobytes())
    return digest.hexdigest()[:16]


def _check_processes_agree(digest: str) -> None:
    own = np.frombuffer(digest.encode(), np.uint8)
    everywhere = np.reshape(multihost_utils.process_allgather(own), (-1, len(own)))
    if (everywhere != everywhere[0]).any():
        raise InputError(
            "the processes do not read the same images: give all the same folders, all readable"
        )


def _note_images(record: Path, now: dict[str, Any], start_step: int) -> None:
    """Notes the images a run begins with; says so if one goes on with others."""
    try:
        before = json.loads(record.read_text()) if start_step else None
    except (OSError, ValueError):
        before = None
    if isinstance(before, dict):
        if before != now:
            print(
                f"data: not the images and weights that this run began with ({now['images']} images"
                f" now, {before.get('images')} then): from here on its batches are not those of a"
                " run that was never stopped",
                flush=True,
            )
    elif jax.process_index() == 0:
        with replacing(record) as temporary:
            temporary.write_text(json.dumps(now) + "\n")


class _Plan(NamedTuple):
    """All that a loader needs. `most_synthetic`: synthetic rows of one device, at most."""

    tables: Tables
    augmentation: augment.Augmentation
    most_synthetic: int
    batch_size: int
    seed: int
    mesh: Mesh

    def keys(self, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(keys of the crops, keys of all after) of row numbers [b]."""
        key = jax.random.key(self.seed)
        pairs = jax.vmap(lambda row: jax.random.split(jax.random.fold_in(key, row)))(rows)
        return pairs[:, 0], pairs[:, 1]

    def finish(self, rows: jax.Array, crops: dict[str, jax.Array]) -> Batch:
        return augment.finish(self.keys(rows)[1], crops, self.augmentation, self.most_synthetic)

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


def _device_crops(plan: _Plan, rows: jax.Array, tables: Tables) -> dict[str, jax.Array]:
    """The crops of row numbers [b], from tables on the accelerator."""

    def crop(row: jax.Array, key: jax.Array) -> dict[str, jax.Array]:
        uniforms = jax.random.uniform(key, (_N_UNIFORMS,))
        i = (row % plan.batch_size).astype(jnp.int32)
        return _crops(tables, uniforms, i, plan.augmentation.cutmix_probability > 0, _JAX)

    return jax.vmap(crop)(rows, plan.keys(rows)[0])


def _device_batches(plan: _Plan) -> Callable[[int], Iterator[Batch]]:
    if len(plan.tables.pixels) > np.iinfo(np.int32).max:
        raise _fail("loader", "more than 2^31 - 1 pixels are too many for device: choose tfdata")

    def replicate(array: np.ndarray) -> jax.Array:
        narrow = array.astype(np.int32) if array.dtype == np.int64 else array
        return jax.make_array_from_process_local_data(NamedSharding(plan.mesh, P()), narrow)

    tables = jax.tree.map(replicate, plan.tables)
    plan = plan._replace(tables=tables)  # lets go of the host's copy

    def make_rows(rows: jax.Array, tables: Tables) -> Batch:
        return plan.finish(rows, _device_crops(plan, rows, tables))

    make = plan.jit_by_row(make_rows, P())

    def batches(start_step: int) -> Iterator[Batch]:
        return (make(step, tables) for step in itertools.count(start_step))

    return batches


def _tfdata_crops(plan: _Plan, own: np.ndarray) -> Callable[[int], Iterator[dict[str, np.ndarray]]]:
    """Returns a function from a step to the crops of that step, the next, and so on.

    `own`: int64 [b], the rows of each batch to make, those of this process.
    """
    import tensorflow as tf  # only here: nothing else needs it, and it is slow to import

    tf.config.set_visible_devices([], "GPU")  # the accelerator is JAX's alone
    operations = _Operations(
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
        uniforms = tf.random.stateless_uniform([_N_UNIFORMS], [plan.seed, row])
        return _crops(tables, uniforms, i, plan.augmentation.cutmix_probability > 0, operations)

    def crops(start_step: int) -> Iterator[dict[str, np.ndarray]]:
        dataset = tf.data.Dataset.range(start_step * len(own), np.iinfo(np.int64).max)
        dataset = dataset.map(crop, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return dataset.batch(len(own), drop_remainder=True).prefetch(2).as_numpy_iterator()

    return crops


def _tfdata_batches(plan: _Plan) -> Callable[[int], Iterator[Batch]]:
    sharding = NamedSharding(plan.mesh, P("data"))
    spans = sharding.addressable_devices_indices_map((plan.batch_size,)).values()
    own = np.unique(np.concatenate([np.arange(plan.batch_size)[span] for span in spans]))
    crops_from = _tfdata_crops(plan, own)
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


_LOADERS = {"device": _device_batches, "tfdata": _tfdata_batches}


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
      and so on: `clean`, `noisy`, `reference` float32 [B, P, P, 3] in [0, 1]; `kind` int32 [B],
      index into `noise.KINDS`; `sigma` (in [0, 1] units) and `lam` float32 [B], 0 where the kind
      has none. Sharded over `data`.

    Raises:
      InputError: a field of the config is wrong, or more than 1 % of the images; names it.
    """
    if data_config.loader not in _LOADERS:
        known = ", ".join(_LOADERS)
        raise _fail("loader", f"unknown value {data_config.loader!r}, known are {known}")
    n_shards = mesh.shape["data"]
    if batch_size < 1 or batch_size % n_shards:
        raise InputError(f"train.batch_size: {batch_size} is no multiple of the {n_shards} devices")
    augmentation = _augmentation(data_config)
    tables = _make_tables(data_config, batch_size)
    by_shard = tables.real_probability.reshape(n_shards, -1)
    most_synthetic = int((by_shard < 1).sum(axis=1).max())
    digest = _digest(tables)
    _check_processes_agree(digest)
    images = {"images": len(tables.offsets), "digest": digest}
    batches = _LOADERS[data_config.loader](
        _Plan(tables, augmentation, most_synthetic, batch_size, seed, mesh)
    )

    def noted(start_step: int) -> Iterator[Batch]:
        if record:
            _note_images(record, images, start_step)
        return batches(start_step)

    return noted

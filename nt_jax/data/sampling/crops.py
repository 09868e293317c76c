"""The crops of one row of a batch: arithmetic that JAX and TensorFlow share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nt_jax.data.sampling.augment import Augmentation
from nt_jax.data.sampling.tables import Tables

N_UNIFORMS = 16  # random numbers of a row


class Operations(NamedTuple):
    """The few operations that JAX and TensorFlow spell differently."""

    integer: Callable[[Any], Any]  # rounds towards 0
    real: Callable[[Any], Any]
    where: Callable[[Any, Any, Any], Any]
    count: Callable[[Any], Any]  # how many are true
    take: Callable[[Any, Any], Any]  # along the first axis
    minimum: Callable[[Any, Any], Any]


def _window(
    tables: Tables, image: Any, top: Any, left: Any, orientation: Any, op: Operations
) -> Any:
    """Computes pixel numbers [P, P] of a turned and flipped patch, relative to the image's first.

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


def _another_clean(tables: Tables, uniform: Any, image: Any, op: Operations) -> Any:
    """Draws any clean image but one: that one's share is cut out of the unit interval."""
    below, above = op.take(tables.clean_below, image), op.take(tables.clean_cdf, image)
    rest = uniform * (1.0 - (above - below))
    rest = op.where(rest < below, rest, rest + (above - below))
    rest = op.minimum(rest, np.float32(1 - 2**-24))
    other = op.count(tables.clean_cdf <= rest)
    # Rounding may lead back to the image itself, once in about a million draws.
    return op.where(other == image, op.take(tables.next_clean, image), other)


def crop_row(
    tables: Tables, uniforms: Any, row: Any, augmentation: Augmentation, op: Operations
) -> dict[str, Any]:
    """Cuts the crops of one row, as `augment.finish` takes them.

    Args:
      tables: arrays or tensors.
      uniforms: float32 [N_UNIFORMS] in [0, 1).
      row: number of the row within its batch.
      augmentation: tells whether to add the second crops of CutMix, and where a synthetic row's
        reference is from.
      op: JAX's or TensorFlow's operations.
    """
    u = [uniforms[i] for i in range(N_UNIFORMS)]
    real = u[0] < op.take(tables.real_probability, row)

    real_image = op.count(tables.real_cdf <= u[1])
    n_references = op.take(tables.group_size, real_image)
    nth = op.minimum(op.integer(u[2] * op.real(n_references)), n_references - 1)
    real_reference = op.take(tables.group_members, op.take(tables.group_start, real_image) + nth)

    clean_image = op.count(tables.clean_cdf <= u[1])
    clean_reference = clean_image
    if augmentation.other_images:
        clean_reference = _another_clean(tables, u[2], clean_image, op)

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
    if augmentation.cutmix_probability:
        mix = _window(tables, image, u[9], u[10], u[11], op)
        reference_mix = _window(tables, reference, u[12], u[13], u[14], op)
        for name in starts:
            where = reference_mix if name.startswith("reference") else mix
            crops[f"mix_{name}"] = op.take(tables.pixels, starts[name] + where)
    return crops | {
        "real": real,
        "setting": op.take(tables.settings, image),
        "blur_clean": op.take(tables.blurred, image),
        "blur_reference_clean": op.take(tables.blurred, reference),
    }

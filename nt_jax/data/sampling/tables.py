"""The images of a training run and how likely each is in a row, as arrays."""

import functools
import hashlib
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from nt_jax.data.catalogue import sources
from nt_jax.data.catalogue.references import photograph
from nt_jax.data.sampling.bank import load_bank
from nt_jax.errors import InputError
from nt_jax.fields import synthetic_reference


class Tables(NamedTuple):
    """Tables that a row's crops are drawn from. N images, photographs first; B rows in a batch.

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
      settings: int32 [N], camera and ISO, `sources.setting_number`.
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
    settings: Any
    grid: Any


def _fail(field: str, message: str) -> InputError:
    return InputError(f"data.{field}: {message}")


def _collect(spec: str, find: Callable[[str], list]) -> tuple[list, np.ndarray]:
    """Collects (items, probability of each) of all sources.

    Within a source all are equally likely.
    """
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
    """Computes how likely each row is real, float32 [B].

    With fixed mixing the real rows are spread evenly over the batch.

    Without pairs every row is synthetic.
    """
    if config.mixing == "uniform":
        return np.full(batch_size, n_pairs / (n_pairs + n_photos), np.float32)
    fraction = float(config.real_fraction) if n_pairs else 0.0
    edges = np.floor(np.arange(batch_size + 1) * fraction + 1e-6)
    if fraction and not edges[-1]:
        least = math.ceil(1e4 / batch_size) / 1e4
        raise _fail(
            "real_fraction",
            f"{fraction:g} is less than a row of a batch of {batch_size}, so no pair would be used:"
            f" give {least:g} or more, or 0",
        )
    return np.diff(edges).astype(np.float32)


def _clean_probability(config: Any, photos: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Computes how likely each image is in a synthetic row, float64 [N]."""
    fraction = float(config.pair_clean_fraction)
    if not len(pairs):
        fraction = 0.0
    elif fraction < 0:
        fraction = len(pairs) / (len(photos) + len(pairs))
    if not len(photos) and fraction < 1:
        raise _fail("photos", "none given, and pair_clean_fraction leaves synthetic rows to them")
    return np.concatenate([(1 - fraction) * photos, fraction * pairs])


def _groups(config: Any, pairs: list[sources.Pair], n_photos: int) -> tuple[np.ndarray, ...]:
    """Groups the images that a real row's reference may come from.

    Gives (group_start, group_size, group_members), as in `Tables`.
    """
    keys: dict[str, list] = {
        "same_image": [pair.image or i for i, pair in enumerate(pairs)],
        "same_group": [pair.group for pair in pairs],
        "same_iso": [pair.name if pair.iso is None else pair.iso for pair in pairs],
    }
    n = n_photos + len(pairs)
    start, size = np.zeros(n, np.int64), np.ones(n, np.int64)
    if config.real_reference == "other_image" and pairs:
        photographs: dict[str, list[int]] = {}
        for i, pair in enumerate(pairs, n_photos):
            photographs.setdefault(photograph(pair), []).append(i)
        if len(photographs) == 1:
            raise _fail(
                "pairs",
                "other_image as real_reference needs two pairs or more that are no tiles of one"
                f" photograph, found {len(pairs)} of one",
            )
        # In the list of all pairs twice over, the tiles of one photograph side by side, those of
        # the others follow.
        together = list(itertools.chain(*photographs.values()))
        end = 0
        for tiles in photographs.values():
            end += len(tiles)
            start[tiles], size[tiles] = end, len(pairs) - len(tiles)
        return start, size, np.asarray(together * 2, np.int64)
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
    """Computes how rows choose among the images.

    These are the fields of `Tables` that do not concern pixels.
    """
    n_photos = len(photo_shares)
    real_probability = _real_probability(config, batch_size, n_photos, len(pairs))
    real = np.concatenate([np.zeros(n_photos), pair_shares])
    if real_probability.min() < 1:
        clean = _clean_probability(config, photo_shares, pair_shares)
        usable = np.flatnonzero(clean)
        if len(usable) < 2 and synthetic_reference(config) == "other_image":
            raise _fail(
                "photos", "only one photograph: a synthetic row's reference needs a different one"
            )
    else:
        clean, usable = real, np.flatnonzero(real)
    if not pairs:
        real = clean
    groups = [""] * n_photos + [pair.group for pair in pairs]
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
        "settings": np.asarray([sources.setting_number(group) for group in groups], np.int32),
    }


def make_tables(config: Any, batch_size: int) -> Tables:
    """Reads the images of `config.data` and says how the rows of a batch choose among them.

    Raises:
      InputError: a field of the config is wrong, or more than 1 % of the images; names it.
    """
    patch = int(config.patch_size)
    problems: list[str] = []
    notes: list[str] = []
    find_photos = functools.partial(sources.find_photos, notes=notes)
    photos, photo_shares = _collect(config.photos, find_photos)
    find_pairs = functools.partial(sources.find_pairs, problems=problems, notes=notes)
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
        for note in notes:
            print(f"data: {note}", flush=True)
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


def digest_of(tables: Tables) -> str:
    """Digests the images, in their order, and their probabilities: what a row's crops depend on.

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

"""Evaluation on held-out patches while training: AKLD, KS and the noise level that follows.

Every patch is scored with two references: `self`, the noisy patch itself, as published tables do,
and `other`, a patch of a different photograph with the same noise. A real pair that is alone in its
camera and ISO has no such patch, and no part in the scores of `other`.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from nt_jax import metrics, noise, prng
from nt_jax.data.catalogue import sources
from nt_jax.data.catalogue.references import next_other, photograph
from nt_jax.errors import InputError
from nt_jax.models.parameters import Array
from nt_jax.noise import camera
from nt_jax.noise.jpeg import RGB_TO_YCC

_BATCH = 8
_SAMPLES_OF_KIND = 2

# (batch, key) -> images.
Generate = Callable[[dict[str, Any], Array], Array]


class Scores(NamedTuple):
    """Scores of a state on held-out patches, and sample pictures.

    Attributes:
      results: {name: number}, names begin with `eval/`.
      pictures: {title: images [N, P, P, 3]}, columns of one picture.
    """

    results: dict[str, float]
    pictures: dict[str, np.ndarray]


class HeldOut(NamedTuple):
    """Fixed patches: float32 [N, P, P, 3] in [0, 1] and the kind of noise of each.

    Attributes:
      clean, noisy: the scored pair.
      reference_clean, reference: another image with the same noise; the pair itself where there
        is none.
      kind: N names from `noise.KINDS`, or "grey".
      has_other: bool [N], whether there is one.
    """

    clean: np.ndarray
    noisy: np.ndarray
    reference_clean: np.ndarray
    reference: np.ndarray
    kind: tuple[str, ...]
    has_other: np.ndarray


def make_heldout(config: Any) -> HeldOut:
    """Makes a training config's held-out patches: for each kind noise levels spread over its range.

    Raises:
      InputError: nothing to evaluate on, or photographs smaller than the patch.
    """
    size, count = config.eval.patch_size, config.eval.patches
    rows: list[tuple[Any, ...]] = []
    if config.eval.photos:
        photos = sources.load_photos(config.eval.photos)
        patches = _patches(photos, size, count)
        others = _next_of_another_photo(count, len(photos))
        key = prng.keys_of_run(config.seed).held_out
        for kind in config.data.noise_kinds:
            kind_key = prng.fold_in(key, len(rows))
            rows += _synthetic_rows(kind, patches, others, config.data, kind_key)
        if getattr(config.data, "grey_fraction", 0.0):  # which configs of before do not have
            rows += _grey_rows(patches, others, config.data, prng.fold_in(key, len(rows)))
    if config.eval.pairs:
        rows += _real_rows(sources.load_pairs(config.eval.pairs), size, count)
    if not rows:
        raise InputError("config.eval.photos and config.eval.pairs are both empty; name one")
    clean, noisy, reference_clean, reference, kinds, has_other = zip(*rows, strict=True)
    return HeldOut(
        clean=np.stack(clean),
        noisy=np.stack(noisy),
        reference_clean=np.stack(reference_clean),
        reference=np.stack(reference),
        kind=kinds,
        has_other=np.array(has_other),
    )


def _patches(photos: list[tuple[str, np.ndarray]], size: int, count: int) -> np.ndarray:
    """Cuts patches spread over the photographs, in turn: [count, size, size, 3] in [0, 1]."""
    patches = []
    for index in range(count):
        name, photo = photos[index % len(photos)]
        turn, turns = index // len(photos), -(-count // len(photos))
        patches.append(_patch(name, photo, size, (turn + 0.5) / turns))
    return np.stack(patches)


def _next_of_another_photo(count: int, photos: int) -> np.ndarray:
    """Finds for each of `_patches` the next of another photograph; itself without one: [count]."""
    photo = np.arange(count) % photos
    turned = (np.arange(count)[:, None] + np.arange(count)) % count
    # The first of a row's Trues; a row without any gives 0 turns, the patch itself.
    return turned[np.arange(count), (photo[turned] != photo[:, None]).argmax(axis=1)]


def _patch(name: str, image: np.ndarray, size: int, position: float) -> np.ndarray:
    """Cuts the patch at relative `position` along the image's diagonal."""
    height, width, _ = image.shape
    if min(height, width) < size:
        raise InputError(f"{name} is smaller than config.eval.patch_size={size}; lower that")
    top, left = (round(position * (side - size)) for side in (height, width))
    return image[top : top + size, left : left + size] / np.float32(255)


# One for all, as kinds without a camera are one program.
_add_noise = jax.jit(jax.vmap(noise.add_noise))


def _synthetic_rows(
    kind: str, patches: np.ndarray, others: np.ndarray, data: Any, key: Array
) -> list[tuple]:
    """Rows of one kind; `others` numbers the patch that each has for its other reference."""
    count = len(patches)
    spread = (np.arange(count) + 0.5) / count
    sigma = data.sigma_range[0] + spread * (data.sigma_range[1] - data.sigma_range[0])
    lam = data.lam_range[0] + spread * (data.lam_range[1] - data.lam_range[0])
    cameras, (key, camera_key) = None, prng.split(key)
    if kind == "camera":
        options = camera.make_options(data)
        draw = jax.vmap(lambda key, quantile: camera.sample_setting(key, options, quantile))
        camera_keys = prng.split(camera_key, count)
        cameras = jax.jit(draw)(camera_keys, jnp.asarray(spread, jnp.float32))
    setting = noise.NoiseSetting(
        kind=jnp.full(count, noise.KINDS.index(kind)),
        sigma=jnp.asarray(sigma / 255, jnp.float32),
        lam=jnp.asarray(lam, jnp.float32),
        camera_setting=cameras,
    )
    other_patches = patches[others]
    keys = prng.split(key, (2, count))
    noisy, reference = (
        np.asarray(_add_noise(keys[i], jnp.asarray(clean), setting))
        for i, clean in enumerate((patches, other_patches))
    )
    different = others != np.arange(count)
    return list(
        zip(patches, noisy, other_patches, reference, [kind] * count, different, strict=True)
    )


def _grey_rows(patches: np.ndarray, others: np.ndarray, data: Any, key: Array) -> list[tuple]:
    """Rows of kind "grey": photographs without colour, Gaussian noise common to the channels."""
    grey = np.repeat(patches @ RGB_TO_YCC[0][:, None], 3, axis=-1)

    def one_noise(image: np.ndarray) -> np.ndarray:
        return np.repeat(image[..., 1:2], 3, axis=-1)

    return [
        (clean, one_noise(noisy), other_clean, one_noise(reference), "grey", different)
        for clean, noisy, other_clean, reference, _, different in _synthetic_rows(
            "gaussian", grey, others, data, key
        )
    ]


def _real_rows(pairs: list[tuple], size: int, count: int) -> list[tuple]:
    """Patches of the pairs, or of `count` of them; the other reference may be of any of them."""
    names = [pair for pair, _, _ in pairs]
    photographs = [photograph(pair) for pair in names]
    chosen = np.linspace(0, len(pairs) - 1, min(count, len(pairs))).round().astype(int)
    rows = []
    for index in chosen:
        other = next_other(index, names, photographs)
        pair, *images = pairs[index]
        other_pair, *other_images = pairs[index if other is None else other]
        rows.append(
            (
                *(_patch(pair.name, image, size, 0.5) for image in images),
                *(_patch(other_pair.name, image, size, 0.5) for image in other_images),
                "real",
                other is not None,
            )
        )
    return rows


def sample_rows(heldout: HeldOut) -> np.ndarray:
    """Numbers the patches for pictures: the last of each kind, which have the strongest noise."""
    kinds = np.array(heldout.kind)
    last = [np.flatnonzero(kinds == kind)[-_SAMPLES_OF_KIND:] for kind in dict.fromkeys(kinds)]
    return np.concatenate(last)


def in_batches(function: Callable[..., ArrayLike], *arrays: np.ndarray) -> np.ndarray:
    """Applies a function to a few rows at a time, always as many: one program, little memory.

    Args:
      function: of as many rows of each array; gives a result a row.
      arrays: [N, ...].

    Returns:
      The results, [N, ...].
    """
    count = len(arrays[0])
    parts = [
        np.asarray(function(*(array[rows] for array in arrays))) for _, rows in _batches(count)
    ]
    return np.concatenate(parts)[:count]


def _batches(count: int) -> Iterator[tuple[int, np.ndarray]]:
    """Numbers the rows of batches of one size, the last filled up: (first row, rows)."""
    for start in range(0, count, _BATCH):
        yield start, np.arange(start, start + _BATCH) % count


def by_kind(heldout: HeldOut, name: str, values: np.ndarray) -> dict[str, float]:
    """Averages a score of each patch: {`eval/NAME`: mean over kinds, `eval/KIND/NAME`: of one}."""
    kinds = np.array(heldout.kind)
    means = {kind: float(values[kinds == kind].mean()) for kind in dict.fromkeys(heldout.kind)}
    overall = {f"eval/{name}": float(np.mean(list(means.values())))}
    return overall | {f"eval/{kind}/{name}": mean for kind, mean in means.items()}


def evaluate(
    generate: Generate, heldout: HeldOut, key: Array
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Scores a generator.

    Args:
      generate: (batch, key) -> generated images [N, P, P, 3] in [0, 1]; the batch has `clean`,
        `reference` and `reference_clean`.
      heldout: the patches.
      key: PRNG key.

    Returns:
      ({name: number}, {"self" | "other": generated images [N, P, P, 3]}). Names are `eval/akld`,
      `eval/ks` and `eval/level_correlation`, the mean over kinds, and `eval/KIND/...`; with the
      other reference they end in `_other`, and are missing where no patch has one.
      `eval/KIND/patches` and `eval/KIND/patches_other` say of how many they are.
    """
    results: dict[str, float] = {}
    images = {}
    for mode, reference, reference_clean, scored in (
        ("self", heldout.noisy, heldout.clean, np.ones_like(heldout.has_other)),
        ("other", heldout.reference, heldout.reference_clean, heldout.has_other),
    ):
        parts = []
        for start, rows in _batches(len(reference)):
            part_key = prng.fold_in(key, start)
            batch = {
                "clean": heldout.clean[rows],
                "reference": reference[rows],
                "reference_clean": reference_clean[rows],
            }
            parts.append(np.asarray(generate(batch, part_key)))
        generated = np.concatenate(parts)[: len(reference)]
        images[mode] = generated
        akld = np.asarray(metrics.akld(heldout.clean, heldout.noisy, generated))
        ks = np.asarray(metrics.ks(heldout.clean, heldout.noisy, generated))
        level = _level(reference - reference_clean)
        generated_level = _level(generated - heldout.clean)
        suffix = "" if mode == "self" else "_other"
        of_kinds: dict[str, list[float]] = {"akld": [], "ks": [], "level_correlation": []}
        for kind in dict.fromkeys(heldout.kind):
            rows = (np.array(heldout.kind) == kind) & scored
            results[f"eval/{kind}/patches{suffix}"] = int(rows.sum())
            if not rows.any():
                continue
            scores = {
                "akld": float(akld[rows].mean()),
                "ks": float(ks[rows].mean()),
                "level_correlation": _correlation(level[rows], generated_level[rows]),
            }
            for name, score in scores.items():
                results[f"eval/{kind}/{name}{suffix}"] = score
                of_kinds[name].append(score)
        results |= {f"eval/{name}{suffix}": float(np.mean(s)) for name, s in of_kinds.items() if s}
    return results, images


def _level(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).std(axis=1)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Computes the Pearson correlation; 0 where one side does not vary."""
    if min(a.std(), b.std()) < 1e-8:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])

"""From cropped uint8 patches to the batch a training step sees: noise, blend, CutMix, float.

Both loaders end in `finish`, so that noise and augmentation are defined once.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from nt_jax.data import noise

_BLUR_SIZE = 21
_BLUR_SIGMA = 3.5  # 0.15 * 21 + 0.35, what OpenCV and torchvision take for a 21-pixel kernel


@dataclass(frozen=True)
class Augmentation:
    """What `finish` does to a batch. Rows and fields of spec §4 are named in the config.

    Attributes:
      kind_weights: weight of each of `noise.KINDS` among synthetic rows.
      sigma_range: of the Gaussian part, on the 0..255 scale.
      lam_range: of the Poisson part.
      blur: Gaussian-blur the synthetic rows' patches that are marked so.
      blend_probability: of Y <- a Y + (1 - a) X in a real row, a ~ U(0.8, 1) common to the
        noisy image and the reference.
      cutmix_probability: of a second crop pasted into a real row's patch, drawn for the noisy
        image and for the reference apart.
      dequantise: spread a real row's 8-bit levels by U(-1/2, 1/2) / 255 where there is noise.
    """

    kind_weights: tuple[float, ...]
    sigma_range: tuple[float, float]
    lam_range: tuple[float, float]
    blur: bool = False
    blend_probability: float = 0.0
    cutmix_probability: float = 0.0
    dequantise: bool = False


def gaussian_blur(image: jax.Array) -> jax.Array:
    """Blurs [H, W, 3] by the 21x21 Gaussian of sigma 3.5 with reflected borders."""
    positions = np.arange(_BLUR_SIZE) - _BLUR_SIZE // 2
    weights = np.exp(-0.5 * (positions / _BLUR_SIGMA) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        margin = [(0, 0)] * 3
        margin[axis] = (_BLUR_SIZE // 2, _BLUR_SIZE // 2)
        padded = jnp.pad(image, margin, mode="reflect")
        size = image.shape[axis]
        image = sum(
            float(weight) * jax.lax.slice_in_dim(padded, i, i + size, axis=axis)
            for i, weight in enumerate(weights)
        )
    return image


def _cutmix_mask(key: jax.Array, size: int) -> jax.Array:
    """bool [size, size, 1], true inside a random rectangle with sides in [size/4, 3 size/4)."""
    shortest = size // 4
    inside = []
    for axis_key in jax.random.split(key):
        side_key, start_key = jax.random.split(axis_key)
        side = jax.random.randint(side_key, (), shortest, 3 * shortest)
        start = jax.random.randint(start_key, (), 0, size - side + 1)
        inside.append((jnp.arange(size) >= start) & (jnp.arange(size) < start + side))
    return (inside[0][:, None] & inside[1][None, :])[..., None]


def _synthetic(
    key: jax.Array, crops: dict[str, jax.Array], augmentation: Augmentation
) -> tuple[jax.Array, jax.Array, jax.Array, noise.NoiseSetting]:
    """(clean, noisy, reference, setting): one noise setting on two clean patches (paper §4)."""
    setting_key, noisy_key, reference_key = jax.random.split(key, 3)
    patches = []
    for name in ("clean", "reference_clean"):
        patch = crops[name].astype(jnp.float32)
        if augmentation.blur:  # the released program blurs 8-bit images, hence the rounding
            patch = jnp.where(crops[f"blur_{name}"], jnp.round(gaussian_blur(patch)), patch)
        patches.append(patch / 255)
    setting = noise.sample_setting(
        setting_key, augmentation.kind_weights, augmentation.sigma_range, augmentation.lam_range
    )
    noisy = noise.add_noise(noisy_key, patches[0], setting)
    reference = noise.add_noise(reference_key, patches[1], setting)
    return patches[0], noisy, reference, setting


def _real_side(
    key: jax.Array,
    alpha: jax.Array,
    names: tuple[str, str],
    crops: dict[str, jax.Array],
    augmentation: Augmentation,
) -> tuple[jax.Array, jax.Array]:
    """(clean, noisy) of one real patch, in the released program's order of augmentations."""
    mix_key, mask_key, level_key = jax.random.split(key, 3)
    clean, noisy = (crops[name].astype(jnp.float32) / 255 for name in names)
    if augmentation.cutmix_probability:
        mix = jax.random.bernoulli(mix_key, augmentation.cutmix_probability)
        mask = mix & _cutmix_mask(mask_key, clean.shape[0])
        second_clean, second_noisy = (
            crops[f"mix_{name}"].astype(jnp.float32) / 255 for name in names
        )
        clean = jnp.where(mask, second_clean, clean)
        noisy = jnp.where(mask, second_noisy, noisy)
    noisy = alpha * noisy + (1 - alpha) * clean  # pixelwise, so it may follow the pasting
    if augmentation.dequantise:
        has_noise = jnp.abs(noisy - clean).sum(axis=-1, keepdims=True) > 1e-3
        levels = jax.random.uniform(level_key, noisy.shape, minval=-0.5, maxval=0.5) / 255
        noisy = noisy + jnp.where(has_noise, levels, 0.0)
    return clean, jnp.clip(noisy, 0.0, 1.0)


def finish(
    key: jax.Array, crops: dict[str, jax.Array], augmentation: Augmentation
) -> dict[str, jax.Array]:
    """Makes one batch element of its crops; map over a batch with `jax.vmap`.

    Args:
      key: a JAX random key, of this element alone.
      crops: `real` bool []; uint8 [P, P, 3] patches `clean`, `noisy`, `reference` and
        `reference_clean` (for a synthetic element only the two clean ones matter); with CutMix
        also a second crop `mix_...` of each; with blur also bool [] `blur_clean` and
        `blur_reference_clean`.
      augmentation: what to do.

    Returns:
      `clean`, `noisy`, `reference` float32 [P, P, 3] in [0, 1]; `kind` int32, `sigma` (in [0, 1]
      units) and `lam` float32 [], both 0 where the kind has no such part.
    """
    synthetic_key, alpha_key, blend_key, noisy_key, reference_key = jax.random.split(key, 5)
    clean, noisy, reference, setting = _synthetic(synthetic_key, crops, augmentation)
    alpha = jnp.where(
        jax.random.bernoulli(blend_key, augmentation.blend_probability),
        jax.random.uniform(alpha_key, minval=0.8, maxval=1.0),
        1.0,
    )
    real_clean, real_noisy = _real_side(noisy_key, alpha, ("clean", "noisy"), crops, augmentation)
    _, real_reference = _real_side(
        reference_key, alpha, ("reference_clean", "reference"), crops, augmentation
    )
    real = crops["real"]
    return {
        "clean": jnp.where(real, real_clean, clean),
        "noisy": jnp.where(real, real_noisy, noisy),
        "reference": jnp.where(real, real_reference, reference),
        "kind": jnp.where(real, noise.KINDS.index("real"), setting.kind),
        "sigma": jnp.where(real, 0.0, setting.sigma),
        "lam": jnp.where(real, 0.0, setting.lam),
    }

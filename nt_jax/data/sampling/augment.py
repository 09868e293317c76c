"""From cropped uint8 patches to the batch a training step sees: noise, blend, CutMix, float.

Both loaders end in `finish`, so that noise and augmentation are defined once.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from nt_jax import noise, prng
from nt_jax.fields import synthetic_reference
from nt_jax.filters import gaussian_blur
from nt_jax.noise import camera
from nt_jax.noise.jpeg import RGB_TO_YCC


@dataclass(frozen=True)
class Augmentation:
    """Settings of `finish`. Rows and fields of spec §4 are named in the config.

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
      camera_options: what camera noise is drawn from.
      grey_fraction: of synthetic rows that are grey, with one noise common to all channels.
      references: whether elements have one; without, their noise costs half as much.
      other_images: a synthetic row's reference is of another image, not of its own.
    """

    kind_weights: tuple[float, ...]
    sigma_range: tuple[float, float]
    lam_range: tuple[float, float]
    blur: bool = False
    blend_probability: float = 0.0
    cutmix_probability: float = 0.0
    dequantise: bool = False
    camera_options: camera.Options = camera.PUBLISHED
    grey_fraction: float = 0.0
    references: bool = True
    other_images: bool = True

    @property
    def sides(self) -> int:
        """Noisy patches of an element: its own, and its reference."""
        return 1 + self.references


def make_augmentation(data_config: Any) -> Augmentation:
    """Takes the noise and augmentation fields of a checked `config.data`; see configs/common.py.

    Raises:
      InputError: the file that a field names is wrong; names it.
    """
    names, weights = tuple(data_config.noise_kinds), tuple(data_config.noise_kind_weights)
    by_name = dict(zip(names, weights, strict=True))
    return Augmentation(
        kind_weights=tuple(float(by_name.get(kind, 0.0)) for kind in noise.KINDS),
        sigma_range=(float(data_config.sigma_range[0]), float(data_config.sigma_range[1])),
        lam_range=(float(data_config.lam_range[0]), float(data_config.lam_range[1])),
        blur=bool(data_config.blur_pair_clean),
        blend_probability=float(data_config.blend_probability),
        cutmix_probability=float(data_config.cutmix_probability),
        dequantise=bool(data_config.dequantise),
        camera_options=camera.make_options(data_config),
        grey_fraction=float(getattr(data_config, "grey_fraction", 0.0)),
        references=data_config.real_reference != "none",
        other_images=synthetic_reference(data_config) == "other_image",
    )


def _cutmix_mask(uniforms: jax.Array, size: int) -> jax.Array:
    """Makes bool [size, size, 1], true inside a random rectangle with sides in [size/4, 3 size/4).

    `uniforms`: [2, 2] in [0, 1), side and place along each axis.
    """
    shortest = size // 4
    side = shortest + jnp.floor(uniforms[0] * 2 * shortest)
    start = jnp.floor(uniforms[1] * (size - side + 1))
    positions = jnp.arange(size, dtype=jnp.float32)[:, None]
    start, side = start[None], side[None]
    inside = (positions >= start) & (positions < start + side)  # [size, 2]
    return (inside[:, None, 0] & inside[None, :, 1])[..., None]


def _synthetic(
    key: jax.Array, crops: dict[str, jax.Array], augmentation: Augmentation
) -> dict[str, jax.Array]:
    """Makes a synthetic element: one noise setting on two clean patches (paper §4)."""
    setting_key, noise_key, grey_key = prng.split(key, 3)
    sides = augmentation.sides
    patches = jnp.stack([crops["clean"], crops["reference_clean"]][:sides]).astype(jnp.float32)
    if augmentation.blur:  # the released program blurs 8-bit images, hence the rounding
        marked = jnp.stack([crops["blur_clean"], crops["blur_reference_clean"]][:sides])
        blurred = jnp.round(gaussian_blur(patches))
        patches = jnp.where(marked[:, None, None, None], blurred, patches)
    patches /= 255
    is_grey = jnp.bool_(False)
    if augmentation.grey_fraction:
        uniform = prng.uniform(grey_key)
        is_grey = uniform < augmentation.grey_fraction
        patches = jnp.where(is_grey, patches @ RGB_TO_YCC[0][:, None], patches)
    setting = noise.sample_setting(
        setting_key,
        augmentation.kind_weights,
        augmentation.sigma_range,
        augmentation.lam_range,
        augmentation.camera_options,
    )
    noisy = jax.vmap(noise.add_noise, in_axes=(0, 0, None))(
        prng.split(noise_key)[:sides], patches, setting
    )
    if augmentation.grey_fraction:
        noisy = jnp.where(is_grey, noisy[..., 1:2], noisy)
    return _element(patches[0], noisy, setting.kind, setting.sigma, setting.lam)


def _element(
    clean: jax.Array, noisy: jax.Array, kind: jax.Array, sigma: jax.Array, lam: jax.Array
) -> dict[str, jax.Array]:
    """Makes an element of a batch; `noisy` [1 or 2, P, P, 3], the second being the reference."""
    images = dict(zip(("noisy", "reference"), noisy, strict=False))
    return {"clean": clean, **images, "kind": kind, "sigma": sigma, "lam": lam}


def _real_side(
    key: jax.Array, alpha: jax.Array, crops: dict[str, jax.Array], augmentation: Augmentation
) -> tuple[jax.Array, jax.Array]:
    """Makes (clean, noisy) of a real element's own patch or of its reference."""
    scalar_key, level_key = prng.split(key)
    crops = {name: crop.astype(jnp.float32) / 255 for name, crop in crops.items()}
    clean, noisy = crops["clean"], crops["noisy"]
    if augmentation.cutmix_probability:
        uniforms = prng.uniform(scalar_key, (5,))
        mask = _cutmix_mask(uniforms[:4].reshape(2, 2), clean.shape[0])
        mask &= uniforms[4] < augmentation.cutmix_probability
        clean = jnp.where(mask, crops["mix_clean"], clean)
        noisy = jnp.where(mask, crops["mix_noisy"], noisy)
    noisy = alpha * noisy + (1 - alpha) * clean  # pixelwise, so pasting may come before it
    if augmentation.dequantise:  # the released program's mask: any noise in the pixel's channels
        has_noise = jnp.abs(noisy - clean).sum(axis=-1, keepdims=True) > 1e-3
        levels = prng.uniform(level_key, noisy.shape, -0.5, 0.5) / 255
        noisy += jnp.where(has_noise, levels, 0.0)
    return clean, jnp.clip(noisy, 0.0, 1.0)


def _real(
    key: jax.Array, crops: dict[str, jax.Array], augmentation: Augmentation
) -> dict[str, jax.Array]:
    """Makes a real element.

    It has the same blend for the noisy image and the reference, the rest apart.
    """
    alpha_key, side_key = prng.split(key)
    blend, amount = prng.uniform(alpha_key, (2,))
    alpha = jnp.where(blend < augmentation.blend_probability, 0.8 + 0.2 * amount, 1.0)
    prefixes = ("", "mix_") if augmentation.cutmix_probability else ("",)
    count = augmentation.sides
    sides = {  # [2, P, P, 3]: the element's own patch, its reference
        prefix + name: jnp.stack([crops[prefix + name], crops[prefix + of_reference]][:count])
        for prefix in prefixes
        for name, of_reference in (("clean", "reference_clean"), ("noisy", "reference"))
    }
    clean, noisy = jax.vmap(lambda key, side: _real_side(key, alpha, side, augmentation))(
        prng.split(side_key)[:count], sides
    )
    kind = jnp.int32(noise.KINDS.index("real"))
    return _element(clean[0], noisy, kind, jnp.float32(0), jnp.float32(0))


def finish(
    keys: jax.Array,
    crops: dict[str, jax.Array],
    augmentation: Augmentation,
    most_synthetic: int,
) -> dict[str, jax.Array]:
    """Makes batch elements of their crops. Element i depends on `keys[i]` and its crops alone.

    Args:
      keys: JAX random keys [B].
      crops: `real` bool [B]; uint8 [B, P, P, 3] patches `clean`, `noisy`, `reference` and
        `reference_clean` (for a synthetic element only the two clean ones matter); with CutMix
        also a second crop `mix_...` of each; with blur also bool [B] `blur_clean` and
        `blur_reference_clean`.
      augmentation: what to do.
      most_synthetic: an upper bound of the number of synthetic elements among the B, known
        before: no more than these are given synthetic noise, which is the costly part.

    Returns:
      `clean`, `noisy` and, if there are references, `reference` float32 [B, P, P, 3] in [0, 1];
      `kind` int32, `sigma` (in [0, 1] units) and `lam` float32 [B], the last two 0 where the kind
      has no such part.
    """
    batch = jax.vmap(lambda key, crop: _real(key, crop, augmentation))(keys, crops)
    if not most_synthetic:
        return batch
    rows = jnp.argsort(crops["real"])[:most_synthetic]  # False, synthetic, comes first
    chosen = {name: crop[rows] for name, crop in crops.items()}
    synthetic = jax.vmap(lambda key, crop: _synthetic(key, crop, augmentation))(keys[rows], chosen)

    def merge(into: jax.Array, made: jax.Array) -> jax.Array:
        real = chosen["real"].reshape(-1, *[1] * (made.ndim - 1))
        return into.at[rows].set(jnp.where(real, into[rows], made))

    return jax.tree.map(merge, batch, synthetic)

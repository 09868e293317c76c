"""Baseline JPEG's losses (ITU-T T.81), written so that they can be computed inside `jit`."""

import math

import jax
import jax.numpy as jnp
import numpy as np

# ITU-T T.81 annex K, for luma and chroma.
_LUMA_TABLE = (
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56"
    " 14 17 22 29 51 87 80 62 18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92"
    " 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"
)
_CHROMA_CORNER = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))
_LUMA = np.array(_LUMA_TABLE.split(), np.float32).reshape(8, 8, 1)
_CHROMA = np.full((8, 8, 1), 99, np.float32)
_CHROMA[:4, :4, 0] = np.array(_CHROMA_CORNER, np.float32)
# Orthonormal DCT-II, [frequency, pixel].
_DCT = (
    np.where(np.arange(8) == 0, math.sqrt(1 / 8), 1 / 2)[:, None]
    * np.cos(np.pi / 16 * np.arange(8)[:, None] * (2 * np.arange(8) + 1))
).astype(np.float32)
# R, G, B to Y, Cb, Cr of JFIF (ITU-R BT.601).
RGB_TO_YCC = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32
)
YCC_TO_RGB = np.linalg.inv(RGB_TO_YCC.astype(np.float64)).astype(np.float32)
# Subsampled chroma has blocks of 8 over 16 pixels.
_BLOCK = 16


def times(image: jax.Array, matrix: jax.Array | np.ndarray) -> jax.Array:
    """Multiplies every colour of [H, W, 3] by a matrix [3, 3], at full precision on a GPU too."""
    return jnp.einsum("hwc,dc->hwd", image, matrix, precision=jax.lax.Precision.HIGHEST)


def straight_round(values: jax.Array) -> jax.Array:
    """Rounds values; the gradient passes as if it had not."""
    return values + jax.lax.stop_gradient(jnp.round(values) - values)


def to_8_bits(image: jax.Array) -> jax.Array:
    """Clips to [0, 1] and rounds to 8-bit levels; the gradient passes the rounding."""
    return straight_round(jnp.clip(image, 0, 1) * 255) / 255


def jpeg(
    image: jax.Array,
    quality: jax.Array,
    corner: jax.Array,
    subsampled: jax.Array | bool | None = None,
) -> jax.Array:
    """Compresses and decompresses an image.

    Args:
      image: float32 [H, W, 3] in [0, 1].
      quality: float32 [] in 1..100, scales the standard's tables as libjpeg does.
      corner: int32 [2], place of the image's first pixel within its block: 0..7, or 0..15 where
        chroma may be subsampled.
      subsampled: bool [], whether chroma has half the height and width (4:2:0), by averages of 2x2
        pixels and back by repeating them; None for never, which costs less than False.

    Returns:
      float32 [H, W, 3], 8-bit levels in [0, 1].
    """
    block = 8 if subsampled is None else _BLOCK
    height, width, _ = image.shape
    size = tuple(block * -(-(side + block - 1) // block) for side in (height, width))
    # The image begins at pixel `corner` of whole blocks, its edges repeated around it.
    before = block - 1
    around = ((before, size[0] - height), (before, size[1] - width), (0, 0))
    padded = jnp.pad(image, around, mode="edge")
    start = (before - corner[0], before - corner[1], jnp.int32(0))
    ycc = times(jax.lax.dynamic_slice(padded, start, (*size, 3)) * 255, RGB_TO_YCC)
    luma, chroma = ycc[..., :1] - 128.0, ycc[..., 1:]

    scale = jnp.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    luma = _quantise(luma, _LUMA, scale) + 128.0
    whole = _quantise(chroma, _CHROMA, scale)
    if subsampled is not None:
        half = chroma.reshape(size[0] // 2, 2, size[1] // 2, 2, 2).mean((1, 3))
        half = _quantise(half, _CHROMA, scale)
        repeated = jnp.repeat(jnp.repeat(half, 2, axis=0), 2, axis=1)
        whole = jnp.where(subsampled, repeated, whole)
    decoded = jnp.concatenate([luma, whole], axis=-1)
    decoded = jax.lax.dynamic_slice(decoded, (corner[0], corner[1], jnp.int32(0)), image.shape)
    return to_8_bits(times(decoded, YCC_TO_RGB) / 255)


def _quantise(plane: jax.Array, table: np.ndarray, scale: jax.Array) -> jax.Array:
    """Rounds the DCT coefficients of whole 8x8 blocks, [H, W, C] -> [H, W, C]."""
    height, width, channels = plane.shape
    steps = jnp.clip(jnp.floor((table * scale + 50) / 100), 1, 255)[None, None]
    blocks = straight_round(plane).reshape(height // 8, 8, width // 8, 8, channels)
    exact = jax.lax.Precision.HIGHEST
    frequencies = jnp.einsum("ua,vb,iajbc->ijuvc", _DCT, _DCT, blocks, precision=exact)
    kept = straight_round(frequencies / steps) * steps
    pixels = jnp.einsum("ua,vb,ijuvc->iajbc", _DCT, _DCT, kept, precision=exact)
    return pixels.reshape(plane.shape)

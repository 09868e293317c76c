"""The middle of a photo at full size, and noise made visible."""

import numpy as np

from nt_jax.images import Photo, cut_middle, to_float

GAIN = 4  # of noise, to see it


def middle(photo: Photo, side: int) -> np.ndarray:
    """Cuts float32 [side, side, 3] out of the middle, or what a photo has of it."""
    return to_float(cut_middle(photo.pixels, side))


def visible(noise: np.ndarray) -> np.ndarray:
    """Shows noise [H, W, 3] as an image in [0, 1], grey where there is none."""
    return np.clip(0.5 + GAIN * noise, 0, 1)

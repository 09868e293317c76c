"""ComfyUI node: puts the noise of a reference photo on images. Needs onnxruntime, not nt_jax.

Copy this file into ComfyUI's `custom_nodes`, with a generator and its embedding network beside it:

  nt-jax export --format=onnx --model=small --output=ComfyUI/custom_nodes/small.onnx

which writes `small.onnx` and `small_embed.onnx`. The node is `Noise transfer` in `image/noise`.
"""

import functools
from pathlib import Path

import numpy as np
import onnxruntime
import torch

FOLDER = Path(__file__).parent
TILE = 512  # pixels a side that a network sees at a time, besides its halo
ALIGNMENT = 4
_SCALES = {"4*h": 1, "2*h": 2, "h": 4}  # of a map, by the name of its height
_EMBEDDED_SIDE = 1024


def models() -> list[str]:
    """Names of the generators beside this file that have their embedding network."""
    return sorted(p.stem for p in FOLDER.glob("*.onnx") if _embedder(p.stem).is_file())


def _embedder(name: str) -> Path:
    return FOLDER / f"{name}_embed.onnx"


@functools.lru_cache(maxsize=4)
def _session(path: Path) -> onnxruntime.InferenceSession:
    providers = onnxruntime.get_available_providers()
    return onnxruntime.InferenceSession(path, providers=providers)


def _about(session: onnxruntime.InferenceSession) -> dict[str, str]:
    return session.get_modelmeta().custom_metadata_map


def embed(session: onnxruntime.InferenceSession, photos: np.ndarray) -> np.ndarray:
    """Noise embedding of photos taken for one noise: float32 [N, H, W, 3] in [0, 1] -> [1, E].

    The average over crops as the network was trained on, evenly spaced over up to 1024 pixels.
    """
    about = _about(session)
    side = int(about["reference_crop"])
    height, width = photos.shape[1:3]
    crops = [photos[:, y, x] for y in _pieces(height, side) for x in _pieces(width, side)]
    each = [session.run(["embedding"], {"images": np.ascontiguousarray(c)})[0] for c in crops]
    mean = np.mean(each, axis=0)
    if about["embedding_bound"] == "l2":  # of each photo, then of all
        mean /= np.linalg.norm(mean, axis=-1, keepdims=True)
    mean = mean.mean(axis=0, keepdims=True)
    if about["embedding_bound"] == "l2":
        mean /= np.linalg.norm(mean)
    return mean


def _pieces(size: int, side: int) -> list[slice]:
    if size <= side:
        return [slice(0, size // ALIGNMENT * ALIGNMENT)]
    count = -(-min(size, _EMBEDDED_SIDE) // side)
    starts = [index * (size - side) // (count - 1) for index in range(count)]
    return [slice(start, start + side) for start in starts]


def draw_maps(
    session: onnxruntime.InferenceSession, seed: int, height: int, width: int
) -> dict[str, np.ndarray]:
    """The generator's random maps N(0, 1) for sides that are multiples of 4, [1, h, w, 1] each."""
    rng = np.random.default_rng(seed)
    maps = {}
    for given in session.get_inputs()[2:]:
        if given.shape[1] not in _SCALES:
            raise ValueError("this generator takes one size only: export it without --size")
        scale = _SCALES[given.shape[1]]
        shape = 1, height // scale, width // scale, 1
        maps[given.name] = rng.standard_normal(shape, np.float32)
    return maps


def generate(
    session: onnxruntime.InferenceSession, clean: np.ndarray, embedding: np.ndarray, seed: int
) -> np.ndarray:
    """Noise for an image, float32 [H, W, 3] in [0, 1] -> [H, W, 3]; in tiles, without seams."""
    halo = int(_about(session)["halo"])
    height, width = clean.shape[:2]
    down, right = (-side % ALIGNMENT for side in (height, width))
    # Reflected around its edges, so that the network's zero padding leaves no frame.
    canvas = np.pad(clean, ((halo, halo + down), (halo, halo + right), (0, 0)), mode="reflect")
    maps = draw_maps(session, seed, *canvas.shape[:2])
    noise = np.empty_like(canvas)
    for y in range(0, height, TILE):
        for x in range(0, width, TILE):
            rows = slice(y, min(y + TILE + 2 * halo, canvas.shape[0]))
            columns = slice(x, min(x + TILE + 2 * halo, canvas.shape[1]))
            feed = {"clean": canvas[None, rows, columns], "embedding": embedding}
            for name, values in maps.items():
                scale = canvas.shape[0] // values.shape[1]
                part = [slice(s.start // scale, s.stop // scale) for s in (rows, columns)]
                feed[name] = values[:, part[0], part[1]]
            (made,) = session.run(["noise"], feed)
            inside = slice(halo, rows.stop - y - halo), slice(halo, columns.stop - x - halo)
            kept = made[0][inside]
            noise[y : y + kept.shape[0], x : x + kept.shape[1]] = kept
    return noise[:height, :width]


class NoiseTransfer:
    """Puts the noise of the reference on images; the i-th of a batch has the seed `seed` + i."""

    CATEGORY = "image/noise"
    FUNCTION = "transfer"
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict:  # noqa: N802
        """What ComfyUI asks the user for."""
        return {
            "required": {
                "image": ("IMAGE",),
                "reference": ("IMAGE",),
                "model": (models(),),
                "strength": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 4.0, "step": 0.05}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**64 - 1}),
            }
        }

    def transfer(
        self,
        image: torch.Tensor,
        reference: torch.Tensor,
        model: str,
        strength: float = 1.0,
        seed: int = 0,
    ) -> tuple[torch.Tensor]:
        """clip(image + strength * noise).

        Args:
          image: float [B, H, W, C] in [0, 1], C 3 or more, of which three get noise.
          reference: noisy, float [B, H, W, C] in [0, 1], sides of 16 pixels or more; averaged.
          model: one of `models()`.
          strength: factor of the noise.
          seed: of the random maps.
        """
        if model not in models():
            raise ValueError(
                f"no {model}.onnx with {model}_embed.onnx beside {Path(__file__).name}"
            )
        embedding = embed(_session(_embedder(model)), _pixels(reference))
        result = image.detach().clone()
        for index, clean in enumerate(_pixels(image)):
            noise = generate(_session(FOLDER / f"{model}.onnx"), clean, embedding, seed + index)
            noisy = np.clip(clean + strength * noise, 0, 1)
            result[index, ..., :3] = torch.from_numpy(noisy).to(result)
        return (result,)


def _pixels(image: torch.Tensor) -> np.ndarray:
    return image[..., :3].detach().cpu().numpy().astype(np.float32)


NODE_CLASS_MAPPINGS = {"NTNoiseTransfer": NoiseTransfer}
NODE_DISPLAY_NAME_MAPPINGS = {"NTNoiseTransfer": "Noise transfer"}

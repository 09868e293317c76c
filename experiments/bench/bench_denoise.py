"""Seconds to denoise a photo by the bundled U-Net: ours, onnxruntime's and PyTorch's, in turn.

python experiments/bench/bench_denoise.py --megapixels=12 --repeats=3

All work through the same tiles, with the same parameters; onnxruntime on the file that
`nt_jax.export` writes, PyTorch on a module of the same layers, whose memory format is the faster.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import tempfile
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch.nn import functional

from experiments.bench import measure
from nt_jax.inference.denoiser import Denoiser
from nt_jax.inference.export import export_denoiser
from nt_jax.inference.loading import load_denoiser
from nt_jax.inference.tiles import Tile, over_tiles
from nt_jax.models.unet import LEVELS


class TorchUNet:
    """`models.unet.UNet` in PyTorch, from our parameters: [1, 3, H, W] -> the same shape."""

    def __init__(self, denoiser: Denoiser) -> None:
        """Takes the parameters over."""
        self._layers = {}
        for name, layer in denoiser.params.items():
            kernel = torch.tensor(np.asarray(layer["kernel"])).permute(3, 2, 0, 1)
            kernel = kernel.contiguous(memory_format=torch.channels_last)
            self._layers[name] = kernel, torch.tensor(np.asarray(layer["bias"]))

    def __call__(self, noisy: torch.Tensor) -> torch.Tensor:
        """Runs the network."""
        x = self._conv("head", _space_to_depth(noisy))
        kept = []
        for level in range(1, LEVELS):
            x = self._residual(f"down{level}", x)
            kept.append(x)
            x = self._conv(f"halve{level}", x, stride=2)
        x = self._residual(f"down{LEVELS}", x)
        for level in range(LEVELS - 1, 0, -1):
            x = _depth_to_space(self._conv(f"double{level}", x)) + kept.pop()
            x = self._residual(f"up{level}", x)
        return (noisy - _depth_to_space(self._conv("tail", x))).clip(0, 1)

    def _conv(self, name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        kernel, bias = self._layers[name]
        pad = (kernel.shape[-1] - stride + 1) // 2
        return functional.conv2d(x, kernel, bias, stride, pad)

    def _residual(self, name: str, x: torch.Tensor) -> torch.Tensor:
        blocks = sum(layer.startswith(name) and layer.endswith("conv1") for layer in self._layers)
        for block in range(1, blocks + 1):
            y = functional.relu(self._conv(f"{name}_block{block}_conv1", x), inplace=True)
            x = x + self._conv(f"{name}_block{block}_conv2", y)
        return x


def _space_to_depth(x: torch.Tensor) -> torch.Tensor:
    """Rearranges pixels of each 2x2 square as channels, those of a pixel side by side, as ours."""
    count, channels, height, width = x.shape
    x = x.reshape(count, channels, height // 2, 2, width // 2, 2).permute(0, 3, 5, 1, 2, 4)
    x = x.reshape(count, 4 * channels, height // 2, width // 2)
    return x.contiguous(memory_format=torch.channels_last)


def _depth_to_space(x: torch.Tensor) -> torch.Tensor:
    count, channels, height, width = x.shape
    x = x.reshape(count, 2, 2, channels // 4, height, width).permute(0, 3, 4, 1, 5, 2)
    x = x.reshape(count, channels // 4, 2 * height, 2 * width)
    return x.contiguous(memory_format=torch.channels_last)


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--megapixels", type=float, default=12.0)
    parser.add_argument(
        "--tile", type=int, help="pixels a side at a time; the denoiser's own by default"
    )
    parser.add_argument("--threads", type=int, default=2, help="of onnxruntime and PyTorch")
    args = parser.parse_args()
    height = round((args.megapixels * 1e6 * 3 / 4) ** 0.5)
    noisy = np.random.default_rng(0).integers(0, 256, (height, height * 4 // 3, 3), np.uint8)
    # The others read no noise.
    denoiser = load_denoiser().fixed
    windows = denoiser.windows(*noisy.shape[:2], args.tile)

    def through_tiles(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[], np.ndarray]:
        return lambda: _whole(over_tiles(noisy, windows, lambda tile, *_: function(tile)), noisy)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    with tempfile.TemporaryDirectory() as folder:
        (file,) = export_denoiser(denoiser, Path(folder) / "denoiser.onnx", "onnx")
        session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
    torch.set_num_threads(args.threads)
    network = TorchUNet(denoiser)

    def by_onnxruntime(tile: np.ndarray) -> np.ndarray:
        inputs = np.ascontiguousarray(tile.transpose(2, 0, 1))[None]
        return session.run(None, {"input": inputs})[0][0].transpose(1, 2, 0)

    def by_torch(tile: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            # As a view of pixels with their channels side by side: channels_last.
            return network(torch.tensor(tile).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()

    functions = {
        "nt_jax": lambda: _whole(denoiser.denoise_tiles(noisy, tile=args.tile), noisy),
        "onnxruntime": through_tiles(by_onnxruntime),
        "PyTorch": through_tiles(by_torch),
    }
    results = {name: function() for name, function in functions.items()}  # also the warm-up
    times = measure.interleaved(functions, args.repeats, warm_up=0)
    ours = measure.summary(times["nt_jax"])
    rows: list[dict[str, Any]] = []
    for name, each in times.items():
        summary = measure.summary(each)
        rows.append(
            {
                "what": name,
                "median s": summary["median_s"],
                "fastest s": summary["min_s"],
                "MP/s": noisy[..., 0].size / 1e6 / summary["median_s"],
                "ours / this": ours["median_s"] / summary["median_s"],
                "largest difference": float(np.abs(results[name] - results["nt_jax"]).max()),
            }
        )
    measure.report(rows, ours | {"rows": rows, "shape": noisy.shape}, args.json)


def _whole(tiles: Iterable[Tile], image: np.ndarray) -> np.ndarray:
    result = np.empty(image.shape, np.float32)
    for tile in tiles:
        result[tile.rows, tile.columns] = tile.pixels
    return result


if __name__ == "__main__":
    main()

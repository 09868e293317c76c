"""Time and memory of a transfer, by image size.

python experiments/bench/bench_transfer.py --preset=full --size=512
python experiments/bench/bench_transfer.py --preset=full --size=512,1024,2048,3464 --repeats=1
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from experiments.bench import measure
from experiments.bench.random_model import random_model


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--size", default="512", help="side in pixels, or several with commas")
    parser.add_argument("--tile", type=int, default=512, help="pixels a side at a time")
    args = parser.parse_args()
    model = random_model(measure.preset_config(args.preset, None, None).model)
    rng = np.random.default_rng(0)
    embedding = np.tanh(rng.normal(size=model.embedding_size)).astype(np.float32)
    rows, results = [], []
    for size in map(int, args.size.split(",")):
        clean = rng.integers(0, 256, (size, size, 3), np.uint8)

        def run(clean: np.ndarray = clean) -> None:
            for _ in model.transfer_tiles(clean, embedding, tile=args.tile):
                pass

        times = measure.summary(measure.seconds(run, args.repeats, warm_up=1))
        memory, megapixels = measure.peak_memory(), size * size / 1e6
        rows.append(
            {
                "preset": args.preset,
                "size": size,
                "tile": args.tile,
                "median s": times["median_s"],
                "MP/s": megapixels / times["median_s"],
                "peak GB": memory / 1e9,
            }
        )
        results.append(times | {"size": size, "peak_bytes": memory})
    measure.report(rows, results[0] | {"sizes": results}, args.json)


if __name__ == "__main__":
    main()

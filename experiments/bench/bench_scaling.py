"""The training step over 1, 2, 4, ... devices: is it the same step, and what does it gain?

python experiments/bench/bench_scaling.py --preset=full
python experiments/bench/bench_scaling.py --preset=smoke --fake_devices=8

`difference`: the largest of any state value after 3 steps from that of one device, all given the
same batch, one example a device of the largest number. `steps/s` and `efficiency`: weak scaling,
with `--batch` examples on each device. Fake devices share the processor: there only the difference
counts, not the speed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.bench import measure
from nt_jax import prng
from nt_jax.families.noisetransfer.state import init_state
from nt_jax.families.noisetransfer.step import jit_train_step
from nt_jax.models.networks import make_networks

_STEPS = 3


def random_batch(size: int, patch: int) -> dict[str, np.ndarray]:
    """Draws the images of a training batch; every step's are the same."""
    images = measure.random_images(size, patch)
    return dict(zip(("clean", "noisy", "reference"), images, strict=True))


def run(config: Any, devices: int, batch: dict[str, np.ndarray], repeats: int) -> tuple[Any, float]:
    """Trains 3 steps: the state after them, on the host, and the median time of a later step."""
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    networks = make_networks(config.model)
    step = jit_train_step(config, networks, mesh)
    everywhere = NamedSharding(mesh, PartitionSpec())
    init = jax.jit(lambda key: init_state(config, networks, key), out_shardings=everywhere)
    state = init(prng.key(0))

    def once() -> jax.Array:
        nonlocal state
        state, metrics = step(state, batch, prng.fold_in(prng.key(1), state.step))
        return metrics["loss_g"]

    for _ in range(_STEPS):
        once()
    reached = jax.device_get(state)
    return reached, measure.summary(measure.seconds(once, repeats, warm_up=0))["median_s"]


def difference(ours: Any, expected: Any) -> float:
    """Computes the largest absolute difference of two states."""
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True)
    return max(float(np.abs(np.subtract(a, b, dtype=np.float64)).max()) for a, b in pairs)


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--batch", type=int, default=1, help="examples on each device")
    parser.add_argument("--fake_devices", type=int, default=0, help="devices that the CPU plays")
    args = parser.parse_args()
    if args.fake_devices:
        jax.config.update("jax_num_cpu_devices", args.fake_devices)
    total = len(jax.devices())
    counts = [2**i for i in range(total.bit_length()) if 2**i <= total]
    config = measure.preset_config(args.preset, None, None)
    patch = config.data.patch_size
    common = random_batch(counts[-1], patch)
    rows: list[dict[str, Any]] = []
    expected, alone = None, 0.0
    for count in counts:
        reached, _ = run(config, count, common, repeats=1)
        expected = expected or reached
        _, median = run(config, count, random_batch(count * args.batch, patch), args.repeats)
        alone = alone or median
        rows.append(
            {
                "devices": count,
                "difference": difference(reached, expected),
                "batch": count * args.batch,
                "median s": median,
                "steps/s": 1 / median,
                "efficiency": alone / median,
            }
        )
    measure.report(rows, {"median_s": rows[-1]["median s"], "rows": rows}, args.json)


if __name__ == "__main__":
    main()

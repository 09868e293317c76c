"""Where a training step's time goes: by kind of operation, and a roofline of the dearest.

python experiments/bench/bench_profile.py --preset=full --repeats=2

Times are those of single operations as XLA's profiler sees them. Operations that run beside each
other count each, so that the sum can exceed the step's own time. The roof of an operation is what
the machine gives at most for the bytes that it reads and writes: its rate of copying times FLOP per
byte, and no more than its rate of a matrix product, both measured in the same process (Williams et
al., 2009).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import math
import re
import tempfile
from collections import defaultdict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.bench import measure
from experiments.bench.jax_step import jax_step

_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\(([^)]*)")
_SHAPE = re.compile(r"(pred|[a-z]+\d+)\[([\d,]*)\]")
_OPERAND = re.compile(r"%([\w.-]+)")
_OUTPUT_FEATURES = re.compile(r"dim_labels=\w+_(\w+)->")
_CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
_COMPUTATION = re.compile(r"^%?([\w.-]+) \(.*-> .*\{$")
_CALLS = re.compile(r"calls=%?([\w.-]+)")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_HEAVY = ("convolution", "dot")
_DEAREST = 10
_COPIED_BYTES = 2**28
_MOVEMENT = {
    *("bitcast", "broadcast", "concatenate", "constant", "copy", "dynamic-slice", "iota", "pad"),
    *("dynamic-update-slice", "get-tuple-element", "parameter", "reshape", "reverse", "slice"),
    *("transpose", "tuple"),
}


class Instruction(NamedTuple):
    """Of a compiled program: what it does, the computation it calls, where it comes from.

    `flop` are those of its convolutions and matrix products, `moved` the bytes of its operands and
    results, `shape` the text of its result's type.
    """

    opcode: str
    calls: str | None
    source: str
    flop: float = 0.0
    moved: int = 0
    shape: str = ""


def instructions(text: str) -> tuple[dict[str, Instruction], dict[str, set[str]]]:
    """Reads instructions by name, and each computation's opcodes, from an HLO module's text."""
    found: dict[str, Instruction] = {}
    opcodes: dict[str, set[str]] = defaultdict(set)
    # A fusion may be without a name; that of the heaviest operation in it will do.
    heaviest: dict[str, str] = {}
    flop: dict[str, float] = defaultdict(float)  # by computation
    types: dict[str, str] = {}
    computation = ""
    for line in text.splitlines():
        if header := _COMPUTATION.match(line.removeprefix("ENTRY ")):
            computation = header[1]
        elif match := _INSTRUCTION.match(line):
            calls, source = _CALLS.search(line), _OP_NAME.search(line)
            called = calls[1] if calls else None
            name = source[1] if source else heaviest.get(called or "", "")
            _, result, opcode, arguments = match.groups()
            operands = [types.get(operand, "") for operand in _OPERAND.findall(arguments)]
            types[match[1]] = result
            own = flop[called] if called else _flop(opcode, line, result, operands)
            flop[computation] += own
            moved = sum(map(_bytes, (result, *operands)))
            shape = next((found[0] for found in _SHAPE.finditer(result)), "")
            found[match[1]] = Instruction(opcode, called, name, own, moved, shape)
            opcodes[computation].add(opcode)
            if name and (opcode in _HEAVY or computation not in heaviest):
                heaviest[computation] = name
    return found, opcodes


def _sizes(text: str) -> list[int]:
    """Lists the sizes of the first array in the text of a type."""
    match = _SHAPE.search(text)
    return [int(size) for size in match[2].split(",") if size] if match else []


def _bytes(text: str) -> int:
    """Counts the bytes of all arrays in the text of a type."""
    total = 0
    for kind_of, sizes in _SHAPE.findall(text):
        width = 1 if kind_of == "pred" else int(re.sub(r"\D", "", kind_of)) // 8
        total += width * math.prod(int(size) for size in sizes.split(",") if size)
    return total


def _flop(opcode: str, line: str, result: str, operands: list[str]) -> float:
    """Counts two for each product of a convolution or matrix product, zeros of padding included."""
    if opcode == "convolution" and (labels := _OUTPUT_FEATURES.search(line)):
        kernel = _sizes(operands[1])
        each = math.prod(kernel) / kernel[labels[1].index("o")]
    elif opcode == "dot" and (contracted := _CONTRACTED.search(line)):
        left = _sizes(operands[0])
        each = math.prod(left[int(axis)] for axis in contracted[1].split(",") if axis)
    else:
        return 0.0
    return 2.0 * math.prod(_sizes(result)) * each


def kind(instruction: Instruction, opcodes: dict[str, set[str]]) -> str:
    """Names what an instruction spends its time on."""
    inside = opcodes[instruction.calls] if instruction.calls else {instruction.opcode}
    if "convolution" in inside:
        return "convolution"
    if "dot" in inside:
        return "matrix product"
    return "copies, padding, slices" if inside <= _MOVEMENT else "element-wise and sums"


def place(source: str) -> str:
    """Tells network and direction by the name of the operation in the program."""
    lowered = source.lower()
    network = next((n for n in ("generator", "discriminator") if n in lowered), "rest")
    return f"{network}, {'backward' if 'transpose(' in lowered else 'forward'}"


def profiled(run: Any, repeats: int) -> dict[str, float]:
    """Measures the seconds of each instruction, by name, a run."""
    totals: dict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(repeats):
                jax.block_until_ready(run())
        (file,) = Path(folder).glob("**/*.xplane.pb")
        data = jax.profiler.ProfileData.from_file(str(file))
        for plane in data.planes:
            for line in plane.lines:
                for event in line.events:
                    name = dict(event.stats).get("hlo_op")
                    if name:
                        totals[str(name)] += event.duration_ns / 1e9 / repeats
    return totals


def copy_rate() -> float:
    """Measures bytes per second, read and written, of adding one to a large array: best of five."""
    array = jnp.zeros(_COPIED_BYTES // 4, jnp.float32)
    add = jax.jit(lambda a: a + 1)
    return 2 * _COPIED_BYTES / min(measure.seconds(lambda: add(array), repeats=5, warm_up=1))


def roofline(
    times: dict[str, float], found: dict[str, Instruction], opcodes: dict[str, set[str]]
) -> list[dict[str, Any]]:
    """Sets the dearest instructions beside what the machine could do for them."""
    product, copied = measure.product_rate(), copy_rate()
    rows = []
    for name in sorted(times, key=lambda name: -times[name])[:_DEAREST]:
        instruction = found.get(name, Instruction("", None, ""))
        # Without products its roof is the copying of its bytes.
        roof_s = max(instruction.flop / product, instruction.moved / copied)
        rows.append(
            {
                "kind": kind(instruction, opcodes),
                "where": place(instruction.source),
                "result": instruction.shape,
                "ms": 1e3 * times[name],
                "GFLOP/s": instruction.flop / times[name] / 1e9,
                "GB/s": instruction.moved / times[name] / 1e9,
                "roof, ms": 1e3 * roof_s,
                "of the roof": roof_s / times[name],
            }
        )
    print(f"a matrix product: {product / 1e9:.0f} GFLOP/s; copying: {copied / 1e9:.1f} GB/s")
    return rows


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--batch", type=int, help="examples in a batch")
    parser.add_argument("--patch", type=int, help="side of a patch in pixels")
    args = parser.parse_args()
    config = measure.preset_config(args.preset, args.batch, args.patch)
    batch, patch = config.train.batch_size, config.data.patch_size
    step = jax_step(config, measure.random_images(batch, patch))
    times = measure.summary(measure.seconds(step.run, args.repeats))
    found, opcodes = instructions(step.compiled.as_text())
    sums: dict[tuple[str, str], float] = defaultdict(float)
    by_instruction = profiled(step.run, args.repeats)
    for name, seconds in by_instruction.items():
        instruction = found.get(name, Instruction("", None, ""))
        sums[kind(instruction, opcodes), place(instruction.source)] += seconds
    total = sum(sums.values())
    rows: list[dict[str, Any]] = [
        {"kind": key[0], "where": key[1], "s a step": seconds, "share %": 100 * seconds / total}
        for key, seconds in sorted(sums.items(), key=lambda item: -item[1])
    ]
    rows.append({"kind": "all", "where": "", "s a step": total, "share %": 100.0})
    measure.report(rows, {}, None)
    dearest = roofline(by_instruction, found, opcodes)
    result = times | {"rows": rows, "dearest": dearest, "preset": args.preset}
    measure.report(dearest, result, args.json)


if __name__ == "__main__":
    main()

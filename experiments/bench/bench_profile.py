"""Where a training step's time goes: by kind of operation, network and direction.

python experiments/bench/bench_profile.py --preset=full --repeats=2

Times are those of single operations as XLA's profiler sees them. Operations that run beside each
other count each, so that the sum can exceed the step's own time.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import re
import tempfile
from collections import defaultdict
from typing import Any, NamedTuple

import jax

from experiments.bench import measure
from experiments.bench.jax_step import jax_step

_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = .*? ([a-z][\w-]*)\(")
_COMPUTATION = re.compile(r"^%?([\w.-]+) \(.*-> .*\{$")
_CALLS = re.compile(r"calls=%?([\w.-]+)")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_HEAVY = ("convolution", "dot")
_MOVEMENT = {
    *("bitcast", "broadcast", "concatenate", "constant", "copy", "dynamic-slice", "iota", "pad"),
    *("dynamic-update-slice", "get-tuple-element", "parameter", "reshape", "reverse", "slice"),
    *("transpose", "tuple"),
}


class Instruction(NamedTuple):
    """Of a compiled program: what it does, the computation it calls, where it comes from."""

    opcode: str
    calls: str | None
    source: str


def instructions(text: str) -> tuple[dict[str, Instruction], dict[str, set[str]]]:
    """Reads instructions by name, and each computation's opcodes, from an HLO module's text."""
    found: dict[str, Instruction] = {}
    opcodes: dict[str, set[str]] = defaultdict(set)
    # A fusion may be without a name; that of the heaviest operation in it will do.
    heaviest: dict[str, str] = {}
    computation = ""
    for line in text.splitlines():
        if header := _COMPUTATION.match(line.removeprefix("ENTRY ")):
            computation = header[1]
        elif match := _INSTRUCTION.match(line):
            calls, source = _CALLS.search(line), _OP_NAME.search(line)
            called = calls[1] if calls else None
            name = source[1] if source else heaviest.get(called or "", "")
            found[match[1]] = Instruction(match[2], called, name)
            opcodes[computation].add(match[2])
            if name and (match[2] in _HEAVY or computation not in heaviest):
                heaviest[computation] = name
    return found, opcodes


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
    for name, seconds in profiled(step.run, args.repeats).items():
        instruction = found.get(name, Instruction("", None, ""))
        sums[kind(instruction, opcodes), place(instruction.source)] += seconds
    total = sum(sums.values())
    rows: list[dict[str, Any]] = [
        {"kind": key[0], "where": key[1], "s a step": seconds, "share %": 100 * seconds / total}
        for key, seconds in sorted(sums.items(), key=lambda item: -item[1])
    ]
    rows.append({"kind": "all", "where": "", "s a step": total, "share %": 100.0})
    measure.report(rows, times | {"rows": rows, "preset": args.preset}, args.json)


if __name__ == "__main__":
    main()

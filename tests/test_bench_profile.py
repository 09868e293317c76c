"""The profile's arithmetic: FLOP and bytes of compiled operations, by hand."""

import jax
import jax.numpy as jnp
import pytest

from experiments.bench.bench_profile import instructions

X = (2, 8, 10, 3)
KERNEL = (3, 3, 3, 5)


def convolve(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def optimised(function, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return instructions(jax.jit(function).lower(*arguments).compile().as_text())[0]


@pytest.mark.parametrize(
    ("function", "shapes", "flop", "numbers"),
    [
        (convolve, (X, KERNEL), 2 * (2 * 8 * 10 * 5) * (3 * 3 * 3), 480 + 135 + 800),
        (lambda a, b: a @ b, ((4, 6), (6, 7)), 2 * 4 * 7 * 6, 24 + 42 + 28),
    ],
    ids=["convolution", "matrix product"],
)
def test_flop_and_bytes_are_those_of_a_count_by_hand(function, shapes, flop, numbers):
    found = optimised(function, *shapes)
    heaviest = max(found.values(), key=lambda instruction: instruction.flop)
    assert heaviest.flop == flop
    assert heaviest.moved == 4 * numbers  # float32


def test_a_fusion_has_the_flop_of_what_it_calls_and_moves_only_what_enters_and_leaves():
    found = optimised(lambda a, b: jnp.tanh(a * 2 + b) - b, (30, 40), (30, 40))
    fusion = next(instruction for instruction in found.values() if instruction.calls)
    assert fusion.flop == 0
    assert fusion.moved == 4 * 3 * 30 * 40

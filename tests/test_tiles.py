"""Halo, windows and random maps by position."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32 as jax_threefry
from scipy import special, stats

from nt_jax.inference import tiles
from nt_jax.models.generator import Generator, map_shapes


def test_receptive_radius_at_full_depth():
    assert tiles.receptive_radius((4, 3, 2)) <= 72
    assert tiles.round_up(tiles.receptive_radius((4, 3, 2))) == 72


@pytest.mark.parametrize("blocks", [(1, 1, 1), (1, 0, 2)])
def test_receptive_radius_is_what_the_gradient_reaches(blocks):
    generator = Generator(width=1, blocks=blocks)
    radius = tiles.receptive_radius(blocks)
    size = tiles.round_up(2 * radius + 8)
    clean, embedding = jnp.full((1, size, size, 3), 0.5), jnp.ones((1, 2))
    maps = tuple(jnp.zeros(shape) for shape in map_shapes(1, size, size, blocks))
    shapes = jax.eval_shape(generator.init, jax.random.key(0), clean, embedding, maps)
    # Positive weights: no contribution cancels another.
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), shapes)

    @jax.jit
    def reached(y, x):
        gradient = jax.grad(lambda c: generator.apply(params, c, embedding, maps)[0, y, x, 0])(
            clean
        )
        return jnp.abs(gradient).sum((0, 3)) > 0

    middle = tiles.round_up(size // 2)
    radii = []
    for position in range(middle, middle + tiles.ALIGNMENT):
        rows, columns = np.nonzero(reached(position, position))
        assert rows.min() > 0, "the image is too small for this test"
        assert rows.max() < size - 1, "the image is too small for this test"
        radii += [abs(rows - position).max(), abs(columns - position).max()]
    assert max(radii) == radius


@pytest.mark.parametrize("size", [16, 144, 148, 152, 656, 660, 1024, 3456])
@pytest.mark.parametrize("tile", [4, 64, 512])
def test_windows_cover_once_with_halo_and_one_length(size, tile):
    halo = 72
    windows = tiles.split(size, tile, halo)
    assert [w.keep_start for w in windows] == [0, *(w.keep_stop for w in windows[:-1])]
    assert windows[-1].keep_stop == size
    assert len({w.stop - w.start for w in windows}) == 1
    for window in windows:
        assert 0 <= window.start <= window.keep_start < window.keep_stop <= window.stop <= size
        assert all(edge % tiles.ALIGNMENT == 0 for edge in window)
        assert window.start == 0 or window.keep_start - window.start >= halo
        assert window.stop == size or window.stop - window.keep_stop >= halo


def test_an_even_tile_gives_as_many_windows_and_no_longer_ones_than_they_need():
    assert tiles.even_tile(1304, 1024, 96) == 576
    assert tiles.even_tile(1304, 64, 96) == 64
    assert tiles.even_tile(160, 512, 96) == 512
    for size in range(400, 3000, 8):
        tile = tiles.even_tile(size, 512, 96)
        windows = tiles.split(size, tile, 96)
        assert len(windows) == len(tiles.split(size, 512, 96))
        assert len(windows) == 1 or len(windows) * tile < size - 192 + 64 * len(windows)


@pytest.mark.parametrize("size", [4, 16, 144, 148, 516, 3456])
@pytest.mark.parametrize("tile", [4, 64, 512])
def test_framed_windows_cover_once_and_have_a_halo_everywhere(size, tile):
    halo = 72
    windows = tiles.framed(size, tile, halo)
    assert [w.keep_start for w in windows] == [0, *(w.keep_stop for w in windows[:-1])]
    assert windows[-1].keep_stop == size
    assert len({w.stop - w.start for w in windows}) == 1
    for window in windows:
        assert window.keep_start - window.start == halo
        assert window.stop - window.keep_stop >= halo
        assert all(edge % tiles.ALIGNMENT == 0 for edge in window)


def test_windows_beyond_an_image_see_its_reflection():
    image = np.random.default_rng(0).random((20, 24, 3), np.float32)
    window = tiles.Window(-8, 32, 0, 24)
    seen = []
    pieces = tiles.over_tiles(image, [(window, window)], lambda x, *_: seen.append(x) or x)
    (piece,) = pieces
    np.testing.assert_array_equal(piece.pixels, image)
    expected = np.pad(image, ((8, 12), (8, 8), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(seen[0], expected)


def maps_of(seed, origin, height, width, blocks=(2, 1, 1)):
    # Compiled as the model compiles it.
    stacks = jax.jit(tiles.stacked_maps, static_argnums=(2, 3, 4))(
        seed, origin, height, width, blocks
    )
    return [np.asarray(values) for values in tiles.unstack(stacks, blocks)]


def test_maps_are_threefry_of_seed_block_and_position():
    """Block 1 of seed 7 at rows 8 to 15, columns 20 to 27: words of JAX's own function."""
    seed, block, top, left = 7, 1, 8, 20
    y, x = np.mgrid[top : top + 8, left : left + 8].astype(np.uint32)
    words = jax_threefry(jnp.array([seed, block], jnp.uint32), jnp.array([y, x]))
    maps = maps_of(seed, (top, left), 8, 8)
    for bits, values in zip(np.asarray(words), maps[2 * block :], strict=False):
        uniform = 2 * ((bits >> 9) + 0.5) / 2**23 - 1
        expected = np.sqrt(2) * special.erfinv(uniform)
        np.testing.assert_allclose(values[0, ..., 0], expected, rtol=1e-4, atol=1e-6)


def test_maps_know_the_answer_of_random123():
    """Of its kat_vectors: threefry2x32 with 20 rounds, key and counter zero."""
    for bits, values in zip((0x6B200159, 0x99BA4EFE), maps_of(0, (0, 0), 4, 4), strict=False):
        expected = np.sqrt(2) * special.erfinv(2 * ((bits >> 9) + 0.5) / 2**23 - 1)
        np.testing.assert_allclose(values[0, 0, 0, 0], expected, rtol=1e-4)


def test_maps_have_the_generators_shapes():
    shapes = tuple(values.shape for values in maps_of(0, (0, 0), 16, 24))
    assert shapes == map_shapes(1, 16, 24, (2, 1, 1))


def test_maps_depend_on_position_and_not_on_the_window():
    whole, part = maps_of(5, (0, 0), 64, 64), maps_of(5, (12, 40), 32, 16)
    for large, small in zip(whole, part, strict=True):
        scale = 64 // large.shape[1]
        y, x = 12 // scale, 40 // scale
        cut = large[:, y : y + 32 // scale, x : x + 16 // scale]
        np.testing.assert_array_equal(cut, small)


def test_maps_are_independent_standard_normal():
    maps = maps_of(0, (0, 0), 64, 64) + maps_of(1, (0, 0), 64, 64)
    for values in maps:
        assert stats.kstest(values.ravel(), "norm").pvalue > 1e-3
    full = [values.ravel() for values in maps if values.shape[1] == 64]
    full += [
        np.roll(values.reshape(64, 64), 1, axis).ravel() for values in full[:1] for axis in (0, 1)
    ]
    correlation = np.corrcoef(full) - np.eye(len(full))
    assert np.abs(correlation).max() < 5 / 64


def test_maps_far_out_in_a_large_image():
    near, far = maps_of(0, (0, 0), 16, 16), maps_of(0, (20000, 30000), 16, 16)
    assert all(np.isfinite(values).all() for values in far)
    assert not any((a == b).any() for a, b in zip(near, far, strict=True))

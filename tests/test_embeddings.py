"""What is done with embeddings: between two, along the noise level, averaged; and its command."""

import json
from unittest import mock

import jax
import numpy as np
import pytest
from PIL import Image
from skimage import data
from tiny_models import EMBEDDING_SIZE, save_tiny

import nt_jax
from experiments import embedding_tools
from nt_jax.errors import InputError
from nt_jax.inference import embeddings

SIDE = 64
BOUNDS = ("tanh", "l2")
CLEAN = data.coffee()[100 : 100 + SIDE, 200 : 200 + SIDE] / np.float32(255)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Models of random parameters, one of each bound."""
    folder = tmp_path_factory.mktemp("models")
    return {bound: nt_jax.load(save_tiny(folder / bound, bound)) for bound in BOUNDS}


@pytest.fixture(scope="module")
def small():
    return nt_jax.load("small")


def noisy(photo, level, seed=0):
    noise = np.random.default_rng(seed).normal(0, level / 255, photo.shape)
    return np.clip(photo + noise, 0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def references(small):
    """Embeddings of one photograph with noise, by level."""
    photo, levels = data.chelsea()[100 : 100 + SIDE, 200 : 200 + SIDE], (5, 10, 25, 40, 50)
    images = np.stack([noisy(photo / np.float32(255), level) for level in levels])
    return dict(zip(levels, small.embed(images), strict=True))


@pytest.fixture(scope="module")
def level_of(small):
    """Noise levels, 0 to 255, that five embeddings give with the same random maps."""
    maps = small.sample_maps(jax.random.key(0), (1, SIDE, SIDE))

    def levels(five):
        five = np.stack(five)
        batch = len(five)
        noise = small.generate_noise(
            np.stack([CLEAN] * batch), five, [np.repeat(z, batch, axis=0) for z in maps]
        )
        return 255 * np.asarray(noise).std(axis=(1, 2, 3))

    return levels


def drawn(bound, count, seed=0):
    """Embeddings on the bound, [count, E]."""
    values = np.random.default_rng(seed).normal(size=(count, EMBEDDING_SIZE))
    on_bound = (
        np.tanh(values) if bound == "tanh" else values / np.linalg.norm(values, axis=1)[:, None]
    )
    return on_bound.astype(np.float32)


def assert_on(bound, embedding):
    if bound == "tanh":
        assert np.abs(embedding).max() <= 1
    else:
        np.testing.assert_allclose(np.linalg.norm(embedding, axis=-1), 1, atol=1e-6)


# --- Arithmetic ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", BOUNDS)
def test_interpolation_goes_from_one_to_the_other(models, bound):
    model, (a, b) = models[bound], drawn(bound, 2)
    tolerance = {"tanh": 0, "l2": 1e-7}[bound]
    np.testing.assert_allclose(model.interpolate(a, b, 0), a, atol=tolerance, rtol=0)
    np.testing.assert_allclose(model.interpolate(a, b, 1), b, atol=tolerance, rtol=0)
    np.testing.assert_allclose(model.interpolate(a, b, 0.5), model.average([a, b]), atol=1e-6)
    np.testing.assert_allclose(
        model.interpolate(a, b, 0.2), model.interpolate(b, a, 0.8), atol=1e-6
    )
    path = np.stack([model.interpolate(a, b, weight) for weight in np.linspace(0, 1, 6)])
    assert_on(bound, path)
    assert (np.diff(path @ (b - a)) > 0).all()
    pairs = np.stack([a, b]), np.stack([b, a])
    np.testing.assert_allclose(model.interpolate(*pairs, 0.2)[0], path[1], atol=1e-6)


def test_interpolation_refuses(models):
    a, b = drawn("l2", 2)
    model = models["l2"]
    for weight in (-0.01, 1.01, float("nan")):
        with pytest.raises(InputError, match="weight: expected 0"):
            model.interpolate(a, b, weight)
    with pytest.raises(InputError, match="a and b are opposite"):
        model.interpolate(a, -a, 0.5)
    assert not models["tanh"].interpolate(a, -a, 0.5).any()
    with pytest.raises(InputError, match=r"must have one shape.*\[8\] and \[7\]"):
        model.interpolate(a, b[:7], 0.5)
    with pytest.raises(InputError, match="a: expected float"):
        model.interpolate(np.zeros(EMBEDDING_SIZE, int), b, 0.5)
    with pytest.raises(InputError, match="b: expected finite"):
        model.interpolate(a, np.full(EMBEDDING_SIZE, np.nan), 0.5)


@pytest.mark.parametrize("bound", BOUNDS)
def test_average(models, bound):
    model, several = models[bound], drawn(bound, 3)
    a = several[0]
    np.testing.assert_allclose(model.average([a, a, a]), a, atol=1e-6)
    mean = model.average(several)
    np.testing.assert_allclose(model.average(several[[2, 0, 1]]), mean, atol=1e-6)
    assert_on(bound, mean)


def test_the_average_of_equal_references_is_that_reference(models):
    for model in models.values():
        alone = model.embed(CLEAN)
        twice = model.reference_noise([CLEAN, CLEAN], calibrate=False).embedding
        np.testing.assert_allclose(twice, alone, atol=1e-6)


@pytest.mark.parametrize("bound", BOUNDS)
def test_shift(models, bound):
    model, (embedding, direction) = models[bound], drawn(bound, 2)
    np.testing.assert_allclose(model.shift(embedding, direction, 0), embedding, atol=1e-7)
    for amount in (-50, -0.1, 0.1, 50):
        moved = np.asarray(model.shift(embedding, direction, amount))
        assert_on(bound, moved)
        assert ((moved - embedding) @ direction) * amount > 0
    with pytest.raises(InputError, match="amount: expected a finite number; got inf"):
        model.shift(embedding, direction, float("inf"))


def test_the_level_direction_of_embeddings_on_a_line():
    rng = np.random.default_rng(0)
    direction = rng.normal(size=EMBEDDING_SIZE)
    levels = np.tile([5.0, 20.0, 50.0], 4)
    places = np.repeat(rng.normal(size=(4, EMBEDDING_SIZE)), 3, axis=0)  # of four photographs
    found = embeddings.level_direction(places + np.outer(levels, direction), levels)
    np.testing.assert_allclose(found, direction, atol=1e-5)
    with pytest.raises(InputError, match="two or more of them different"):
        embeddings.level_direction(places, np.full(12, 20.0))
    with pytest.raises(InputError, match=r"got \[12, 8\] and \[3\]"):
        embeddings.level_direction(places, levels[:3])


def test_the_photographs_of_a_level_direction(models):
    model, photo = models["tanh"], data.coffee()[:SIDE, :SIDE]
    found = model.level_direction(photo)
    assert found.shape == (EMBEDDING_SIZE,)
    np.testing.assert_array_equal(model.level_direction([photo / np.float32(255)]), found)
    assert (model.level_direction(photo, seed=1) != found).any()
    large = np.pad(photo, ((128, 128), (128, 128), (0, 0)))
    copies, levels = embeddings.noisy_copies(large / np.float32(255), np.random.default_rng(0))
    assert copies.shape == (5, 256, 256, 3)
    assert (np.diff(levels) > 0).all()
    with pytest.raises(InputError, match="photos: expected at least one image"):
        model.level_direction([])
    with pytest.raises(InputError, match="photos: expected uint8 or float images"):
        model.level_direction([photo.astype(np.int32)])
    with pytest.raises(InputError, match="seed: expected 0"):
        model.level_direction(photo, seed=-1)


# --- The bundled model ---------------------------------------------------------------------------


def test_more_strength_is_more_noise(small, references):
    def level(strength):
        return (small.transfer(CLEAN, embedding=references[10], strength=strength) - CLEAN).std()

    levels = [level(strength) for strength in (0, 0.25, 0.5, 1, 2, 4)]
    assert levels[0] == 0
    assert (np.diff(levels) > 0).all()
    # Until values are clipped at black and white, the level is in proportion.
    assert levels[2] == pytest.approx(2 * levels[1], rel=0.05)


def test_between_a_weak_and_a_strong_reference_the_level_grows(small, references, level_of):
    weak, strong = references[10], references[50]
    levels = level_of([small.interpolate(weak, strong, weight) for weight in np.linspace(0, 1, 5)])
    assert (np.diff(levels) > 0).all()
    assert levels[-1] > 2 * levels[0]


def test_along_the_level_direction_the_level_grows(small, references, level_of):
    photos = [photo()[:SIDE, :SIDE] for photo in (data.astronaut, data.chelsea, data.rocket)]
    direction = small.level_direction(photos)
    levels = level_of([small.shift(references[25], direction, t) for t in (-20, -10, 0, 10, 20)])
    assert (np.diff(levels) > 0).all()
    assert levels[-1] > 1.2 * levels[0]


# --- The command ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory):
    """The tiny model, and photographs as small as elsewhere here: what is compiled serves again."""
    with mock.patch.object(embedding_tools, "_SIDE", SIDE):
        yield save_tiny(tmp_path_factory.mktemp("models") / "tiny")


def test_command(tiny_folder, tmp_path, capsys):
    embedding_tools.main([f"--model={tiny_folder}", f"--output={tmp_path / 'out'}"])
    text = (tmp_path / "out" / "results.md").read_text()
    assert text in capsys.readouterr().out
    levels = json.loads((tmp_path / "out" / "results.json").read_text())["levels"]
    interpolation, shift, strength, alone = levels.values()
    assert list(interpolation) == ["0", "0.25", "0.5", "0.75", "1"]
    assert interpolation["0"] == alone["Gaussian 8"]
    assert interpolation["1"] == alone["Gaussian 45"]
    assert shift["+0"] == strength["1"] == alone["average"]
    assert np.asarray(Image.open(tmp_path / "out" / "tools.png")).std() > 10


def test_command_on_files(tiny_folder, tmp_path):
    paths = [tmp_path / f"{name}.png" for name in ("a", "b")]
    for path, level in zip(paths, (5, 50), strict=True):
        Image.fromarray(np.uint8(255 * noisy(CLEAN, level))).save(path)
    flags = [f"--model={tiny_folder}", f"--output={tmp_path / 'out'}"]
    names = ",".join(map(str, paths))
    embedding_tools.main([*flags, f"--references={names}"])
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["arguments"]["references"] == "1 a, 2 b"
    with pytest.raises(InputError, match="expected 2 to 16 images; got 1"):
        embedding_tools.main([*flags, f"--references={paths[0]}"])
    with pytest.raises(InputError, match="missing"):
        embedding_tools.main([*flags, f"--references={paths[0]},{tmp_path / 'missing.png'}"])

"""Exported networks run without this package and compute the same."""

import sys

import jax
import numpy as np
import pytest
from tiny_models import EMBEDDING_SIZE, save_tiny

import nt_jax

SHAPES = [(2, 24, 32), (1, 36, 20)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return nt_jax.load(save_tiny(tmp_path_factory.mktemp("models") / "tiny"))


def inputs(model, batch, height, width):
    rng = np.random.default_rng(0)
    clean = rng.uniform(size=(batch, height, width, 3)).astype(np.float32)
    embedding = rng.normal(size=(batch, EMBEDDING_SIZE)).astype(np.float32)
    maps = model.sample_maps(jax.random.key(0), (batch, height, width))
    return clean, embedding, tuple(map(np.asarray, maps))


def test_stablehlo(model, tmp_path):
    path = tmp_path / "tiny.stablehlo"
    paths = model.export(path)
    assert paths == (path, tmp_path / "tiny_embed.stablehlo")
    generate, embed = (jax.export.deserialize(bytearray(p.read_bytes())) for p in paths)
    assert set(generate.platforms) == {"cpu", "cuda", "tpu"}
    for shape in SHAPES:
        arrays = inputs(model, *shape)
        np.testing.assert_allclose(generate.call(*arrays), model.generate_noise(*arrays), atol=1e-5)
        np.testing.assert_allclose(embed.call(arrays[0]), model.embed(arrays[0]), atol=1e-5)


def test_onnx(model, tmp_path):
    pytest.importorskip("jax2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    paths = model.export(tmp_path / "tiny.onnx", format="onnx")
    generate, embed = (onnxruntime.InferenceSession(path) for path in paths)
    for shape in SHAPES:
        clean, embedding, maps = inputs(model, *shape)
        feed = {"clean": clean, "embedding": embedding}
        feed |= {f"map_{index:02}": values for index, values in enumerate(maps)}
        (noise,) = generate.run(["noise"], feed)
        expected = model.generate_noise(clean, embedding, maps)
        np.testing.assert_allclose(noise, expected, atol=1e-5)
        (found,) = embed.run(["embedding"], {"images": clean})
        np.testing.assert_allclose(found, model.embed(clean), atol=1e-5)


def test_wrong_format_and_place(model, tmp_path):
    with pytest.raises(nt_jax.InputError, match="stablehlo, onnx; got 'tflite'"):
        model.export(tmp_path / "a", format="tflite")
    with pytest.raises(nt_jax.InputError, match="cannot be written"):
        model.export(tmp_path / "none" / "a")
    assert not list(tmp_path.iterdir())


def test_onnx_without_jax2onnx(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(nt_jax.InputError, match="pip install"):
        model.export(tmp_path / "a.onnx", format="onnx")

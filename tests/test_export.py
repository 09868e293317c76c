"""Exported networks run without this package and compute the same."""

import functools
import importlib.util
import json
import re
import shutil
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest
from PIL import Image
from skimage import data
from tiny_models import EMBEDDING_SIZE, save_tiny

import nt_jax
from experiments.release_model import join_denoiser
from nt_jax import prng, spectra
from nt_jax.checkpointing import save_model
from nt_jax.errors import run_command
from nt_jax.export import main
from nt_jax.inference import darktable, export
from nt_jax.inference.tiles import over_tiles, receptive_radius, round_up, split
from nt_jax.models.biased import init_biased
from nt_jax.models.denoisers import make_denoiser
from nt_jax.models.unet import UNet

ROOT = Path(__file__).parents[1]
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


@pytest.fixture(scope="module")
def onnx_files(model, tmp_path_factory):
    """The tiny model's two networks, beside the ComfyUI node."""
    pytest.importorskip("jax2onnx")
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("custom_nodes")
    shutil.copy(ROOT / "integrations/comfyui/nt_noise.py", folder)
    return model.export(folder / "tiny.onnx", format="onnx")


def test_onnx(model, onnx_files, tmp_path):
    import onnxruntime

    paths = onnx_files
    fixed, _ = model.export(tmp_path / "fixed.onnx", format="onnx", size=SHAPES[1][1:])
    generate, embed, static = (onnxruntime.InferenceSession(path) for path in (*paths, fixed))
    assert all(opset(path) <= 20 for path in (*paths, fixed))
    assert static.get_inputs()[0].shape == [*SHAPES[1], 3]
    for shape in SHAPES:
        clean, embedding, maps = inputs(model, *shape)
        feed = {"clean": clean, "embedding": embedding}
        feed |= {f"map_{index:02}": values for index, values in enumerate(maps)}
        expected = model.generate_noise(clean, embedding, maps)
        for session in (generate, static) if shape == SHAPES[1] else (generate,):
            (noise,) = session.run(["noise"], feed)
            np.testing.assert_allclose(noise, expected, atol=1e-5)
        (found,) = embed.run(["embedding"], {"images": clean})
        np.testing.assert_allclose(found, model.embed(clean), atol=1e-5)


def test_comfyui_node(model, onnx_files, monkeypatch):
    torch = pytest.importorskip("torch")
    source = onnx_files[0].with_name("nt_noise.py")
    assert not re.search(r"^\s*(import|from) (jax|nt_jax|flax)", source.read_text(), re.M)
    spec = importlib.util.spec_from_file_location("nt_noise", source)
    nodes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nodes)
    node = nodes.NODE_CLASS_MAPPINGS["NTNoiseTransfer"]
    required = node.INPUT_TYPES()["required"]
    assert {"image", "reference", "strength", "seed"} <= set(required)
    assert required["model"] == (["tiny"],)
    assert node.RETURN_TYPES == ("IMAGE",)

    rng = np.random.default_rng(0)
    image = rng.random((2, 42, 29, 3), np.float32)
    reference = rng.random((1, 300, 40, 3), np.float32)  # two crops
    run = functools.partial(getattr(node(), node.FUNCTION), reference=torch.tensor(reference))
    (noisy,) = run(image=torch.tensor(image), model="tiny", strength=0.5, seed=3)
    assert noisy.dtype == torch.float32
    monkeypatch.setattr(nodes, "TILE", 16)  # in tiles the same
    (tiled,) = run(image=torch.tensor(image), model="tiny", strength=0.5, seed=3)
    np.testing.assert_allclose(tiled, noisy, atol=1e-5)

    embedding = model.embed(reference)
    generator = nodes._session(onnx_files[0])
    halo = round_up(receptive_radius(model.blocks))
    for index, clean in enumerate(image):
        padding = (halo, halo + 2), (halo, halo + 3), (0, 0)
        canvas = np.pad(clean, padding, mode="reflect")
        maps = nodes.draw_maps(generator, 3 + index, *canvas.shape[:2])
        noise = model.generate_noise(canvas, embedding, tuple(maps.values()))
        noise = noise[0, halo : halo + 42, halo : halo + 29]
        expected = np.clip(clean + 0.5 * noise, 0, 1)
        np.testing.assert_allclose(noisy[index], expected, atol=1e-5)


def opset(path):
    import onnx

    onnx.checker.check_model(path, full_check=True)
    (version,) = onnx.load(path).opset_import
    assert version.domain == ""
    return version.version


# --- Denoisers -----------------------------------------------------------------------------------

RECIPE = {
    "data": {
        "pairs": "/home/me/data/polyu/train=2,sidd/train",
        "photos": "mine",
        "noise_kinds": ["gaussian"],
        "real_fraction": 0.5,
    },
    "train": {"init_from": "/home/me/runs/first"},
    "denoiser": {"noise": "synthetic", "model": "small"},
}


@pytest.fixture(scope="module")
def denoisers(tmp_path_factory):
    """Folders of small random denoisers by kind."""
    root = tmp_path_factory.mktemp("denoisers")
    for kind, features in (("unet", 4), ("ridnet", 16)):
        model = {"features": features, "blocks": 1}
        if kind == "unet":
            model["conditions"] = spectra.CONDITIONS
        params = init_biased(prng.key(0), make_denoiser(kind, **model))
        params = jax.tree_util.tree_map_with_path(_shaken, params)
        metadata = {"kind": kind, "model": model, "step": 7, "recipe": RECIPE}
        metadata["terms"] = {"mine": "CC0"}
        save_model(root / kind, metadata, {"denoiser": jax.tree.map(np.asarray, params)})
    return root


def _shaken(path, leaf):
    """What a condition changes begins with 0."""
    return leaf + 0.05 if path[-1].key in ("condition", "gain") else leaf


def noisy_image(height, width):
    return np.random.default_rng(0).random((height, width, 3)).astype(np.float32)


def of_one(session, image):
    """A denoiser in ONNX on an image [H, W, 3]."""
    (clean,) = session.run(["output"], {"input": image.transpose(2, 0, 1)[None]})
    return clean[0].transpose(1, 2, 0)


@pytest.mark.parametrize("kind", ["unet", "ridnet"])
def test_a_denoiser_in_onnx_takes_any_size(denoisers, tmp_path, kind):
    pytest.importorskip("jax2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "denoiser.onnx"
    main(["--format=onnx", f"--denoiser={denoisers / kind}", f"--output={path}"])
    assert opset(path) <= 20
    session, denoiser = onnxruntime.InferenceSession(path), nt_jax.load_denoiser(denoisers / kind)
    for size in ((24, 40), (56, 32)):
        image = noisy_image(*size)
        expected = denoiser(image)
        assert (expected == 0).any()  # it clips
        np.testing.assert_allclose(of_one(session, image), expected, atol=1e-5)


@pytest.mark.parametrize("is_adapted", [False, True])
def test_a_denoiser_that_reads_is_fixed_in_stablehlo(denoisers, tmp_path, capsys, is_adapted):
    join_denoiser(str(denoisers / "unet"), "small", tmp_path / "reads")
    if is_adapted:
        file = tmp_path / "reads" / "model.json"
        adapted = {"adapted": {"condition": [0.5] * spectra.CONDITIONS}}
        file.write_text(json.dumps(json.loads(file.read_text()) | adapted))
    path = tmp_path / "denoiser.stablehlo"
    main(["--format=stablehlo", f"--denoiser={tmp_path / 'reads'}", f"--output={path}"])
    said = "knows that of the photos" if is_adapted else "is blind"
    assert f"the file has no reader and {said}" in capsys.readouterr().out
    denoise = jax.export.deserialize(bytearray(path.read_bytes()))
    image = noisy_image(24, 40)
    fixed = nt_jax.load_denoiser(tmp_path / "reads").fixed
    assert fixed.reader is None
    assert fixed.network == UNet(4, 1)
    assert jax.tree.structure(fixed.params) == jax.tree.structure(
        init_biased(prng.key(0), fixed.network)
    )
    np.testing.assert_allclose(denoise.call(image[None])[0], fixed(image), atol=1e-5)
    blind = nt_jax.load_denoiser(denoisers / "unet")(image)
    assert is_adapted == bool(np.abs(fixed(image) - blind).max() > 1e-3)


@pytest.fixture(scope="module")
def reading(denoisers):
    """The folder of one that reads noise, and the denoiser."""
    join_denoiser(str(denoisers / "unet"), "small", denoisers / "reads")
    return denoisers / "reads", nt_jax.load_denoiser(denoisers / "reads")


def noisy_photo(height, width, level, seed):
    rng = np.random.default_rng(seed)
    clean = data.chelsea()[:height, :width] / 255
    return (255 * np.clip(clean + rng.normal(0, level, clean.shape), 0, 1)).astype(np.uint8)


def test_a_reader_and_a_denoiser_that_is_told_in_onnx(reading, tmp_path, monkeypatch):
    """By the code of docs/export.md, on photos of other sizes and noises."""
    pytest.importorskip("jax2onnx")
    pytest.importorskip("onnxruntime")
    folder, denoiser = reading
    monkeypatch.chdir(tmp_path)
    main(["--format=onnx", "--with_reader", f"--denoiser={folder}", "--output=denoiser.onnx"])
    assert {file.name for file in tmp_path.iterdir()} == {"denoiser.onnx", "denoiser_read.onnx"}
    page = (ROOT / "docs" / "export.md").read_text()
    [code] = [part for part in re.findall(r"```python\n(.*?)```", page, re.S) if "_read" in part]
    found = []
    for size, level in (((104, 200), 0.02), ((64, 128), 0.2)):
        photo = noisy_photo(*size, level, 0)
        names = {"photo": photo.transpose(2, 0, 1)[None].astype(np.float32) / 255, "np": np}
        exec("import onnxruntime\n" + code, names)
        np.testing.assert_allclose(names["feed"]["condition"], denoiser.read(photo), atol=1e-5)
        clean = names["clean"][0].transpose(1, 2, 0)
        told = replace(denoiser, condition=names["feed"]["condition"][0]).fixed
        np.testing.assert_allclose(clean, told(photo), atol=1e-5)
        # Both round what is read, and the network amplifies that.
        np.testing.assert_allclose(clean, denoiser(photo), atol=5e-5)
        assert np.abs(clean - denoiser.fixed(photo)).max() > 1e-3
        found.append(names)
    # Each photo of a batch has its own.
    first, second = (one["feed"] for one in found)
    feed = {
        "input": np.concatenate([first["input"][..., :64, :128], second["input"]]),
        "condition": np.concatenate([first["condition"], second["condition"]]),
    }
    [together] = found[0]["denoise"].run(["output"], feed)
    np.testing.assert_allclose(together[1], found[1]["clean"][0], atol=1e-5)


def test_a_file_for_the_noise_of_photos(reading, tmp_path, capsys):
    folder, denoiser = reading
    (tmp_path / "photos").mkdir()
    photos = [noisy_photo(80, 96, level, 1) for level in (0.05, 0.2)]
    for number, photo in enumerate(photos):
        Image.fromarray(photo).save(tmp_path / "photos" / f"{number}.png")
    path = tmp_path / "photos" / "fixed.stablehlo"
    flags = [f"--denoiser={folder}", f"--noisy={tmp_path / 'photos'}", f"--output={path}"]
    main(["--format=stablehlo", "--strength=1.5", *flags])
    assert "blind" not in capsys.readouterr().out
    known = np.mean([denoiser.read(photo, 1.5)[0] for photo in photos], axis=0)
    expected = replace(denoiser, condition=known).fixed
    image = noisy_image(24, 40)
    written = jax.export.deserialize(bytearray(path.read_bytes())).call(image[None])[0]
    np.testing.assert_allclose(written, expected(image), atol=1e-5)
    assert np.abs(written - denoiser.fixed(image)).max() > 1e-3
    with pytest.raises(nt_jax.InputError, match="no photo has the 64x64 pixels"):
        denoiser.knowing([photos[0][:32]])


def test_darktable_takes_and_tiles_a_denoiser(denoisers, tmp_path, capsys):
    pytest.importorskip("jax2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "denoise-mine.dtmodel"
    main(["--format=dtmodel", f"--denoiser={denoisers / 'unet'}", f"--output={path}"])
    assert re.findall(r"^warning: .*PolyU.*$", capsys.readouterr().out, re.M)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["denoise-mine/config.json", "denoise-mine/model.onnx"]
        assert all(info.compress_type == zipfile.ZIP_DEFLATED for info in archive.infolist())
        config = json.loads(archive.read("denoise-mine/config.json"))
        archive.extractall(tmp_path)
    check_config(config)
    model = tmp_path / "denoise-mine/model.onnx"
    assert opset(model) <= 20
    session = onnxruntime.InferenceSession(model)
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, given.name) == ("input", "output")
    assert taken.shape == given.shape == [1, 3, 768, 768]
    assert taken.type == given.type == "tensor(float)"

    denoiser = nt_jax.load_denoiser(denoisers / "unet")
    image = noisy_image(801, 1030)
    halo = round_up(denoiser.network.radius, 8)
    rows, columns = (split(round_up(side, 8), 768 - 2 * halo, halo) for side in (801, 1030))
    assert len(rows) == len(columns) == 2
    windows = [(row, column) for row in rows for column in columns]
    whole = np.empty_like(image)
    for tile in over_tiles(image, windows, lambda x, *_: checked_range(of_one(session, x))):
        whole[tile.rows, tile.columns] = tile.pixels
    assert np.abs(whole - denoiser(image)).max() < 1e-3


def test_an_adapted_denoiser_keeps_the_data_and_terms_of_its_base(denoisers):
    base = nt_jax.load_denoiser(denoisers / "unet")
    owed = {"name": "/home/me/runs/mine", **base.metadata}
    recipe = {"data": {"pairs": "/home/me/x/pairs/train=1"}, "train": {"init_from": "x/start"}}
    metadata = {"kind": "unet", "recipe": recipe, "adapted": {"base": owed}}
    adapted = replace(base, metadata=metadata)
    assert list(darktable.warnings(adapted)) == list(darktable.warnings(base))
    card = darktable._card(adapted, "me", "mine")
    assert card["training_data"].startswith("noisy and clean pairs of [pairs/train]; before that")
    assert "PolyU: non-commercial" in card["training_data_license"]
    assert "[mine]: CC0" in card["training_data_license"]
    assert "Adapted to one camera's photos, from runs/mine." in card["notes"]
    assert "x/start" not in card["notes"]


def checked_range(image):
    assert image.min() == 0  # darktable does not clip for us
    assert image.max() <= 1
    return image


def check_config(config):
    """The fields that darktable asks for and shows, and what they say of the training."""
    expected = {"id": "denoise-mine", "task": "denoise", "backend": "onnx", "version": "1.7"}
    assert expected.items() <= config.items()
    assert config["attributes"] == {"input_sizes": [768], "size_multiple": 8}
    card = config["model_card"]
    shown = "long_description scope author source paper license training_data"
    assert set(card) == {*shown.split(), "training_data_license", "notes"}
    for value in (config["name"], config["description"], *card.values()):
        assert isinstance(value, str)
        assert value
    assert "/home/me" not in json.dumps(config)
    for name in ("PolyU", "SIDD", "[mine]", "gaussian"):
        assert name in card["training_data"]
    assert "PolyU: non-commercial" in card["training_data_license"]
    assert "[mine]: CC0" in card["training_data_license"]
    assert "non-commercial" in card["notes"]
    assert "runs/first" in card["notes"]


@pytest.fixture(scope="module")
def dncnns(tmp_path_factory):
    """Folders of random DnCNNs by what is wrong with them; and an FFDNet."""
    root = tmp_path_factory.mktemp("dncnns")
    for name, kind, blocks in (
        ("good", "dncnn", 8),
        ("short", "dncnn", 7),
        ("ffdnet", "ffdnet", 8),
    ):
        model = {"features": 8, "blocks": blocks}
        params = init_biased(prng.key(0), make_denoiser(kind, **model))
        params = jax.tree.map(lambda leaf: 2 * np.asarray(leaf), params)  # beyond [0, 1]
        save_model(root / name, {"kind": kind, "model": model}, {"denoiser": params})
        if name == "good":
            del params["conv3"]["bias"]
            save_model(root / "no bias", {"kind": kind, "model": model}, {"denoiser": params})
    return root


@pytest.fixture
def spandrel(monkeypatch):
    """spandrel, two of whose other architectures import torchvision, which not every torch has."""
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
        monkeypatch.setitem(sys.modules, name, mock.MagicMock())
    return pytest.importorskip("spandrel")


def test_spandrel_knows_a_dncnn_and_computes_the_same(spandrel, dncnns, tmp_path):
    import torch

    path = tmp_path / "dncnn.safetensors"
    main(["--format=safetensors", f"--denoiser={dncnns / 'good'}", f"--output={path}"])
    model = spandrel.ModelLoader("cpu").load_from_file(path)
    assert (model.architecture.id, model.tags) == ("DnCNN", ["8nc", "8nb"])
    assert (model.scale, model.input_channels, model.output_channels) == (1, 3, 3)
    image = noisy_image(21, 34)
    with torch.inference_mode():
        found = model(torch.tensor(image.transpose(2, 0, 1)[None]))[0].numpy().transpose(1, 2, 0)
    expected = nt_jax.load_denoiser(dncnns / "good")(image)
    assert (np.asarray(expected) == 0).any()  # it clips
    assert np.abs(expected - image).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ffdnet", "is a ffdnet, which spandrel does not know"),
        ("short", "has 7 convolutions"),
        ("no bias", "conv3 of this dncnn lacks 'bias'"),
    ],
)
def test_what_spandrel_would_not_know_is_not_written(dncnns, tmp_path, name, message):
    pytest.importorskip("safetensors")
    path = tmp_path / "a.safetensors"
    with pytest.raises(nt_jax.InputError, match=message):
        main(["--format=safetensors", f"--denoiser={dncnns / name}", f"--output={path}"])
    assert not list(tmp_path.iterdir())


def test_safetensors_that_is_not_installed(dncnns, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    output = f"--output={tmp_path / 'a.safetensors'}"
    with pytest.raises(nt_jax.InputError, match="pip install"):
        main(["--format=safetensors", f"--denoiser={dncnns / 'good'}", output])
    assert not list(tmp_path.iterdir())


def test_wrong_flags_end_with_2_and_write_nothing(
    denoisers, reading, tmp_path, monkeypatch, capsys
):
    reads = f"--denoiser={reading[0]}"
    unet, output = f"--denoiser={denoisers / 'unet'}", f"--output={tmp_path / 'a.dtmodel'}"
    photo = denoisers / "photo.png"
    Image.fromarray(noisy_photo(64, 64, 0.1, 0)).save(photo)
    wrong = [
        ["--format=dtmodel", f"--denoiser={denoisers / 'ridnet'}", output],
        ["--format=dtmodel", unet, f"--output={tmp_path / 'a.zip'}"],
        ["--format=dtmodel", "--model=small", output],
        ["--format=onnx", output],
        ["--format=onnx", unet, "--size=20", output],
        ["--format=onnx", unet, "--size=2x3x4", output],
        ["--format=onnx", unet, "--size=ax64", output],
        ["--format=onnx", unet, f"--output={tmp_path / 'none' / 'a'}"],
        ["--format=tflite", unet, output],
        ["--format=safetensors", unet, f"--output={tmp_path / 'a.safetensors'}"],
        ["--format=safetensors", unet, f"--output={tmp_path / 'a.pth'}"],
        ["--format=safetensors", "--model=small", f"--output={tmp_path / 'a.safetensors'}"],
        ["--format=onnx", unet, "--with_reader", output],
        ["--format=onnx", unet, "--strength=2", output],
        ["--format=onnx", reads, f"--noisy={photo}", "--strength=9", output],
        ["--format=onnx", unet, f"--noisy={photo}", output],
        ["--format=onnx", "--model=small", f"--noisy={photo}", output],
        ["--format=dtmodel", unet, "--with_reader", output],
        ["--format=safetensors", unet, "--size=64", f"--output={tmp_path / 'a.safetensors'}"],
    ]
    for flags in wrong:
        monkeypatch.setattr(sys, "argv", ["nt_jax.export", *flags])
        with pytest.raises(SystemExit) as ended:
            run_command(main)
        assert ended.value.code == 2, flags
        assert re.fullmatch(r"error: [^\n]+\n", capsys.readouterr().err), flags
    assert not list(tmp_path.iterdir())


# --- Wrong input ---------------------------------------------------------------------------------


def test_wrong_format_and_place(model, tmp_path):
    with pytest.raises(nt_jax.InputError, match="stablehlo, onnx; got 'tflite'"):
        model.export(tmp_path / "a", format="tflite")
    with pytest.raises(nt_jax.InputError, match="cannot be written"):
        model.export(tmp_path / "none" / "a")
    assert not list(tmp_path.iterdir())


def test_one_file_of_two_is_not_written(model, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_stablehlo", lambda *_: (b"generator", b"encoder"))
    (tmp_path / "a_embed.x").mkdir()
    with pytest.raises(nt_jax.InputError, match=r"a_embed\.x cannot be written"):
        export.export(model, tmp_path / "a.x", "stablehlo")
    assert [path.name for path in tmp_path.iterdir()] == ["a_embed.x"]


def test_onnx_without_jax2onnx(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(nt_jax.InputError, match="pip install"):
        model.export(tmp_path / "a.onnx", format="onnx")

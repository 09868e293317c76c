"""The public API: loading, embedding, transfer in tiles, and what it refuses."""

import dataclasses
import json
import pathlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import data
from tiny_models import BLOCKS, EMBEDDING_SIZE, save_tiny, save_tiny_denoiser

import nt_jax
from configs.noisetransfer import get_config
from nt_jax import prng
from nt_jax.checkpointing import Checkpointer, save_model
from nt_jax.families.noisetransfer.state import init_state
from nt_jax.inference import tiles
from nt_jax.inference.embeddings import embed_by_crops, reference_crops
from nt_jax.model_folder import load_model
from nt_jax.models.biased import init_biased
from nt_jax.models.discriminator import bound_embedding
from nt_jax.models.networks import embed, make_networks
from nt_jax.models.ridnet import RIDNet

CLEAN = data.coffee()[:98, :131]  # no multiples of 4
REFERENCE = data.chelsea()[:64, :64]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny", discriminator=True)


@pytest.fixture(scope="module")
def model(folder):
    return nt_jax.load(folder)


@pytest.fixture(scope="module")
def embedding(model):
    return model.embed(REFERENCE)


@pytest.fixture(scope="module")
def transferred(model, embedding):
    return model.transfer(CLEAN, embedding=embedding, seed=3)


def test_import_is_quick_and_light():
    code = (
        "import sys, time; begin = time.perf_counter(); import nt_jax;"
        "nt_jax.load, nt_jax.load_denoiser, nt_jax.Model, nt_jax.metrics;"
        "print(time.perf_counter() - begin);"
        "heavy = {'tensorflow', 'tensorflow_datasets', 'clu'} & set(sys.modules);"
        "sys.exit(f'imports {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    # 2 s on an idle machine, for `import nt_jax` alone; this imports all that is behind the names.
    assert float(result.stdout) < 10


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="nonsense"):
        nt_jax.nonsense  # noqa: B018


# --- Loading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [nt_jax.load, nt_jax.load_denoiser])
def test_unknown_model(load, tmp_path):
    with pytest.raises(nt_jax.InputError, match=r"no model .*bundled name.*model\.json"):
        load(tmp_path / "none")


def test_a_bundled_name_may_be_a_path():
    assert nt_jax.load(pathlib.Path("small")).metadata == nt_jax.load("small").metadata
    denoiser = nt_jax.load_denoiser(pathlib.Path("small-denoiser"))
    assert denoiser.metadata == nt_jax.load_denoiser().metadata


def test_a_workdir_of_16_bits_is_normalised_with_32(tmp_path):
    config = get_config("smoke")
    networks = make_networks(config.model)
    full = jax.device_get(jax.jit(lambda key: init_state(config, networks, key))(prng.key(0)))
    narrow = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float16) if leaf.dtype == jnp.float32 else leaf, full
    )
    widened = jax.tree.map(lambda leaf, as_in: leaf.astype(as_in.dtype), narrow, full)
    for name, saved in (("narrow", narrow), ("widened", widened)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(config.to_json())
        with Checkpointer(tmp_path / name, {}, keep=1) as checkpointer:
            checkpointer.save(1, saved)
    found = [nt_jax.load(tmp_path / name).params for name in ("narrow", "widened")]
    jax.tree.map(np.testing.assert_array_equal, *found)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(found[0]))


def test_a_model_of_another_kind(folder, tmp_path):
    with pytest.raises(nt_jax.InputError, match="not a denoiser"):
        nt_jax.load_denoiser(folder)
    save_model(tmp_path / "d", {"kind": "ridnet", "model": {"features": 4}}, {"denoiser": {}})
    with pytest.raises(nt_jax.InputError, match="load_denoiser"):
        nt_jax.load(tmp_path / "d")


def test_an_incomplete_model(tmp_path):
    model = {"width": 4}
    save_model(tmp_path / "a", {"kind": "noisetransfer", "model": model}, {"generator": {"k": 1.0}})
    with pytest.raises(nt_jax.InputError, match="damaged"):
        nt_jax.load(tmp_path / "a")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("step", "8000"), ("reference_crop", 48.5), ("reference_crop", True)),
        *(("held_out", [1, 2]), ("recipe", "none"), ("model", 24), ("adapted", "yes")),
    ],
)
def test_metadata_of_another_type_is_one_line(tmp_path, name, value):
    save_tiny(tmp_path / "a")
    text = (tmp_path / "a/model.json").read_text()
    (tmp_path / "a/model.json").write_text(json.dumps(json.loads(text) | {name: value}))
    with pytest.raises(nt_jax.InputError, match=f"{name} of model.json: expected"):
        nt_jax.load(tmp_path / "a")


def test_metadata_that_is_no_object(tmp_path):
    save_tiny(tmp_path / "a")
    (tmp_path / "a/model.json").write_text("[]")
    with pytest.raises(nt_jax.InputError, match="holds no object"):
        nt_jax.load(tmp_path / "a")


def test_damage_that_would_show_in_results_only(tmp_path):
    save_tiny(tmp_path / "a")
    metadata, variables = load_model(tmp_path / "a")
    jax.tree.leaves(variables)[-1].flat[0] = np.nan
    save_model(tmp_path / "a", metadata, variables)
    with pytest.raises(nt_jax.InputError, match="parameters that are no numbers"):
        nt_jax.load(tmp_path / "a")
    save_tiny_denoiser(tmp_path / "d")
    (tmp_path / "d" / "model.json").write_text('{"kind": ["unet"]}')
    with pytest.raises(nt_jax.InputError, match="not a denoiser"):
        nt_jax.load_denoiser(tmp_path / "d")


def test_parameters_that_do_not_fit_are_told(tmp_path):
    def change(folder, **fields):
        metadata = json.loads((folder / "model.json").read_text())
        metadata["model"] |= fields
        (folder / "model.json").write_text(json.dumps(metadata))

    change(save_tiny(tmp_path / "a"), width=8)
    change(save_tiny_denoiser(tmp_path / "d"), features=32)
    change(save_tiny_denoiser(tmp_path / "e"), blocks=2)
    with pytest.raises(nt_jax.InputError, match="not those of its model"):
        nt_jax.load(tmp_path / "a").transfer(CLEAN, reference=REFERENCE)
    for name in ("d", "e"):
        with pytest.raises(nt_jax.InputError, match="not those of its model"):
            nt_jax.load_denoiser(tmp_path / name)(REFERENCE)


# --- Embedding -----------------------------------------------------------------------------------


def test_embed_is_the_key_encoder(model):
    image = REFERENCE.astype(np.float32) / 255
    expected = jax.jit(embed, static_argnums=0)(
        model.networks, model.params["key_encoder"], jnp.stack([image, image[::-1]])
    )
    found = model.embed(np.stack([REFERENCE, REFERENCE[::-1]]))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(model.embed(image), expected[0], atol=1e-5)
    assert found.shape == (2, EMBEDDING_SIZE)
    # What is beyond a multiple of 4 is left out.
    np.testing.assert_array_equal(model.embed(image[:63, :62]), model.embed(image[:60, :60]))


@pytest.mark.parametrize("bound", ["tanh", "l2"])
def test_large_and_several_references_are_averaged(tmp_path, bound):
    model = nt_jax.load(save_tiny(tmp_path / "m", bound))
    image = data.astronaut()[:300, :256]
    top, bottom = model.embed(image[:256]), model.embed(image[-256:])

    def average(*embeddings):
        mean = sum(embeddings) / len(embeddings)
        return mean if bound == "tanh" else bound_embedding(mean, "l2")

    def embed(references):
        return model.reference_noise(references, calibrate=False).embedding

    large = model.embed(image)
    np.testing.assert_allclose(large, average(top, bottom), atol=1e-6)
    if bound == "l2":
        assert float(jnp.linalg.norm(large)) == pytest.approx(1, abs=1e-6)
    small = image[:256]
    np.testing.assert_allclose(embed([image, small]), average(large, top), atol=1e-6)
    np.testing.assert_array_equal(embed(small), top)
    stack = np.stack([small, image[-256:]])
    np.testing.assert_allclose(embed(stack), average(top, bottom), atol=1e-6)


def test_crops_of_a_large_reference():
    crops = reference_crops(np.broadcast_to(np.uint8(0), (6000, 8500, 3)), 256)
    assert len(crops) == 16
    assert {crop.shape for crop in crops} == {(256, 256, 3)}
    positions = np.arange(512)[:, None] * np.ones((1, 300), int)
    starts = [crop[0, 0] for crop in reference_crops(positions, 256)]
    assert starts == [0, 0, 256, 256]


def test_crops_are_of_the_size_the_model_names(model):
    image = data.astronaut()[:100, :62]
    small = dataclasses.replace(model, metadata=model.metadata | {"reference_crop": 64})
    top, bottom = model.embed(image[:64]), model.embed(image[-64:])
    np.testing.assert_allclose(small.embed(image), (top + bottom) / 2, atol=1e-6)
    assert np.abs(small.embed(image) - model.embed(image)).max() > 1e-3
    assert len(reference_crops(np.broadcast_to(np.uint8(0), (3000, 900)), 64)) == 16 * 15


def test_many_crops_are_embedded_in_batches(model):
    photos = np.stack([data.astronaut()[:80, :96], data.rocket()[:80, :96]]) / np.float32(255)
    small = dataclasses.replace(model, metadata=model.metadata | {"reference_crop": 16})
    one_by_one = [model.embed(crop) for crop in reference_crops(photos, 16)]
    assert len(one_by_one) == 5 * 6
    expected = np.mean(one_by_one, axis=0)
    np.testing.assert_allclose(small.embed(photos), expected, atol=1e-6)
    np.testing.assert_allclose(small.embed(photos[1]), expected[1], atol=1e-6)
    by_crops = jax.jit(embed_by_crops, static_argnums=(0, 3))
    found = by_crops(model.networks, model.params["key_encoder"], photos, 16)
    np.testing.assert_allclose(found, expected, atol=1e-6)


# --- Transfer ------------------------------------------------------------------------------------


def test_transfer_is_the_generator_on_seeded_maps_of_the_reflected_image(
    model, embedding, transferred
):
    image = CLEAN.astype(np.float32) / 255
    halo = tiles.round_up(tiles.receptive_radius(BLOCKS))
    padded = np.pad(image, ((halo, halo + 2), (halo, halo + 1), (0, 0)), mode="reflect")
    maps = tiles.seeded_maps(3, (0, 0), 100 + 2 * halo, 132 + 2 * halo, BLOCKS)
    noise = np.asarray(model.generate_noise(padded, embedding, maps))[0]
    expected = np.clip(image + noise[halo : halo + 98, halo : halo + 131], 0, 1)
    np.testing.assert_allclose(transferred, expected, atol=1e-5)
    assert transferred.dtype == np.float32
    assert np.abs(transferred - image).mean() > 0.01


@pytest.mark.parametrize("tile", [16, 32])
def test_the_result_does_not_depend_on_the_tile(model, embedding, transferred, tile):
    assert len(model.windows(*CLEAN.shape[:2], tile)) > 1
    found = model.transfer(CLEAN, embedding=embedding, seed=3, tile=tile)
    np.testing.assert_allclose(found, transferred, atol=1e-5)


def test_tiles_of_a_model_at_full_depth(tmp_path):
    model = nt_jax.load(save_tiny(tmp_path / "deep", blocks=(4, 3, 2)))
    clean, embedding = data.coffee()[:32, :356], np.ones(EMBEDDING_SIZE, np.float32)
    whole, tiled = (model.transfer(clean, embedding=embedding, tile=tile) for tile in (512, 64))
    assert len(model.windows(32, 356, 64)) == 6
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


def test_seeds(model, embedding, transferred):
    again = model.transfer(CLEAN, embedding=embedding, seed=3)
    other = model.transfer(CLEAN, embedding=embedding, seed=2**32 - 1)
    np.testing.assert_array_equal(again, transferred)
    assert np.abs(other - transferred).mean() > 0.005


def test_strength(model, embedding):
    clean = np.full((16, 16, 3), 0.5, np.float32)
    zero, half, one = (
        model.transfer(clean, embedding=0.05 * embedding, strength=s) - clean for s in (0, 0.5, 1)
    )
    np.testing.assert_array_equal(zero, 0)
    inside = np.abs(one) < 0.5
    assert inside.mean() > 0.5
    np.testing.assert_allclose(half[inside], one[inside] / 2, atol=1e-6)


def test_reference_and_embedding_agree(model, embedding, transferred):
    found = model.transfer(CLEAN, reference=REFERENCE, seed=3)
    np.testing.assert_array_equal(found, transferred)


def test_sample_maps(model):
    maps = model.sample_maps(jax.random.key(0), (2, 16, 24))
    assert [m.shape for m in maps] == [
        (2, 16 // s, 24 // s, 1) for s in (1, 1, 2, 2, 4, 4, 2, 2, 1, 1)
    ]
    noise = model.generate_noise(np.zeros((2, 16, 24, 3)), np.zeros((2, EMBEDDING_SIZE)), maps)
    assert noise.shape == (2, 16, 24, 3)


def test_discriminate(model, tmp_path):
    clean = np.stack([CLEAN[:32, :32], CLEAN[32:64, :32]])
    e = model.embed(clean)
    features, logits = model.discriminate(clean, e, clean[::-1])
    assert [f.shape for f in features] == [(2, 32, 32, 4), (2, 16, 16, 8), (2, 8, 8, 16)]
    assert [m.shape for m in logits] == [(2, 32, 32, 1), (2, 16, 16, 1), (2, 8, 8, 1)]
    # The model's discriminator and key encoder have different parameters.
    key_encoder = nt_jax.load(save_tiny(tmp_path / "m"))
    assert np.abs(key_encoder.discriminate(clean, e, clean[::-1])[1][0] - logits[0]).max() > 1e-3
    single = model.discriminate(clean[0], e[0], clean[1])
    np.testing.assert_allclose(single[1][2], logits[2][:1], atol=1e-5)


def test_inside_jit(model):
    maps = model.sample_maps(jax.random.key(0), (1, 16, 16))

    @jax.jit
    def loss(clean):
        return jnp.mean(model.generate_noise(clean, model.embed(clean)[None], maps))

    assert np.isfinite(jax.grad(loss)(jnp.full((16, 16, 3), 0.5))).all()


def test_under_a_trace_what_works_in_tiles_says_what_to_use(model):
    image = np.full((16, 16, 3), 0.5, np.float32)
    e = model.embed(image)
    for call in (
        lambda x: model.transfer(x, embedding=e).sum(),
        lambda x: model.transfer(image, reference=x).sum(),
        lambda x: model.transfer(image, reference=[image, x]).sum(),
    ):
        for transform in (jax.jit, jax.grad):
            with pytest.raises(nt_jax.InputError, match="generate_noise"):
                transform(call)(image)
        with pytest.raises(nt_jax.InputError, match="generate_noise"):
            jax.vmap(call)(image[None])
    with pytest.raises(nt_jax.InputError, match="not inside jit"):
        jax.jit(lambda x: model.level_direction([x]))(image)
    np.testing.assert_allclose(
        jax.jit(model.interpolate)(e, -e / 2, 0.5), model.interpolate(e, -e / 2, 0.5), atol=1e-6
    )
    np.testing.assert_allclose(jax.jit(model.shift)(e, e, 0.5), model.shift(e, e, 0.5), atol=1e-6)


def test_numbers_of_arrays_are_numbers(model):
    options = {"seed": np.int64(3), "strength": np.float32(0.5), "tile": np.int32(16)}
    expected = model.transfer(CLEAN[:20, :20], embedding=E, seed=3, strength=0.5, tile=16)
    np.testing.assert_array_equal(model.transfer(CLEAN[:20, :20], embedding=E, **options), expected)


def test_threads_give_what_one_thread_gives(model):
    images = [CLEAN[:20, :20], CLEAN[20:40, :20]] * 4
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda image: model.transfer(image, embedding=E), images))
    for image, result in zip(images, results, strict=True):
        np.testing.assert_array_equal(result, model.transfer(image, embedding=E))


def test_a_forked_process_says_to_spawn(model, tmp_path):
    code = (
        "import os, sys, warnings; warnings.simplefilter('ignore'); import nt_jax, numpy as np;"
        "image = np.zeros((16, 16, 3)); make = nt_jax.load;"
        f"model = make({str(tmp_path / 'm')!r}); pid = os.fork();"
        "os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])) if pid else None\n"
        "try: model.transfer(image, reference=image)\n"
        "except nt_jax.InputError as error: os._exit(7 if 'spawn' in str(error) else 1)\n"
    )
    save_tiny(tmp_path / "m")
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 7


# --- Wrong input ---------------------------------------------------------------------------------

GOOD = np.zeros((16, 16, 3), np.float32)
E = np.zeros(EMBEDDING_SIZE, np.float32)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((16, 16, 3), np.nan, np.float32), "NaN"),
        (
            np.full((16, 16, 3), 255.0),
            r"float64 of shape \[16, 16, 3\] with values in \[255, 255\]",
        ),
        (np.zeros((16, 16, 3), np.int32), "int32"),
        (np.zeros((16, 16), np.uint8), r"shape \[16, 16\]"),
        (np.zeros((16, 16, 4), np.uint8), r"shape \[16, 16, 4\]"),
        (np.zeros((0, 16, 3), np.uint8), "no pixels"),
        (np.zeros((15, 16, 3), np.uint8), "sides of 16"),
        ("photo.png", "expected"),
    ],
)
def test_wrong_images(model, image, message):
    with pytest.raises(ValueError, match=message):
        model.embed(image)
    with pytest.raises(ValueError, match=message):
        model.transfer(image, embedding=E)
    with pytest.raises(ValueError, match=message):
        model.transfer(GOOD, reference=image)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either reference= or embedding="),
        ({"embedding": E, "reference": GOOD}, "either reference= or embedding="),
        ({"embedding": E[:-1]}, r"embedding: .*\[1, 8\].*\[7\]"),
        ({"embedding": np.zeros(EMBEDDING_SIZE, int)}, "embedding: .*int"),
        ({"embedding": E + np.nan}, "embedding: .*NaN"),
        ({"reference": []}, "empty list"),
        ({"embedding": E, "seed": -1}, "seed"),
        ({"embedding": E, "seed": 2**32}, "seed"),
        ({"embedding": E, "strength": -1.0}, "strength"),
        ({"embedding": E, "strength": float("nan")}, "strength"),
        ({"embedding": E, "strength": 1e39}, "strength"),
        ({"embedding": E, "tile": 0}, "tile"),
        ({"embedding": E, "tile": 30}, "tile"),
        ({"embedding": E, "tile": "512"}, "tile: expected an integer; got '512'"),
        ({"embedding": E, "tile": 64.0}, "tile: expected an integer"),
        ({"embedding": E, "seed": 1.5}, "seed: expected an integer; got 1.5"),
        ({"embedding": E, "seed": "1"}, "seed: expected an integer"),
        ({"embedding": E, "seed": None}, "seed: expected an integer"),
        ({"embedding": E, "strength": "1"}, "strength: expected a number"),
        ({"embedding": E, "strength": None}, "strength: expected a number"),
        ({"embedding": "reference.png"}, "embedding: expected float"),
    ],
)
def test_wrong_arguments_of_transfer(model, arguments, message):
    with pytest.raises(nt_jax.InputError, match=message):
        model.transfer(GOOD, **arguments)


def test_wrong_arguments_elsewhere(model):
    maps = model.sample_maps(jax.random.key(0), (1, 16, 16))
    with pytest.raises(nt_jax.InputError, match="one image"):
        model.transfer(np.stack([GOOD, GOOD]), embedding=E)
    with pytest.raises(nt_jax.InputError, match="maps: expected 10"):
        model.generate_noise(GOOD, E, maps[1:])
    with pytest.raises(nt_jax.InputError, match="multiples of 4"):
        model.generate_noise(np.zeros((18, 16, 3)), E, maps)
    with pytest.raises(nt_jax.InputError, match=r"\[2, 8\]"):
        model.generate_noise(
            np.stack([GOOD, GOOD]), E, model.sample_maps(jax.random.key(0), (2, 16, 16))
        )
    with pytest.raises(nt_jax.InputError, match="multiples of 4"):
        model.sample_maps(jax.random.key(0), (1, 18, 16))
    with pytest.raises(nt_jax.InputError, match="one shape"):
        model.discriminate(GOOD, E, np.zeros((16, 20, 3)))


# --- Denoiser ------------------------------------------------------------------------------------


@pytest.mark.parametrize("nested", [False, True])
def test_denoiser(tmp_path, nested):
    network = RIDNet(features=16, blocks=1)
    params = init_biased(jax.random.key(0), network)
    folder = tmp_path / "converted" / "denoiser" if nested else tmp_path / "d"
    save_model(
        folder, {"kind": "ridnet", "model": {"features": 16, "blocks": 1}}, {"denoiser": params}
    )
    denoiser = nt_jax.load_denoiser(folder.parent if nested else folder)
    noisy = CLEAN[:17, :18]
    clean = denoiser(noisy)
    expected = jax.jit(network.apply)({"params": params}, noisy[None].astype(np.float32) / 255)
    np.testing.assert_allclose(clean, np.clip(expected[0], 0, 1), atol=1e-5)
    assert denoiser(noisy[None]).shape == (1, 17, 18, 3)
    with pytest.raises(ValueError, match="shape"):
        denoiser(noisy[..., :1])

"""Reading a photo's noise and scaling what is generated to it, with a tiny random model."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage import data
from tiny_models import amplitude, save_tiny, save_tiny_spectrum_reader

import nt_jax
from nt_jax import calibration, eval, readings, spectra, transfer
from nt_jax.filters import wiener
from nt_jax.models.generator import sample_maps
from nt_jax.models.networks import embed, generate_noise, read

CLEAN = data.coffee()[:40, :56]
REFERENCE = data.chelsea()[:64, :64]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("models") / "reads", reader=True)


@pytest.fixture(scope="module")
def model(folder):
    return nt_jax.load(folder)


@pytest.fixture(scope="module")
def blind(tmp_path_factory):
    return nt_jax.load(save_tiny(tmp_path_factory.mktemp("models") / "blind"))


def test_gain_brings_the_level_to_what_is_read(model):
    """Against the level of noise generated again and scaled, where no bound is reached."""
    networks, params = model.networks, model.params
    patches = np.stack([REFERENCE[y : y + 32, x : x + 32] for y in (0, 32) for x in (0, 32)])
    patches = jnp.asarray(patches, jnp.float32)[:, None] / 255  # 4 crops of one reference
    encoder, generator = params["key_encoder"], params["generator"]
    each = jax.jit(partial(embed, networks))(encoder, patches[:, 0])[:, None]
    embedding, key = each.mean(0), jax.random.key(1)
    vectors = jax.jit(partial(read, networks))(encoder, each)
    calibrate = jax.jit(partial(calibration.calibrate, networks))
    found = calibrate(params, patches, vectors, embedding, key)
    level = np.exp(readings.decode(vectors).log_level)
    aimed = np.sqrt(np.square(level).mean((0, 1)))
    pseudo_clean = wiener(patches[:, 0], level[:, 0])
    maps = sample_maps(key, 4, 32, 32, model.blocks)
    noise = jax.jit(partial(generate_noise, networks))(
        generator, pseudo_clean, jnp.repeat(embedding, 4, 0), maps
    )
    made = np.asarray(jnp.clip(pseudo_clean + found.gain * noise, 0, 1) - pseudo_clean)
    made = np.sqrt(made.var((1, 2)).mean(0))
    inside = np.asarray(found.gain == found.wanted)[0]
    assert inside.any()
    np.testing.assert_allclose(made[inside], aimed[inside], rtol=0.05)
    assert np.all((found.gain >= calibration.LEAST) & (found.gain <= calibration.MOST))


def test_bounds(model):
    """A generator that is 100 times too weak gets the greatest factor, and wants more."""
    weak = jax.tree.map(lambda kernel: kernel, model.params["generator"])
    weak["last"] = jax.tree.map(lambda kernel: kernel / 100, weak["last"])
    patches = jnp.asarray(REFERENCE[None, None], jnp.float32) / 255
    networks, encoder = model.networks, model.params["key_encoder"]

    @jax.jit
    def calibrate(generator, key):
        each = embed(networks, encoder, patches[0])[None]
        vectors = read(networks, encoder, each)
        params = {"generator": generator}
        return calibration.calibrate(networks, params, patches, vectors, each[0], key)

    found = calibrate(weak, jax.random.key(0))
    assert found.ring_gain is None
    np.testing.assert_allclose(found.gain, calibration.MOST)
    assert np.all(found.wanted > calibration.MOST)


def test_transfer_scales_each_channel_and_tells_tiles_and_seeds_nothing(model):
    noise = model.reference_noise(REFERENCE)
    raw = model.reference_noise(REFERENCE, calibrate=False)
    assert np.all(raw.gain == 1)
    assert np.any(noise.gain != 1)
    calibrated = model.transfer(CLEAN, reference=REFERENCE, seed=2)
    plain = model.transfer(CLEAN, reference=REFERENCE, seed=2, calibrate=False)
    clean = CLEAN.astype(np.float32) / 255
    free = (plain > 0) & (plain < 1) & (calibrated > 0) & (calibrated < 1)
    expected = clean + noise.gain * (plain - clean)
    np.testing.assert_allclose(calibrated[free], expected[free], atol=1e-5)
    tiled = model.transfer(CLEAN, reference=REFERENCE, seed=2, tile=16)
    np.testing.assert_allclose(tiled, calibrated, atol=1e-5)
    np.testing.assert_array_equal(model.reference_noise(REFERENCE).gain, noise.gain)


def test_generated_noise_gets_the_spectrum_that_is_read(tmp_path):
    """Made by `transfer`, in one tile or more, and inside a step that trains a denoiser."""
    folder = save_tiny(tmp_path / "model", reader=True)
    grey = np.full((128, 128, 3), 0.5, np.float32)
    photo = np.clip(grey + np.random.default_rng(0).normal(0, 0.05, grey.shape), 0, 1)
    photo = photo.astype(np.float32)
    options = {"reference": photo, "seed": 2}
    scaled = nt_jax.load(folder).transfer(grey, **options) - grey
    wanted = amplitude(scaled) * np.repeat([2.0, 1.5, 0.5, 0.7], 4)
    save_tiny_spectrum_reader(folder, wanted)
    model = nt_jax.load(folder)

    made = model.transfer(grey, **options)
    batch = {"clean": grey[None], "reference": photo[None]}
    in_step = np.asarray(jax.jit(model.noise)(model.params, batch, jax.random.key(0)))[0]
    for noise in (made - grey, in_step):
        off = np.abs(np.log(amplitude(noise) / wanted)).reshape(2, 8)
        # The first is filtered as the second.
        assert off[:, 1:].mean() < 0.1
    tiled = model.transfer(grey, **options, tile=48)
    np.testing.assert_allclose(tiled, made, atol=1e-5)
    # The same random numbers: raw noise is what the filtered one is made of.
    noise = model.reference_noise(photo)
    [raw] = model.transfer_tiles(grey, noise.embedding, seed=2, clipped=False)
    filtered = spectra.amplify(
        "valid", jnp.asarray(noise.gain * (raw.pixels - grey))[None], noise.ring_gain[None]
    )
    inside = slice(spectra.RADIUS, -spectra.RADIUS)
    expected = np.clip(grey[inside, inside] + np.asarray(filtered)[0], 0, 1)
    np.testing.assert_allclose(made[inside, inside], expected, atol=1e-5)
    told = "\n".join(transfer.describe(noise))
    assert "calibrated: luma times" in told


def test_a_ring_at_its_bound_is_told(model):
    noise = model.reference_noise(REFERENCE)
    for gain, told in ((2.9, False), (1 / 3, True), (3.0, True)):
        rings = np.append(np.ones(spectra.SIZE - 1), gain).astype(np.float32)
        lines = list(transfer.describe(noise._replace(ring_gain=rings)))
        assert any("the spectrum asks for factors" in line for line in lines) == told


def test_a_model_that_reads_no_spectrum_refuses_gains_of_rings(model):
    with pytest.raises(nt_jax.InputError, match="reads no spectrum"):
        model.transfer_tiles(CLEAN, model.embed(REFERENCE), ring_gain=np.full(spectra.SIZE, 2))


def test_readings_are_those_of_the_head(model):
    reading = model.read_noise(REFERENCE)
    vector = read(model.networks, model.params["key_encoder"], model.embed(REFERENCE))
    found = readings.decode(vector)
    np.testing.assert_allclose(reading.level, 255 * np.exp(found.log_level), rtol=1e-4)
    batch = model.read_noise(np.stack([REFERENCE, REFERENCE[::-1]]))
    np.testing.assert_allclose(batch.level[0], reading.level, rtol=1e-4)
    assert batch.lag1.shape == (2,)
    assert batch.bias.shape == (2, 3)


def test_a_model_without_the_head_says_so(blind):
    with pytest.raises(nt_jax.InputError, match="cannot read noise"):
        blind.read_noise(REFERENCE)
    with pytest.raises(nt_jax.InputError, match="cannot read noise"):
        blind.transfer(CLEAN, reference=REFERENCE, calibrate=True)
    assert blind.reference_noise(REFERENCE).reading is None


def test_an_embedding_alone_cannot_be_calibrated(model):
    with pytest.raises(nt_jax.InputError, match="calibrate: needs reference="):
        model.transfer(CLEAN, embedding=model.embed(REFERENCE), calibrate=True)


# --- Commands ------------------------------------------------------------------------------------


@pytest.fixture
def pairs(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(2):
        clean = data.astronaut()[40 * number : 40 * number + 48, 100:164]
        noisy = np.clip(clean + rng.normal(0, 12, clean.shape), 0, 255).astype(np.uint8)
        for folder, pixels in (("gt", clean), ("noisy", noisy)):
            (tmp_path / "pairs" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "pairs" / folder / f"{number}.png")
    return tmp_path / "pairs"


def test_eval_noise_of_pairs_and_photos(folder, model, pairs, tmp_path, capsys):
    output = tmp_path / "scores"
    eval.main(["noise", f"--model={folder}", f"--pairs={pairs}", f"--output={output}"])
    printed = capsys.readouterr().out
    assert "estimate_sigma" in printed
    results = json.loads((output / "results.json").read_text())
    first = results["images"][0]
    noisy, clean = (
        np.asarray(Image.open(pairs / part / "0.png")).astype(np.float32)
        for part in ("noisy", "gt")
    )
    noise = noisy - clean
    np.testing.assert_allclose(first["true"]["level"], noise.std((0, 1)), rtol=1e-4)
    np.testing.assert_allclose(first["true"]["bias"], noise.mean((0, 1)), atol=1e-3)
    reading = model.read_noise(noisy.astype(np.uint8))
    np.testing.assert_allclose(first["level"], reading.level, rtol=1e-4)
    expected = np.abs(np.log(reading.level / noise.std((0, 1)))).mean()
    assert first["level_error"] == pytest.approx(expected, rel=1e-3)
    # White noise is what estimate_sigma knows.
    assert first["estimate_sigma_error"] < 0.25
    mean = np.mean([image["lag1_error"] for image in results["images"]])
    assert results["mean"]["lag1_error"] == pytest.approx(mean, abs=1e-6)

    photos = pairs / "noisy"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(photos / "2.png")  # lens cap on
    eval.main(["noise", f"--model={folder}", f"--images={photos}", f"--output={output}"])
    results = json.loads((output / "results.json").read_text())
    assert [image["name"] for image in results["images"]] == ["0", "1", "2"]
    assert results["images"][2]["estimate_sigma"] == [0, 0, 0]
    assert (output / "readings.png").is_file()
    levels = [np.sqrt(np.mean(np.square(image["level"]))) for image in results["images"]]
    assert results["mean"]["total_level"] == pytest.approx(np.mean(levels), rel=1e-5)


def test_eval_noise_refuses(pairs, tmp_path):
    output = f"--output={tmp_path / 'out'}"
    with pytest.raises(nt_jax.InputError, match="--images or --pairs"):
        eval.main(["noise", "--model=small", output])
    model = save_tiny(tmp_path / "blind")
    with pytest.raises(nt_jax.InputError, match="cannot read noise"):
        eval.main(["noise", f"--model={model}", f"--pairs={pairs}", output])
    assert not (tmp_path / "out").exists()


def test_transfer_says_what_is_read_and_put_on(folder, model, tmp_path, capsys):
    for name, pixels in (("clean", CLEAN), ("reference", REFERENCE)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    arguments = [
        f"--model={folder}",
        f"--clean={tmp_path / 'clean.png'}",
        f"--reference={tmp_path / 'reference.png'}",
        f"--output={tmp_path / 'out.png'}",
    ]
    transfer.main(arguments)
    lines = capsys.readouterr().out.splitlines()
    level = np.sqrt(np.square(model.read_noise(REFERENCE).level).mean())
    assert lines[0].startswith(f"reference: noise of level {level:.1f} of 255")
    assert lines[1].startswith("calibrated: generated noise times ")
    calibrated = np.asarray(Image.open(tmp_path / "out.png"))
    expected = np.round(255 * model.transfer(CLEAN, reference=REFERENCE))
    assert np.abs(calibrated - expected).max() <= 1
    transfer.main([*arguments, "--no-calibrate"])
    assert "calibrated" not in capsys.readouterr().out
    assert (np.asarray(Image.open(tmp_path / "out.png")) != calibrated).any()

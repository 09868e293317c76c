"""Denoising by tiles, and the command: files in, files out, wrong input."""

import subprocess
import sys
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import data

import nt_jax
from nt_jax import denoise, spectra
from nt_jax.checkpointing import save_model
from nt_jax.errors import InputError
from nt_jax.images import Photo, read_photo, write_photo
from nt_jax.inference import denoiser as inference
from nt_jax.inference.denoiser import Denoiser
from nt_jax.models.biased import init_biased
from nt_jax.models.denoisers import make_denoiser
from nt_jax.models.dncnn import DnCNN, FFDNet
from nt_jax.models.noise_reader import NoiseReader, read_noise
from nt_jax.models.ridnet import RIDNet, attention_means
from nt_jax.models.unet import UNet

PIXELS = data.coffee()[:56, :72]
NETWORK = RIDNet(16, 1)
# Of a size that no alignment fits.
ODD = data.coffee()[:217, :251]
OTHERS = {
    "unet": UNet(16, 1),
    "finer unet": UNet(16, 1, finest_blocks=2),
    "dncnn": DnCNN(8, 8),
    "ffdnet": FFDNet(8, 4),
}
# Compiled whole: each operation of each shape would be a program.
apply_jit = jax.jit(NETWORK.apply)
means_jit = jax.jit(partial(attention_means, NETWORK))


def enlarged(network):
    """Random parameters, 1.5 times those of a start."""
    params = jax.device_get(init_biased(jax.random.key(0), network))
    return jax.device_put(jax.tree.map(lambda leaf: np.float32(1.5) * leaf, params))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    params = enlarged(NETWORK)
    save_model(
        folder, {"kind": "ridnet", "model": {"features": 16, "blocks": 1}}, {"denoiser": params}
    )
    return folder


@pytest.fixture(scope="module")
def denoiser(folder):
    return nt_jax.load_denoiser(folder)


@pytest.fixture(scope="module")
def expected(denoiser):
    """Denoised image of PIXELS at 255 levels, unrounded."""
    return 255 * np.asarray(denoiser(PIXELS))


@pytest.fixture
def run(folder):
    def run(*switches, **flags):
        flags = {"denoiser": folder} | flags
        denoise.main([*(f"--{name}={value}" for name, value in flags.items()), *switches])

    return run


def everything(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def joined(tiles, shape):
    result = np.full(shape, np.nan, np.float32)
    for tile in tiles:
        result[tile.rows, tile.columns] = tile.pixels
    return result


# --- Tiles ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [1, 2])
def test_radius_is_what_the_gradient_reaches(blocks):
    network = RIDNet(16, blocks)
    size = 2 * network.radius + 5
    middle = size // 2
    image = np.full((1, size, size, 3), 0.5, np.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), image)["params"]
    # Positive weights: no contribution cancels another.
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.01, np.float32), shapes)
    means = [np.ones((1, 1, 1, 16), np.float32)] * blocks

    @jax.jit
    def reached(image):
        return jax.grad(
            lambda x: network.apply({"params": params}, x, means)[0, middle, middle, 0]
        )(image)

    rows, columns = np.nonzero(np.abs(np.asarray(reached(image)[0])).sum(-1))
    assert np.abs(rows - middle).max() == np.abs(columns - middle).max() == network.radius


def test_means_are_what_attention_averages(denoiser):
    image = PIXELS[None] / np.float32(255)
    means = means_jit(denoiser.params, image)
    given = apply_jit({"params": denoiser.params}, image, means)
    own = apply_jit({"params": denoiser.params}, image)
    np.testing.assert_allclose(given, own, atol=1e-6)
    pair = means_jit(denoiser.params, np.concatenate([image, image[:, ::-1]]))
    assert [mean.shape for mean in pair] == [(1, 1, 1, 16)]
    zero = apply_jit({"params": denoiser.params}, image, [0 * np.asarray(mean) for mean in means])
    assert np.abs(zero - own).max() > 1e-3


@pytest.mark.parametrize("tile", [16, 30])
def test_tiles_give_the_whole_image(denoiser, expected, tile):
    assert len(denoiser.windows(*PIXELS.shape[:2], tile)) > 1
    result = joined(denoiser.denoise_tiles(PIXELS, tile=tile), PIXELS.shape)
    np.testing.assert_allclose(255 * result, expected, atol=255e-5)


@pytest.mark.parametrize(("kind", "width", "most"), [("unet", 48, 1096), ("ridnet", 16, 512)])
def test_a_tile_is_512_or_twelve_times_what_the_network_looks_around(kind, width, most):
    other = Denoiser(make_denoiser(kind, width, 2), {}, {})
    for size in (1300, 2000, 4000):
        windows = other.windows(size, size)
        assert windows == other.windows(size, size, most)
        assert len(windows) < len(other.windows(size, size, 400))
        assert max(w.keep_stop - w.keep_start for pair in windows for w in pair) <= most + 64


def test_a_large_image_is_pooled_over_crops(denoiser, monkeypatch):
    monkeypatch.setattr(inference, "_POOLED_WHOLE", 40 * 40)
    monkeypatch.setattr(inference, "_CROP_SIDE", 16)
    image = PIXELS[:45] / np.float32(255)
    crops = [image[y : y + 16, x : x + 16] for y in (0, 9, 19, 29) for x in (0, 18, 37, 56)]
    means = means_jit(denoiser.params, np.stack(crops))
    expected = apply_jit({"params": denoiser.params}, image[None], means)[0]
    for tile in (16, 512):
        result = joined(denoiser.denoise_tiles(image, tile=tile), image.shape)
        np.testing.assert_allclose(result, np.clip(expected, 0, 1), atol=1e-5)
    np.testing.assert_allclose(denoiser(np.stack([image] * 2))[1], result, atol=1e-6)


@pytest.fixture(scope="module", params=OTHERS)
def other(request):
    """A denoiser of each kind without attention, with random parameters."""
    network = OTHERS[request.param]
    return Denoiser(network, enlarged(network), {})


def test_radius_of_the_others_is_what_the_gradient_reaches(other):
    network, multiple = other.network, other.network.alignment
    size = multiple * (-(-2 * network.radius // multiple) + 3)
    middle = size // multiple // 2 * multiple
    image = np.full((1, size, size, 3), 0.5, np.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), image)
    # Positive weights: no contribution cancels another.
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.01, np.float32), shapes["params"])

    @jax.jit
    def reached(image, y):
        def at(image):
            return network.apply({"params": params}, image)[0, y, y, 0]

        return jnp.abs(jax.grad(at)(image)[0]).sum(-1)

    radii = []
    for y in range(middle, middle + multiple):
        rows, columns = np.nonzero(reached(image, y))
        radii.append(max(np.abs(rows - y).max(), np.abs(columns - y).max()))
    assert max(radii) == network.radius


@pytest.mark.parametrize("tile", [16, 61])
def test_tiles_of_the_others_give_the_whole_image(other, tile):
    whole = np.asarray(other(ODD))
    assert len(other.windows(*ODD.shape[:2], tile)) > 1
    np.testing.assert_allclose(
        joined(other.denoise_tiles(ODD, tile=tile), ODD.shape), whole, atol=1e-5
    )


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 2), (17, 5), (16, 24)])
def test_any_size_can_be_denoised(other, shape):
    image = ODD[: shape[0], : shape[1]]
    whole = np.asarray(other(image))
    assert whole.shape == image.shape
    np.testing.assert_allclose(joined(other.denoise_tiles(image), image.shape), whole, atol=1e-6)
    # As if the image went on as its own reflection.
    multiple = other.network.alignment
    padding = [(0, -side % multiple) for side in shape]
    mirrored = np.pad(image, [*padding, (0, 0)], mode="reflect")
    expected = np.asarray(other(mirrored))[: shape[0], : shape[1]]
    np.testing.assert_allclose(whole, expected, atol=1e-6)


# --- All orientations ----------------------------------------------------------------------------


def test_an_ensemble_is_the_mean_over_eight_orientations(other):
    image = ODD[:64, :96] / np.float32(255)
    results = []
    for mirrored in (False, True):
        for quarters in range(4):
            turned = np.rot90(image[:, ::-1] if mirrored else image, quarters)
            result = np.rot90(other(turned), -quarters)
            results.append(result[:, ::-1] if mirrored else result)
    ensemble = np.asarray(other(image, ensemble=True))
    np.testing.assert_allclose(ensemble, np.mean(results, axis=0), atol=1e-6)
    assert np.abs(ensemble - results[0]).max() > 1e-3
    traced = jax.jit(lambda x: other(x, ensemble=True))(image)
    np.testing.assert_allclose(traced, ensemble, atol=1e-6)


@pytest.mark.parametrize("network", [NETWORK, OTHERS["unet"]], ids=["ridnet", "unet"])
def test_tiles_of_an_ensemble_give_the_whole_image(network):
    denoiser = Denoiser(network, init_biased(jax.random.key(0), network), {})
    whole = np.asarray(denoiser(ODD, ensemble=True))
    tiles = list(denoiser.denoise_tiles(ODD, tile=64, ensemble=True))
    assert len(tiles) > 1
    np.testing.assert_allclose(joined(tiles, ODD.shape), whole, atol=1e-5)


# --- Conditioned on the noise --------------------------------------------------------------------


CONDITIONED = UNet(16, 1, conditions=spectra.CONDITIONS)
conditioned_jit = jax.jit(CONDITIONED.apply)


@pytest.fixture(scope="module")
def conditioned():
    """A denoiser with random parameters that reads 64x64 patches."""
    rng = np.random.default_rng(1)

    def shaken(path, leaf):
        if path[-1].key in ("condition", "gain"):
            return np.float32(0.05) * rng.standard_normal(leaf.shape, np.float32)
        return np.float32(1.5) * leaf

    params = jax.device_get(init_biased(jax.random.key(0), CONDITIONED))
    params = jax.device_put(jax.tree_util.tree_map_with_path(shaken, params))
    reader = NoiseReader(8, spectra.SIZE)
    read = init_biased(jax.random.key(2), reader)
    return Denoiser(CONDITIONED, params, {}, inference.SpectrumReader(reader, read, 64))


def test_under_one_condition_it_is_a_blind_one_with_other_parameters(conditioned):
    images = np.stack([ODD[:64, :64], ODD[64:128, :64]]) / np.float32(255)
    condition = np.random.default_rng(0).normal(size=(2, spectra.CONDITIONS)).astype(np.float32)
    apply = conditioned_jit
    results = apply({"params": conditioned.params}, images, condition)

    def plain(row):
        return {
            name: {
                "kernel": layer["kernel"] * np.exp(condition[row] @ layer["gain"]),
                "bias": layer["bias"] + condition[row] @ layer["condition"],
            }
            for name, layer in jax.device_get(conditioned.params).items()
        }

    blind = jax.jit(OTHERS["unet"].apply)
    for row, result in enumerate(results):
        expected = blind({"params": plain(row)}, images[row : row + 1])[0]
        np.testing.assert_allclose(result, expected, atol=1e-5)
    unknown = apply({"params": conditioned.params}, images, np.zeros_like(condition))
    none = apply({"params": conditioned.params}, images)
    np.testing.assert_allclose(unknown, none, atol=1e-6)
    assert np.abs(np.asarray(results - none)).max() > 1e-3


def test_fixed_it_is_blind_or_knows_the_photos_that_it_was_adapted_to(conditioned):
    image = ODD[:64, :64] / np.float32(255)
    blind = np.asarray(replace(conditioned, reader=None)(image))
    np.testing.assert_allclose(conditioned.fixed(image), blind, atol=1e-6)
    condition = np.random.default_rng(0).normal(size=spectra.CONDITIONS).astype(np.float32)
    fixed = replace(conditioned, condition=condition).fixed
    assert fixed.network == OTHERS["unet"]
    expected = conditioned_jit({"params": conditioned.params}, image[None], condition[None])[0]
    np.testing.assert_allclose(fixed(image), np.clip(expected, 0, 1), atol=1e-5)
    assert np.abs(fixed(image) - blind).max() > 1e-3


def test_the_condition_is_what_is_read_off_the_whole_image(conditioned):
    images = ODD[None, :128, :192] / np.float32(255)
    crops = [images[0, y : y + 64, x : x + 64] for y in (0, 64) for x in (0, 64, 128)]
    reader, params, _ = conditioned.reader
    found = jax.jit(lambda x: read_noise(reader, params, x))(np.stack(crops)[None])
    vectors = jax.jit(spectra.hedged)(found.values, found.spread)
    read = np.exp(spectra.decode(np.asarray(vectors)[0]))
    for strength in (1.0, 2.0):
        condition = conditioned._condition(images, strength)
        np.testing.assert_allclose(condition[0, -1], 1)
        decoded = spectra.decode(np.asarray(condition[0, :-1]))
        np.testing.assert_allclose(np.exp(decoded), strength * read, rtol=1e-3)
        expected = conditioned_jit({"params": conditioned.params}, images, condition)[0]
        result = conditioned(images[0], strength=strength)
        np.testing.assert_allclose(result, np.clip(expected, 0, 1), atol=1e-5)


def test_one_whose_condition_shifts_biases_alone_loads(conditioned, tmp_path):
    """As they were until gains came in."""

    def params(gain):
        return {name: layer | {"gain": gain(layer["gain"])} for name, layer in layers.items()}

    layers = jax.tree.map(np.asarray, conditioned.params)
    older = {
        name: {part: leaf for part, leaf in layer.items() if part != "gain"}
        for name, layer in layers.items()
    }
    model = {"features": 16, "blocks": 1, "conditions": spectra.CONDITIONS}
    save_model(tmp_path / "older", {"kind": "unet", "model": model}, {"denoiser": older})
    images = np.random.default_rng(0).random((2, 64, 64, 3)).astype(np.float32)
    condition = np.random.default_rng(0).normal(size=(2, spectra.CONDITIONS)).astype(np.float32)
    loaded = nt_jax.load_denoiser(tmp_path / "older")
    result = jax.jit(loaded.network.apply)({"params": loaded.params}, images, condition)
    expected = conditioned_jit({"params": params(np.zeros_like)}, images, condition)
    np.testing.assert_allclose(result, expected, atol=1e-2)  # saved with 16 bits
    gained = conditioned_jit({"params": params(np.asarray)}, images, condition)
    assert np.abs(np.asarray(result - gained)).max() > 0.05


def test_tiles_of_a_conditioned_one_give_the_whole_image(conditioned):
    grey = ODD[..., 0]
    three = np.stack([grey] * 3, axis=-1)
    for ensemble in (False, True):
        whole = np.asarray(conditioned(three, ensemble=ensemble, strength=1.5))
        for image in (three, grey):
            tiles = conditioned.denoise_tiles(image, tile=64, ensemble=ensemble, strength=1.5)
            np.testing.assert_allclose(joined(tiles, three.shape), whole, atol=1e-5)


def test_images_of_a_batch_have_a_condition_each(conditioned):
    batch = np.stack([ODD[:80, :80], ODD[100:180, 100:180] // 2])
    results = conditioned(batch)
    for image, result in zip(batch, results, strict=True):
        np.testing.assert_allclose(conditioned(image), result, atol=1e-5)
    traced = jax.jit(lambda images: conditioned(images))(batch / np.float32(255))
    np.testing.assert_allclose(traced, results, atol=1e-5)


def test_nothing_is_read_off_what_is_smaller_than_a_patch(conditioned):
    small = ODD[:63, :90]
    blind = np.asarray(replace(conditioned, reader=None)(small))
    np.testing.assert_array_equal(conditioned(small), blind)
    np.testing.assert_array_equal(joined(conditioned.denoise_tiles(small), small.shape), blind)
    larger = ODD[:64, :90]
    assert np.abs(conditioned(larger) - replace(conditioned, reader=None)(larger)).max() > 1e-3


@pytest.mark.parametrize("strength", [0, 0.2, 5, -1, np.nan, "1"])
def test_wrong_strengths(conditioned, strength):
    for denoise_it in (conditioned, conditioned.denoise_tiles):
        with pytest.raises(InputError, match="strength: expected"):
            list(denoise_it(ODD, strength=strength))


# --- Files ---------------------------------------------------------------------------------------


def test_one_file(run, expected, tmp_path, capsys):
    write_photo(tmp_path / "in.png", Photo(PIXELS))
    run(input=tmp_path / "in.png", output=tmp_path / "out.png", tile=16)
    result = read_photo(tmp_path / "out.png").pixels
    assert np.abs(result - expected).max() <= 0.5 + 255e-5
    assert np.abs(result.astype(int) - PIXELS).max() > 2
    assert capsys.readouterr().out == f"[1/1] {tmp_path / 'out.png'}  72x56\n"


def test_an_ensemble_of_a_file(run, denoiser, tmp_path):
    write_photo(tmp_path / "in.png", Photo(PIXELS))
    run("--ensemble", input=tmp_path / "in.png", output=tmp_path / "out.png")
    expected = 255 * np.asarray(denoiser(PIXELS, ensemble=True))
    result = read_photo(tmp_path / "out.png").pixels
    assert np.abs(result - expected).max() <= 0.5 + 255e-5


def test_jpeg_to_jpeg(run, denoiser, tmp_path):
    write_photo(tmp_path / "in.jpg", Photo(PIXELS))
    run(input=tmp_path / "in.jpg", output=tmp_path / "out.jpg")
    expected = denoiser(read_photo(tmp_path / "in.jpg").pixels)
    assert np.abs(read_photo(tmp_path / "out.jpg").pixels - 255 * expected).mean() < 2


@pytest.mark.parametrize(
    ("dtype", "grey"), [(np.uint8, True), (np.uint16, True), (np.uint16, False)]
)
def test_depth_grey_and_alpha_are_kept(run, denoiser, tmp_path, dtype, grey):
    pixels = PIXELS.astype(dtype) * (257 if dtype == np.uint16 else 1)
    pixels = pixels[..., 0] if grey else pixels
    alpha = np.arange(pixels.shape[0] * pixels.shape[1]).reshape(pixels.shape[:2]).astype(dtype)
    write_photo(tmp_path / "in.tif", Photo(pixels, alpha, b"profile"))
    run(input=tmp_path / "in.tif", output=tmp_path / "out.png")
    result = read_photo(tmp_path / "out.png")
    assert (result.pixels.shape, result.pixels.dtype) == (pixels.shape, dtype)
    np.testing.assert_array_equal(result.alpha, alpha)
    assert result.icc_profile == b"profile"
    largest = np.iinfo(dtype).max
    image = pixels.astype(np.float32) / largest
    expected = np.asarray(denoiser(np.repeat(image[..., None], 3, -1) if grey else image))
    expected = expected @ [0.299, 0.587, 0.114] if grey else expected
    assert np.abs(result.pixels - largest * expected).max() <= 0.5 + largest * 1e-5


def test_exif_rotation_is_applied(run, tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / "in.jpg", exif=exif)
    run(input=tmp_path / "in.jpg", output=tmp_path / "out.png")
    assert read_photo(tmp_path / "out.png").pixels.shape == (72, 56, 3)


def test_a_folder_keeps_names(run, expected, tmp_path):
    photos, output = tmp_path / "photos", tmp_path / "made" / "clean"
    names = ["b.png", "a/c.PNG", "a.tif"]
    for name in names:
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        write_photo(photos / name, Photo(PIXELS))
    run(input=photos, output=output)
    assert everything(output) == sorted(names)
    for name in names:
        assert np.abs(read_photo(output / name).pixels - expected).max() <= 0.5 + 255e-5


def test_broken_images_of_a_folder_are_skipped_where_asked_for(folder, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    write_photo(tmp_path / "photos" / "a_noisy.png", Photo(PIXELS))  # what denoising is for
    (tmp_path / "photos" / "b.png").write_text("no image")
    write_photo(tmp_path / "c.png", Photo(PIXELS, alpha=PIXELS[..., 0]))
    (tmp_path / "c.png").rename(tmp_path / "photos" / "c.jpg")  # which could not be written so
    flags = [f"--denoiser={folder}", f"--input={tmp_path / 'photos'}", f"--output={tmp_path / 'o'}"]
    with pytest.raises(InputError, match="--skip_broken goes on without"):
        denoise.main(flags)
    assert not (tmp_path / "o").exists()
    denoise.main([*flags, "--skip_broken"])
    assert everything(tmp_path / "o") == ["a_noisy.png"]
    skipped = capsys.readouterr().out
    assert "skipped: " in skipped
    assert "c.jpg: .jpg cannot hold the image's alpha" in skipped


# --- Wrong input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"input": "none.png"}, "none.png: no such file"),
        ({"input": "text.png"}, "text.png is not a readable"),
        ({"input": "empty"}, "no image found"),
        ({"input": "x" * 300 + ".png"}, ".png cannot be opened: File name too long"),
        ({"input": "photos/a.png/b.png"}, "b.png cannot be opened: Not a directory"),
        ({"input": "photos/a.png", "output": "x" * 300 + ".png"}, "written: File name too long"),
        ({"input": "photos", "denoiser": "x" * 300}, "no model xxx"),
        ({"input": "photos", "output": "text.png"}, "is a file, but"),
        ({"input": "photos/a.png", "output": "out.gif"}, "must end in"),
        ({"input": "photos/a.png", "output": "photos/a.png"}, "overwrite an input"),
        ({"input": "photos", "denoiser": "none"}, "no model none"),
        ({"input": "photos", "tile": 8}, "tile: expected 16 or more"),
        ({"input": "photos", "tile": "x"}, "--tile"),
        ({"input": "photos", "strength": 2}, "this denoiser is blind"),
        ({"input": "photos", "strength": 5}, "strength: expected 1/4 to 4; got 5"),
        ({"input": "photos", "nonsense": 1}, "--nonsense"),
        ({}, "--input"),
    ],
)
def test_wrong_input_says_so_and_writes_nothing(run, tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "empty"):
        (tmp_path / name).mkdir()
    write_photo("photos/a.png", Photo(PIXELS))
    (tmp_path / "text.png").write_text("no image")
    before = everything(tmp_path)
    with pytest.raises(InputError) as error:
        run(**({"output": "new"} | flags))
    assert message in str(error.value)
    assert everything(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_the_process_ends_with_one_line_and_exit_code_2(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "nt_jax.denoise", "--input=none.png", f"--output={tmp_path}/o.png"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "error: none.png: no such file; check the path\n"

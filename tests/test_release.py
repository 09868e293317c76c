"""Writing the model of a run as it is bundled, and the bundled ones."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage import data

import nt_jax
from configs.denoiser import get_config as get_denoiser_config
from configs.noisetransfer import get_config
from experiments.release_model import main, release, release_networks
from nt_jax.checkpointing import Checkpointer, load_state
from nt_jax.errors import InputError
from nt_jax.families.denoiser.state import init_state as init_denoiser_state
from nt_jax.families.denoiser.state import make_network
from nt_jax.families.noisetransfer.state import init_state
from nt_jax.inference import darktable
from nt_jax.inference.loading import PRETRAINED
from nt_jax.inference.spectrum import spectrum_error
from nt_jax.models.networks import make_networks

NETWORKS = Path(__file__).parents[1] / "experiments" / "networks"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of the smoke recipe, stopped before its first step."""
    workdir = tmp_path_factory.mktemp("run")
    config = get_config("smoke")
    config.data.pairs = "/home/me/data/sidd/train=3,crops"
    config.train.init_from = "/home/me/runs/first"
    saved = json.loads(config.to_json())
    networks = make_networks(config.model)
    state = jax.jit(lambda: init_state(config, networks, jax.random.key(0)))()
    state = state.replace(generator_average=jax.tree.map(lambda x: 1.5 * x, state.generator))
    with Checkpointer(workdir, saved, keep=1) as checkpointer:
        checkpointer.save(7, state)
    (workdir / "config.json").write_text(json.dumps(saved))
    lines = [
        {"step": 5, "loss_g": 1.0, "eval/akld": 0.5},
        {"step": 6, "loss_g": 2.0},
        {"step": 8, "loss_g": 2.0, "eval/akld": 0.1},  # after the checkpoint
    ]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return workdir


def test_a_released_model_makes_the_noise_of_its_run(workdir, tmp_path):
    release(workdir, tmp_path / "model")
    ours, run = nt_jax.load(tmp_path / "model"), nt_jax.load(workdir)
    image = np.random.default_rng(0).random((32, 32, 3)).astype(np.float32)
    expected = run.embed(image)
    np.testing.assert_allclose(ours.embed(image), expected, atol=2e-3)
    maps = run.sample_maps(jax.random.key(0), (1, 32, 32))
    noise = run.generate_noise(image, expected, maps)
    difference = np.abs(ours.generate_noise(image, expected, maps) - noise).max()
    assert 0 < difference < 2e-3 * np.abs(noise).max() + 1e-4  # 16 bits were written, and suffice


def test_a_released_model_tells_its_recipe_and_figures(workdir, tmp_path):
    metadata = release(workdir, tmp_path / "model")
    assert json.loads((tmp_path / "model" / "model.json").read_text()) == metadata
    assert metadata["recipe"]["losses"]["recon"] == 100.0
    assert metadata["recipe"]["data"]["pairs"] == "sidd/train=3,crops"
    assert metadata["recipe"]["train"]["init_from"] == "runs/first"
    assert metadata["reference_crop"] == 16  # the patches
    assert metadata["step"] == 7
    assert metadata["held_out"] == {"step": 5, "eval/akld": 0.5}
    assert set(nt_jax.load(tmp_path / "model").params) == {"generator", "key_encoder"}


def test_terms_are_of_a_run(tmp_path, monkeypatch):
    flags = ["--model=small", "--reader=small", f"--output={tmp_path / 'model'}", "--terms=a=CC0"]
    monkeypatch.setattr("sys.argv", ["release_model", *flags])
    with pytest.raises(InputError, match="--terms"):
        main()
    assert not (tmp_path / "model").exists()


def test_released_networks_are_those_of_the_run_in_16_bits(workdir, tmp_path):
    release_networks(workdir, tmp_path / "networks")
    (_, _, run), (config, step, networks) = (
        load_state(folder) for folder in (workdir, tmp_path / "networks")
    )
    assert step == 7
    assert config["data"]["pairs"] == "sidd/train=3,crops"
    assert {"generator", "discriminator", "key_encoder", "queue"} < set(networks)
    for name, tree in networks.items():
        bundled = "generator_average" if name == "generator" else name
        halved = jax.tree.map(np.float16, run[bundled])
        jax.tree.map(np.testing.assert_array_equal, tree, halved)
    files = [path for path in (tmp_path / "networks").rglob("*") if path.is_file()]
    assert not [path for path in files if str(tmp_path).encode() in path.read_bytes()]
    with pytest.raises(InputError, match="exists"):
        release_networks(workdir, tmp_path / "networks")


def denoiser_run(workdir, factor, start=""):
    """A run of the smoke recipe of denoisers, its fresh parameters times `factor`."""
    config = get_denoiser_config("blind-smoke")
    config.train.init_from = str(start)
    config.data.pairs = "/data/sidd_small/train" if start else "/data/polyu/train"
    saved = json.loads(config.to_json())
    params = init_denoiser_state(config, make_network(config), jax.random.key(0)).params
    with Checkpointer(workdir, saved, keep=1) as checkpointer:
        checkpointer.save(7, {"params": jax.tree.map(lambda leaf: factor * leaf, params)})
    (workdir / "config.json").write_text(json.dumps(saved))
    (workdir / "metrics.jsonl").write_text('{"step": 7, "eval/psnr": 30.0}\n')
    return workdir


def test_half_way_is_the_mean_of_a_run_and_of_its_start(tmp_path):
    start, end = (denoiser_run(tmp_path / name, factor) for name, factor in (("a", 1), ("b", 3)))
    metadata = release(end, tmp_path / "model", mean_with=start)
    assert metadata["mean_with"].endswith("/a")
    release_networks(end, tmp_path / "networks", mean_with=start)
    first, mean = (load_state(folder)[2]["params"] for folder in (start, tmp_path / "networks"))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.float16(2 * a), b), first, mean)
    ours, run = nt_jax.load_denoiser(tmp_path / "model"), nt_jax.load_denoiser(start)
    for got, one in zip(*(jax.tree.leaves(each.params) for each in (ours, run)), strict=True):
        np.testing.assert_array_equal(got, np.float16(2 * one))
    with pytest.raises(InputError, match="not those of the run"):
        release(end, tmp_path / "other", mean_with=NETWORKS / "spectrum")


def test_a_released_denoiser_tells_what_it_began_from(tmp_path):
    start = denoiser_run(tmp_path / "a", 1)
    end = denoiser_run(tmp_path / "b", 3, start)
    metadata = release(end, tmp_path / "model", terms={"data/photos": "CC0"})
    assert metadata["began_from"]["name"].endswith("/a")
    assert metadata["began_from"]["recipe"]["data"]["pairs"] == "polyu/train"
    (warning,) = darktable.warnings(nt_jax.load_denoiser(tmp_path / "model"))
    assert "PolyU" in warning
    for number, source in enumerate((end, tmp_path / "model")):  # a run, and a model
        last = denoiser_run(tmp_path / f"c{number}", 2, source)
        told = release(last, tmp_path / f"model{number}", terms={"sidd_small/train": "MIT"})
        first = told["began_from"]["began_from"]
        assert first["recipe"]["data"]["pairs"] == "polyu/train"
        own = {"data/photos": "CC0"}, {"sidd_small/train": "MIT"}
        assert told["began_from"]["terms"] == own[source == end]


def test_the_bundled_small_follows_the_level_of_its_reference():
    model = nt_jax.load()
    rng = np.random.default_rng(0)
    photo, clean = (image()[:128, :128] / np.float32(255) for image in (data.coffee, data.chelsea))

    def level(sigma):
        reference = np.clip(photo + rng.normal(0, sigma / 255, photo.shape), 0, 1)
        return 255 * (model.transfer(clean, reference=reference, tile=128) - clean).std()

    faint, medium, strong = level(5), level(20), level(50)
    assert faint < 12
    assert 12 < medium < 30
    assert 30 < strong < 60


def test_the_bundled_small_reads_the_spectrum_of_fine_and_of_soft_noise():
    """Within 1 and 2.5 dB, rings of luma and colour on average; the two lie 7 dB apart."""
    model = nt_jax.load()
    photo = data.coffee()[:192, :192] / np.float32(255)
    white = np.random.default_rng(0).normal(size=photo.shape)
    soft = gaussian_filter(white, (0.8, 0.8, 0))
    for noise, most in ((white, 1.0), (soft / soft.std(), 2.5)):
        noisy = np.clip(photo + noise * 15 / 255, 0, 1).astype(np.float32)
        assert spectrum_error(model, noisy - photo, noisy) < most


@pytest.mark.parametrize(
    "name", ["small-denoiser", "open-denoiser", "small-ridnet", "small-ridnet-real"]
)
def test_a_bundled_denoiser_denoises(name):
    denoiser = nt_jax.load_denoiser(name)
    photo = data.chelsea()[:200, 100:300] / np.float32(255)
    noise = np.random.default_rng(0).normal(0, 15 / 255, photo.shape)
    noisy = np.clip(photo + noise, 0, 1).astype(np.float32)
    errors = [float(((image - photo) ** 2).mean()) for image in (noisy, denoiser(noisy))]
    assert errors[1] < errors[0] / 2  # 3 dB


def test_the_bundled_denoiser_knows_weak_noise_from_detail_by_what_it_reads():
    """On noise of level 2 it is better than without its reading, by .5 dB at the least."""
    denoiser = nt_jax.load_denoiser()
    for photo in (data.chelsea(), data.astronaut()):
        clean = photo[:256, :256] / np.float32(255)
        noise = np.random.default_rng(0).normal(0, 2 / 255, clean.shape)
        noisy = np.clip(clean + noise, 0, 1).astype(np.float32)
        reading, blind = (
            float(nt_jax.metrics.psnr(clean[None], each(noisy)[None])[0])
            for each in (denoiser, denoiser.fixed)
        )
        assert reading > blind + 0.5


@pytest.mark.parametrize("name", ["small-denoiser", "open-denoiser"])
def test_a_bundled_denoiser_spares_photos_with_hardly_any_noise(name):
    """Of level 1 it costs 1 dB at the most; a reader that had not seen weak noise cost 3."""
    denoiser = nt_jax.load_denoiser(name)
    clean = data.chelsea()[:256, :256].astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 1, clean.shape)
    noisy = np.clip(np.rint(clean + noise), 0, 255).astype(np.uint8)
    before, after = (
        float(nt_jax.metrics.psnr(clean[None] / 255, image[None])[0])
        for image in (noisy / np.float32(255), denoiser(noisy))
    )
    assert after > before - 1


def test_the_open_denoiser_is_of_open_data():
    denoiser = nt_jax.load_denoiser("open-denoiser")
    assert not list(darktable.warnings(denoiser))
    card = darktable._card(denoiser, "me", "mine")
    assert "see its own terms" not in card["training_data_license"]
    owed = denoiser.metadata
    while "began_from" in owed:
        owed = owed["began_from"]
    assert owed["recipe"]["train"]["init_from"] == ""  # nothing else is in it


def parameters_of(name):
    denoiser = any(word in name for word in ("denoiser", "ridnet"))
    variables = nt_jax.load_denoiser(name).variables if denoiser else nt_jax.load(name).params
    return sum(np.size(leaf) for leaf in jax.tree.leaves(variables))


def test_bundled_models_are_small_and_tell_their_recipe():
    for folder in PRETRAINED.iterdir():
        files = [path for path in folder.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        assert size < 8e6
        metadata = json.loads((folder / "model.json").read_text())
        assert metadata["weights"] == "float16"
        assert size < 1e5 + 2.2 * parameters_of(folder.name)  # of 32 bits it is 2.8
        assert metadata["recipe"]["train"]["batch_size"] > 0
        assert metadata["held_out"]["step"] <= metadata["step"]

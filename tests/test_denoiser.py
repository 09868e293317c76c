"""Training of the denoiser: loss, schedule, step, generated noise, and runs end to end."""

import dataclasses
import itertools
import json
import pathlib
import shutil
from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.test_util import check_grads
from skimage import data
from tiny_models import save_tiny

import nt_jax
from configs import noisetransfer
from configs.denoiser import get_config
from experiments.release_model import join_denoiser, release
from nt_jax import prng, spectra
from nt_jax.checkpointing import load_state
from nt_jax.data.sampling.pipeline import make_loader
from nt_jax.errors import DivergedError, InputError
from nt_jax.families.denoiser import release as denoiser_release
from nt_jax.families.denoiser import state as denoiser_state
from nt_jax.families.denoiser import step as denoiser_step
from nt_jax.families.denoiser import task as denoiser_task
from nt_jax.images import Photo, write_photo
from nt_jax.main import print_summary
from nt_jax.models.denoisers import layout_of, make_denoiser
from nt_jax.models.parameters import unstack
from nt_jax.models.ridnet import RIDNet
from nt_jax.models.unet import UNet
from nt_jax.training import loop
from nt_jax.training.loop import train_and_evaluate
from nt_jax.training.optimizer import learning_rate

condition_of = jax.jit(denoiser_step.condition_of)


def mesh_of(devices: int) -> Mesh:
    return Mesh(np.array(jax.devices()[:devices]), ("data",))


@pytest.fixture(scope="module")
def noise_model(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


def smoke(noise="gaussian", **train):
    config = get_config(f"{noise}-smoke")
    config.train.update(train)
    return config


def lines(workdir: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


# --- Loss, schedule, step ------------------------------------------------------------------------


def test_loss_by_hand():
    denoised = jnp.array([[0.5, 0.25], [1.5, -0.25]])
    clean = jnp.array([[0.25, 0.5], [1.0, 0.0]])
    assert denoiser_step.l1_loss(denoised, clean) == (0.25 + 0.25 + 0.5 + 0.25) / 4
    off = jnp.array([0.1, 0.001, 0.0]).reshape(3, 1, 1, 1)
    images = jnp.broadcast_to(clean[..., None], (3, 2, 2, 1))
    expected = np.mean(np.log([1e-2 + 1e-6, 2e-6, 1e-6]))
    assert denoiser_step.psnr_loss(images + off, images) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", denoiser_step.LOSSES)
def test_gradient_of_a_loss(name):
    rng = np.random.default_rng(0)
    clean, denoised = (jnp.asarray(rng.random((2, 4, 4, 3)), jnp.float32) for _ in range(2))
    check_grads(
        lambda x: denoiser_step.LOSSES[name](x, clean), (denoised,), 1, ["rev"], eps=1e-3, rtol=2e-2
    )


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        (0, 1e-4),
        (749_999, 1e-4),
        (750_000, 5e-5),
        (849_999, 5e-5),
        (850_000, 2.5e-5),
        (950_000, 1.25e-5),
        (999_999, 1.25e-5),
    ],
)
def test_learning_rate_is_halved_after_epochs_150_170_190(done, expected):
    assert learning_rate(get_config("real").train)(done) == pytest.approx(expected)


@pytest.fixture(scope="module")
def stepped():
    """(config, network, batch, states before and after two steps, metrics of the second)."""
    config = smoke(batch_size=2, l2=1e-2, halve_at=(1,))
    network = denoiser_state.make_network(config)
    rng = np.random.default_rng(0)
    clean = rng.random((2, 24, 24, 3), np.float32)
    noisy = clean + rng.normal(0, 0.1, clean.shape).astype(np.float32)
    batch = {"clean": jnp.asarray(clean), "noisy": jnp.asarray(noisy)}
    step = denoiser_step.jit_train_step(config, network, None, mesh_of(1))
    init = jax.jit(partial(denoiser_state.init_state, config, network))
    states = [jax.device_get(init(jax.random.key(3)))]
    for number in range(2):
        state, metrics = step(states[-1], batch, jax.random.key(number))
        states.append(jax.device_get(state))
    return config, network, batch, states, metrics


def test_steps_are_those_written_plainly(stepped):
    _, network, batch, states, metrics = stepped
    layout = layout_of(network)
    clean, noisy = (batch[name][:, 4:20, 4:20] for name in ("clean", "noisy"))

    @jax.jit
    def loss_and_gradient(tree):
        def loss_of(tree):
            return jnp.mean(jnp.abs(network.apply({"params": tree}, noisy) - clean))

        return jax.value_and_grad(loss_of)(tree)

    params = jax.tree.map(np.asarray, unstack(states[0].params, layout))
    first = second = jax.tree.map(np.zeros_like, params)
    average = params
    for t, rate in ((1, 1e-3), (2, 5e-4)):
        loss, gradient = loss_and_gradient(params)
        gradient = jax.tree.map(lambda g, p: np.asarray(g) + 1e-2 * p, gradient, params)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradient)
        params = jax.tree.map(
            lambda p, m, v, t=t, rate=rate: (
                p - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            ),
            params,
            first,
            second,
        )
        decay = min(0.99, t / (9 + t))
        average = jax.tree.map(lambda a, p, d=decay: d * a + (1 - d) * p, average, params)
    assert metrics["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert metrics["learning_rate"] == pytest.approx(5e-4)
    for expected, stacks in ((params, states[2].params), (average, states[2].average)):
        jax.tree.map(
            lambda e, f: np.testing.assert_allclose(f, e, atol=2e-6),
            expected,
            unstack(stacks, layout),
        )
    assert int(states[2].step) == 2
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), states[0], states[2])
    assert min(jax.tree.leaves(moved.params)) > 1e-4


def test_two_devices_do_what_one_does(stepped):
    config, network, batch, states, _ = stepped
    step = denoiser_step.jit_train_step(config, network, None, mesh_of(2))
    state, _ = step(states[0], batch, jax.random.key(0))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state.params, states[1].params
    )


def test_bfloat16_is_of_the_convolutions_only(stepped, noise_model):
    config = smoke("generated")
    config.denoiser.model, config.model.dtype = str(noise_model), "bfloat16"
    network, model = denoiser_state.make_network(config), denoiser_task._load_generator(config)
    batch = {name: jnp.zeros((2, 24, 24, 3)) for name in ("clean", "reference")}
    before = stepped[3][0]
    trace = jax.make_jaxpr(
        lambda state, batch: denoiser_step.train_step(
            config, network, model, state, model.params, batch, jax.random.key(0)
        ),
        return_shape=True,
    )
    jaxpr, (after, metrics) = trace(before, batch)
    assert {leaf.dtype for leaf in jax.tree.leaves(after.params)} == {jnp.dtype(jnp.float32)}
    assert metrics["loss"].dtype == jnp.float32
    convolutions = [line for line in str(jaxpr).splitlines() if "conv_general_dilated[" in line]
    assert convolutions
    assert all("bf16" in line for line in convolutions)


def test_a_cosine_falls_from_the_rate_to_0():
    train = get_config("blind").train
    rates = [float(learning_rate(train)(train.steps * part)) for part in (0, 0.5, 1)]
    np.testing.assert_allclose(rates, [5e-4, 2.5e-4, 0], atol=1e-9)


# --- Generated noise -----------------------------------------------------------------------------


def generated(model, batch, key):
    make = jax.jit(partial(denoiser_step.generate, model))
    return make(model.params, batch, key)


def test_generated_noise_is_the_models(noise_model):
    config = smoke("generated")
    config.denoiser.model = str(noise_model)
    task = denoiser_task.DenoiserTask(config)
    assert task.inputs == ("clean", "reference")  # true noisy images are not looked at
    clean = np.stack([data.astronaut()[:24, :24], data.rocket()[:24, :24]]) / np.float32(255)
    reference = data.coffee()[40:64, :48].reshape(2, 24, 24, 3) / np.float32(255)
    key = jax.random.key(7)
    batch = {"clean": jnp.asarray(clean), "reference": jnp.asarray(reference)}
    found = generated(task._generator, batch, key)
    model = nt_jax.load(noise_model)
    # On patches reflected by 16 pixels, so that the generator's frame is cut off.
    padded = np.pad(clean, ((0, 0), (16, 16), (16, 16), (0, 0)), mode="reflect")
    map_key, _ = jax.random.split(key)
    maps = model.sample_maps(map_key, (2, 56, 56))
    noise = model.generate_noise(padded, model.embed(reference), maps)[:, 16:-16, 16:-16]
    expected = np.clip(clean + noise, 0, 1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(found - clean).max() > 0.01

    state = jax.jit(task.init)(jax.random.key(0))
    params = unstack(state.params, layout_of(task._network))
    denoised = jax.jit(task._network.apply)({"params": params}, expected[:, 4:20, 4:20])
    _, metrics = task.make_step(mesh_of(1))(state, batch, key)
    loss = np.abs(denoised - clean[:, 4:20, 4:20]).mean()
    assert metrics["loss"] == pytest.approx(loss, rel=1e-4)


def test_generated_noise_is_calibrated_where_the_model_can_read(tmp_path):
    folder = save_tiny(tmp_path / "reads", reader=True)
    config = smoke("generated")
    config.denoiser.model = str(folder)
    noise_model = denoiser_task.DenoiserTask(config)._generator
    clean = np.full((1, 24, 24, 3), 0.5, np.float32)
    reference = data.coffee()[None, 40:64, :24] / np.float32(255)
    batch = {"clean": jnp.asarray(clean), "reference": jnp.asarray(reference)}
    key = jax.random.key(7)
    found = generated(noise_model, batch, key) - clean
    off = dataclasses.replace(
        noise_model,
        networks=noise_model.networks._replace(
            discriminator=noise_model.networks.discriminator.clone(readings=0)
        ),
    )
    raw = generated(off, batch, key) - clean
    inside = (jnp.abs(found) < 0.49) & (jnp.abs(raw) < 0.49)
    ratio = jnp.where(inside, found, 0).std((1, 2)) / jnp.where(inside, raw, 0).std((1, 2))
    model = nt_jax.load(folder)
    # Measured with other random maps.
    np.testing.assert_allclose(ratio[0], model.reference_noise(reference[0]).gain, rtol=0.35)
    assert np.abs(np.log(ratio)).max() > 0.05


def test_references_are_other_images(tmp_path):
    for level, name in ((40, "a"), (120, "b"), (200, "c")):
        for kind in ("gt", "noisy"):
            image = np.full((32, 32, 3), level + (kind == "noisy"), np.uint8)
            write_photo(tmp_path / f"{name}_{kind}.png", Photo(image))
    config = get_config("generated-smoke")
    config.data.pairs = str(tmp_path)
    batches = make_loader(config.data, batch_size=64, seed=0, mesh=mesh_of(1))(0)
    batch = next(batches)
    clean, reference = (np.rint(255 * batch[n][:, 0, 0, 0]) for n in ("clean", "reference"))
    pairs = set(zip(clean.tolist(), reference.tolist(), strict=True))
    assert pairs == {(x, y + 1) for x in (40, 120, 200) for y in (40, 120, 200) if x != y}


def test_other_images_need_two_pairs(tmp_path):
    for kind in ("gt", "noisy"):
        write_photo(tmp_path / f"a_{kind}.png", Photo(np.zeros((32, 32, 3), np.uint8)))
    config = get_config("generated-smoke")
    config.data.pairs = str(tmp_path)
    with pytest.raises(InputError, match="two pairs or more"):
        make_loader(config.data, batch_size=8, seed=0, mesh=mesh_of(1))


# --- Runs ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Workdir and summary of an uninterrupted run on strong Gaussian noise."""
    workdir = tmp_path_factory.mktemp("runs") / "uninterrupted"
    return workdir, train_and_evaluate(learning(), workdir)


def learning(steps=40):
    config = smoke(steps=steps, learning_rate=3e-3, halve_at=(30,), checkpoint_every=10)
    config.eval.every = 10
    config.data.sigma_range = (50.0, 50.0)
    return config


def test_the_loss_falls_and_the_result_is_cleaner_than_the_input(finished):
    workdir, summary = finished
    losses = [line["loss"] for line in lines(workdir)[1:]]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert summary["end"]["eval/psnr"] > summary["end"]["eval/noisy_psnr"] + 1
    assert summary["end"]["eval/gaussian/psnr"] == summary["end"]["eval/psnr"]
    assert summary["end"]["eval/noisy_psnr"] == pytest.approx(15, abs=1)


def test_a_run_leaves_its_files(finished, capsys):
    workdir, summary = finished
    assert json.loads((workdir / "summary.json").read_text()) == summary
    assert [line["step"] for line in lines(workdir)] == list(range(41))
    assert {p.name for p in (workdir / "samples").iterdir()} == {
        "curves.png",
        *(f"step_{step:07d}.png" for step in range(0, 41, 10)),
    }
    print_summary(summary, workdir, denoiser_task.DenoiserTask.titles)
    assert "PSNR of the denoised, dB" in capsys.readouterr().out


def test_resuming_changes_nothing(finished, tmp_path):
    train_and_evaluate(learning(steps=20), tmp_path)
    train_and_evaluate(learning(), tmp_path)
    whole, resumed = (load_state(workdir)[2] for workdir in (finished[0], tmp_path))
    assert jax.tree.structure(whole) == jax.tree.structure(resumed)
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)
    assert lines(tmp_path) == lines(finished[0])


def test_the_workdir_loads_as_a_denoiser(finished):
    workdir, summary = finished
    loaded = nt_jax.load_denoiser(workdir)
    assert loaded.network == RIDNet(16, 1)
    assert loaded.metadata["step"] == 40
    task = denoiser_task.DenoiserTask(learning())
    held_out = task._held_out
    scores = nt_jax.metrics.psnr(held_out.clean, loaded(held_out.noisy))
    assert np.mean(scores) == pytest.approx(summary["end"]["eval/psnr"], abs=1e-3)


def test_what_a_denoiser_is_conditioned_on():
    """The noise's spectrum with errors as the reader's, or nothing."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.5, (1, 64, 64, 3)).astype(np.float32)  # no detail is as strong
    true = spectra.measure(noise).values[0]
    count = 400
    found = np.asarray(condition_of(np.broadcast_to(noise, (count, 64, 64, 3)), prng.key(0)))
    assert found.shape == (count, spectra.CONDITIONS)
    known = found[:, -1] == 1
    assert (found[~known] == 0).all()
    assert known.mean() == pytest.approx(0.75, abs=0.08)
    errors = found[known, :-1] - true
    assert errors.mean(1).std() == pytest.approx(0.085, rel=0.2)  # of all rings, and 1/4 of each's
    assert (errors - errors.mean(1, keepdims=True)).std() == pytest.approx(0.107, rel=0.1)
    assert np.abs(errors.mean(0)).max() < 0.03
    np.testing.assert_array_equal(denoiser_step.condition_of(noise)[0], [*true, 1])


def test_detail_is_taken_for_noise_where_that_is_weak():
    noise = np.random.default_rng(0).normal(0, 0.2 / 255, (1, 64, 64, 3)).astype(np.float32)
    true = spectra.measure(noise).values[0]
    found = np.asarray(condition_of(np.broadcast_to(noise, (400, 64, 64, 3)), prng.key(0)))
    more = (found[found[:, -1] == 1, :-1] - true).mean(1)
    is_misread = more > 0.5
    assert is_misread.mean() == pytest.approx(0.5, abs=0.1)
    assert np.abs(more[~is_misread]).max() < 0.5
    found = found[found[:, -1] == 1][is_misread]
    amplitudes = np.exp(np.median(spectra.decode(found[:, :-1]), axis=0))
    np.testing.assert_allclose(amplitudes[[0, 7, 8]], [3.1, 0.8, 3.1], rtol=0.3)


def test_a_ring_that_a_patch_has_not_is_told_as_the_middle_of_all():
    noise = np.random.default_rng(0).normal(0, 0.05, (8, 16, 16, 3)).astype(np.float32)
    known = np.asarray(spectra.measure(noise).known)
    found = np.asarray(condition_of(noise, prng.key(0)))
    assert not known.all()
    assert (found[:, :-1][~known] == 0).all()


def test_conditioning_begins_as_the_blind_denoiser(tmp_path):
    config = get_config("blind-smoke")
    config.train.steps, config.train.ema_decay = 1, 0.0
    train_and_evaluate(config, tmp_path / "blind")
    release(tmp_path / "blind", tmp_path / "folder")
    config.model.conditioned = True
    task = denoiser_task.DenoiserTask(config)
    layout = layout_of(denoiser_state.make_network(config))
    for source in ("blind", "folder"):
        step, networks = task.networks_of(str(tmp_path / source))
        assert step == 1
        begun = unstack(networks["params"], layout)
        blind = nt_jax.load_denoiser(tmp_path / source).params
        for name, layer in begun.items():
            for part in ("condition", "gain"):
                assert layer[part].shape == (spectra.CONDITIONS, layer["bias"].size)
                assert not np.any(layer[part])
            for part in ("kernel", "bias"):
                np.testing.assert_allclose(layer[part], blind[name][part], atol=1e-3)


def test_a_conditioned_run_resumes_exactly_and_loads(tmp_path):
    config = get_config("blind-smoke")
    config.model.conditioned = True
    config.train.keep_checkpoints = 3
    whole = train_and_evaluate(config, tmp_path)["end"]
    state, written = load_state(tmp_path)[2], lines(tmp_path)
    for step in (4, 6):
        shutil.rmtree(tmp_path / "checkpoints" / str(step))
    assert train_and_evaluate(config, tmp_path)["end"] == whole
    jax.tree.map(np.testing.assert_array_equal, state, load_state(tmp_path)[2])
    assert lines(tmp_path) == written
    loaded = nt_jax.load_denoiser(tmp_path)
    assert loaded.network == UNet(16, 1, conditions=spectra.CONDITIONS)
    for part in ("condition", "gain"):
        assert np.abs(loaded.params["head"][part]).max() > 0
    # Runs of before there were gains.
    saved, _, older = load_state(tmp_path)
    older["average"] = {name: leaf for name, leaf in older["average"].items() if "gain" not in name}
    head = denoiser_release.released(saved, older)[1]["denoiser"]["head"]
    assert not np.any(head["gain"])
    np.testing.assert_array_equal(head["condition"], loaded.params["head"]["condition"])
    assert loaded.metadata["kind"] == "unet"
    held_out = denoiser_task.DenoiserTask(config)._held_out
    condition = condition_of(held_out.noisy - held_out.clean)
    denoised = jax.jit(loaded.network.apply)({"params": loaded.params}, held_out.noisy, condition)
    scores = np.asarray(nt_jax.metrics.psnr(held_out.clean, np.clip(denoised, 0, 1)))
    kinds = np.array(held_out.kind)
    by_kind = [scores[kinds == kind].mean() for kind in set(kinds)]
    assert np.mean(by_kind) == pytest.approx(whole["eval/psnr"], abs=1e-3)
    with pytest.raises(InputError, match="blind, its only strength is 1"):
        loaded(data.chelsea()[:64, :64], strength=2)

    metadata = join_denoiser(str(tmp_path), "small", tmp_path / "joined")
    assert metadata["step"] == 6
    joined = nt_jax.load_denoiser(tmp_path / "joined")
    assert joined.reader.patch_size == nt_jax.load("small").reference_crop
    with pytest.raises(InputError, match="has no reader of its own"):
        join_denoiser(str(tmp_path), str(save_tiny(tmp_path / "model")), tmp_path / "no")
    assert not (tmp_path / "no").exists()
    photo = data.chelsea()[:128, :128]
    results = [joined(photo, strength=strength) for strength in (0.5, 1, 2)]
    for one, other in itertools.pairwise([loaded(photo), *results]):
        assert np.abs(one - other).max() > 1e-6


def test_no_reader_joins_a_blind_denoiser(tmp_path):
    with pytest.raises(InputError, match="small-ridnet is blind: train it with"):
        join_denoiser("small-ridnet", "small", tmp_path / "joined")


@pytest.mark.parametrize("kind", ["dncnn", "ffdnet", "ridnet"])
def test_a_blind_denoiser_may_be_of_any_kind(kind, tmp_path):
    config = get_config("blind-smoke")
    config.model.kind, config.train.steps = kind, 1
    train_and_evaluate(config, tmp_path)
    loaded = nt_jax.load_denoiser(tmp_path)
    assert loaded.network == make_denoiser(kind, 16, 1)


def test_a_run_from_before_there_were_kinds_goes_on_and_loads(tmp_path):
    train_and_evaluate(learning(steps=2), tmp_path)
    for file in [tmp_path / "config.json", *tmp_path.glob("checkpoints/*/config/metadata")]:
        text = file.read_text()
        config = json.loads(text)
        assert config["model"].pop("kind") == "ridnet"
        file.write_text(json.dumps(config))
    assert nt_jax.load_denoiser(tmp_path).network == RIDNet(16, 1)
    train_and_evaluate(learning(steps=3), tmp_path)
    assert nt_jax.load_denoiser(tmp_path).metadata["step"] == 3


def test_true_pairs_are_their_share_of_a_blind_batch(tmp_path):
    for name in "ab":
        for kind in ("gt", "noisy"):
            image = np.full((32, 32, 3), 100 + (kind == "noisy"), np.uint8)
            write_photo(tmp_path / f"{name}_{kind}.png", Photo(image))
    config = get_config("blind-smoke")
    config.data.pairs = str(tmp_path)
    batch = next(make_loader(config.data, batch_size=40, seed=0, mesh=mesh_of(1))(0))
    assert "reference" not in batch
    real = np.asarray(batch["kind"]) == 0
    assert real.sum() == 16
    np.testing.assert_allclose(batch["noisy"][real] - batch["clean"][real], 1 / 255, atol=1e-6)


def test_each_kind_says_what_it_is(finished, noise_model, tmp_path):
    with pytest.raises(InputError, match="of kind ridnet, not a noise transfer model"):
        nt_jax.load(finished[0])
    with pytest.raises(InputError, match="of kind noisetransfer, not a denoiser"):
        nt_jax.load_denoiser(noise_model)
    with pytest.raises(InputError, match="another kind of model"):
        train_and_evaluate(noisetransfer.get_config("smoke"), finished[0])
    config = learning()
    config.model.blocks = 2
    with pytest.raises(InputError, match=r"config\.model\.blocks=1, not 2"):
        train_and_evaluate(config, finished[0])


def test_a_non_finite_loss_ends_the_run(tmp_path):
    def broken_loader(*args, **kwargs):
        batches = make_loader(*args, **kwargs)
        return lambda start: (b | {"noisy": b["noisy"] * np.nan} for b in batches(start))

    with (
        mock.patch.object(loop, "make_loader", broken_loader),
        pytest.raises(DivergedError, match="step 1 is not finite"),
    ):
        train_and_evaluate(learning(), tmp_path)


# --- Recipes and wrong configs -------------------------------------------------------------------


def test_recipes():
    for noise in ("generated", "real", "synthetic", "gaussian", "camera"):
        config = get_config(noise)
        assert config.train.l2 == (1e-5 if noise in ("generated", "real") else 1e-6)
        assert (config.train.batch_size, config.train.steps) == (32, 1_000_000)
        assert config.data.patch_size - 2 * config.denoiser.crop == 80
        assert get_config(f"{noise}-small").denoiser == config.denoiser
    assert get_config("smoke") == get_config("gaussian-smoke")
    for wrong in ("salt", "real-big", "smoke-small"):
        with pytest.raises(InputError, match=f"no config argument '{wrong}'"):
            get_config(wrong)


@pytest.mark.parametrize(
    ("noise", "change", "message"),
    [
        ("real", {}, r"give --config\.data\.pairs"),
        ("generated", {"denoiser.model": "nosuch"}, "no model nosuch"),
        ("generated", {"data.real_reference": "none"}, "needs references: choose from same_image"),
        ("gaussian", {"denoiser.noise": "none"}, "choose from generated, real, synthetic"),
        ("gaussian", {"denoiser.crop": 9}, "crop=9"),
        ("gaussian", {"model.width": 24}, "24 features: use a multiple of 16"),
        ("gaussian", {"model.blocks": 0}, "blocks=0"),
        ("gaussian", {"model.kind": "vdn"}, "kind='vdn': choose from ridnet, unet"),
        ("gaussian", {"model.kind": "unet", "denoiser.crop": 2}, "20 pixels .* multiple of 8"),
        ("gaussian", {"model.conditioned": True}, "a ridnet has no condition: choose unet"),
        ("gaussian", {"model.finest_blocks": 2}, "a ridnet has no finest level: choose unet"),
        ("gaussian", {"train.decay": "linear"}, "choose from halve, cosine"),
        ("gaussian", {"model.dtype": "float16"}, "dtype='float16'"),
        ("gaussian", {"train.batch_size": 0}, "batch_size=0"),
        ("gaussian", {"train.halve_at": (0,)}, "halve_at"),
        ("gaussian", {"data.noise_kinds": ("salt",)}, "salt"),
    ],
)
def test_a_config_that_cannot_run_makes_no_workdir(noise, change, message, tmp_path):
    config = smoke(noise)
    config.update_from_flattened_dict(change)
    with pytest.raises(InputError, match=message):
        train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()

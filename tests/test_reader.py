"""A network of its own that reads noise: its loss, its training, and the model that it joins."""

import json
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from skimage import data
from tiny_models import save_tiny

import nt_jax
from experiments.release_model import join_reader
from nt_jax import readings
from nt_jax.checkpointing import load_state
from nt_jax.configs.reader import get_config
from nt_jax.errors import InputError
from nt_jax.families.reader.task import ReaderTask, laplace
from nt_jax.models.biased import init_biased
from nt_jax.models.noise_reader import NoiseReader, NoiseReaderOutputs, read_noise
from nt_jax.training.loop import train_and_evaluate

PHOTO = data.chelsea()[:96, :96]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("reader")
    train_and_evaluate(get_config("smoke"), workdir)
    return workdir


@pytest.fixture
def blind(tmp_path):
    """A model without a head, whose references are cut to the patches of the smoke recipe."""
    folder = save_tiny(tmp_path / "blind")
    about = json.loads((folder / "model.json").read_text()) | {"reference_crop": 24}
    (folder / "model.json").write_text(json.dumps(about))
    return folder


def test_loss_by_hand():
    """|x - y| / b + log b, without what is not known."""
    outputs = NoiseReaderOutputs(jnp.array([[1.0, 2.0, 9.0]]), jnp.array([[0.5, 2.0, 1.0]]))
    measured = readings.Measured(jnp.array([[0.0, 5.0, 0.0]]), jnp.array([[True, True, False]]))
    expected = (1 / 0.5 + np.log(0.5) + 3 / 2.0 + np.log(2.0)) / 2
    np.testing.assert_allclose(laplace(outputs, measured), expected, rtol=1e-6)


def test_gradient_of_the_loss():
    measured = readings.Measured(jnp.zeros((2, 3)), jnp.ones((2, 3), bool))
    key = jax.random.key(0)
    values, spread = jax.random.normal(key, (2, 3)), 0.5 + jax.random.uniform(key, (2, 3))
    check_grads(
        lambda v, s: laplace(NoiseReaderOutputs(v, s), measured),
        (values, spread),
        order=1,
        modes=["rev"],
        rtol=0.02,
    )


def test_network_tells_weak_noise_from_none():
    """Untrained: noise of one grey level moves what it reads by more than the brightness does."""
    network = NoiseReader(8)
    params = init_biased(jax.random.key(0), network)
    flat = np.full((32, 32, 3), 0.5, np.float32)
    noise = np.random.default_rng(0).normal(size=flat.shape) / 255
    images = np.stack([flat, flat + noise, flat + 1 / 255]).astype(np.float32)
    values = np.asarray(jax.jit(partial(read_noise, network))(params, images).values)
    assert values.shape == (3, readings.SIZE)
    assert np.abs(values[1] - values[0]).mean() > 3 * np.abs(values[2] - values[0]).mean()


def test_crops_of_an_image_are_read_together():
    """As one plane without borders between them: not as the mean of what each says."""
    network = NoiseReader(8)
    params = init_biased(jax.random.key(0), network)
    read = jax.jit(partial(read_noise, network))
    crops = np.stack([PHOTO[y : y + 32, x : x + 32] for y in (0, 64) for x in (0, 64)])
    crops = crops / np.float32(255)
    alone, together = read(params, crops), read(params, np.stack([crops, crops[::-1]]))
    assert together.values.shape == together.spread.shape == (2, readings.SIZE)
    np.testing.assert_allclose(together.values[0], together.values[1], atol=1e-5)
    assert np.abs(together.values[0] - alone.values.mean(0)).max() > 1e-3
    repeated = read(params, np.repeat(crops[:, None], 3, axis=1))
    np.testing.assert_allclose(repeated.values, alone.values, atol=1e-5)
    np.testing.assert_allclose(repeated.spread, alone.spread, rtol=1e-5)


def test_training_lowers_the_error(run):
    summary = json.loads((run / "summary.json").read_text())
    assert summary["end"]["eval/level_error"] < summary["start"]["eval/level_error"]


def test_training_begins_with_a_reader_of_other_numbers(run, tmp_path, capsys):
    config = get_config("smoke")
    config.model.reads = "spectrum"
    config.train.init_from = str(run)
    config.train.steps = config.eval.every = config.train.checkpoint_every = 20
    config.train.learning_rate = 3e-3
    train_and_evaluate(config, tmp_path / "spectrum")
    assert "reads readings, not spectrum: the last layer begins at 0" in capsys.readouterr().out
    summary = json.loads((tmp_path / "spectrum" / "summary.json").read_text())
    before, after = (summary[when]["eval/spectrum_error"] for when in ("start", "end"))
    assert after < 0.9 * before
    assert "eval/level_error" not in summary["end"]


def test_training_begins_with_a_narrower_reader(run, tmp_path, capsys):
    config = get_config("smoke")
    config.model.width = 6
    config.train.init_from = str(run)
    task = ReaderTask(config)
    _, state = task.networks_of(str(run))
    assert "has width 4, not 6: it is widened" in capsys.readouterr().out
    _, _, narrow = load_state(run)
    patches = PHOTO[:24].reshape(24, 4, 24, 3).swapaxes(0, 1).astype(np.float32) / 255
    for name in ("params", "average"):
        wide = jax.jit(partial(read_noise, NoiseReader(6)))(state[name], patches)
        expected = jax.jit(partial(read_noise, NoiseReader(4)))(narrow[name], patches)
        np.testing.assert_allclose(wide.values, expected.values, atol=1e-5)
        np.testing.assert_allclose(wide.spread, expected.spread, atol=1e-5)

    # What is new is not stuck: what was there learns to see it.
    def loss_of(params):
        return jnp.square(read_noise(NoiseReader(6), params, patches).values).sum()

    gradient = jax.jit(jax.grad(loss_of))(state["params"])
    for name in gradient.keys() - {"first"}:
        assert np.abs(gradient[name]["kernel"][:, :, -1, 0]).max() > 0, name
    config.model.width = 2
    with pytest.raises(InputError, match="has other sizes"):
        train_and_evaluate(config, tmp_path / "narrower")


def test_a_model_reads_and_calibrates_by_the_reader_it_is_given(run, blind, tmp_path):
    before = nt_jax.load(blind)
    assert not before.can_read
    metadata = join_reader(str(blind), str(run), tmp_path / "joined")
    assert metadata["noise_reader"]["step"] == 6
    model = nt_jax.load(tmp_path / "joined")
    crops = np.stack([PHOTO[y : y + 24, x : x + 24] for y in range(0, 96, 24) for x in (0, 24)])
    outputs = jax.jit(partial(read_noise, model.networks.reader))(
        model.params["noise_reader"], crops.astype(np.float32) / 255
    )
    level = np.exp(np.asarray(readings.decode(outputs.values).log_level))
    reading = model.read_noise(PHOTO[:, :48])
    np.testing.assert_allclose(reading.level, 255 * np.sqrt(np.square(level).mean(0)), rtol=1e-3)
    noise = model.reference_noise(PHOTO)
    assert noise.reading is not None
    assert (noise.gain != 1).all()
    raw = model.reference_noise(PHOTO, calibrate=False)
    np.testing.assert_array_equal(raw.gain, 1)
    np.testing.assert_allclose(raw.embedding, before.embed(PHOTO), atol=2e-3)  # 16 bits

    # Of a model that has one, to another.
    again = join_reader(str(blind), str(tmp_path / "joined"), tmp_path / "again")
    assert again == metadata
    params = nt_jax.load(tmp_path / "again").params
    same = np.testing.assert_array_equal
    jax.tree.map(same, params["noise_reader"], model.params["noise_reader"])

    batch = {name: np.float32(PHOTO[None, :48, :48]) / 255 for name in ("clean", "reference")}
    ours, others = (
        jax.jit(lambda key, it=it: it.noise(it.params, batch, key))(jax.random.key(0))
        for it in (model, before)
    )
    assert np.abs(np.asarray(ours) - np.asarray(others)).max() > 1e-4


def test_what_cannot_be_joined(run, blind, tmp_path):
    with pytest.raises(InputError, match="a reader of noise is no model by itself"):
        nt_jax.load(run)
    with pytest.raises(InputError, match="has no reader of its own"):
        join_reader(str(blind), str(blind), tmp_path / "joined")
    (run.parent / "figureless").mkdir()
    shutil.copy(run / "config.json", run.parent / "figureless")
    with pytest.raises(InputError, match="it has no metrics"):
        join_reader(str(blind), str(run.parent / "figureless"), tmp_path / "joined")
    wide = save_tiny(tmp_path / "wide")
    with pytest.raises(InputError, match=r"patches of 24 pixels, but .* cuts references to 256"):
        join_reader(str(wide), str(run), tmp_path / "joined")
    assert not (tmp_path / "joined").exists()

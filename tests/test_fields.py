"""The one list of a config's fields: what they take, and what may change when a run resumes."""

import json
import math
import pathlib

import jax.numpy as jnp
import pytest

from nt_jax import fields
from nt_jax.configs import denoiser, noisetransfer, quickstart
from nt_jax.errors import InputError
from nt_jax.families.noisetransfer import moco
from nt_jax.training.loop import train_and_evaluate

DOCS = pathlib.Path(__file__).parents[1] / "docs" / "reliability.md"
RECIPES = {
    "noisetransfer": noisetransfer.get_config,
    "denoiser": denoiser.get_config,
}
EACH = [(recipe, name) for recipe, of in RECIPES.items() for name in fields.fields_of(of("smoke"))]


def config_of(recipe, name=None, value=None):
    config = RECIPES[recipe]("smoke")
    with config.unlocked(), config.ignore_type():
        if name:
            section, _, field = name.rpartition(".")
            setattr(config[section] if section else config, field, value)
    return config


def flat(config):
    return fields._flat(json.loads(config.to_json()))


def test_every_field_of_every_recipe_is_declared():
    recipes = [noisetransfer.get_config(arg) for arg in noisetransfer._RECIPES]
    recipes += [denoiser.get_config(arg) for arg in ("generated", "real", "camera", "smoke")]
    for config in (*recipes, quickstart.get_config()):
        fields.check_fields(config)
        assert set(flat(config)) == set(fields.fields_of(config))


@pytest.mark.parametrize(("recipe", "name"), EACH)
def test_what_no_field_takes_is_one_line_that_names_it(recipe, name):
    wrong = [None, object, math.nan, -math.inf, math.inf, [math.nan], {"a": 1}]
    wrong += [-2] if name != "data.pair_clean_fraction" else []
    if isinstance(flat(config_of(recipe))[name], int | float):
        wrong += ["1", (1,), b"1"]
    else:
        wrong += [1.5, 0]
    for value in wrong:
        with pytest.raises(InputError, match=f"config.{name}=") as caught:
            fields.check_fields(config_of(recipe, name, value))
        assert "\n" not in str(caught.value)


ZEROS = {"variant.power_iterations", "model.queue_length", "model.width", "model.embedding_size"}
ZEROS |= {"losses.temperature", "train.batch_size", "train.log_every", "eval.patches"}


@pytest.mark.parametrize("name", sorted(ZEROS))
def test_zero_where_there_must_be_something_makes_no_workdir(name, tmp_path):
    with pytest.raises(InputError, match=f"config.{name}=0"):
        train_and_evaluate(config_of("noisetransfer", name, 0), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_fields_that_contradict_each_other_make_no_workdir(tmp_path):
    config = config_of("noisetransfer", "data.sigma_range", (20.0, 10.0))
    with pytest.raises(InputError, match=r"config.data.sigma_range: needs \(low, high\)"):
        train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_missing_field_or_section_is_named():
    config = config_of("noisetransfer")
    with config.unlocked():
        del config.train.l2
    with pytest.raises(InputError, match=r"has no field train\.l2"):
        fields.check_fields(config)
    with config.unlocked(), config.ignore_type():
        config.train = 3
    with pytest.raises(InputError, match=r"has no field train\."):
        fields.check_fields(config)


@pytest.mark.parametrize(("recipe", "name"), EACH)
def test_what_may_change_when_a_run_resumes(recipe, name):
    saved = json.loads(config_of(recipe).to_json())
    section, _, field = name.rpartition(".")
    other = json.loads(json.dumps(saved))
    (other[section] if section else other)[field] = "another"
    if section in ("model", "variant", "denoiser") or name in ("family", "train.batch_size"):
        with pytest.raises(InputError, match=f"step 7 has config.{name}="):
            fields.check_resume(7, saved, other)
    else:
        (line,) = fields.check_resume(7, saved, other)
        assert line.startswith(f"{name}=another (was ")


def test_an_average_cannot_begin_or_end_on_the_way():
    config = config_of("noisetransfer")
    saved = json.loads(config.to_json())
    other = json.loads(json.dumps(saved))
    other["train"]["ema_decay"] = 0.5
    assert fields.check_resume(1, saved, other)
    other["train"]["ema_decay"] = 0.0
    with pytest.raises(InputError, match="there is no average"):
        fields.check_resume(1, saved, other)


def test_a_field_that_came_later_and_is_off_does_not_matter():
    saved = json.loads(config_of("noisetransfer").to_json())
    before = json.loads(json.dumps(saved))
    del before["model"]["reader"]
    saved["model"]["reader"] = False
    assert fields.check_resume(1, before, saved) == []
    saved["model"]["reader"] = True
    with pytest.raises(InputError, match="reader"):
        fields.check_resume(1, before, saved)


def test_the_docs_say_what_is_kept():
    text = DOCS.read_text()
    for name in (*fields.KEPT, *fields.KEPT_IF_ZERO):
        assert f"`{name}" in text, name


@pytest.mark.parametrize("batch", [4, 16])
def test_another_batch_does_not_resume(batch, tmp_path):
    config = config_of("denoiser")
    config.train.steps = config.eval.every = config.train.checkpoint_every = 1
    train_and_evaluate(config, tmp_path)
    config.train.batch_size, config.train.steps = batch, 2
    with pytest.raises(InputError, match=f"batch_size=8, not {batch}.*train.init_from"):
        train_and_evaluate(config, tmp_path)


def test_every_row_of_the_queue_is_written_again_whatever_the_pointer():
    """A run that went on with another batch size before it was refused leaves such a pointer."""
    queue, pointer = jnp.zeros((16, 2)), jnp.int32(12)
    for turn in range(3):
        queue, pointer = moco.enqueue(queue, pointer, jnp.full((8, 2), turn + 1.0))
    assert float(queue.min()) > 0
    assert int(pointer) % 8 == 0

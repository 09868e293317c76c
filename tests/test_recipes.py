"""Recipes by name: from a checkout, from an installed package, from a project with its own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from nt_jax import configs, main
from nt_jax.configs.denoiser import get_config
from nt_jax.data.sampling.tables import make_tables
from nt_jax.errors import InputError

REPOSITORY = Path(__file__).parents[1]


def parse(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["main", *arguments])
    return main.parse()


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("small", "configs/noisetransfer.py:small"),
        ("noisetransfer:small", "configs/noisetransfer.py:small"),
        ("noisetransfer", "configs/noisetransfer.py"),
        ("quickstart", "configs/quickstart.py"),
        ("denoiser:real-small", "configs/denoiser.py:real-small"),
        ("nt_jax/configs/denoiser.py:smoke", "configs/denoiser.py:smoke"),
        ("configs/denoiser.py:smoke", "configs/denoiser.py:smoke"),
    ],
)
def test_names_are_those_files(name, same, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    expected = parse(monkeypatch, f"--config={same}", "--workdir=w").config
    monkeypatch.chdir(tmp_path)  # where there is no checkout
    for arguments in ([f"--config={name}"], ["--config", name]):
        found = parse(monkeypatch, *arguments, "--config.seed=7", "--workdir=w").config
        assert found.seed == 7
        found.seed = expected.seed
        assert found.to_json() == expected.to_json()


def test_every_recipe_of_a_checkout_leads_to_the_package():
    assert {path.stem for path in (REPOSITORY / "configs").glob("*.py")} - {
        "__init__",
        "common",
    } == set(configs.names())


def test_a_file_that_exists_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    own = "from ml_collections import ConfigDict\ndef get_config(): return ConfigDict({'own': 1})\n"
    (tmp_path / "configs" / "denoiser.py").write_text(own)
    config = parse(monkeypatch, "--config=configs/denoiser.py", "--workdir=w").config
    assert config.to_dict() == {"own": 1}


@pytest.mark.parametrize("name", ["none", "none.py", "configs/none.py", "denoiser:none"])
def test_unknown_names(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="none"):
        parse(monkeypatch, f"--config={name}", "--workdir=w")


def test_a_project_with_a_package_called_configs(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").touch()
    code = (
        "import sys; sys.argv = ['main', '--workdir=w',"
        f" '--config={REPOSITORY}/configs/denoiser.py:smoke'];"
        "from nt_jax.main import parse; print(parse().config.train.steps)"
    )
    paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "6\n"), done.stderr


def test_one_pair_suffices_for_true_noise(tmp_path):
    for role in ("gt", "noisy"):
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / f"a_{role}.png")
    for size in ("", "-small", "-smoke"):
        config = get_config(f"real{size}")
        config.data.pairs, config.data.photos = str(tmp_path), ""
        config.data.patch_size = 24
        assert len(make_tables(config.data, 4).heights) == 1
    config = get_config("generated-smoke")
    config.data.pairs, config.data.photos, config.data.patch_size = str(tmp_path), "", 24
    with pytest.raises(InputError, match="other_image"):
        make_tables(config.data, 4)


def test_home_is_expanded_in_every_field(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    fields = ("data.photos", "data.cache", "data.camera_levels", "train.init_from", "eval.pairs")
    flags = [f"--config.{field}=~/x" for field in fields]
    arguments = parse(monkeypatch, "--config=smoke", "--workdir=~/run", *flags)
    assert arguments.workdir == tmp_path / "run"
    for field in fields:
        part, name = field.split(".")
        assert arguments.config[part][name] == str(tmp_path / "x")
    assert isinstance(arguments.config, ConfigDict)

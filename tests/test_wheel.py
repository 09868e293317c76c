"""The built wheel, in an environment of its own: the package, its models, recipes and command."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).parents[1]


def run(*command, cwd, code=0):
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Folder of an environment with the wheel, and this one's packages instead of downloads."""
    root = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", f"--wheel-dir={root}"]
    # Of a copy: building leaves files beside the sources.
    run("git", "clone", "--quiet", REPOSITORY, root / "source", cwd=root)
    run(*pip, *build, root / "source", cwd=root)
    [wheel] = root.glob("*.whl")
    venv.create(root / "env", symlinks=True)
    python = root / "env" / "bin" / "python"
    run(*pip, f"--python={python}", "install", "--quiet", "--no-deps", wheel, cwd=root)
    [packages] = (root / "env" / "lib").glob("*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return root / "env" / "bin"


def test_the_package_its_models_and_its_types(installed, tmp_path):
    code = (
        "import nt_jax, pathlib; root = pathlib.Path(nt_jax.__file__).parent; print(root);"
        "nt_jax.load('small'); nt_jax.load_denoiser(); assert (root / 'py.typed').exists()"
    )
    root = run(installed / "python", "-c", code, cwd=tmp_path).strip()
    assert Path(root).is_relative_to(installed.parent)


def test_the_command_denoises_and_knows_the_recipes_of_the_package(installed, tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (32, 32, 3)).astype(np.uint8)).save(tmp_path / "a.png")
    run(installed / "nt-jax", "denoise", "--input=a.png", "--output=b.png", cwd=tmp_path)
    assert Image.open(tmp_path / "b.png").size == (32, 32)
    recipe = ["--config=denoiser:smoke", "--workdir=run", "--config.data.photos=no photos"]
    said = run(installed / "nt-jax", "train", *recipe, cwd=tmp_path, code=2)
    assert "no photos" in said  # which is read after the recipe

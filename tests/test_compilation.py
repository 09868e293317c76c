"""Traced programs kept on disk: read back, never trusted when damaged; light commands."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import save_tiny, save_tiny_spectrum_reader

from nt_jax import compilation, spectra
from nt_jax.compilation import Program

HEAVY = {"orbax", "tensorflow", "tensorflow_datasets", "clu", "matplotlib", "scipy", "skimage"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(compilation, "_folder", tmp_path / "cache")
    return tmp_path / "cache"


class Scaled:
    """scale * x, counting how often it is traced."""

    def __init__(self, module="nt_jax.models.layers"):
        self.traces, self.module = 0, module

    def program(self):
        def scaled(scale, tree):
            self.traces += 1
            return {"values": scale * tree["x"], "sum": tree["x"].sum()}

        scaled.__module__ = self.module
        return Program(scaled)


def test_another_process_does_not_trace(folder):
    scaled, tree = Scaled(), {"x": np.arange(3.0, dtype=np.float32)}
    first = scaled.program()(2.0, tree)
    second = scaled.program()(2.0, tree)  # a new object knows nothing of the one before
    assert scaled.traces == 1
    np.testing.assert_array_equal(first["values"], [0, 2, 4])
    np.testing.assert_array_equal(second["values"], [0, 2, 4])
    assert second["sum"] == 3
    assert len(list(folder.iterdir())) == 1


def test_what_is_not_of_this_package_is_not_kept(folder):
    # Its source may change, and nothing here would know.
    scaled = Scaled("package_of_a_user")
    for traces in (1, 2):
        scaled.program()(2.0, {"x": np.ones(3, np.float32)})
        assert scaled.traces == traces
    assert not folder.exists()


def test_other_arguments_are_another_program(folder):
    scaled = Scaled()
    program = scaled.program()
    for scale, values in ((2.0, np.ones(3)), (3.0, np.ones(3)), (3.0, np.ones(4))):
        result = program(scale, {"x": values.astype(np.float32)})
        np.testing.assert_array_equal(result["values"], scale * values)
    assert scaled.traces == len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("content", [b"", b"nonsense" * 100])
def test_damaged_file_is_traced_again(folder, content):
    scaled, tree = Scaled(), {"x": np.ones(3, np.float32)}
    scaled.program()(2.0, tree)
    (file,) = folder.iterdir()
    file.write_bytes(content)
    np.testing.assert_array_equal(scaled.program()(2.0, tree)["values"], [2, 2, 2])
    assert scaled.traces == 2
    assert file.read_bytes() != content


def test_folder_that_cannot_be_written(folder):
    folder.write_text("a file")
    result = Scaled().program()(2.0, {"x": np.ones(3, np.float32)})
    np.testing.assert_array_equal(result["values"], [2, 2, 2])


def test_transformations_take_the_function_itself(folder):
    program = Scaled().program()
    gradient = jax.grad(lambda x: program(2.0, {"x": x})["values"].sum())(jnp.ones(3))
    np.testing.assert_array_equal(gradient, [2, 2, 2])
    assert not folder.exists()


@pytest.mark.parametrize(
    "work",
    [
        "nt_jax.load_denoiser()(image)",
        # To compile the bundled model takes long, and a tiny one is loaded and run the same way.
        "nt_jax.load(); nt_jax.load('tiny').transfer(image, reference=image)",
    ],
)
def test_bundled_models_need_no_heavy_library(work, tmp_path):
    save_tiny(tmp_path / "tiny", reader=True)
    save_tiny_spectrum_reader(tmp_path / "tiny", np.ones(spectra.SIZE))
    code = (
        "import json, sys; import numpy as np, nt_jax;"
        "import nt_jax.transfer, nt_jax.denoise;"
        f"image = np.full((16, 16, 3), 128, np.uint8); {work};"
        "print(json.dumps([name.split('.')[0] for name in sys.modules]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert not HEAVY & set(json.loads(result.stdout))

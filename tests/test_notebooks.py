"""The notebooks of experiments/colab, executed on their smoke settings in an empty folder."""

import os
import re
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).parents[1]
NOTEBOOKS = sorted((REPOSITORY / "experiments" / "colab").glob("*.ipynb"))

# TensorBoard and TensorFlow take longer to import than the smoke settings run.
STARTUP = 'import sys\nsys.modules |= dict.fromkeys(("clu", "tensorflow"))\ndel sys\n'


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Executes a notebook with `tmp_path` as its folder; returns what each cell wrote, by id."""
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "without_tensorflow.py").write_text(STARTUP)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("NT_JAX_NOTEBOOK_SMOKE", "1")
    # One device: splitting a training step over eight makes it slow to compile.
    flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", os.environ["XLA_FLAGS"])
    monkeypatch.setenv("XLA_FLAGS", flags.strip())

    def execute(name):
        notebook = nbformat.read(REPOSITORY / "experiments" / "colab" / name, as_version=4)
        resources = {"metadata": {"path": str(tmp_path)}}
        nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        failed = [o for cell in cells for o in cell.outputs if o.output_type == "error"]
        assert not failed, "%run shows an error and goes on"
        return {cell.id: cell.outputs for cell in cells}

    return execute


def text_of(outputs):
    return "".join(output.text for output in outputs if output.output_type == "stream")


def pictures_of(outputs):
    return [o for o in outputs if o.output_type == "display_data" and "image/png" in o.data]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_without_outputs_and_with_one_install_cell(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    title, install, settings, *_ = notebook.cells
    assert title.source.startswith("# ")
    assert "NT_JAX_NOTEBOOK_SMOKE" in settings.source
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.id for cell in code if "%pip" in cell.source] == [install.id]
    same = nbformat.read(NOTEBOOKS[0], as_version=4).cells[1]
    assert install.source == same.source
    for cell in code:
        assert cell.outputs == []
        assert cell.execution_count is None


def test_transfer(execute, tmp_path):
    outputs = execute("transfer.ipynb")
    folder = tmp_path / "runs/colab/transfer"
    clean, noisy = (np.asarray(Image.open(folder / f"{n}.png")) for n in ("clean", "noisy"))
    assert noisy.shape == clean.shape == (64, 64, 3)
    assert 2 < (noisy.astype(float) - clean).std() < 40
    for cell, count in {"photos": 2, "command": 1, "python": 1, "truth": 1}.items():
        assert len(pictures_of(outputs[cell])) == count
    rows = re.findall(r"^(.+?) +AKLD ([\d.]+)  KS ([\d.]+)$", text_of(outputs["truth"]), re.M)
    assert [row[0] for row in rows] == ["generated", "true, second draw"]
    generated, floor = (float(row[1]) for row in rows)
    assert floor < generated < 1

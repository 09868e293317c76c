"""The notebooks of experiments/colab, executed on their smoke settings in an empty folder."""

import asyncio
import base64
import io
import json
import os
import re
from pathlib import Path
from unittest import mock

import nbclient
import nbformat
import numpy as np
import pytest
from jupyter_client.manager import AsyncKernelManager
from PIL import Image
from tiny_models import save_tiny

REPOSITORY = Path(__file__).parents[1]
NOTEBOOKS = sorted((REPOSITORY / "experiments" / "colab").glob("*.ipynb"))

# Without TensorBoard and on one device, like other tests: their compiled programs are used again.
STARTUP = """
import light_main
light_main.loop.data_mesh = light_main.data_mesh
del light_main
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """A kernel that all notebooks share, for starting it takes longer than most of their cells."""
    folder = tmp_path_factory.mktemp("kernel")
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "light_training.py").write_text(STARTUP)
    settings = {
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(folder / "jupyter"),
        "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}",
        "NT_JAX_NOTEBOOK_SMOKE": "1",
    }
    with mock.patch.dict(os.environ, settings):
        manager = AsyncKernelManager()
        yield manager
    asyncio.run(manager.shutdown_kernel(now=True))


@pytest.fixture
def execute(tmp_path, kernel):
    """Executes a notebook with `tmp_path` as its folder; returns what each cell wrote, by id."""

    def execute(name, model="small"):
        notebook = nbformat.read(REPOSITORY / "experiments" / "colab" / name, as_version=4)
        _, install, settings, *_ = notebook.cells
        settings.source = settings.source.replace('MODEL = "small"', f'MODEL = "{model}"')
        # Nothing of the notebook before.
        install.source = f"%reset -f\n%cd -q {tmp_path}\n{install.source}"
        client = nbclient.NotebookClient(notebook, km=kernel, timeout=600)
        client.execute()
        client.kc.stop_channels()
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        failed = [o for cell in cells for o in cell.outputs if o.output_type == "error"]
        assert not failed, "%run shows an error and goes on"
        assert pictures_of(cells[-1].outputs[-1:]), "it ends in a picture"
        return {cell.id: cell.outputs for cell in cells}

    return execute


def text_of(outputs):
    return "".join(output.text for output in outputs if output.output_type == "stream")


def pictures_of(outputs):
    return [o for o in outputs if o.output_type == "display_data" and "image/png" in o.data]


def size_of(outputs):
    """Width and height of the only picture."""
    (picture,) = pictures_of(outputs)
    return Image.open(io.BytesIO(base64.b64decode(picture.data["image/png"]))).size


def rows_of(outputs):
    """Cells of the Markdown tables that are shown, without headings."""
    shown = "".join(o.data.get("text/markdown", "") for o in outputs if "data" in o)
    lines = [line for line in shown.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rules = [index for index, row in enumerate(rows) if set(row[0]) <= set(":-")]
    return [row for index, row in enumerate(rows) if not {index, index + 1} & {*rules}]


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
    assert size_of(outputs["truth"]) == (3 * 64, 64)
    generated, floor = (float(row[1]) for row in rows)
    assert floor < generated < 1


def test_train(execute, tmp_path):
    outputs = execute("train.ipynb")
    workdir = tmp_path / "runs/colab/train"
    assert (workdir / "checkpoints" / "3").is_dir()
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    assert all(np.isfinite(list(line.values())).all() for line in lines)
    log = text_of(outputs["train"])
    assert "no TensorBoard events" in log, "nor the wait for TensorFlow"
    assert "2 real pairs; 4 of 8 rows in a batch are real" in log
    assert [row[0] for row in rows_of(outputs["scores"])] == ["0", "3"]
    assert len(pictures_of(outputs["scores"])) == len(pictures_of(outputs["use"])) == 1


def test_denoise(execute, tmp_path):
    outputs = execute("denoise.ipynb", save_tiny(tmp_path / "model"))  # starts sooner
    folder = tmp_path / "runs/colab/denoise"
    for name in ("0000.png", "0001.png"):
        clean, noisy = (
            np.asarray(Image.open(folder / "generated" / role / name), float)
            for role in ("gt", "noisy")
        )
        assert 2 < (noisy - clean).std() < 40
    rows = rows_of(outputs["table"])
    assert [row[0] for row in rows] == [
        "noisy input",
        "denoiser trained on generated noise",
        "denoiser trained on true noise",
    ]
    assert all(10 < float(row[1]) < 40 for row in rows)
    ours, true = (
        json.loads((folder / f"scores_{noise}" / "results.json").read_text())["mean"]["psnr"]
        for noise in ("generated", "true")
    )
    assert ours != true
    assert len(pictures_of(outputs["table"])) == 2
    assert Image.open(folder / "denoised" / "rocket.png").size == (64, 64)


def test_tables(execute, tmp_path):
    outputs = execute("tables.ipynb", save_tiny(tmp_path / "model"))  # starts sooner
    folder = tmp_path / "runs/colab/tables"
    shown = {table: rows_of(outputs[table]) for table in ("table1", "table2")}
    for table, rows in shown.items():
        page = (folder / table / "results.md").read_text()
        assert all(row[0] in page for row in rows)
    assert shown["table1"][0][0] == "NoiseTransfer"
    published = [row for row in shown["table1"] if ".1655 / .0617" in row]
    assert [row[0] for row in published] == ["NoiseTransfer"]
    (scores,) = json.loads((folder / "table2" / "results.json").read_text())["sets"].values()
    assert list(scores) == ["real", "white"]
    assert all(np.isfinite(row["psnr"]["mean"]) for row in scores.values())
    assert "generated, real-real-smoke-seed0, real-white-smoke-seed0" in text_of(
        outputs["pictures"]
    )
    assert size_of(outputs["pictures"]) == (5 * 256, 256)

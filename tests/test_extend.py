"""docs/extend.md: its code, block by block and in order, in one folder."""

import importlib
import os
import pathlib
import re
import shlex
import sys
from unittest import mock

import numpy as np
import pytest
from PIL import Image
from skimage import data

from nt_jax import families, metrics
from nt_jax.errors import InputError
from nt_jax.families.noisetransfer import losses

REPOSITORY = pathlib.Path(__file__).parents[1]
PAGE = (REPOSITORY / "docs" / "extend.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def sections():
    """{heading: [(language, code)]}."""
    _, *parts = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    return {part.partition("\n")[0]: BLOCK.findall(part) for part in parts}


def write_pairs(folder):
    rng = np.random.default_rng(0)
    # Three: with four, a classifier would be trained for the C2ST.
    for index, (photo, shots) in enumerate(((data.coffee(), 2), (data.chelsea(), 1))):
        for shot in range(shots):
            clean = photo[100 * shot :][:64, :64]
            noisy = np.clip(clean + rng.normal(0, 15, clean.shape), 0, 255).astype(np.uint8)
            name = f"000{index}_00{2 * index + shot}_S6_00800_00100_3200_N"
            for role, pixels in (("gt", clean), ("noisy", noisy)):
                Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"{name}_{role}.png")


def run(line, monkeypatch):
    """A line of a shell: `export NAME=VALUE`, or `python -m MODULE FLAGS` in this process."""
    words = shlex.split(line)
    if words[0] == "export":
        monkeypatch.setenv(*words[1].split("="))
        return
    assert words[:2] == ["python", "-m"], line
    monkeypatch.setattr(sys, "argv", [words[2], *words[3:]])
    importlib.import_module(words[2]).main()


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "pairs").mkdir()
    write_pairs(tmp_path / "pairs")
    before = set(sys.modules)
    with mock.patch.dict(metrics.GENERATION), mock.patch.dict(losses.GENERATOR):
        yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and pathlib.Path(
            sys.modules[name].__file__ or ""
        ).is_relative_to(tmp_path):
            del sys.modules[name]


def execute(blocks, place, monkeypatch):
    for language, code in blocks:
        if language == "bash":
            for line in code.splitlines():
                run(line, monkeypatch)
        elif name := re.match(r"# file: (\S+)\n", code):
            (place / name[1]).write_text(code)
        else:
            exec(compile(code, "docs/extend.md", "exec"), {})


@pytest.mark.parametrize("name", sections())
def test_the_page_runs(name, place, monkeypatch):
    execute(sections()[name], place, monkeypatch)
    if name == "A generator":
        table = (place / "table1" / "results.md").read_text()
        # Told nothing, of six parameters, after 50 steps.
        assert re.search(r"\n\| toy +\| +nothing \| +6 \| +50 \|", table)
        assert (place / "scores" / "results.json").is_file()
        assert (place / "toy.stablehlo").stat().st_size > 0


def test_a_file_cannot_name_any_module():
    assert "html.parser" not in os.environ.get(families.VARIABLE, "")
    with pytest.raises(InputError, match="must have been imported"):
        families.find("this")
    with pytest.raises(InputError, match="have FIELDS"):
        families.find("os")

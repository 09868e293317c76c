"""Rows and sets of a table: models and folders of comma-separated lists, and their titles."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from experiments import parts
from nt_jax.errors import InputError
from nt_jax.families import Generator
from nt_jax.inference.loading import load
from nt_jax.paths import expand


def split(folders: str) -> list[Path]:
    """Splits a comma-separated list of folders."""
    return [Path(folder.strip()) for folder in folders.split(",") if folder.strip()]


def titles_of_folders(folders: Sequence[str | Path]) -> list[str]:
    """Titles sets by their folders' last two names, or as many as tell them from each other.

    They differ with "_" for "/", too, as files are named by them.

    Raises:
      InputError: a folder is given twice.
    """
    paths = [expand(folder) for folder in folders]
    # "skimage" is no folder.
    ends = [(path.resolve() if path.exists() else path).parts for path in paths]
    for count in range(2, max(map(len, ends), default=1) + 2):
        titles = ["/".join(end[-count:]).lstrip("/") for end in ends]
        if len({title.replace("/", "_") for title in titles}) == len(titles):
            return titles
    raise InputError(f"{', '.join(map(str, folders))}: name each folder once")


_FAMILIES = {
    "noisetransfer": "NoiseTransfer",
    "srgbflow": "sRGB Flow",
    "danet": "DANet",
    "c2n": "C2N",
    "neca": "NeCA",
    "naflow": "NAFlow",
    "n2g": "N2G",
}

# Two recipes each, whose models differ in what they were trained on alone: DANet and GDANet, N2G_g
# and N2G_p.
_SEVERAL_RECIPES = ("danet", "n2g")


def load_generators(names: str) -> dict[str, Generator]:
    """Loads models of any family of a comma-separated list, by the name that they are asked for.

    Raises:
      InputError: one is no such model, or is given twice.
    """
    asked = [name.strip() for name in names.split(",") if name.strip()]
    if len(set(asked)) < len(asked):
        raise InputError(f"--model={names}: name each model once")
    return {name: load(name) for name in asked}


def titles_of(models: Mapping[str, Generator]) -> dict[str, str]:
    """Titles models' rows: the family, and the model's name where that tells too little.

    It does where several models or several recipes are of one family. Of a folder, the last part of
    its name is enough if it tells the models apart.
    """
    ends = [Path(name).name for name in models]
    distinct = len(set(ends)) == len(ends)
    kinds = {name: str(model.metadata["kind"]) for name, model in models.items()}
    families_of = list(kinds.values())
    titles = {}
    for name, kind in kinds.items():
        family = _FAMILIES.get(kind, kind.rpartition(".")[2])
        alone = families_of.count(kind) == 1 and kind not in _SEVERAL_RECIPES
        titles[name] = family if alone else f"{family}, {Path(name).name if distinct else name}"
    return titles


def digest_of(model: Generator) -> str:
    """Sums up a model's parameters."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(model.params):
        array = np.asarray(leaf)
        digest.update(f"{array.dtype} {array.shape}\n".encode() + array.tobytes())
    return digest.hexdigest()


def generated_rows(names: str, runs: Path) -> dict[str, str]:
    """Titles the rows `generated:MODEL` of denoisers, one for each of a comma-separated list.

    Says what a model is told of the noise: a training batch has references, but neither cameras nor
    the references' clean images.

    Args:
      names: the list.
      runs: folder of the denoisers; gets a note of each model that they are trained with.

    Raises:
      InputError: there is none, `runs` is of another model of that name, or as `load_generators`.
    """
    models = load_generators(names)
    if not models:
        raise InputError("the row `generated` needs --model")
    rows = {}
    for name, title in titles_of(models).items():
        row = f"generated:{name}"
        if not parts.noted(runs / f"{folder_name(row)}.json", digest_of(models[name])):
            raise InputError(
                f"{runs} holds denoisers of another model {name}; choose another --output or"
                " --runs, or remove it"
            )
        told = "the reference" if "reference" in models[name].told else "nothing"
        rows[row] = f"{title} (told {told})"
    return rows


def folder_name(row: str) -> str:
    """Turns a row's name into a part of a folder's."""
    return re.sub(r"[^\w.-]", ".", row)

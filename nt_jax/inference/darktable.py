"""A denoiser as darktable takes it (neural restore, 5.6 and later): `ID.dtmodel`.

A deflated zip of one folder ID with `config.json` and `model.onnx`. The network is static,
1x3x768x768 in float32, as darktable's own models are, so that it fits graphics cards of 4 GB; its
input and output are sRGB-encoded. It is clipped to [0, 1] inside, as darktable does not clip.
"""

import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from nt_jax.errors import InputError
from nt_jax.files import replacing
from nt_jax.inference.export import denoiser_onnx
from nt_jax.models.ridnet import RIDNet

if TYPE_CHECKING:
    from nt_jax.inference.denoiser import Denoiser

SIDE = 768
SUFFIX = ".dtmodel"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_YEAR = (1980, 1, 1, 0, 0, 0)  # of the files in the zip: one denoiser makes one archive


class _DataSet(NamedTuple):
    """A known data set: what it is called and its terms."""

    title: str
    terms: str


# By what a folder's name holds.
_KNOWN = {
    "sidd": _DataSet("SIDD (Abdelhamed et al., CVPR 2018)", "SIDD: MIT"),
    "polyu": _DataSet(
        "PolyU (Xu et al., 2018)", "PolyU: non-commercial research only, not an open licence"
    ),
    "div2k": _DataSet("DIV2K (Agustsson and Timofte, 2017)", "DIV2K: academic research only"),
    "bsds500": _DataSet("BSDS500 (Arbelaez et al., 2011)", "BSDS500: non-commercial research only"),
    "skimage": _DataSet("scikit-image's photographs", "scikit-image's photographs: free licences"),
}
# Of a recipe's data: what their folders hold.
_FIELDS = {"pairs": "noisy and clean pairs of", "photos": "clean photographs of"}
_PAPERS = {
    "unet": "In the manner of DRUNet: Zhang et al., Plug-and-Play Image Restoration with Deep "
    "Denoiser Prior (2021), https://arxiv.org/abs/2008.13751",
    "dncnn": "Zhang et al., Beyond a Gaussian Denoiser (TIP 2017), https://arxiv.org/abs/1608.03981",
    "ffdnet": "In the manner of Zhang et al., FFDNet (TIP 2018), https://arxiv.org/abs/1710.04026",
}


def check_target(path: Path) -> None:
    """Raises InputError where a path does not name a model that darktable would take."""
    if path.suffix != SUFFIX or not _ID.fullmatch(path.stem):
        raise InputError(
            f"{path}: name the file ID{SUFFIX}, the ID of letters, digits and _ . - alone"
        )


def write_dtmodel(
    denoiser: "Denoiser", path: Path, *, author: str = "nt_jax", license: str = "Apache-2.0"
) -> list[str]:
    """Writes a denoiser as `ID.dtmodel`, named after its file.

    Args:
      denoiser: a U-Net, DnCNN or FFDNet.
      path: ID.dtmodel.
      author, license: of the weights, for the model card.

    Returns:
      Lines that the user should read: what stands against handing the model on.

    Raises:
      InputError: another name or network, jax2onnx is not installed, or the file cannot be written.
    """
    check_target(path)
    if isinstance(denoiser.network, RIDNet):
        raise InputError(
            "RIDNet averages over the whole image, which darktable's tiles do not show it: they "
            "would leave seams; export a unet, ffdnet or dncnn"
        )
    config = {
        "id": path.stem,
        "name": re.sub(r"[-_]+", " ", path.stem),
        "description": f"{_manner(denoiser)} ({denoiser.metadata['kind']}) for developed photos",
        "task": "denoise",
        "backend": "onnx",
        # Another for other weights, or darktable would keep those it has.
        "version": f"1.{denoiser.metadata.get('step', 0)}{_release_of(denoiser.condition)}",
        "attributes": {"input_sizes": [SIDE], "size_multiple": denoiser.network.alignment},
        "model_card": _card(denoiser, author, license),
    }
    content = {
        "config.json": json.dumps(config, indent=2, ensure_ascii=False).encode() + b"\n",
        "model.onnx": denoiser_onnx(denoiser.fixed, (SIDE, SIDE)),
    }
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, data in content.items():
            info = zipfile.ZipInfo(f"{path.stem}/{name}", _YEAR)
            file.writestr(info, data, zipfile.ZIP_DEFLATED)
    with replacing(path) as temporary:
        temporary.write_bytes(archive.getvalue())
    return list(warnings(denoiser))


def _manner(denoiser: "Denoiser") -> str:
    return "Blind denoiser" if denoiser.condition is None else "Denoiser of one noise"


def _levels(denoiser: "Denoiser") -> str:
    return "any level" if denoiser.condition is None else "about that of the photos it was made for"


def _release_of(condition: np.ndarray | None) -> str:
    return "" if condition is None else f".{zlib.crc32(condition.tobytes())}"


def _card(denoiser: "Denoiser", author: str, license: str) -> dict[str, str]:
    kind = denoiser.metadata["kind"]
    parameters = sum(leaf.size for leaf in jax.tree.leaves(denoiser.params))
    held_out = denoiser.metadata.get("held_out", {})
    figures = ""
    if {"eval/noisy_psnr", "eval/psnr"} <= set(held_out):
        figures = (
            f" On held-out patches it takes {held_out['eval/noisy_psnr']:.2f} dB to "
            f"{held_out['eval/psnr']:.2f} dB PSNR."
        )
    told = [_training_data(each) for each in _lineage(denoiser.metadata)]
    data = "; before that ".join(dict.fromkeys(data for data, _ in told))
    terms = dict.fromkeys(line for _, lines in told for line in lines)
    return {
        "long_description": (
            f"Removes noise of {_levels(denoiser)} from developed photos: a {kind} of "
            f"{parameters / 1e6:.2f} M parameters after "
            f"{denoiser.metadata.get('step', 'an unknown number of')} steps.{figures}"
        ),
        "scope": "single-image denoising of developed sRGB photos; not of raw data",
        "author": author,
        "source": "nt_jax: python -m nt_jax.export --format=dtmodel",
        "paper": _PAPERS[kind],
        "license": license,
        "training_data": data,
        "training_data_license": "; ".join(terms) or "no data set is named",
        "notes": " ".join((*_notes(denoiser.metadata), *warnings(denoiser))),
    }


def _lineage(metadata: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Lists what a denoiser's folder says, and said of those that it was adapted or began from."""
    found = [metadata]
    while base := (found[-1].get("adapted") or {}).get("base") or found[-1].get("began_from"):
        found.append(base)
    return found


def _folders(recipe: Mapping[str, Any], field: str) -> list[str]:
    """Lists a recipe's folders by their last two names: where they lay concerns nobody."""
    spec = (recipe.get("data") or {}).get(field) or ""
    folders = (part.strip().partition("=")[0] for part in spec.split(","))
    return ["/".join(folder.split("/")[-2:]) for folder in folders if folder]


def _known(folder: str) -> str | None:
    return next((name for name in _KNOWN if name in folder.lower()), None)


def _training_data(metadata: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Says what the recipe trained on and under which terms.

    Args:
      metadata: with a training config, the `recipe`, and the `terms` of folders that no data set is
        known by, where `model.json` has them.
    """
    recipe, told = metadata.get("recipe") or {}, metadata.get("terms") or {}
    if "data" not in recipe:
        return "not recorded", ["not recorded"]
    noise = recipe.get("denoiser", {}).get("noise", "")
    parts, terms = [], []
    for field, what in _FIELDS.items():
        named = []
        for folder in _folders(recipe, field):
            known = _known(folder)
            named.append(f"{_KNOWN[known].title} [{folder}]" if known else f"[{folder}]")
            own = told.get(folder, "see its own terms")
            terms.append(_KNOWN[known].terms if known else f"[{folder}]: {own}")
        if named:
            parts.append(f"{what} {', '.join(named)}")
    kinds = recipe["data"].get("noise_kinds") or []
    if kinds and recipe["data"].get("real_fraction", 0) < 1:
        parts.append(f"synthetic noise ({', '.join(kinds)})")
    if noise == "generated":
        parts.append(f"noise made by the model {recipe['denoiser'].get('model')}")
    return "; ".join(parts) or "not recorded", terms


def _notes(metadata: Mapping[str, Any]) -> Iterator[str]:
    yield "Runs on tiles; what leaves the network is within [0, 1]."
    for each in _lineage(metadata):
        base = (each.get("adapted") or {}).get("base") or {}
        start = ((each.get("recipe") or {}).get("train") or {}).get("init_from")
        if base:
            yield f"Adapted to one camera's photos, from {'/'.join(base['name'].split('/')[-2:])}."
        elif start:
            yield f"Training went on from another run, {'/'.join(start.split('/')[-2:])}."


def warnings(denoiser: "Denoiser") -> Iterator[str]:
    """Says what stands against handing a denoiser on."""
    recipes = [each.get("recipe") or {} for each in _lineage(denoiser.metadata)]
    folders = [path for recipe in recipes for key in _FIELDS for path in _folders(recipe, key)]
    if any(_known(folder) == "polyu" for folder in folders):
        yield (
            "Trained on PolyU, whose terms are non-commercial: not for darktable's list, nor for "
            "commercial use."
        )

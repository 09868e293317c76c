"""Finding and reading the images to train and evaluate on: photographs, and clean/noisy pairs."""

import importlib.util
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from nt_jax.data.catalogue import layouts, prepared
from nt_jax.data.catalogue.prepared import StoredImage
from nt_jax.errors import InputError
from nt_jax.images import EXTENSIONS, image_size, list_images, nothing_found, read_rgb
from nt_jax.paths import exists, expand, look_through, split_names

_T = TypeVar("_T")
_R = TypeVar("_R")

# Colour photographs inside scikit-image's wheel. Scenes of the two sets are disjoint: the two
# views of the motorcycle stay together. Left out: micrographs, drawings, and the Hubble field,
# whose own noise is far above that of the others.
SKIMAGE_SETS = {
    "skimage": (
        "astronaut.png",
        "motorcycle_left.png",
        "motorcycle_right.png",
        "retina.jpg",
        "rocket.jpg",
    ),
    "skimage-heldout": ("chelsea.png", "coffee.png"),
}

_SIDD_NAME = re.compile(  # anywhere in a pair's name, so crops of these images are known too
    r"(?:^|/)\d+_(?P<scene>\d+)_(?P<camera>[A-Z0-9]+)_(?P<iso>\d+)"
    r"_(?P<shutter>\d+)_(?P<illuminant>\d+)_[LNH](?=[_/]|$)",
    re.IGNORECASE,
)
_POLYU_NAMES = (  # crops are numbered; whole images are told by the maker's name only
    re.compile(
        r"(?:^|/)(?P<camera>[A-Z0-9]+)_[\d-]+_(?P<shutter>\d+)_(?P<iso>\d+)_(?P<scene>[A-Z]+)_+\d+",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?:^|/)(?P<camera>(?:Canon|Nikon|Sony)[A-Z0-9]*)_[\d-]+_(?P<shutter>\d+)_(?P<iso>\d+)"
        r"_(?P<scene>[A-Z]+)$",
        re.IGNORECASE,
    ),
)

# Cameras and ISOs of most of SIDD, which training batches number; those of all others count as one.
SETTINGS = tuple(
    f"{camera}_{iso}"
    for camera in ("G4", "GP", "IP", "N6", "S6")
    for iso in (100, 400, 800, 1600, 3200)
)

_WEIGHTED = re.compile(r"(.+)=([-+.\deE]+)")

ImageFile = Path | StoredImage


class Capture(NamedTuple):
    """How a photograph was taken, as far as its name tells.

    Attributes:
      camera: such as "S6"; "" where not known.
      iso: such as 3200; None where not known, like the next two.
      shutter: the exposure's inverse in 1/s, such as 60.
      illuminant: colour temperature in K, such as 3200.
      scene: such as "008"; "" where not known.
    """

    camera: str = ""
    iso: int | None = None
    shutter: int | None = None
    illuminant: int | None = None
    scene: str = ""

    @property
    def group(self) -> str:
        """Camera and ISO such as "S6_3200"; "" where not known."""
        return f"{self.camera}_{self.iso}" if self.camera else ""


class Pair(NamedTuple):
    """A clean and a noisy image of the same scene, pixel on pixel.

    Attributes:
      name: unique within its folder.
      clean: the clean image's file; `read_rgb` reads it.
      noisy: the noisy one.
      group: camera and ISO such as "S6_3200". Where they are not known, what it was cut from: the
        pair's own name, or that of the image that a prepared tile is a part of.
      iso: such as 3200; None where it is not known.
      scene: the scene's name such as "008"; "" where it is not known.
      image: what a prepared tile was cut from; "" for an image of its own.
    """

    name: str
    clean: ImageFile
    noisy: ImageFile
    group: str
    iso: int | None
    scene: str
    image: str = ""


def find_photos(folder: str | Path, notes: list[str] | None = None) -> list[ImageFile]:
    """Lists the clean photographs under a folder, sorted; or of "skimage" or "skimage-heldout".

    A folder that `prepare` wrote, or one of its splits (`DIR/train`), gives its clean images.

    Args:
      folder: where.
      notes: gets a line about files that are left out for their type.

    Raises:
      InputError: the folder does not exist or holds no image, or noisy images by their names.
    """
    if str(folder) in SKIMAGE_SETS:
        spec = importlib.util.find_spec("skimage")
        if spec is None or spec.origin is None:
            raise InputError(f"{folder}: scikit-image is not installed: pip install scikit-image")
        return [Path(spec.origin).parent / "data" / name for name in SKIMAGE_SETS[str(folder)]]
    tiles = prepared.find_tiles(folder)
    if tiles is not None:
        photos: list[ImageFile] = [tile.clean for tile in tiles if tile.clean]
        if not photos:
            raise InputError(f"{folder}: a data set of noisy images only")
        return photos
    root = expand(folder)
    found = look_through(root, EXTENSIONS)
    if notes is not None:
        notes += found.left_out()
    paths: list[ImageFile] = [*layouts.clean_among(found, root)]
    if not paths:
        raise nothing_found(folder)
    return paths


def setting_number(group: str) -> int:
    """Numbers a camera and ISO such as "S6_3200" by `SETTINGS`; their count where it is none."""
    return SETTINGS.index(group) if group in SETTINGS else len(SETTINGS)


def parse_capture(name: str) -> Capture:
    """Reads camera and so on from a pair's name, as SIDD and PolyU write them."""
    for pattern in (_SIDD_NAME, *_POLYU_NAMES):
        if match := pattern.search(name):
            found = match.groupdict()
            return Capture(
                camera=found["camera"],
                iso=int(found["iso"]),
                shutter=int(found["shutter"]),
                illuminant=int(found["illuminant"]) if "illuminant" in found else None,
                scene=found["scene"],
            )
    return Capture()


def _pairs(matches: Iterable[layouts.Match], problems: list[str]) -> tuple[list[Pair], list[str]]:
    """Collects pairs of equal sizes, and what is wrong with the others."""
    pairs = []
    for name, clean, noisy, shared in matches:
        capture = parse_capture(name)
        scene = capture.scene or shared
        pair = Pair(name, clean, noisy, capture.group or name, capture.iso, scene)
        try:
            if image_size(clean) != image_size(noisy):
                problems.append(f"{noisy}: its size differs from that of {clean}")
            else:
                pairs.append(pair)
        except InputError as error:
            problems.append(str(error))
    return pairs, problems


def match_folders(clean: Path, noisy: Path) -> tuple[list[Pair], list[str]]:
    """Matches pairs of equal names in two folders; see `list_pairs`."""
    folders = ((clean, "clean"), (noisy, "noisy"))
    found = [layouts.in_folders(list_images(folder), folder, role) for folder, role in folders]
    return _pairs(*layouts.match([*found[0], *found[1]]))


def list_pairs(folder: str | Path, notes: list[str] | None = None) -> tuple[list[Pair], list[str]]:
    """Lists the clean/noisy pairs under a folder, sorted by name, and what is wrong with the rest.

    Layouts, told apart by themselves: SIDD (`..._S6_03200_.../[0001_]{GT,NOISY}_SRGB_010.PNG`),
    `NAME_gt.EXT` beside `NAME_noisy.EXT`, PolyU (`NAME_mean.JPG` beside `NAME_real.JPG`), and two
    folders such as `gt` and `noisy` or `target` and `input`; see `layouts`. Other image
    files are not looked at.

    Args:
      folder: where.
      notes: gets a line about files that are left out for their type.

    Returns:
      (pairs, a line for each image that has no partner or one of another size, or is unreadable).

    Raises:
      InputError: the folder does not exist.
    """
    root = expand(folder)
    found = look_through(root, EXTENSIONS)
    if notes is not None:
        notes += found.left_out()
    return _pairs(*layouts.match(layouts.find_roles(found.files, found.folders, root)))


def _stored_pairs(folder: str | Path, tiles: list[prepared.StoredTile]) -> list[Pair]:
    pairs = []
    for tile in tiles:
        if not (tile.clean and tile.noisy):
            raise InputError(f"{folder}: a data set without pairs of clean and noisy images")
        group = Capture(tile.camera, tile.iso).group or tile.image
        image = f"{tile.folder}: {tile.image}"
        pairs.append(Pair(tile.name, tile.clean, tile.noisy, group, tile.iso, tile.scene, image))
    return pairs


def find_pairs(
    folder: str | Path, problems: list[str] | None = None, notes: list[str] | None = None
) -> list[Pair]:
    """Lists the clean/noisy pairs under a folder, sorted by name.

    Layouts: see `list_pairs`; or a folder that `prepare` wrote, or one of its splits (`DIR/train`).

    Args:
      folder: where.
      problems: gets a line for each image that has no partner, or one of another size, or cannot
        be read; without it the first such image raises.
      notes: gets a line about files that are left out for their type.

    Raises:
      InputError: the folder does not exist or holds no pair; an image is unusable.
    """
    tiles = prepared.find_tiles(folder)
    if tiles is not None:
        return _stored_pairs(folder, tiles)
    pairs, found = list_pairs(folder, notes)
    if problems is not None:
        problems += found
    elif found:
        raise InputError(found[0])
    if not pairs:
        if found:
            raise InputError(f"{found[0]}; no pair in {folder} is usable")
        raise InputError(
            f"{folder}: no pair found: need SIDD's folders, NAME_gt/NAME_noisy or "
            "NAME_mean/NAME_real files, two folders gt and noisy or target and input, or a folder "
            "that prepare wrote"
        )
    return pairs


def parse_spec(spec: str) -> list[tuple[str, float | None]]:
    """Splits "folder[=WEIGHT],folder[=WEIGHT]" into (folder, weight); None where none is given.

    A folder's name may hold commas and "=": what exists under the whole name is meant.

    Raises:
      InputError: a weight is not above 0.
    """
    return [_weighted(part) for part in split_names(spec, lambda part: _exists(_name_in(part)))]


def _exists(name: str) -> bool:
    return exists(expand(name))


def _name_in(part: str) -> str:
    """Splits off the folder of "folder[=WEIGHT]"."""
    match = _WEIGHTED.fullmatch(part)
    return part if not match or _exists(part) else match[1]


def _weighted(part: str) -> tuple[str, float | None]:
    match = _WEIGHTED.fullmatch(part)
    if not match or _exists(part):
        return part, None
    try:
        weight = float(match[2])
    except ValueError:
        weight = 0.0
    if not 0 < weight < float("inf"):
        raise InputError(f"{part}: the weight after '=' must be a number above 0")
    return match[1], weight


def in_threads(function: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
    """Runs `map` in threads, as a list."""
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter lock
        return list(pool.map(function, items))


def load_photos(spec: str) -> list[tuple[str, np.ndarray]]:
    """Reads every photograph of a comma-separated list of folders: (name, uint8 [H, W, 3])."""
    paths = [path for folder, _ in parse_spec(spec) for path in find_photos(folder)]
    return list(zip([path.stem for path in paths], in_threads(read_rgb, paths), strict=True))


def load_pairs(spec: str) -> list[tuple[Pair, np.ndarray, np.ndarray]]:
    """Reads every pair of a comma-separated list of folders: (pair, clean, noisy), uint8."""
    pairs = [pair for folder, _ in parse_spec(spec) for pair in find_pairs(folder)]
    clean = in_threads(lambda pair: read_rgb(pair.clean), pairs)
    noisy = in_threads(lambda pair: read_rgb(pair.noisy), pairs)
    return list(zip(pairs, clean, noisy, strict=True))

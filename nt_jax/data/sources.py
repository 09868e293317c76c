"""Finding and reading the images to train and evaluate on: photographs, and clean/noisy pairs."""

import contextlib
import importlib.util
import io
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps

from nt_jax.data import prepared
from nt_jax.data.prepared import StoredImage
from nt_jax.decoders import silence_decoders
from nt_jax.errors import InputError

_T = TypeVar("_T")
_R = TypeVar("_R")

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"})
# No others, whatever a file is called: for EPS Pillow would start Ghostscript.
_PILLOW_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
# A file can declare any size in a few bytes, and decoding takes 7 bytes a pixel; 12 and more of
# progressive JPEG and of WebP. The largest cameras have 151 megapixels.
_MAX_PIXELS = 155_000_000
_MAX_PIXELS_COSTLY = 64_000_000
# Images of more pixels are decoded one at a time, as some threads of them would fill the memory.
LARGE = 32 * 1024**2
_LARGE_LOCK = threading.Lock()
_STRIP = 2**22  # pixels converted at a time

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

_SIDD_FILE = re.compile(r"^(?:\d+_)?(gt|noisy)_srgb_(\d+)$")
_SIDD_NAME = re.compile(  # anywhere in a pair's name, so crops of these images are known too
    r"(?:^|/)\d+_(?P<scene>\d+)_(?P<camera>[A-Z0-9]+)_(?P<iso>\d+)"
    r"_(?P<shutter>\d+)_(?P<illuminant>\d+)_[LNH](?=[_/]|$)",
    re.IGNORECASE,
)
_SUFFIXES = {"_gt": "clean", "_mean": "clean", "_noisy": "noisy", "_real": "noisy"}
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
      clean: the clean image: a file, or a PNG within a prepared data set; `read_rgb` reads both.
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


def list_images(folder: Path) -> list[Path]:
    """The image files under a folder, sorted.

    Raises:
      InputError: the folder does not exist.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file()
    )


def find_photos(folder: str | Path) -> list[ImageFile]:
    """Lists the image files under a folder, sorted; or the set "skimage" or "skimage-heldout".

    A folder that `prepare` wrote, or one of its splits (`DIR/train`), gives its clean images.

    Raises:
      InputError: the folder does not exist or holds no image.
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
    paths: list[ImageFile] = [*list_images(Path(folder).expanduser())]
    if not paths:
        raise InputError(f"{folder}: no image found, looked for {' '.join(sorted(EXTENSIONS))}")
    return paths


def _role_by_name(path: Path, root: Path) -> tuple[str, str] | None:
    """(pair name, "clean" or "noisy") told by a file's own name, None where it tells nothing."""
    folder = path.parent.relative_to(root)
    sidd = _SIDD_FILE.match(path.stem.lower())
    if sidd:
        owner = folder if folder.name else Path(root.name)
        return f"{owner.as_posix()}_{sidd[2]}", "clean" if sidd[1] == "gt" else "noisy"
    for suffix, role in _SUFFIXES.items():
        if path.stem.lower().endswith(suffix):
            return (folder / path.stem[: -len(suffix)]).as_posix(), role
    return None


def parse_capture(name: str) -> Capture:
    """Camera and so on from a pair's name, as SIDD and PolyU write them."""
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


def _match(found: Iterable[tuple[Path, str, str]]) -> tuple[list[Pair], list[str]]:
    """Pairs of (file, pair name, role), sorted by name, and what is wrong with the others."""
    files: dict[str, dict[str, Path]] = defaultdict(dict)
    problems = []
    for path, name, role in found:
        if role in files[name]:
            problems.append(
                f"{path}: a second {role} image of the pair, beside {files[name][role]}"
            )
        else:
            files[name][role] = path
    pairs = []
    for name, versions in sorted(files.items()):
        if len(versions) == 1:
            ((role, path),) = versions.items()
            other = "noisy" if role == "clean" else "clean"
            problems.append(f"{path}: its {other} partner is missing")
            continue
        capture = parse_capture(name)
        group = capture.group or name
        pair = Pair(name, versions["clean"], versions["noisy"], group, capture.iso, capture.scene)
        try:
            if image_size(pair.clean) != image_size(pair.noisy):
                problems.append(f"{pair.noisy}: its size differs from that of {pair.clean}")
            else:
                pairs.append(pair)
        except InputError as error:
            problems.append(str(error))
    return pairs, problems


def match_folders(clean: Path, noisy: Path) -> tuple[list[Pair], list[str]]:
    """Pairs of equal names in two folders; see `list_pairs`."""
    found = []
    for folder, role in ((clean, "clean"), (noisy, "noisy")):
        for path in list_images(folder):
            found.append((path, path.relative_to(folder).with_suffix("").as_posix(), role))
    return _match(found)


def list_pairs(folder: str | Path) -> tuple[list[Pair], list[str]]:
    """The clean/noisy pairs under a folder, sorted by name, and what is wrong with other images.

    Layouts, told apart by themselves: SIDD (`..._S6_03200_.../[0001_]{GT,NOISY}_SRGB_010.PNG`),
    `NAME_gt.EXT` beside `NAME_noisy.EXT`, PolyU (`NAME_mean.JPG` beside `NAME_real.JPG`), and two
    folders `gt` and `noisy` with equal file names. Other image files are not looked at.

    Returns:
      (pairs, a line for each image that has no partner or one of another size, or is unreadable).

    Raises:
      InputError: the folder does not exist.
    """
    root = Path(folder).expanduser()
    images = list_images(root)
    if (root / "gt").is_dir() and (root / "noisy").is_dir():
        return match_folders(root / "gt", root / "noisy")
    roles = [(path, _role_by_name(path, root)) for path in images]
    return _match((path, *role) for path, role in roles if role)


def _stored_pairs(folder: str | Path, tiles: list[prepared.StoredTile]) -> list[Pair]:
    pairs = []
    for tile in tiles:
        if not (tile.clean and tile.noisy):
            raise InputError(f"{folder}: a data set without pairs of clean and noisy images")
        group = Capture(tile.camera, tile.iso).group or tile.image
        image = f"{tile.noisy.shard.parent}: {tile.image}"
        pairs.append(Pair(tile.name, tile.clean, tile.noisy, group, tile.iso, tile.scene, image))
    return pairs


def find_pairs(folder: str | Path, problems: list[str] | None = None) -> list[Pair]:
    """Lists the clean/noisy pairs under a folder, sorted by name.

    Layouts: see `list_pairs`; or a folder that `prepare` wrote, or one of its splits (`DIR/train`).

    Args:
      folder: where.
      problems: gets a line for each image that has no partner, or one of another size, or cannot
        be read; without it the first such image raises.

    Raises:
      InputError: the folder does not exist or holds no pair; an image is unusable.
    """
    tiles = prepared.find_tiles(folder)
    if tiles is not None:
        return _stored_pairs(folder, tiles)
    pairs, found = list_pairs(folder)
    if problems is not None:
        problems += found
    elif found:
        raise InputError(found[0])
    if not pairs:
        if found:
            raise InputError(f"{found[0]}; no pair in {folder} is usable")
        raise InputError(
            f"{folder}: no pair found: need SIDD's folders, NAME_gt/NAME_noisy or "
            "NAME_mean/NAME_real files, two folders gt and noisy, or a folder that prepare wrote"
        )
    return pairs


@contextlib.contextmanager
def _opened(path: ImageFile) -> Iterator[Image.Image]:
    """Opens an image; whatever fails within is an InputError that names it."""
    silence_decoders()
    try:
        file = io.BytesIO(path.read()) if isinstance(path, StoredImage) else path
        with Image.open(file, formats=_PILLOW_FORMATS) as image:
            costly = image.format == "WEBP" or "progressive" in image.info
            most = _MAX_PIXELS_COSTLY if costly else _MAX_PIXELS
            if image.width * image.height > most:
                raise InputError(
                    f"{path}: {image.width}x{image.height} is more than {most // 10**6} megapixels:"
                    " cut it up"
                )
            yield image
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except Exception as error:  # decoders raise many kinds on damaged files
        raise InputError(f"{path}: not a readable image ({error})") from error


def _as_file(path: str | ImageFile) -> ImageFile:
    return Path(path) if isinstance(path, str) else path


def image_size(path: str | ImageFile) -> tuple[int, int]:
    """(height, width) of an image file as `read_rgb` will give it; reads only the header.

    Raises:
      InputError: the file is no readable image.
    """
    if isinstance(path, StoredImage):
        return path.height, path.width
    with _opened(_as_file(path)) as image:
        width, height = image.size
        # Not image.getexif(), which decodes the whole of a PNG that has none before its pixels.
        orientation = Image.Image.getexif(image).get(0x0112, 1)
        turned = orientation in (5, 6, 7, 8)
    return (width, height) if turned else (height, width)


def read_rgb(path: str | ImageFile) -> np.ndarray:
    """Reads an image as 8-bit RGB, turned upright by its EXIF orientation.

    Grey becomes RGB, transparency is dropped, 16 bits are reduced to 8.

    Returns:
      uint8 [H, W, 3].

    Raises:
      InputError: the file is no readable image.
    """
    with _opened(_as_file(path)) as image:
        large = image.width * image.height > LARGE
        with _LARGE_LOCK if large else contextlib.nullcontext():
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode == "F":
                raise InputError(
                    f"{path}: floating-point images have no fixed range: save 8 or 16 bits"
                )
            rgb = np.empty((image.height, image.width, 3), np.uint8)
            rows = max(_STRIP // image.width, 1)
            for top in range(0, image.height, rows):
                bottom = min(top + rows, image.height)
                rgb[top:bottom] = _rgb(image.crop((0, top, image.width, bottom)))
            return rgb


def _rgb(image: Image.Image) -> np.ndarray:
    """uint8 [H, W, 3], or [H, W, 1] where it is grey with 16 bits."""
    if image.mode.startswith("I"):  # 16-bit grey
        levels = np.asarray(image).astype(np.int64)
        return np.clip((levels + 128) // 257, 0, 255).astype(np.uint8)[..., None]
    if image.mode in ("P", "PA"):  # by way of RGBA, or Pillow warns about transparency
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def parse_spec(spec: str) -> list[tuple[str, float | None]]:
    """Splits "folder[=WEIGHT],folder[=WEIGHT]" into (folder, weight); None where none is given.

    Raises:
      InputError: a weight is not above 0.
    """
    sources: list[tuple[str, float | None]] = []
    for part in filter(None, (part.strip() for part in spec.split(","))):
        match = re.fullmatch(r"(.+)=([-+.\deE]+)", part)
        if not match:
            sources.append((part, None))
            continue
        try:
            weight = float(match[2])
        except ValueError:
            weight = 0.0
        if not 0 < weight < float("inf"):
            raise InputError(f"{part}: the weight after '=' must be a number above 0")
        sources.append((match[1], weight))
    return sources


def in_threads(function: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
    """`map` in threads, as a list."""
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

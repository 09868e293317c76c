"""Finding and reading the images to train and evaluate on: photographs, and clean/noisy pairs."""

import importlib.util
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps

from nt_jax.errors import InputError

_T = TypeVar("_T")
_R = TypeVar("_R")

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"})

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
    r"(?:^|/)\d+_(?P<scene>\d+)_(?P<camera>[A-Z0-9]+)_(?P<iso>\d+)_\d+_\d+_[LNH](?=[_/]|$)",
    re.IGNORECASE,
)
_SUFFIXES = {"_gt": "clean", "_mean": "clean", "_noisy": "noisy", "_real": "noisy"}
_POLYU_NAME = re.compile(
    r"(?:^|/)(?P<camera>[A-Z0-9]+)_[\d-]+_[\d-]+_(?P<iso>\d+)_(?P<scene>[A-Z]+)_+\d+",
    re.IGNORECASE,
)


class Pair(NamedTuple):
    """A clean and a noisy image of the same scene, pixel on pixel.

    Attributes:
      name: unique within its folder.
      clean: file of the clean image.
      noisy: file of the noisy image.
      group: camera and ISO such as "S6_03200"; the pair's own name where they are not known.
      iso: such as 3200; None where it is not known.
      scene: the scene's name such as "008"; "" where it is not known.
    """

    name: str
    clean: Path
    noisy: Path
    group: str
    iso: int | None
    scene: str


class ImageBank(NamedTuple):
    """All pixels of several images in one flat array, for gathering patches by index.

    Photographs come first, then the pairs. A pair's noisy image lies in the same array, in the
    same row-major order as its clean one.

    Attributes:
      pixels: uint8 [pixels, 3], on a 64-byte boundary.
      offsets: int64 [N], index of each (clean) image's first pixel.
      noisy_offsets: int64 [N], the same of its noisy version; equal to `offsets` for photographs.
      heights: int64 [N].
      widths: int64 [N].
    """

    pixels: np.ndarray
    offsets: np.ndarray
    noisy_offsets: np.ndarray
    heights: np.ndarray
    widths: np.ndarray


def _images_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file()
    )


def find_photos(folder: str | Path) -> list[Path]:
    """Lists the image files under a folder, sorted; or the set "skimage" or "skimage-heldout".

    Raises:
      InputError: the folder does not exist or holds no image.
    """
    if str(folder) in SKIMAGE_SETS:
        spec = importlib.util.find_spec("skimage")
        if spec is None or spec.origin is None:
            raise InputError(f"{folder}: scikit-image is not installed: pip install scikit-image")
        return [Path(spec.origin).parent / "data" / name for name in SKIMAGE_SETS[str(folder)]]
    paths = _images_in(Path(folder).expanduser())
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


def _roles_by_folder(root: Path) -> list[tuple[Path, str, str]]:
    found = []
    for subfolder, role in (("gt", "clean"), ("noisy", "noisy")):
        for path in _images_in(root / subfolder):
            name = path.relative_to(root / subfolder).with_suffix("").as_posix()
            found.append((path, name, role))
    return found


def _describe(name: str) -> tuple[str, int | None, str]:
    """(group, iso, scene) as far as a pair's name tells camera and ISO."""
    match = _SIDD_NAME.search(name) or _POLYU_NAME.search(name)
    if not match:
        return name, None, ""
    iso = match["iso"]
    return f"{match['camera']}_{iso}", int(iso), match["scene"]


def find_pairs(folder: str | Path) -> list[Pair]:
    """Lists the clean/noisy pairs under a folder, sorted by name.

    Layouts, told apart by themselves: SIDD (`..._S6_03200_.../[0001_]{GT,NOISY}_SRGB_010.PNG`),
    `NAME_gt.EXT` beside `NAME_noisy.EXT`, PolyU (`NAME_mean.JPG` beside `NAME_real.JPG`), and two
    folders `gt` and `noisy` with equal file names. Other image files are not looked at.

    Raises:
      InputError: the folder does not exist or holds no pair; an image has no partner, or one of
        another size; a file cannot be read.
    """
    root = Path(folder).expanduser()
    images = _images_in(root)
    if (root / "gt").is_dir() and (root / "noisy").is_dir():
        found = _roles_by_folder(root)
    else:
        roles = [(path, _role_by_name(path, root)) for path in images]
        found = [(path, *role) for path, role in roles if role]
    if not found:
        raise InputError(
            f"{folder}: no pair found: need SIDD's folders, NAME_gt/NAME_noisy or "
            "NAME_mean/NAME_real files, or two folders gt and noisy"
        )
    files: dict[str, dict[str, Path]] = defaultdict(dict)
    for path, name, role in found:
        if role in files[name]:
            raise InputError(
                f"{path}: a second {role} image of the pair, beside {files[name][role]}"
            )
        files[name][role] = path
    pairs = []
    for name, versions in sorted(files.items()):
        if len(versions) == 1:
            ((role, path),) = versions.items()
            raise InputError(
                f"{path}: its {'noisy' if role == 'clean' else 'clean'} partner is missing"
            )
        pair = Pair(name, versions["clean"], versions["noisy"], *_describe(name))
        if image_size(pair.clean) != image_size(pair.noisy):
            raise InputError(f"{pair.noisy}: its size differs from that of {pair.clean}")
        pairs.append(pair)
    return pairs


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise InputError(f"{path}: not a readable image ({error})") from error


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of an image file as `read_rgb` will give it; reads only the header.

    Raises:
      InputError: the file is no readable image.
    """
    with _open(Path(path)) as image:
        width, height = image.size
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # EXIF orientation
    return (width, height) if turned else (height, width)


def read_rgb(path: str | Path) -> np.ndarray:
    """Reads an image as 8-bit RGB, turned upright by its EXIF orientation.

    Grey becomes RGB, transparency is dropped, 16 bits are reduced to 8.

    Returns:
      uint8 [H, W, 3].

    Raises:
      InputError: the file is no readable image.
    """
    with _open(Path(path)) as image:
        try:
            image.load()
            upright = ImageOps.exif_transpose(image)
            if upright.mode == "F":
                raise InputError(
                    f"{path}: floating-point images have no fixed range: save 8 or 16 bits"
                )
            if upright.mode.startswith("I"):  # 16-bit grey
                levels = np.asarray(upright).astype(np.int64)
                grey = np.clip((levels + 128) // 257, 0, 255).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=-1)
            if upright.mode in ("P", "PA"):  # by way of RGBA, or Pillow warns about transparency
                upright = upright.convert("RGBA")
            return np.array(upright.convert("RGB"))
        except (OSError, Image.DecompressionBombError, SyntaxError) as error:
            raise InputError(f"{path}: not a readable image ({error})") from error


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


def _in_threads(function: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter lock
        return list(pool.map(function, items))


def load_photos(spec: str) -> list[tuple[str, np.ndarray]]:
    """Reads every photograph of a comma-separated list of folders: (name, uint8 [H, W, 3])."""
    paths = [path for folder, _ in parse_spec(spec) for path in find_photos(folder)]
    return list(zip([path.stem for path in paths], _in_threads(read_rgb, paths), strict=True))


def load_pairs(spec: str) -> list[tuple[Pair, np.ndarray, np.ndarray]]:
    """Reads every pair of a comma-separated list of folders: (pair, clean, noisy), uint8."""
    pairs = [pair for folder, _ in parse_spec(spec) for pair in find_pairs(folder)]
    clean = _in_threads(lambda pair: read_rgb(pair.clean), pairs)
    noisy = _in_threads(lambda pair: read_rgb(pair.noisy), pairs)
    return list(zip(pairs, clean, noisy, strict=True))


def _aligned_empty(size: int) -> np.ndarray:
    """uint8 [size] on a 64-byte boundary, so that TensorFlow can use it without a copy."""
    memory = np.empty(size + 63, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


def load_bank(photos: Sequence[Path], pairs: Sequence[Pair], smallest_side: int) -> ImageBank:
    """Reads photographs and pairs into one bank.

    Args:
      photos: image files.
      pairs: from `find_pairs`.
      smallest_side: what height and width of every image must reach, in pixels: the patch size.

    Raises:
      InputError: an image is too small or cannot be read.
    """
    clean = [*photos, *(pair.clean for pair in pairs)]
    files = [*clean, *(pair.noisy for pair in pairs)]
    sizes = np.array(_in_threads(image_size, files), np.int64).reshape(-1, 2)
    for path, (height, width) in zip(files, sizes, strict=True):
        if min(height, width) < smallest_side:
            raise InputError(
                f"{path}: {width}x{height} is smaller than the patch of {smallest_side}: "
                "lower data.patch_size or leave the image out"
            )
    starts = np.concatenate([[0], np.cumsum(sizes.prod(axis=1))])
    pixels = _aligned_empty(starts[-1] * 3).reshape(-1, 3)

    def fill(i: int) -> None:
        pixels[starts[i] : starts[i + 1]] = read_rgb(files[i]).reshape(-1, 3)

    _in_threads(fill, range(len(files)))
    n = len(clean)
    noisy_offsets = np.concatenate([starts[: len(photos)], starts[n : len(files)]])
    return ImageBank(pixels, starts[:n], noisy_offsets, sizes[:n, 0], sizes[:n, 1])

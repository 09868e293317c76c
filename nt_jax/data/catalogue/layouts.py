"""Which files of a folder are clean, which noisy, and which belong together: told by their names.

A role is told by a folder (`gt/a.png` beside `noisy/a.png`; `target` and `input`, `clean` and
`noisy`, in any case, with equal rests such as `input_crops` and `target_crops`) or by the file
itself (`a_gt.png` beside `a_noisy.png`, `GT_SRGB_010.PNG` beside `NOISY_SRGB_010.PNG`). Names are
compared in one form of Unicode. One clean image may have several noisy versions: `a_noisy_1.png`,
`noisy/a_2.png`, `noisy/a/3.png`.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from nt_jax.errors import InputError
from nt_jax.images import EXTENSIONS
from nt_jax.paths import Folder, look_through, same_name

_WORDS = {
    "clean": ("gt", "groundtruth", "ground_truth", "ground-truth", "clean", "target"),
    "noisy": ("noisy", "input"),
}
_FILE_WORDS = {"clean": (*_WORDS["clean"], "mean"), "noisy": (*_WORDS["noisy"], "real")}
_ROLES = {word: role for role, words in _FILE_WORDS.items() for word in words}
_GAP = r"[_\-. ]"
_VERSION = r"\(?[a-z]*\d+\)?"  # such as 2, (2), iso3200
_SIDD = re.compile(r"(?:\d+_)?(gt|noisy)_srgb_(\d+)", re.I)
_LAST = re.compile(rf"(.+?){_GAP}({'|'.join(_ROLES)})(?:{_GAP}?({_VERSION}))?", re.I)
_FIRST = re.compile(
    rf"({'|'.join(word for words in _WORDS.values() for word in words)}){_GAP}(.+)", re.I
)
_END = re.compile(rf"(?:{_GAP}{_VERSION}|\(\d+\))$", re.I)


class RoleFile(NamedTuple):
    """A file and what its name tells.

    Attributes:
      path: the file.
      role: "clean" or "noisy".
      exact: its name, which that of its partner equals, or
      bare: that name without the word for its role, which that of its partner then equals.
    """

    path: Path
    role: str
    exact: str
    bare: str


class Match(NamedTuple):
    """A noisy image and its clean one.

    Attributes:
      name: unique.
      clean, noisy: files.
      shared: name of the clean image where it has other noisy versions too; else "".
    """

    name: str
    clean: Path
    noisy: Path
    shared: str


def _folder_role(name: str) -> tuple[str, str] | None:
    """Reads ("clean" or "noisy", the rest of a folder's name); None where it tells no role."""
    for role, words in _WORDS.items():
        for word in words:
            found = re.fullmatch(rf"(?:(.+){_GAP})?{word}s?(?:{_GAP}(.+))?", name, re.I)
            if found:
                return role, "_".join(filter(None, found.groups())).lower()
    return None


def _folder_pairs(folders: Iterable[Path]) -> list[tuple[Path, Path, str]]:
    """Pairs folders side by side, upper ones first: (clean, noisy, rest of their names)."""
    beside: dict[tuple[Path, str], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for folder in folders:
        if told := _folder_role(folder.name):
            beside[folder.parent, told[1]][told[0]].append(folder)
    pairs = []
    for (_, rest), roles in sorted(beside.items()):
        if len(roles) < 2:
            continue
        for role, same in roles.items():
            if len(same) > 1:
                raise InputError(
                    f"{same[0]} and {same[1]}: two folders of {role} images; put one elsewhere"
                )
        pairs.append((roles["clean"][0], roles["noisy"][0], rest))
    return sorted(pairs, key=lambda pair: len(pair[0].parts))


def _without(stem: str, role: str) -> str:
    """Strips the word for a role from a name, wherever it is: `0001_NOISY_010` -> `0001_010`."""
    words = "|".join(_FILE_WORDS[role])
    bare = re.sub(rf"(?:(?<=^)|{_GAP})(?:{words})(?={_GAP}|$)", "", stem, flags=re.I)
    return bare.strip("_-. ") or stem


def in_folders(files: Iterable[Path], folder: Path, role: str, prefix: str = "") -> list[RoleFile]:
    """Lists the files of a folder that tells their role."""
    found = []
    for path in files:
        below = path.relative_to(folder)
        exact, bare = (
            same_name("/".join(filter(None, (prefix, (below.parent / stem).as_posix()))))
            for stem in (below.stem, _without(below.stem, role))
        )
        found.append(RoleFile(path, role, exact, bare))
    return found


def by_name(path: Path, root: Path) -> RoleFile | None:
    """Reads the role off a file's own name; None where it tells none."""
    folder, stem = path.parent.relative_to(root), path.stem
    if sidd := _SIDD.fullmatch(stem):
        owner = folder if folder.name else Path(root.name)
        role, name = _ROLES[sidd[1].lower()], f"{owner.as_posix()}_{sidd[2]}"
    elif last := _LAST.fullmatch(stem):
        role = _ROLES[last[2].lower()]
        name = (folder / "_".join(filter(None, (last[1], last[3])))).as_posix()
    elif first := _FIRST.fullmatch(stem):
        role, name = _ROLES[first[1].lower()], (folder / first[2]).as_posix()
    else:
        return None
    return RoleFile(path, role, same_name(name), same_name(name))


def find_roles(files: Iterable[Path], folders: Iterable[Path], root: Path) -> list[RoleFile]:
    """Lists the files below a folder that have a role, told by folders before their own names."""
    left, found = list(files), []
    for clean, noisy, rest in _folder_pairs(folder for folder in folders if folder != root):
        above = clean.parent.relative_to(root).as_posix()
        prefix = "/".join(part for part in (above, rest) if part not in ("", "."))
        for folder, role in ((clean, "clean"), (noisy, "noisy")):
            inside = [path for path in left if path.is_relative_to(folder)]
            found += in_folders(inside, folder, role, prefix)
            left = [path for path in left if not path.is_relative_to(folder)]
    return found + [one for path in left if (one := by_name(path, root))]


def match(found: Iterable[RoleFile]) -> tuple[list[Match], list[str]]:
    """Matches pairs, sorted by name, and writes a line for each file without a partner."""
    problems: list[str] = []
    clean, noisy = _unique(found, "clean", problems), _unique(found, "noisy", problems)
    bare = {one.bare: one for one in clean.values()}
    partners = [(one, _partner(one, clean, bare)) for one in noisy.values()]
    problems += [
        f"{one.path}: its clean partner is missing" for one, other in partners if not other
    ]
    versions = Counter(other.path for _, other in partners if other)
    problems += [
        f"{one.path}: its noisy partner is missing"
        for one in clean.values()
        if not versions[one.path]
    ]
    matches: dict[str, Match] = {}
    named = [
        (one.exact if one.exact == other.exact else one.bare, one, other)
        for one, other in partners
        if other
    ]
    # Those named like their files come first: `noisy-x` must not take the name of `x` beside it.
    for name, one, other in sorted(named, key=lambda found: found[0] != found[1].exact):
        if name in matches:
            name = one.exact
        shared = other.bare if versions[other.path] > 1 else ""
        matches[name] = Match(name, other.path, one.path, shared)
    return [matches[name] for name in sorted(matches)], problems


def _unique(found: Iterable[RoleFile], role: str, problems: list[str]) -> dict[str, RoleFile]:
    """Collects the files of a role by their exact names."""
    files: dict[str, RoleFile] = {}
    for one in found:
        if one.role != role:
            continue
        first = files.setdefault(one.exact, one)
        if first is not one:
            problems.append(f"{one.path}: a second {role} image of the pair, beside {first.path}")
    return files


def _partner(
    noisy: RoleFile, exact: dict[str, RoleFile], bare: dict[str, RoleFile]
) -> RoleFile | None:
    """Finds the clean image of a noisy one; of one of several versions, by less of its name."""
    above = noisy.bare.rpartition("/")[0]
    for names, name in ((exact, noisy.exact), (bare, noisy.bare)):
        if name in names:
            return names[name]
    return bare.get(_END.sub("", noisy.bare)) or bare.get(above)


def check_clean(root: Path) -> list[Path]:
    """Lists the image files under a folder of clean photographs, sorted.

    Raises:
      InputError: there is no such folder, or noisy images are among them by their names.
    """
    return clean_among(look_through(root, EXTENSIONS), root)


def clean_among(found: Folder, root: Path) -> list[Path]:
    """Does what `check_clean` does, with a folder that was looked through."""
    noisy = _noisy_among(found, root)
    if noisy:
        raise InputError(
            f"{noisy} is noisy by its name, but clean photographs are asked for: give the folder "
            "as pairs, or the clean images alone"
        )
    return found.files


def _noisy_among(found: Folder, root: Path) -> Path | None:
    """Finds a file that is the noisy half of a pair, or says so itself; None if there is none."""
    told = _folder_role(root.name)
    if told and told[0] == "noisy":
        beside = [path for path in root.resolve().parent.iterdir() if path.is_dir()]
        if any(noisy.name == root.name for _, noisy, _ in _folder_pairs(beside)):
            return root
    roles = find_roles(found.files, found.folders, root)
    halves = {pair.noisy for pair in match(roles)[0]}
    named = re.compile(rf"(?:^|{_GAP})noisy(?={_GAP}|$)", re.I)
    noisy = (one.path for one in roles if one.role == "noisy")
    return next((path for path in noisy if path in halves or named.search(path.stem)), None)

"""Which pairs show another photograph: what may stand in as a pair's reference besides itself.

One rule for training, held-out patches and evaluations. The tiles of one photograph share its very
noise, its light and its content, so none of them is "another image" for another.
"""

import re
from collections.abc import Sequence

from nt_jax.data.catalogue.sources import Pair, parse_capture

# What may follow the names of a photograph's settings: the number of the shot, as SIDD's files have
# it (`..._L/NOISY_SRGB_011.PNG` is another shot than `010`).
_SIDD_PHOTOGRAPH = re.compile(r"(?:^|[/ ])(\d+_\d+_[A-Z0-9]+_\d+_\d+_\d+_[LNH])(?=[_/]|$)", re.I)
_SHOT = re.compile(r"_(\d{3})$")
_SIDD_SHOT_FILE = re.compile(r"^(?:\d+_)?(?:gt|noisy)_srgb_\d+$", re.I)
_CROP_NUMBER = re.compile(r"_+\d+$")


def photograph(pair: Pair) -> str:
    """Names the photograph that a pair is, or was cut from; its tiles and crops share it.

    A tile that `prepare` cut tells by itself. Of other files, the names of SIDD and PolyU do;
    a file of any other name is a photograph of its own.
    """
    name = pair.image or pair.name
    if match := _SIDD_PHOTOGRAPH.search(name):
        whole = pair.image or _SIDD_SHOT_FILE.match(pair.clean.stem)
        shot = _SHOT.search(name[match.end() :]) if whole else None
        return match[1] + (shot[0] if shot else "")
    if parse_capture(name).camera:  # PolyU: crops of a photograph are numbered
        return _CROP_NUMBER.sub("", name.rpartition("/")[2])
    return pair.image or str(pair.clean)


def next_other(index: int, pairs: Sequence[Pair], photographs: Sequence[str]) -> int | None:
    """Finds the next pair of the same camera and ISO that is of another photograph.

    Gives its number, starting over at the end; None where there is none, or camera and ISO are not
    known.

    Args:
      index: of the pair that asks.
      pairs: all.
      photographs: `photograph` of each.
    """
    if pairs[index].iso is None:
        return None
    for turn in range(1, len(pairs)):
        other = (index + turn) % len(pairs)
        same = pairs[other].group == pairs[index].group
        if same and photographs[other] != photographs[index]:
            return other
    return None

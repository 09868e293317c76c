"""Every field of a training config: the values it takes, and whether a run may resume with another.

configs/common.py says what the fields mean. This is the one list of what can be asked of them;
docs/reliability.md says its second part in words.
"""

import json
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from nt_jax import families, noise
from nt_jax.errors import InputError

_LARGEST = 2**31 - 1


class Kind(NamedTuple):
    """Values that a field takes: what they are, in words, and the test."""

    words: str
    takes: Callable[[Any], bool]


def integer(low: int, high: int = _LARGEST, step: int = 1) -> Kind:
    def takes(value: Any) -> bool:
        return _is_integer(value) and low <= value <= high and value % step == 0

    multiple = f", a multiple of {step}" if step > 1 else ""
    limit = "" if high == _LARGEST else f" and at most {high}"
    return Kind(f"must be a whole number, at least {low}{limit}{multiple}", takes)


def number(low: float, high: float = math.inf, *, above: bool = False, below: bool = False) -> Kind:
    """Describes a number from `low` to `high`; `above`, `below`: less these bounds themselves."""

    def takes(value: Any) -> bool:
        if not _is_number(value):
            return False
        return (low < value if above else low <= value) and (
            value < high if below else value <= high
        )

    words = f"must be a finite number, {'above' if above else 'at least'} {low:g}"
    if high < math.inf:
        words += f" and {'below' if below else 'at most'} {high:g}"
    return Kind(words, takes)


def choice(*allowed: str) -> Kind:
    def takes(value: Any) -> bool:
        return isinstance(value, str) and value in allowed

    return Kind(f"choose from {', '.join(allowed)}", takes)


def several(kind: Kind, count: int | None = None) -> Kind:
    def takes(value: Any) -> bool:
        if isinstance(value, str) or not isinstance(value, Sequence):
            return False
        return count in (None, len(value)) and all(map(kind.takes, value))

    return Kind(f"must be {count or 'any number of'} values, of which each {kind.words}", takes)


def _is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and math.isfinite(value)


COUNT = integer(1)
FLAG = Kind("must be True or False", lambda value: isinstance(value, bool))
TEXT = Kind("must be text", lambda value: isinstance(value, str))
SHARE = number(0, 1)
WEIGHT = number(0)
DECAY = number(0, 1, below=True)
# The blur of the losses reflects 10 pixels, and the generator's third level is a quarter of a side.
PATCH = integer(12, step=4)
SYNTHETIC = tuple(name for name in noise.KINDS if name != "real")
REFERENCES = ("same_image", "same_iso", "same_group", "other_image", "none")
SYNTHETIC_REFERENCES = ("other_image", "same_image")
DTYPE = choice("float32", "bfloat16")

# What every family has; its own FIELDS come beside.
COMMON = {
    "family": TEXT,
    "seed": integer(0, 2**32 - 1),
    "data.loader": choice("tfdata", "device"),
    "data.patch_size": PATCH,
    "data.photos": TEXT,
    "data.pairs": TEXT,
    "data.cache": TEXT,
    "data.real_fraction": SHARE,
    "data.mixing": choice("fixed", "uniform"),
    "data.noise_kinds": several(choice(*SYNTHETIC)),
    "data.noise_kind_weights": several(WEIGHT),
    "data.sigma_range": several(number(0, 1e4), 2),
    "data.lam_range": several(number(0, noise.MOST_PHOTONS, above=True), 2),
    "data.camera_levels": TEXT,
    "data.camera_jpeg_quality": several(number(0, 100), 2),
    "data.camera_processing": FLAG,
    "data.grey_fraction": SHARE,
    "data.real_reference": choice(*REFERENCES),
    "data.synthetic_reference": choice(*SYNTHETIC_REFERENCES),
    "data.pair_clean_fraction": number(-1, 1),
    "data.blur_pair_clean": FLAG,
    "data.blend_probability": SHARE,
    "data.cutmix_probability": SHARE,
    "data.dequantise": FLAG,
    "train.steps": COUNT,
    "train.init_from": TEXT,
    "train.batch_size": COUNT,
    "train.learning_rate": WEIGHT,
    "train.decay": choice("halve", "cosine"),
    "train.halve_at": several(COUNT),
    "train.adam_b1": DECAY,
    "train.adam_b2": DECAY,
    "train.l2": WEIGHT,
    "train.ema_decay": DECAY,
    "train.checkpoint_every": COUNT,
    "train.keep_checkpoints": COUNT,
    "train.log_every": COUNT,
    "eval.photos": TEXT,
    "eval.pairs": TEXT,
    "eval.every": COUNT,
    "eval.patches": COUNT,
    "eval.patch_size": PATCH,
}

# What a checkpoint's own config settles; to change it, start anew from its networks with
# train.init_from. Sections as a whole, and the batch: the queue is written in whole batches, and
# rows of the data are counted in them. Every other field may differ when a run resumes.
KEPT = ("model", "variant", "denoiser", "train.batch_size")
# What these were before a config had them.
ADDED = {
    "model.kind": "ridnet",
    "model.reads": "readings",
    "data.synthetic_reference": "other_image",
}
# These may change, but not between 0 and more.
KEPT_IF_ZERO = ("train.ema_decay",)


def fields_of(config: Any) -> dict[str, Kind]:
    """Lists the fields of a config, by dotted name: the common ones and its family's."""
    return COMMON | dict(families.find(families.name_of(config)).FIELDS)


def check_fields(config: Any) -> None:
    """Checks each field by itself; fields that are not ours are left alone.

    Raises:
      InputError: a field is missing or has a value that cannot be used; names it.
    """
    _check(config, "family", COMMON["family"])
    for name, kind in fields_of(config).items():
        _check(config, name, kind)


def check_config(config: Any, devices: int) -> None:
    """Checks all of a training config before anything is read or written.

    Raises:
      InputError: a field is missing or has a value that cannot be used, alone, beside the others or
        on that many devices; names it.
    """
    check_fields(config)
    _check_data_together(config.data)
    if config.train.batch_size % devices:
        raise InputError(
            f"config.train.batch_size={config.train.batch_size} is not a multiple of the"
            f" {devices} devices"
        )
    family = families.find(families.name_of(config))
    for relation in getattr(family, "RELATIONS", ()):
        if wrong := relation(config):
            raise InputError(wrong)


def synthetic_reference(data: Any) -> str:
    """Reads `data.synthetic_reference`, which configs of before do not have."""
    return getattr(data, "synthetic_reference", ADDED["data.synthetic_reference"])


def check_data(data: Any) -> None:
    """Checks each field of `config.data`, and what they ask of each other.

    Raises:
      InputError: names the field.
    """
    for name, kind in COMMON.items():
        section, _, field = name.partition(".")
        if section == "data" and hasattr(data, field):  # which configs of before may lack
            _check_value(name, getattr(data, field), kind)
    _check_data_together(data)


def _check_data_together(data: Any) -> None:
    """Checks what the fields of `config.data`, each good by itself, ask of each other."""

    def require(field: str, holds: bool, words: str) -> None:
        if not holds:
            raise InputError(f"config.data.{field}: {words}")

    kinds, weights = tuple(data.noise_kinds), tuple(data.noise_kind_weights)
    once = 0 < len(kinds) == len(set(kinds))
    require("noise_kinds", once, "needs one or more kinds, each once")
    each = len(weights) == len(kinds) and sum(weights) > 0
    words = "needs one weight for each of noise_kinds, one above 0"
    require("noise_kind_weights", each, words)
    for field in ("sigma_range", "lam_range"):
        low, high = getattr(data, field)
        require(field, low <= high, f"needs (low, high) with low <= high, not {(low, high)}")
    low, high = data.camera_jpeg_quality
    if (low, high) != (0, 0):
        words = "config.data.camera_processing has a JPEG of its own; leave one out"
        require("camera_jpeg_quality", not getattr(data, "camera_processing", False), words)
        words = f"needs (low, high) with 1 <= low <= high, or (0, 0) for no JPEG, not {(low, high)}"
        require("camera_jpeg_quality", 1 <= low <= high, words)


def _check(config: Any, name: str, kind: Kind) -> None:
    section, _, field = name.rpartition(".")
    found = config.get(section) if section else config
    if not hasattr(found, "get") or field not in found:
        raise InputError(
            f"the config has no field {name}; make it from configs/common.py's base_config"
        )
    _check_value(name, found[field], kind)


def _check_value(name: str, value: Any, kind: Kind) -> None:
    if not kind.takes(value):
        shown = " ".join(repr(value).split())
        raise InputError(f"config.{name}={shown}: {kind.words}")


def no_average(config: Any) -> str:
    """Says what is wrong if a family that keeps no moving average is asked for one."""
    if not config.train.ema_decay:
        return ""
    return f"config.train.ema_decay={config.train.ema_decay}: {config.family} keeps no average; 0"


def no_references(config: Any) -> str:
    """Says what is wrong if batches have no references; for what is trained on them."""
    if config.data.real_reference != "none":
        return ""
    return (
        "config.data.real_reference=none: training needs references: choose from"
        f" {', '.join(name for name in REFERENCES if name != 'none')}"
    )


def unpaired_images(config: Any) -> str:
    """Says what is wrong if batches have no noisy image beside the clean one's own."""
    for name, alike in (
        ("real_reference", ("same_image", "none")),
        ("synthetic_reference", ("same_image",)),
    ):
        if config.data[name] in alike:
            return (
                f"config.data.{name}={config.data[name]}: training without pairs needs noisy images"
                " of other photographs: other_image"
            )
    return ""


def kept(name: str) -> bool:
    """Tells whether a run can only resume with the value it has for this field."""
    return name in KEPT or name.partition(".")[0] in KEPT


def check_resume(step: int, saved: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Compares a checkpoint's config with the one to resume with.

    Args:
      step: of the checkpoint.
      saved, wanted: as JSON has them.

    Returns:
      "NAME=NOW (was THEN)" of each field that changes and may.

    Raises:
      InputError: one that may not.
    """
    family, other = families.name_of(wanted), families.name_of(saved)
    if family != other:
        raise InputError(
            f"the checkpoint of step {step} has config.family={other}, not {family}: it is of"
            " another kind of model; choose another workdir"
        )
    before, now = _flat(saved), _flat(wanted)
    changed = []
    for name, value in now.items():
        then = before.get(name, ADDED.get(name))
        # A field that the checkpoint's version had not, and that is off, changes nothing.
        if then == value or (name not in before and not value):
            continue
        both_sides = name in KEPT_IF_ZERO and bool(then) != bool(value)
        if kept(name) or both_sides:
            why = ", and with 0 there is no average" if both_sides else ""
            raise InputError(
                f"the checkpoint of step {step} has config.{name}={then}, not {value}{why}; set it"
                " back, or choose another workdir (train.init_from starts it with these networks)"
            )
        if name in before or name in ADDED:
            changed.append(f"{name}={value} (was {then})")
    return changed


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for section, value in json.loads(json.dumps(config)).items():
        if isinstance(value, dict):
            flat |= {f"{section}.{name}": field for name, field in value.items()}
        else:
            flat[section] = value
    return flat

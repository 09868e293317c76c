"""Every field of a training config: the values it takes, and whether a run may resume with another.

configs/common.py says what the fields mean. This is the one list of what can be asked of them;
docs/reliability.md says its second part in words.
"""

import json
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from nt_jax.data import noise
from nt_jax.errors import InputError
from nt_jax.models.denoisers import KINDS as DENOISERS

_LARGEST = 2**31 - 1


class Kind(NamedTuple):
    """Values that a field takes: what they are, in words, and the test."""

    words: str
    takes: Callable[[Any], bool]


def _integer(low: int, high: int = _LARGEST, step: int = 1) -> Kind:
    def takes(value: Any) -> bool:
        return _is_integer(value) and low <= value <= high and value % step == 0

    multiple = f", a multiple of {step}" if step > 1 else ""
    limit = "" if high == _LARGEST else f" and at most {high}"
    return Kind(f"must be a whole number, at least {low}{limit}{multiple}", takes)


def _number(
    low: float, high: float = math.inf, *, above: bool = False, below: bool = False
) -> Kind:
    """From `low` to `high`; `above`, `below`: less these bounds themselves."""

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


def _choice(*allowed: str) -> Kind:
    def takes(value: Any) -> bool:
        return isinstance(value, str) and value in allowed

    return Kind(f"choose from {', '.join(allowed)}", takes)


def _several(kind: Kind, count: int | None = None) -> Kind:
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


_COUNT = _integer(1)
_FLAG = Kind("must be True or False", lambda value: isinstance(value, bool))
_TEXT = Kind("must be text", lambda value: isinstance(value, str))
_SHARE = _number(0, 1)
_WEIGHT = _number(0)
_DECAY = _number(0, 1, below=True)
# The blur of the losses reflects 10 pixels, and the generator's third level is a quarter of a side.
_PATCH = _integer(12, step=4)
_KINDS = tuple(name for name in noise.KINDS if name != "real")
_DTYPE = _choice("float32", "bfloat16")

COMMON = {
    "seed": _integer(0, 2**32 - 1),
    "data.loader": _choice("tfdata", "device"),
    "data.patch_size": _PATCH,
    "data.photos": _TEXT,
    "data.pairs": _TEXT,
    "data.cache": _TEXT,
    "data.real_fraction": _SHARE,
    "data.mixing": _choice("fixed", "uniform"),
    "data.noise_kinds": _several(_choice(*_KINDS)),
    "data.noise_kind_weights": _several(_WEIGHT),
    "data.sigma_range": _several(_number(0, 1e4), 2),
    "data.lam_range": _several(_number(0, 1e6, above=True), 2),
    "data.camera_levels": _TEXT,
    "data.camera_jpeg_quality": _several(_number(0, 100), 2),
    "data.camera_processing": _FLAG,
    "data.grey_fraction": _SHARE,
    "data.real_reference": _choice("same_image", "same_iso", "same_group", "other_image", "none"),
    "data.pair_clean_fraction": _number(-1, 1),
    "data.blur_pair_clean": _FLAG,
    "data.blend_probability": _SHARE,
    "data.cutmix_probability": _SHARE,
    "data.dequantise": _FLAG,
    "train.steps": _COUNT,
    "train.init_from": _TEXT,
    "train.batch_size": _COUNT,
    "train.learning_rate": _WEIGHT,
    "train.decay": _choice("halve", "cosine"),
    "train.halve_at": _several(_COUNT),
    "train.adam_b1": _DECAY,
    "train.adam_b2": _DECAY,
    "train.l2": _WEIGHT,
    "train.ema_decay": _DECAY,
    "train.checkpoint_every": _COUNT,
    "train.keep_checkpoints": _COUNT,
    "train.log_every": _COUNT,
    "eval.photos": _TEXT,
    "eval.pairs": _TEXT,
    "eval.every": _COUNT,
    "eval.patches": _COUNT,
    "eval.patch_size": _PATCH,
}

NOISETRANSFER = COMMON | {
    "model.width": _COUNT,
    "model.blocks": _several(_COUNT, 3),
    "model.discriminator_blocks": _several(_COUNT, 3),
    "model.embedding_size": _COUNT,
    "model.embedding_bound": _choice("tanh", "l2"),
    "model.gan_trunk": _choice("block", "head"),
    "model.reader": _FLAG,
    "model.log_squares": _FLAG,
    "model.queue_length": _COUNT,
    "model.momentum": _SHARE,
    "model.dtype": _DTYPE,
    "variant.batch_negatives": _FLAG,
    "variant.halved_gan_d": _FLAG,
    "variant.power_iterations": _COUNT,
    "losses.noise_d": _WEIGHT,
    "losses.gan_d": _WEIGHT,
    "losses.noise_g": _WEIGHT,
    "losses.gan_g": _WEIGHT,
    "losses.noise_fm": _WEIGHT,
    "losses.gan_fm": _WEIGHT,
    "losses.recon": _WEIGHT,
    "losses.noise_level": _WEIGHT,
    "losses.wasserstein": _WEIGHT,
    "losses.reading": _WEIGHT,
    "losses.autocorrelation": _WEIGHT,
    "losses.temperature": _number(0, above=True),
}

DENOISER = COMMON | {
    "model.kind": _choice(*DENOISERS),
    "model.width": _COUNT,
    "model.blocks": _COUNT,
    "model.dtype": _DTYPE,
    "denoiser.noise": _choice("generated", "real", "synthetic"),
    "denoiser.model": _TEXT,
    "denoiser.crop": _integer(0),
}

# What a checkpoint's own config settles; to change it, start anew from its networks with
# train.init_from. Sections as a whole, and the batch: the queue is written in whole batches, and
# rows of the data are counted in them. Every other field may differ when a run resumes.
KEPT = ("model", "variant", "denoiser", "train.batch_size")
# What these were before a config had them.
ADDED = {"model.kind": "ridnet"}
# These may change, but not between 0 and more.
KEPT_IF_ZERO = ("train.ema_decay",)


def fields_of(config: Any) -> dict[str, Kind]:
    """The fields of a config, by dotted name: a denoiser's if it has a section `denoiser`."""
    return DENOISER if "denoiser" in config else NOISETRANSFER


def check_fields(config: Any) -> None:
    """Checks each field by itself; fields that are not ours are left alone.

    Raises:
      InputError: a field is missing or has a value that cannot be used; names it.
    """
    for name, kind in fields_of(config).items():
        section, _, field = name.rpartition(".")
        found = config.get(section) if section else config
        if not hasattr(found, "get") or field not in found:
            raise InputError(
                f"the config has no field {name}; make it from configs/common.py's base_config"
            )
        if not kind.takes(found[field]):
            value = " ".join(repr(found[field]).split())
            raise InputError(f"config.{name}={value}: {kind.words}")


def kept(name: str) -> bool:
    """Whether a run can only resume with the value it has."""
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
        if name in before:
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

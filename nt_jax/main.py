"""Trains NoiseTransfer, or a denoiser: what the config describes.

  python -m nt_jax.main --config=configs/noisetransfer.py:small --workdir=runs/small \
    --config.data.photos=DIR --config.data.pairs=DIR
  python -m nt_jax.main --config=configs/denoiser.py:generated-small --workdir=runs/denoiser \
    --config.denoiser.model=runs/small --config.data.photos=DIR --config.data.pairs=DIR

A workdir that holds a checkpoint is resumed.
"""

import os
import pathlib
import sys
from typing import Any

from absl import flags
from ml_collections import config_flags

from nt_jax.errors import InputError, run_command


def parse() -> tuple[Any, pathlib.Path]:
    """Config and workdir from `sys.argv`, where ml_collections looks for a config's fields.

    Raises:
      InputError: an unknown flag, config file, config argument, field, or value.
    """
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, "Recipe, as FILE.py or FILE.py:ARG.", flag_values=values
    )
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    try:
        rest = values(sys.argv)
        config = values.config
    except InputError:
        raise
    except (flags.Error, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(_input_error_behind(error) or str(error)) from error
    if len(rest) > 1:
        raise InputError(f"unexpected argument {rest[1]!r}; flags begin with --")
    if config is None or not values.workdir:
        raise InputError(
            "give --config=FILE.py[:ARG] and --workdir=DIR,"
            " e.g. --config=configs/noisetransfer.py:smoke --workdir=runs/smoke"
        )
    file = pathlib.Path(config_flags.get_config_filename(values["config"]).split(":")[0])
    if not file.is_file():
        raise InputError(f"no config file {file}; the recipes are in configs/")
    workdir = pathlib.Path(values.workdir)
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"--workdir={workdir} is a file; name a folder")
    return config, workdir


def _input_error_behind(error: BaseException) -> str:
    """Message of the InputError that a config file raised, if `error` came from one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return ""


def main() -> None:
    """The command."""
    config, workdir = parse()
    # TensorFlow's start-up messages say nothing about this run.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from nt_jax.compilation import use_compilation_cache
    from nt_jax.training.loop import train_and_evaluate
    from nt_jax.training.task import task_class

    use_compilation_cache()
    summary = train_and_evaluate(config, workdir)
    print_summary(summary, workdir, task_class(config).titles)


def print_summary(summary: dict[str, Any], workdir: pathlib.Path, titles: dict[str, str]) -> None:
    """Prints held-out scores at the start and at the end, and where the pictures are."""
    width = max(map(len, titles.values())) + 2
    print(f"\n{'held-out patches':<{width}}{'start':>9}{'end':>9}")
    for name, title in titles.items():
        start, end = (summary[when][f"eval/{name}"] for when in ("start", "end"))
        print(f"{title:<{width}}{start:>9.3f}{end:>9.3f}")
    print(f"\npictures: {workdir / 'samples'}    numbers: {workdir / 'metrics.jsonl'}")


if __name__ == "__main__":
    run_command(main)

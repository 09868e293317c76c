"""Trains NoiseTransfer, or a denoiser: what the config describes.

  python -m nt_jax.main --config=configs/noisetransfer.py:small --workdir=runs/small \
    --config.data.photos=DIR --config.data.pairs=DIR
  python -m nt_jax.main --config=quickstart --workdir=runs/quickstart
  python -m nt_jax.main --config=configs/denoiser.py:generated-small --workdir=runs/denoiser \
    --config.denoiser.model=runs/small --config.data.photos=DIR --config.data.pairs=DIR

A workdir that holds a checkpoint is resumed. On several processes run the same command in each,
with --coordinator=HOST:PORT --num_processes=N --process_id=I, and a workdir that all of them can
write; on SLURM and TPU pods without these flags.
"""

import logging
import math
import os
import pathlib
import sys
import traceback
from typing import Any, NamedTuple

import absl.logging
from absl import flags
from ml_collections import ConfigDict, config_flags

from nt_jax import configs
from nt_jax.errors import InputError, quiet_decoders, run_command
from nt_jax.paths import exists, expand, is_file, is_folder


class Arguments(NamedTuple):
    """Reads the command line; the last three are None where not given."""

    config: Any
    workdir: pathlib.Path
    coordinator: str | None
    num_processes: int | None
    process_id: int | None


def parse() -> Arguments:
    """Reads the arguments from `sys.argv`, where ml_collections looks for a config's fields.

    With --help it prints the flags and exits, as the other commands' parsers do.

    Raises:
      InputError: an unknown flag, config file, config argument, field, or value.
    """
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, "Recipe: NAME or FILE.py, or either with :ARG.", flag_values=values
    )
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0.", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "How many processes train.", flag_values=values)
    flags.DEFINE_integer("process_id", None, "Number of this one, from 0.", flag_values=values)
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        print(values.get_help(include_special_flags=False))
        print(f"Recipes: {', '.join(configs.names())}.")
        print("Fields of a recipe: --config.FIELD=VALUE; configs/common.py says what they are.")
        sys.exit()
    try:
        rest = values(_with_recipe(sys.argv))
        config = values.config
    except Exception as error:  # a config file is a program, and may raise anything
        raise InputError(_said_by_config(error) or str(error)) from error
    if len(rest) > 1:
        raise InputError(f"unexpected argument {rest[1]!r}; flags begin with --")
    if not values["config"].present or not values.workdir:
        raise InputError(
            "give --config=FILE.py[:ARG] and --workdir=DIR,"
            " e.g. --config=configs/noisetransfer.py:smoke --workdir=runs/smoke"
        )
    file = pathlib.Path(config_flags.get_config_filename(values["config"]).split(":")[0])
    if not is_file(file):
        raise InputError(f"no config file {file}; the recipes are {', '.join(configs.names())}")
    if not isinstance(config, ConfigDict):
        raise InputError(f"{file}: get_config returns no ConfigDict; see configs/common.py")
    _expand_fields(config)
    workdir = expand(values.workdir)
    if exists(workdir) and not is_folder(workdir):
        raise InputError(f"--workdir={workdir} is a file; name a folder")
    cluster = values.coordinator, values.num_processes, values.process_id
    if any(value is not None for value in cluster) and None in cluster:
        raise InputError("give --coordinator, --num_processes and --process_id together")
    return Arguments(config, workdir, *cluster)


def _with_recipe(argv: list[str]) -> list[str]:
    """Puts the file of the recipe that --config names into the command line."""
    arguments = list(argv)
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name.lstrip("-") != "config" or not name.startswith("-"):
            continue
        if equals:
            arguments[index] = f"{name}={configs.find_recipe(value)}"
        elif index + 1 < len(arguments):
            arguments[index + 1] = configs.find_recipe(arguments[index + 1])
    return arguments


def _expand_fields(config: Any) -> None:
    """Expands `~` in every field that begins with it: only paths do."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            _expand_fields(value)
        elif isinstance(value, str) and value.startswith("~"):
            config[name] = str(expand(value))


def _said_by_config(error: BaseException) -> str:
    """Finds one line of what a config file raised; "" where a flag is wrong and not the file.

    ml_collections raises it again with the text of its traceback for a message.
    """
    raised: BaseException | None = error
    while raised and not str(raised).startswith("Error whilst parsing config file"):
        raised = raised.__cause__ or raised.__context__
    raised = raised.__context__ if raised else error
    if raised is None or isinstance(raised, flags.Error):
        return ""
    text = " ".join(str(raised).split())
    if isinstance(raised, InputError):
        return text
    if isinstance(raised.args[0] if raised.args else None, KeyError):  # ml_collections' own
        return "the recipe has no such field: " + " ".join(str(raised.args[0].args[0]).split())
    if text.startswith("get_config() takes"):
        return f"this --config takes no argument behind a colon, or another number ({text})"
    frames = traceback.extract_tb(raised.__traceback__)
    own = [frame for frame in frames if frame.name in ("get_config", "<module>")]
    place = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return f"--config cannot be made: {type(raised).__name__}: {text}{place}"


def _quiet_saves() -> None:
    """Leaves it to one line of ours to tell that a save failed.

    Orbax's threads log the same with pages of tracebacks, and so does asyncio; writes under way
    then find their event loop closed, each with a traceback through `sys.unraisablehook`.
    """
    absl.logging.set_verbosity(absl.logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    hook = sys.unraisablehook

    def without_closed_loops(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    sys.unraisablehook = without_closed_loops


@quiet_decoders()
def main() -> None:
    """Runs the command."""
    arguments = parse()
    _quiet_saves()
    # TensorFlow's start-up messages say nothing about this run.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import jax

    from nt_jax import families
    from nt_jax.compilation import use_compilation_cache
    from nt_jax.devices import check_devices
    from nt_jax.training.cluster import join_cluster
    from nt_jax.training.loop import train_and_evaluate

    use_compilation_cache()
    join_cluster(arguments.coordinator, arguments.num_processes, arguments.process_id)
    check_devices()
    summary = train_and_evaluate(arguments.config, arguments.workdir)
    if jax.process_index() == 0:
        task = families.find(families.name_of(arguments.config)).task_class()
        print_summary(summary, arguments.workdir, task.titles)


def print_summary(summary: dict[str, Any], workdir: pathlib.Path, titles: dict[str, str]) -> None:
    """Prints held-out scores at the start and at the end, and where the pictures are."""
    width = max(map(len, titles.values())) + 2
    print(f"\n{'held-out patches':<{width}}{'start':>9}{'end':>9}")
    for name, title in titles.items():
        # A run that resumed from copied checkpoints has no scores of its start.
        scores = [summary.get(when, {}) for when in ("start", "end")]
        if not any(f"eval/{name}" in found for found in scores):  # of another recipe of the family
            continue
        start, end = (found.get(f"eval/{name}", math.nan) for found in scores)
        print(f"{title:<{width}}{start:>9.3f}{end:>9.3f}")
    print(f"\npictures: {workdir / 'samples'}    numbers: {workdir / 'metrics.jsonl'}")


if __name__ == "__main__":
    run_command(main)

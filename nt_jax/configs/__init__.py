"""The recipes, and finding one by the name given to --config."""

from pathlib import Path

from nt_jax.paths import expand, is_file

FOLDER = Path(__file__).parent
# Where a bare word is looked for if no file is called so: its arguments are the sizes of networks.
_DEFAULT = "noisetransfer"
_SHARED = ("__init__", "common")


def names() -> list[str]:
    """Lists the recipe files, without `.py`."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in _SHARED)


def find_recipe(text: str) -> str:
    """Finds what --config names, as FILE.py[:ARG]: a file that exists, or a recipe of this package.

    `small` is `noisetransfer:small`; `denoiser:real` and `quickstart` are files here, which
    `nt_jax/configs/quickstart.py` and `configs/quickstart.py` name too where there is no checkout.
    What is none of these stays as it is.
    """
    name, colon, argument = text.partition(":")
    path = expand(name)
    if is_file(path):
        return f"{path}{colon}{argument}"
    beside = path.suffix == ".py" and path.parent.as_posix() in ("configs", "nt_jax/configs")
    recipe = path.stem if beside else name
    if recipe in names():
        return f"{FOLDER / recipe}.py{colon}{argument}"
    if name.isidentifier() and not colon:
        return f"{FOLDER / _DEFAULT}.py:{name}"
    return text

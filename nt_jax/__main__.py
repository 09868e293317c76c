"""All commands as one: `nt-jax transfer ...` is `python -m nt_jax.transfer ...`."""

import runpy
import sys

from nt_jax.errors import InputError, run_command

# Sub-command: the module that runs it.
COMMANDS = {
    "train": "main",
    "transfer": "transfer",
    "denoise": "denoise",
    "adapt": "adapt",
    "app": "app",
    "augment": "augment",
    "export": "export",
    "prepare": "prepare",
    "eval": "eval",
    "convert": "convert",
}


def dispatch() -> None:
    """Runs the sub-command that the command line names.

    Raises:
      InputError: there is none of that name.
    """
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in ("-h", "--help"):
        print(f"usage: nt-jax {{{','.join(COMMANDS)}}} ...; nt-jax COMMAND --help tells its flags")
        return
    if name not in COMMANDS:
        raise InputError(f"expected a command: {', '.join(COMMANDS)}; got {name!r}")
    del sys.argv[1]
    runpy.run_module(f"nt_jax.{COMMANDS[name]}", run_name="__main__", alter_sys=True)


def main() -> None:
    """Runs the console command."""
    run_command(dispatch)


if __name__ == "__main__":
    main()

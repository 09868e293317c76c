"""Errors that are the user's to mend, and how a command ends on them."""

import sys
from collections.abc import Callable


class InputError(ValueError):
    """The user's input is wrong. The message is one line: what is wrong and how to mend it."""


class DivergedError(RuntimeError):
    """Training met a non-finite loss or gradient. The message names the step and the loss terms."""


EXIT_INPUT = 2
EXIT_DIVERGED = 3


def run_command(main: Callable[[], None]) -> None:
    """Runs `main` and ends the process: 0 done, 2 on InputError, 3 on DivergedError."""
    try:
        main()
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(EXIT_INPUT)
    except DivergedError as error:
        print(f"diverged: {error}", file=sys.stderr)
        sys.exit(EXIT_DIVERGED)

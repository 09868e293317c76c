"""Errors that are the user's to mend, and how a command ends on them."""

import argparse
import atexit
import contextlib
import errno
import io
import logging
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import NoReturn


class InputError(ValueError):
    """The user's input is wrong. The message is one line: what is wrong and how to mend it."""


class DivergedError(RuntimeError):
    """Training met a non-finite loss or gradient. The message names the step and the loss terms."""


class PreemptedError(RuntimeError):
    """A signal ended training after its state was saved. The message says how to resume."""


class ArgumentParser(argparse.ArgumentParser):
    """Parser for which a wrong flag is wrong input like any other: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Raises InputError."""
        raise InputError(f"{message}; see --help")


def parse_seed(text: str) -> int:
    """Reads a flag's seed: an argument parser's type, which makes one line of a wrong one."""
    if not text.isdecimal() or not int(text) < 2**32:
        raise argparse.ArgumentTypeError(f"expected 0 to 2**32 - 1; got {text}")
    return int(text)


EXIT_INPUT = 2
EXIT_DIVERGED = 3
EXIT_PREEMPTED = 143
# What shells give for an interrupt and for a closed pipe.
EXIT_INTERRUPTED, EXIT_PIPE = 130, 141


def unwind_on_signals() -> None:
    """Lets SIGTERM and a terminal's end unwind the command, so that temporary files are removed.

    The exit code is 128 and the signal's number. Under `nohup` the latter stays ignored.
    """
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda received, _: sys.exit(128 + received))


@contextlib.contextmanager
def quiet_decoders() -> Iterator[None]:
    """Keeps decoders of images from printing what they find wrong; they raise an error besides.

    For commands, whose process it is: loggers and filters of warnings belong to everyone.
    """
    loggers = [logging.getLogger(name) for name in ("PIL", "tifffile", "imagecodecs")]
    before = [logger.propagate for logger in loggers]
    nowhere = logging.NullHandler()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        for logger in loggers:
            logger.propagate = False
            logger.addHandler(nowhere)
        try:
            yield
        finally:
            for logger, propagate in zip(loggers, before, strict=True):
                logger.propagate = propagate
                logger.removeHandler(nowhere)


def run_command(main: Callable[[], None]) -> None:
    """Runs `main` and ends the process.

    Exit codes: 0 done, 2 wrong input or a full disk behind standard output, 3 diverged, 130
    interrupted, 141 nobody reads standard output, 143 preempted.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name need not be text
    try:
        main()
    except InputError as error:
        sys.exit(report(error))
    except DivergedError as error:
        print(f"diverged: {error}\n{shlex.join(sys.orig_argv)}", file=sys.stderr)
        sys.exit(EXIT_DIVERGED)
    except PreemptedError as error:
        print(error, file=sys.stderr)
        _end(EXIT_PREEMPTED)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EDQUOT):
            raise
        # What is left in its buffer can go nowhere, and would raise again as the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            sys.exit(EXIT_PIPE)
        sys.exit(report(InputError(f"standard output cannot be written: {error.strerror}")))


def _end(code: int) -> NoReturn:
    """Ends the process without taking the interpreter apart.

    A computation that the signal left running would crash there, and the exit code would be lost.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def report(error: InputError) -> int:
    """Prints what is wrong, as one line; returns the exit code."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return EXIT_INPUT

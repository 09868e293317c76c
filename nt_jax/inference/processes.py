"""Models in several processes: `spawn` works; what `fork` copies of JAX does not, and hangs."""

import os

from nt_jax.errors import InputError

_started = False
_forked = False


def note_start() -> None:
    """Notes that this process has a model, and with it JAX's threads."""
    global _started
    _started = True


def _note_fork() -> None:
    global _forked
    _forked = _started


# JAX's threads are not in the copy, which would wait for them for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def check_process() -> None:
    """Raises InputError in a process that was forked from one with a model."""
    if _forked:
        raise InputError(
            "this process was forked from one in which JAX runs, where JAX would hang: start it by "
            "spawn, e.g. multiprocessing.get_context('spawn'), or load the model only in it"
        )

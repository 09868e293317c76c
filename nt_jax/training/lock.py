"""One run at a time in a workdir."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

import jax

from nt_jax.errors import InputError


@contextlib.contextmanager
def alone_in(workdir: pathlib.Path) -> Iterator[None]:
    """Keeps other runs out of a folder: they would remove this one's saves and cut its metrics.

    Process 0 locks it for all. The lock is on the folder itself, which needs no file, and the
    kernel frees it when the process dies: a kill never keeps a run from resuming.

    Raises:
      InputError: another run is in it.
    """
    with contextlib.ExitStack() as held:
        if jax.process_index() == 0 and os.name == "posix":  # Windows cannot open a folder
            import fcntl

            # A file system of a network may have no locks: training goes on without.
            with contextlib.suppress(OSError):
                folder = os.open(workdir, os.O_RDONLY)
                held.callback(os.close, folder)
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise InputError(f"another run is training in {workdir}") from error
        yield

"""Joining the processes that train together."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from nt_jax.errors import DivergedError, InputError, PreemptedError, report

# Within this time the others notice that a process is gone, and end.
_HEARTBEAT_S = 30
_EXIT_LOST = 1


def join_cluster(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Connects to the other processes, before anything else uses JAX's devices.

    Without arguments only where the environment tells of several: a SLURM job or a TPU pod.

    Args:
      coordinator: HOST:PORT of process 0.
      num_processes: how many there are.
      process_id: number of this one, from 0.

    Raises:
      InputError: the numbers do not fit together, or the others cannot be reached.
    """
    if coordinator is None and not _in_cluster():
        return
    if not 0 <= (process_id or 0) < (num_processes or 1):
        raise InputError(
            f"--process_id={process_id} must be at least 0 and below"
            f" --num_processes={num_processes}"
        )
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=_HEARTBEAT_S,
            shutdown_timeout_seconds=_HEARTBEAT_S,
        )
    except (RuntimeError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise InputError(
            f"the processes cannot find each other at {coordinator}: {first}"
        ) from error


@contextmanager
def failing_alone() -> Iterator[None]:
    """Ends this process at once if it fails, so that the others notice and end too.

    Python's way out would wait for them, and they for this process. What makes all of them stop
    after the same step is raised as usual.
    """
    try:
        yield
    except (DivergedError, PreemptedError):
        raise
    except Exception as error:
        if jax.process_count() == 1:
            raise
        if isinstance(error, InputError):
            os._exit(report(error))
        if not isinstance(error, jax.errors.JaxRuntimeError):
            traceback.print_exc()
        reason = " ".join(str(error).split())
        print(
            f"error: process {jax.process_index()} of {jax.process_count()} cannot go on, most"
            f" likely because another is gone; start all again, they resume ({reason[:200]})",
            file=sys.stderr,
            flush=True,
        )
        os._exit(_EXIT_LOST)


def _in_cluster() -> bool:
    """Tells whether JAX would find several processes of a SLURM job or a TPU pod by itself."""
    tasks = int(os.environ.get("SLURM_NTASKS", "1"))
    return tasks > 1 or "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")

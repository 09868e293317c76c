"""SIGTERM and SIGINT while training: leave where nothing is lost, else after the next save."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from nt_jax.errors import PreemptedError

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupts:
    """Remembers a signal; a second one ends the process at once.

    Python calls handlers only between its own operations, and a compiled step or a compilation can
    be a long one. So a thread waits for the second signal, at the pipe that CPython fills as soon
    as a signal arrives.
    """

    def __init__(self) -> None:
        self.received = 0
        self._leaving = False
        self._before: dict[int, Any] = {}

    @contextmanager
    def leaving_loses_nothing(self) -> Iterator[None]:
        """Marks a stretch that resuming repeats with the same result: a signal ends it at once.

        Raises:
          PreemptedError: a signal came, in the stretch or before.
        """
        self._leaving = True
        try:
            self._leave()
            yield
        finally:
            self._leaving = False

    def agreed(self) -> int:
        """Tells the signal that any process received, so that all stop after the same step."""
        if jax.process_count() == 1:
            return self.received
        return int(multihost_utils.process_allgather(np.int32(self.received)).max())

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.received = number
        if self._leaving:
            self._leave()

    def _leave(self) -> None:
        if self.received:
            raise PreemptedError(
                f"stopped by {signal.Signals(self.received).name} with all work saved;"
                " the same command resumes"
            )

    def __enter__(self) -> "Interrupts":
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._handle)
        self._fd_before = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        threading.Thread(target=_watch, args=(self._pipe[0],), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._fd_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._pipe[1])


def _watch(pipe: int) -> None:
    """Ends the process on the second signal; returns when the pipe's other end is closed."""
    count = 0
    while arrived := os.read(pipe, 1):
        count += arrived[0] in _SIGNALS
        if count == 2:
            print("stopped by a second signal, without saving", file=sys.stderr, flush=True)
            os._exit(128 + arrived[0])
    os.close(pipe)

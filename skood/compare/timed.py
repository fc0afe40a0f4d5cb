"""Calls that are given up when their time is up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from math import inf

import joblib
from joblib.externals.loky import ProcessPoolExecutor

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
# Seconds between two looks at a call whose time is up before it began.
_GLANCE = 0.01


class TimedProcesses:
    """Processes that take one call each at a time, and are killed when that takes too long.

    A fit cannot be stopped from within its process: much of it is compiled code. So whoever waits for it ends the
    process, with all that it started. joblib's processes are used one by one for that: unlike multiprocessing's, they
    take functions of notebooks and of scripts without a main guard, on every system.

    Use it in a ``with`` statement, at whose end no process is left.

    Parameters
    ----------
    timeout : float
        Seconds for each call.
    n_jobs : int
        Processes at a time, as joblib counts them.
    """

    def __init__(self, timeout: float, n_jobs: int | None):
        self.timeout, self.n_jobs = timeout, joblib.effective_n_jobs(n_jobs)
        self._idle: list[ProcessPoolExecutor] = []
        self._all: set[ProcessPoolExecutor] = set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for executor in list(self._all):
            executor.shutdown(kill_workers=executor not in self._idle)

    def run(self, function: Callable, calls: Sequence, ready: Callable[[], None]) -> Iterator[tuple[object, object]]:
        """``function(call)`` for each call.

        Parameters
        ----------
        function : callable
            Of one argument.
        calls : sequence
            Its arguments.
        ready : callable
            Called first in each process: what it imports and loads counts for no call.

        Yields
        ------
        call : object
            In the order in which they end.
        outcome : object
            What the function gave; TimeoutError if it was given up; or the exception that it raised or that its
            process died of.
        """
        calls = list(calls)[::-1]
        # Future -> its process, its call (None while it gets ready) and when it must be done.
        busy = {}
        for _ in range(min(self.n_jobs, len(calls))):
            executor = self._idle.pop() if self._idle else self._started()
            busy[executor.submit(ready)] = executor, None, inf
        while busy:
            deadline = min(deadline for _, _, deadline in busy.values())
            patience = None if deadline == inf else max(_GLANCE, deadline - time.monotonic())
            wait(busy, timeout=patience, return_when=FIRST_COMPLETED)
            for future, (executor, call, deadline) in list(busy.items()):
                if future.done():
                    error = future.exception()
                elif future.running() and time.monotonic() >= deadline:
                    # One that is not yet on its way to its process must not be pulled from under joblib's thread.
                    error = TimeoutError()
                else:
                    continue
                del busy[future]
                if isinstance(error, KeyboardInterrupt):
                    raise error
                if error is not None:
                    # It is still at it, or dead, or in a state that nobody knows.
                    self._kill(executor)
                if call is not None:
                    yield call, future.result() if error is None else error
                if not calls:
                    if error is None:
                        self._idle.append(executor)
                    continue
                if error is not None:
                    executor = self._started()
                if error is not None and call is not None:
                    busy[executor.submit(ready)] = executor, None, inf
                    continue
                # Where it could not get ready, the call will say why.
                call = calls.pop()
                busy[executor.submit(function, call)] = executor, call, time.monotonic() + self.timeout

    def _started(self):
        threads = str(max(1, joblib.cpu_count() // self.n_jobs))
        shared = {name: threads for name in _THREADS if self.n_jobs > 1 and name not in os.environ}
        executor = ProcessPoolExecutor(1, env=shared)
        self._all.add(executor)
        return executor

    def _kill(self, executor):
        executor.shutdown(kill_workers=True)
        self._all.discard(executor)

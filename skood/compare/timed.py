"""Run calls with a time limit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from math import inf
from typing import Any, NamedTuple, Self, TypeVar

import joblib

from .process import Process

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
# Least seconds to wait for calls: one that ends just as its time is up still counts.
_GLANCE = 0.01

Call = TypeVar("Call")
Result = TypeVar("Result")


class _Work(NamedTuple):
    """Hold what a process is doing.

    Attributes
    ----------
    process : Process
    call : object
        None while the process gets ready.
    deadline : float
        Time by which the call must have ended, in the seconds of `time.monotonic`.
    """

    process: Process
    call: Any = None
    deadline: float = inf


class TimedProcesses:
    """Run calls in processes that are killed when a call takes too long.

    A fit cannot be stopped within its process, because much of it is compiled code. So the process is killed, with all
    that it started; see `skood.compare.process`.

    Use it in a ``with`` statement. At its end no process is left.

    Parameters
    ----------
    timeout : float
        Seconds for each call; infinity sets no limit.
    n_jobs : int or None
        Processes at a time, as joblib counts them.
    """

    def __init__(self, timeout: float, n_jobs: int | None) -> None:
        self.timeout, self.n_jobs = timeout, joblib.effective_n_jobs(n_jobs)
        self._idle: list[Process] = []
        self._all: set[Process] = set()
        self._busy: dict[Future, _Work] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in list(self._all):
            process.kill()

    def run(
        self, function: Callable[[Call], Result], calls: Sequence[Call], ready: Callable[[], object]
    ) -> Iterator[tuple[Call, Result | BaseException]]:
        """Call the function once with each argument.

        Parameters
        ----------
        function : callable
            Takes one argument.
        calls : sequence
            The arguments; none of them is None.
        ready : callable
            Called first in each process, so that the time of imports and loading counts for no call.

        Yields
        ------
        call : object
            The argument of a call. Calls come in the order in which they end.
        outcome : object
            What the function returned; a TimeoutError if its time was over; or the exception that it raised, or that
            ended its process.
        """
        waiting = list(calls)[::-1]
        # An earlier run may not have been read to its end. Its processes are not idle, and are killed with the others.
        self._busy = {}
        for _ in range(min(self.n_jobs, len(waiting))):
            self._get_ready(self._idle.pop() if self._idle else self._started(), ready)
        while self._busy:
            for future, error in self._ended():
                work = self._busy.pop(future)
                if isinstance(error, KeyboardInterrupt):
                    raise error
                if error is not None:
                    # The process is still busy, or dead, or in an unknown state.
                    self._kill(work.process)
                if work.call is not None:
                    yield work.call, future.result() if error is None else error
                if waiting:
                    self._go_on(work, error, function, waiting, ready)
                elif error is None:
                    self._idle.append(work.process)

    def _ended(self) -> Iterator[tuple[Future, BaseException | None]]:
        """Wait for a call to end or to run out of time; yield those that have, with the error of each."""
        deadline = min(work.deadline for work in self._busy.values())
        patience = None if deadline == inf else max(_GLANCE, deadline - time.monotonic())
        wait(self._busy, timeout=patience, return_when=FIRST_COMPLETED)
        for future, work in list(self._busy.items()):
            if future.done():
                yield future, future.exception()
            elif time.monotonic() >= work.deadline:
                yield future, TimeoutError()

    def _go_on(
        self, ended: _Work, error: BaseException | None, function: Callable, waiting: list, ready: Callable[[], object]
    ) -> None:
        """Begin the next call, in the same process or, if that was killed, in a new one that gets ready first."""
        if error is None:
            self._begin(ended.process, function, waiting.pop())
        elif ended.call is not None:
            self._get_ready(self._started(), ready)
        else:
            # The process could not get ready. Trying again might never end; the call will show the reason.
            self._begin(self._started(), function, waiting.pop())

    def _get_ready(self, process: Process, ready: Callable[[], object]) -> None:
        self._busy[process.submit(ready)] = _Work(process)

    def _begin(self, process: Process, function: Callable, call: object) -> None:
        deadline = time.monotonic() + self.timeout
        self._busy[process.submit(function, call)] = _Work(process, call, deadline)

    def _started(self) -> Process:
        """Start a process, with its share of the cores for threads unless the user set the number of threads."""
        threads = str(max(1, joblib.cpu_count() // self.n_jobs))
        shared = {name: threads for name in _THREADS if self.n_jobs > 1 and name not in os.environ}
        process = Process(shared)
        self._all.add(process)
        return process

    def _kill(self, process: Process) -> None:
        process.kill()
        self._all.discard(process)

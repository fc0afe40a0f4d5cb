"""Evaluate the cells of a comparison, in this process or in others."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import lru_cache, partial
from math import inf
from pathlib import Path
from pickle import PicklingError
from typing import Self

import joblib
from sklearn.base import BaseEstimator
from tqdm import tqdm

from .cells import Cell, Settings, evaluate, failed, import_training, reason
from .process import packed
from .protocols import Problem
from .row import ResultRow, gave_up
from .timed import TimedProcesses


class Runner:
    """Evaluate cells in this process, in several processes, or in processes that are killed when a cell takes too long.

    Use it in a ``with`` statement.

    Parameters
    ----------
    settings : Settings
        Settings of all cells.
    n_jobs : int or None
        Processes, as joblib counts them.
    timeout : float or None
        Seconds for each cell; None sets no limit.
    bar : tqdm
        The progress bar, which shows the cell that is evaluated.
    """

    def __init__(self, settings: Settings, n_jobs: int | None, timeout: float | None, bar: tqdm) -> None:
        self.settings, self.n_jobs, self.timeout, self.bar = settings, n_jobs, timeout, bar
        self._open = ExitStack()
        self._n_problems = 0
        # Processes that may die, or be killed, one without the others. They are started when they are needed.
        self._processes: TimedProcesses | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def run(self, cells: Sequence[Cell], problem: Problem) -> Iterator[list[ResultRow]]:
        """Evaluate the cells of a data set.

        Parameters
        ----------
        cells : sequence of Cell
        problem : Problem
            The data set.

        Yields
        ------
        rows : list of ResultRow
            The rows of one cell. Cells come in the order in which they are finished.
        """
        if self.timeout is None and self.n_jobs == 1:
            yield from self._run_here(cells, problem)
            return
        beside = self.timeout is None and self._processes is None
        for rows in self._run_beside(cells, problem) if beside else self._run_apart(cells, problem):
            self.bar.set_postfix_str(f"{rows[0].detector}, seed {rows[0].seed} done")
            yield rows

    def _run_here(self, cells: Sequence[Cell], problem: Problem) -> Iterator[list[ResultRow]]:
        for cell in cells:
            self.bar.set_postfix_str(f"{cell.name}, seed {cell.seed}")
            yield evaluate(cell, problem, self.settings)

    def _run_beside(self, cells: Sequence[Cell], problem: Problem) -> Iterator[list[ResultRow]]:
        """Evaluate cells in joblib's processes, or where else the user has told joblib to."""
        left = dict(enumerate(cells))
        parallel = joblib.Parallel(n_jobs=self.n_jobs, return_as="generator_unordered")
        try:
            calls = [
                joblib.delayed(_evaluate_number)(number, cell, problem, self.settings) for number, cell in left.items()
            ]
            for number, rows in parallel(calls):
                del left[number]
                yield rows
        except (BrokenProcessPool, PicklingError):
            # With one of its processes, or with what cannot be sent to one, joblib gives up all that is not finished.
            yield from self._run_apart(list(left.values()), problem)

    def _run_apart(self, cells: Sequence[Cell], problem: Problem) -> Iterator[list[ResultRow]]:
        """Evaluate cells in processes that can be killed, and that may die."""
        if not cells:
            return
        faults = {id(cell.detector): _fault_of(cell.detector) for cell in cells}
        for cell in cells:
            if faults[id(cell.detector)]:
                yield failed(cell, problem, self.settings, faults[id(cell.detector)])
        cells = [cell for cell in cells if not faults[id(cell.detector)]]
        if self._processes is None:
            # On Windows a file cannot be deleted before a process that used it, and was killed, has fully ended.
            folder = tempfile.TemporaryDirectory(prefix="skood-", ignore_cleanup_errors=True)
            self._folder = self._open.enter_context(folder)
            limit = inf if self.timeout is None else self.timeout
            self._processes = self._open.enter_context(TimedProcesses(limit, self.n_jobs))
        # All processes read the same file. Each data set has a file of its own, since processes keep it open.
        self._n_problems += 1
        path = Path(self._folder, str(self._n_problems))
        joblib.dump(problem, path)
        ready = partial(_make_ready, path, [cell.detector for cell in cells])
        for cell, outcome in self._processes.run(partial(_evaluate_from, path, self.settings), cells, ready):
            if isinstance(outcome, TimeoutError):
                yield failed(cell, problem, self.settings, gave_up(self._processes.timeout))
            elif isinstance(outcome, BaseException):
                yield failed(cell, problem, self.settings, reason(outcome))
            else:
                yield outcome


def _fault_of(detector: BaseEstimator) -> str:
    """Return why a detector cannot be sent to another process; an empty text if it can."""
    try:
        packed(detector)
    # What cannot be pickled fails in many ways.
    except Exception as error:
        return f"cannot be sent to another process ({reason(error)}): use n_jobs=1 and no timeout."
    return ""


def _evaluate_number(number: int, cell: Cell, problem: Problem, settings: Settings) -> tuple[int, list[ResultRow]]:
    return number, evaluate(cell, problem, settings)


@lru_cache(maxsize=1)
def _loaded(path: Path) -> Problem:
    """Load a data set once for all cells that a process evaluates on it."""
    return joblib.load(path, mmap_mode="r")


def _evaluate_from(path: Path, settings: Settings, cell: Cell) -> list[ResultRow]:
    return evaluate(cell, _loaded(path), settings)


def _make_ready(path: Path, detectors: Sequence[BaseEstimator]) -> None:
    """Load and import what the first call needs. Unpickling the detectors has imported their modules already."""
    _loaded(path)
    for detector in detectors:
        import_training(detector)

"""Evaluate the cells of a comparison, in this process or in others."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import lru_cache, partial
from pathlib import Path
from typing import Self

import joblib
from sklearn.base import BaseEstimator
from tqdm import tqdm

from .cells import Cell, Settings, evaluate, failed, import_training, reason
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
        if timeout is not None:
            # On Windows a file cannot be deleted before a process that used it, and was killed, has fully ended.
            folder = tempfile.TemporaryDirectory(prefix="skood-", ignore_cleanup_errors=True)
            self._folder = self._open.enter_context(folder)
            self._processes = self._open.enter_context(TimedProcesses(timeout, n_jobs))

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
        finished = self._run_beside(cells, problem) if self.timeout is None else self._run_in_time(cells, problem)
        for rows in finished:
            self.bar.set_postfix_str(f"{rows[0].detector}, seed {rows[0].seed} done")
            yield rows

    def _run_here(self, cells: Sequence[Cell], problem: Problem) -> Iterator[list[ResultRow]]:
        for cell in cells:
            self.bar.set_postfix_str(f"{cell.name}, seed {cell.seed}")
            yield evaluate(cell, problem, self.settings)

    def _run_beside(self, cells: Sequence[Cell], problem: Problem) -> Iterator[list[ResultRow]]:
        """Evaluate cells in joblib's processes."""
        parallel = joblib.Parallel(n_jobs=self.n_jobs, return_as="generator_unordered")
        return parallel(joblib.delayed(evaluate)(cell, problem, self.settings) for cell in cells)

    def _run_in_time(self, cells: Sequence[Cell], problem: Problem) -> Iterator[list[ResultRow]]:
        """Evaluate cells in processes that can be killed."""
        if not cells:
            return
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

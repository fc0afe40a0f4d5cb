"""Hold a comparison that is running: what is left to do, and what is finished."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import joblib
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from tqdm import tqdm

from .. import __version__
from .cells import Cell, Settings, reason
from .protocols import PROTOCOLS, OODPair, Problem, Task
from .row import COLUMNS, RANKS_ALONE, ResultRow
from .runner import Runner
from .store import Store
from .summary import COLUMNS_OF_SUMMARY

Data = tuple[np.ndarray, np.ndarray] | OODPair


class Entrant(NamedTuple):
    """Hold a detector that is compared.

    Attributes
    ----------
    name : str
        Its name in the results.
    detector : estimator
    most_rows : int or None
        Largest number of training rows; None sets no limit.
    fingerprint : str
        See `skood.compare.fingerprint`.
    """

    name: str
    detector: BaseEstimator
    most_rows: int | None
    fingerprint: str


class DataSet(NamedTuple):
    """Hold a data set that can be compared on.

    Attributes
    ----------
    problem : Problem
    tasks : list of Task
        What is fitted on it.
    """

    problem: Problem
    tasks: list[Task]

    @property
    def names(self) -> list[str]:
        """Return its names in the results."""
        return [name for task in self.tasks for name in task.identities]


def prepare(dataset: str, data: Data | Callable[[], Data], protocol: str) -> DataSet:
    """Load a data set if it is a function that loads it, and check that it fits the protocol.

    Parameters
    ----------
    dataset : str
        Its name.
    data : pair of arrays, OODPair, or callable
    protocol : str

    Returns
    -------
    prepared : DataSet

    Raises
    ------
    ValueError
        If it cannot be loaded, or does not fit.
    """
    if callable(data):
        try:
            data = data()
        except Exception as error:
            raise ValueError(f"data set {dataset!r} cannot be loaded: {error}") from error
    problem = PROTOCOLS[protocol](dataset, data)
    return DataSet(problem, problem.tasks())


@dataclass
class Comparison:
    """Hold a comparison that is running: what is left to do, and what is finished.

    Attributes
    ----------
    entrants : list of Entrant
    seeds : list of int
    settings : Settings
    timeout : float or None
        Seconds for each fit.
    store : Store
        Stores the finished rows, and has those that were finished earlier.
    bar : tqdm
        Counts rows.
    rows : list of ResultRow
        The finished rows, without scores.
    datasets : list of str
        Names in the results, in their order there.
    interrupted : bool
        Whether the user stopped it.
    """

    entrants: list[Entrant]
    seeds: list[int]
    settings: Settings
    timeout: float | None
    store: Store
    bar: tqdm
    rows: list[ResultRow] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    interrupted: bool = False

    def run(self, dataset: str, load: Callable[[], DataSet], runner: Runner) -> None:
        """Compare the detectors on one data set: take the stored rows; evaluate and store the others.

        Parameters
        ----------
        dataset : str
            Its name.
        load : callable
            Returns it. If it fails when rows are finished already, there are rows that say so.
        runner : Runner
        """
        self.bar.set_description(dataset)
        try:
            ready = load()
            check_names([*self.datasets, *ready.names])
        except Exception as error:
            if not self.rows:
                raise
            self._give_up(dataset, reason(error))
            return
        self.datasets += ready.names
        # Each data set was counted as one row before.
        self.bar.total += (len(ready.names) - 1) * len(self.entrants) * len(self.seeds)
        unfinished = [cell for cell in map(self._without_finished, self._cells(ready.tasks)) if cell.keys]
        for rows in runner.run(unfinished, ready.problem):
            for row in rows:
                self._keep(row)

    def _give_up(self, dataset: str, error: str) -> None:
        """Add a row with an error for each detector and seed; as nothing was measured, none is stored."""
        self.datasets.append(dataset)
        nothing: dict[str, Any] = {"protocol": self.settings.protocol, "n_train": 0, "n_test": 0, "key": ""}
        for entrant in self.entrants:
            for seed in self.seeds:
                self._add(ResultRow(detector=entrant.name, dataset=dataset, seed=seed, error=error, **nothing))

    def _cells(self, tasks: list[Task]) -> Iterator[Cell]:
        """Combine tasks, detectors and seeds."""
        for task in tasks:
            for entrant in self.entrants:
                for seed in self.seeds:
                    keys = {
                        name: self._key(identity, entrant, seed, more)
                        for name, (identity, more) in task.identities.items()
                    }
                    yield Cell(entrant.name, entrant.detector, seed, task.label, keys, entrant.most_rows)

    def _key(self, identity: str, entrant: Entrant, seed: int, more: dict) -> str:
        """Return a hash of everything that the figures of a row depend on."""
        settings = asdict(self.settings)
        suffix = "" if settings.pop("decisions") else RANKS_ALONE
        return joblib.hash((__version__, identity, entrant.fingerprint, seed, settings | more)) + suffix

    def _without_finished(self, cell: Cell) -> Cell:
        """Take the stored rows of a cell, and return the cell with the tests that are left."""
        missing = {}
        for name, key in cell.keys.items():
            place = cell.name, name, self.settings.protocol, int(cell.seed)
            row = self.store.find(place, key, self.timeout)
            scored = row is not None and row.seed == self.seeds[0] and not row.error
            if row is None or (scored and not self.store.has_sound_scores(row)):
                missing[name] = key
            else:
                self.rows.append(row)
                self.bar.update()
        return replace(cell, keys=missing)

    def _keep(self, row: ResultRow) -> None:
        """Store a finished row, with its scores if it is of the first seed."""
        if row.seed == self.seeds[0]:
            self.store.add_scores(row)
        # The scores of all rows together may not fit into memory.
        row = replace(row, scores=None)
        self.store.add(row)
        self._add(row)

    def _add(self, row: ResultRow) -> None:
        """Add a row to the results, and print it if there is a bar."""
        self.rows.append(row)
        if not self.bar.disable:
            # Standard output is for the table.
            outcome = row.error or f"AUROC {row.auroc:.3f}, {row.fit_seconds:.1f} s"
            line = f"{row.dataset}, {row.detector}, seed {row.seed}: {outcome}"
            # tqdm's own use of its lock turns a Ctrl-C that comes while it waits for it into a RuntimeError.
            with tqdm.get_lock():
                self.bar.write(line, file=sys.stderr, nolock=True)
        self.bar.update()

    def results(self) -> pd.DataFrame:
        """Return the finished rows, sorted by data sets, detectors and seeds in their order here."""
        names = [entrant.name for entrant in self.entrants]
        order: dict[Any, list] = {"dataset": self.datasets, "detector": names, "seed": self.seeds}
        results = pd.DataFrame([row.record for row in self.rows], columns=COLUMNS)
        results = results.sort_values(list(order), key=lambda column: column.map(order[column.name].index))
        results = results.drop(columns="key").reset_index(drop=True)
        results.attrs["interrupted"] = self.interrupted
        return results


def check_names(names: Iterable[str]) -> None:
    """Refuse names that would end a line of ``results.csv``, that UTF-8 cannot hold, or that are taken.

    Parameters
    ----------
    names : iterable of str
        Of detectors or of data sets.

    Raises
    ------
    ValueError
        If there is such a name, one that is no text, or one that is there twice.
    """
    names = list(names)
    for name in names:
        text = name if isinstance(name, str) else ""
        in_utf8 = text == text.encode(errors="replace").decode()
        if text.splitlines() != [text] or "\0" in text or not in_utf8:
            raise ValueError(
                f"{name!r} cannot name a detector or a data set: give a name that is one line of text in UTF-8."
            )
        if text in COLUMNS_OF_SUMMARY:
            raise ValueError(f"{name!r} is a column of the summary: give a detector or a data set another name.")
    twice = [name for name, number in Counter(names).items() if number > 1]
    if twice:
        raise ValueError(
            f"two data sets are named {twice[0]!r} in the results: rename one of them, or its class or its unseen rows."
        )

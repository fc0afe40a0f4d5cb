"""The command line: ``python -m skood compare``."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from . import __version__
from .compare import PROTOCOL_HELP, folders

if TYPE_CHECKING:
    # Modules that take seconds to import are imported where they are used, so that --help and errors of usage come at
    # once.
    import pandas as pd

    from .compare.protocols import OODPair
    from .datasets import TableOptions

_DATASETS_A_BLOCK = 6


class _Parser(argparse.ArgumentParser):
    """Report wrong usage in one line; argparse would print the whole usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : list of str or None, default=None
        None takes the arguments of the process.

    Returns
    -------
    code : int
        0, 1 if every fit failed, or 130 after an interruption.

    Raises
    ------
    SystemExit
        With code 2, after wrong usage.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return _compare(options)
    except (MemoryError, OSError, ValueError) as error:
        # Wrong usage, a file that cannot be read, a full disk: a traceback would not help the user. The parser of the
        # command names it in the message.
        command: _Parser = options.parser
        command.error(" ".join(str(error).split()) or "there is not enough memory.")


def _parser() -> _Parser:
    """Return the parser of the command line."""
    # The program as the user called it: by its name, or as a module.
    prog = "skood" if Path(sys.argv[0]).stem == "skood" else "python -m skood"
    parser = _Parser(prog=prog, description="Deep out-of-distribution and anomaly detectors.")
    parser.add_argument("--version", action="version", version=f"skood {__version__}")
    commands = parser.add_subparsers(required=True, metavar="compare")
    compare = commands.add_parser(
        "compare",
        help="compare detectors on data sets",
        description="Compare skood's detectors with classical ones. Without --data or --suite: on breast cancer, wine "
        "and digits, as scikit-learn carries them, trained on inliers alone; and on images of digits with classes and "
        "with other digits to learn from (--protocol ood-pair). --quick is a first look. Writes results.csv, table.md "
        "and, with matplotlib, pictures into --out; an interrupted command, given again, goes on where it was. In the "
        "table, false alarms and caught are the shares of test inliers and of test outliers that a detector calls "
        "outliers, at the threshold that it chooses itself. Each fit has one thread, unless the variable "
        "OMP_NUM_THREADS says otherwise; --jobs says how many run at a time.",
    )
    compare.set_defaults(parser=compare)
    _add_data(compare)
    _add_detectors(compare)
    _add_run(compare)
    return parser


def _add_data(compare: argparse.ArgumentParser) -> None:
    """Add the options for the data and for how they are split."""
    compare.add_argument(
        "--data",
        nargs="+",
        default=[],
        metavar="FILE",
        help=".npz or .mat with X and y (outliers are the rows of -1, or of 1 if no row has -1; under protocols of "
        "classes, y holds them); a table with --target: .csv, .tsv, .txt, .data (.gz, .zip, .xz may follow), .arff, "
        ".parquet, .feather; or a folder of images, with a folder for each class, or for the outliers that --outlier "
        "names",
    )
    compare.add_argument("--suite", nargs="+", default=[], metavar="DIR", help="all .npz files of directories")
    compare.add_argument(
        "--target", metavar="COLUMN", help="column of labels in a table, or their array in an .npz or .mat file (y)"
    )
    compare.add_argument(
        "--outlier",
        metavar="LABELS",
        help="labels that mark outliers, separated by commas; a text that is itself a label of the file is not split",
    )
    compare.add_argument("--inlier", metavar="LABELS", help="or labels that mark inliers; all others are outliers")
    compare.add_argument(
        "--sep",
        metavar="TEXT",
        help="what separates the fields of a text file, or the word space (by default it is recognised)",
    )
    compare.add_argument(
        "--header",
        action=argparse.BooleanOptionalAction,
        help="whether the first line holds the names of the columns; without names they are called 1, 2, ... (by "
        "default it does, and a first line that is mostly numbers is an error)",
    )
    compare.add_argument("--drop", metavar="COLUMNS", help="columns to leave out, separated by commas")
    compare.add_argument(
        "--no-encode",
        dest="encode",
        action="store_false",
        help="refuse text, dates and missing values; by default they are encoded, text and dates by skrub "
        "(pip install 'skood[tables]')",
    )
    compare.add_argument(
        "--protocol",
        choices=PROTOCOL_HELP,
        help="; ".join(f"{name}: {text}" for name, text in PROTOCOL_HELP.items()) + " (novelty)",
    )
    compare.add_argument("--unseen", nargs="+", default=[], metavar="FILE", help="outliers to test on, for ood-pair")
    compare.add_argument("--auxiliary", metavar="FILE", help="outliers to learn from, for ood-pair")
    compare.add_argument(
        "--most-gib",
        type=_positive,
        default=2,
        metavar="N",
        help="by how many GiB a compressed file may grow when it is read; more is refused (2)",
    )
    folders.add_options(compare)


def _add_detectors(compare: argparse.ArgumentParser) -> None:
    """Add the options for the detectors."""
    compare.add_argument(
        "--detectors",
        metavar="NAMES",
        help="names separated by commas, pyod:NAME for one of PyOD's; by default all of skood's and scikit-learn's. "
        "IsolationForest, LOF, OneClassSVM and kNN are added",
    )
    compare.add_argument("--only", action="store_true", help="add no detectors to --detectors")


def _add_run(compare: argparse.ArgumentParser) -> None:
    """Add the options for seeds, numbers of rows, the time limit and the results."""
    compare.add_argument(
        "--quick",
        action="store_true",
        help="a first look: one seed, no decisions, and of the built-in data breast cancer and the images of digits",
    )
    compare.add_argument("--seeds", type=_positive, metavar="N", help="repetitions (3; 1 with --quick)")
    compare.add_argument(
        "--decisions",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="measure false alarms and outliers caught at each detector's own threshold, for which skood's detectors "
        "are fitted up to four times (by default yes; no with --quick)",
    )
    compare.add_argument("--jobs", type=int, default=-1, metavar="N", help="processes (-1, one a core)")
    compare.add_argument("--max-train", type=_positive, default=10_000, metavar="N", help="rows to train on (10000)")
    compare.add_argument("--max-test", type=_positive, default=50_000, metavar="N", help="rows to test on (50000)")
    compare.add_argument(
        "--timeout", type=float, metavar="S", help="time limit in seconds for a fit with its scores (none)"
    )
    compare.add_argument(
        "--out", type=Path, default=Path("comparison"), metavar="DIR", help="directory of the results (comparison)"
    )


def _say_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning as one line, without the line of code that raised it."""
    print(" ".join(str(message).split()), file=sys.stderr)


def _positive(text: str) -> int:
    """Read a positive number."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _compare(options: argparse.Namespace) -> int:
    """Run the command ``compare`` and return the exit code."""
    import pandas as pd

    from .compare.run import compare_detectors

    if options.seeds is None:
        options.seeds = 1 if options.quick else 3
    if options.decisions is None:
        options.decisions = not options.quick
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"--out {options.out} is not a directory: name another one.")
    with warnings.catch_warnings():
        # The comparison warns of an interruption, which is reported below.
        warnings.simplefilter("ignore", RuntimeWarning)
        # Damaged files are always reported.
        warnings.filterwarnings("always", ".*done again")
        warnings.showwarning = _say_warning
        parts = []
        for protocol, data in _chosen_data(options).items():
            part = compare_detectors(
                _chosen_detectors(options),
                data,
                protocol=protocol,
                seeds=options.seeds,
                max_train=options.max_train,
                max_test=options.max_test,
                decisions=options.decisions,
                timeout=options.timeout,
                n_jobs=options.jobs,
                out=options.out,
                progress=True,
            )
            parts.append(part)
            if part.attrs["interrupted"]:
                break
    results = pd.concat(parts, ignore_index=True)
    if len(results):
        _report(results, options)
    if parts[-1].attrs["interrupted"]:
        print("Interrupted. The same command goes on from here.", file=sys.stderr)
        return 130
    return 1 if (results["error"] != "").all() else 0


# --------------------------------------------------------------------------------------------------------------------
# What is compared


def _listed(text: str | None) -> list[str] | None:
    """Split a text at its commas; None if there is no text."""
    return list(dict.fromkeys(part.strip() for part in text.split(","))) if text else None


def _chosen_detectors(options: argparse.Namespace) -> list[str] | None:
    """Return the detectors that are named, and the baselines that are added; None stands for all."""
    from .compare.run import BASELINES

    named = _listed(options.detectors)
    if named is None or options.only:
        return named
    given = {name.lower() for name in named}
    return named + [name for name in BASELINES if name.lower() not in given]


def _chosen_data(options: argparse.Namespace) -> dict[str, Any]:
    """Return the data sets of each protocol: those that the options name, or else the built-in ones.

    Without data and protocol there are two protocols: one of tables, as most users have, and one of images with
    classes, for which some methods are made.
    """
    read = _read_data(options)
    if read is not None or options.protocol not in (None, "novelty"):
        return {options.protocol or "novelty": read}
    return {"novelty": ["breast_cancer"] if options.quick else None} | (
        {"ood-pair": None} if options.protocol is None else {}
    )


def _read_data(options: argparse.Namespace) -> dict[str, Any] | None:
    """Read the data sets that the options name, by name; None if they name none.

    All are read before the first fit, so that a file that cannot be read is an error at once.
    """
    from .datasets import find_suite, read_classes, read_file

    _check_fits_protocol(options)
    # A folder given as "." or ".." gets its real name.
    paths = [Path(path) if Path(path).name.strip(".") else Path(path).resolve() for path in options.data]
    for directory in options.suite:
        paths += find_suite(directory)
    named = _by_name(paths)
    folders.check_options(options, [*paths, *map(Path, options.unseen), Path(options.auxiliary or "no folder")])
    if options.protocol == "ood-pair":
        return _read_pairs(named, options)
    how = _table_options(options)
    if options.protocol in ("holdout-class", "one-versus-rest"):
        return {
            name: folders.read_classes(path, options)
            if path.is_dir()
            else read_classes(path, options.target, options=how)
            for name, path in named.items()
        } or None
    return {
        name: folders.read_outliers(path, options, _listed(options.outlier), _listed(options.inlier))
        if path.is_dir()
        else read_file(path, options.target, options.outlier or None, inliers=options.inlier or None, options=how)
        for name, path in named.items()
    } or None


def _table_options(options: argparse.Namespace) -> TableOptions:
    """Return the options with which tables are read."""
    from .datasets import TableOptions

    return TableOptions(
        sep=options.sep,
        header=options.header,
        drop=tuple(_listed(options.drop) or ()),
        encode=options.encode,
        say=print,
        progress=True,
        most_bytes=options.most_gib * 2**30,
    )


def _check_fits_protocol(options: argparse.Namespace) -> None:
    """Refuse options that have no effect under the protocol."""
    pair = options.protocol == "ood-pair"
    for option, value in (("--unseen", options.unseen), ("--auxiliary", options.auxiliary)):
        if value and not pair:
            raise ValueError(f"{option} is for --protocol ood-pair: leave it out, or add that protocol.")
    for option, value in (("--outlier", options.outlier), ("--inlier", options.inlier)):
        if value and options.protocol not in (None, "novelty", "contaminated"):
            raise ValueError(
                f"{option} is not for --protocol {options.protocol}, which has its own outliers: leave it out."
            )


def _read_pairs(known: dict[str, Path], options: argparse.Namespace) -> dict[str, OODPair] | None:
    """Read each in-distribution file, with the files of --unseen and --auxiliary, for the protocol ood-pair."""
    from ._tables import announce
    from .compare.protocols import OODPair
    from .datasets import read_classes

    if not (known or options.unseen or options.auxiliary):
        return None
    if not (known and options.unseen):
        raise ValueError("--protocol ood-pair needs --data (in-distribution rows) and --unseen (outliers to test on).")
    how = replace(_table_options(options), named=True)

    @cache
    def read(path: Path, how: TableOptions) -> tuple[Any, Any]:
        if path.is_dir():
            return folders.read_classes(path, options)
        return read_classes(path, options.target, needed=False, options=how)

    others = _by_name(map(Path, options.unseen))
    pairs = {}
    for name, path in known.items():
        X, y = read(path, how)
        beside = how
        if hasattr(X, "columns"):
            announce(X, how)
            beside = replace(how, columns=tuple(X.columns))
        unseen = {other: read(file, beside)[0] for other, file in others.items()}
        auxiliary = None if options.auxiliary is None else read(Path(options.auxiliary), beside)[0]
        pairs[name] = OODPair(X, unseen, y=y, auxiliary=auxiliary)
    return pairs


def _by_name(paths: Iterable[Path]) -> dict[str, Path]:
    """Return files by name; files of the same name get the name of their folder before it."""
    from ._tables import bare_name

    paths = list(paths)
    named: dict[str, Path] = {}
    for path in paths:
        name = bare_name(path)
        if sum(name == bare_name(other) for other in paths) > 1:
            name = f"{path.parent.name}/{name}"
        if name in named:
            raise ValueError(f"two data sets are named {name}: rename one of the files.")
        named[name] = path
    return named


# --------------------------------------------------------------------------------------------------------------------
# What is printed and written


def _report(results: pd.DataFrame, options: argparse.Namespace) -> None:
    """Print a table for each protocol, and the fits that failed; write table.md and the pictures."""
    from .compare.row import time_limit

    failures = "".join(f"{line}\n" for line in _failures(results))
    fitted = results["error"] == ""
    if not any(error == "" or time_limit(error) is not None for error in results["error"]):
        print(f"{failures}Every fit failed: there is no table. Written to {options.out}: results.csv.")
        return
    written = [_report_protocol(protocol, rows, options) for protocol, rows in results.groupby("protocol", sort=False)]
    (options.out / "table.md").write_text("\n".join(written), encoding="utf-8")
    print(failures, end="")
    if options.timeout:
        print(f"t/o: stopped after {options.timeout:g} s.")
    if options.decisions:
        print("False alarms, caught: shares of the test inliers and outliers that each detector calls outliers.")
    drawn = _drawn(results, options.out) if fitted.any() else ""
    print(f"Written to {options.out}: results.csv, table.md{drawn}.")


def _report_protocol(protocol: Any, results: pd.DataFrame, options: argparse.Namespace) -> str:
    """Print the table of one protocol, and return it as text for table.md."""
    import pandas as pd

    from .compare.run import MADE_FOR
    from .compare.summary import MADE_FOR as COLUMN
    from .compare.summary import format_table, summarize

    table = summarize(results)
    names = [column for column in table if column in set(results["dataset"])]
    # The first column, so that nobody judges a method for images by a table of vectors.
    table.insert(0, COLUMN, pd.Series(MADE_FOR, dtype=object).reindex(table.index))
    for block in _blocks(table, names):
        print(format_table(block), end="\n\n")
    seeds = "1 seed" if options.seeds == 1 else f"means over {options.seeds} seeds"
    note = f"AUROC for each data set, {seeds}; best in bold. Protocol {protocol}: {PROTOCOL_HELP[protocol]}."
    # Detectors are chosen by this table: whoever has more rows should know.
    for name, most in (("train", options.max_train), ("test", options.max_test)):
        if (results[f"n_{name}"] == most).any():
            note += f" At most {most:,} rows to {name} on (--max-{name})."
    print(f"{note}\n{_against_knn(table, names)}")
    return f"{format_table(table)}\n\n{note}\n"


def _failures(results: pd.DataFrame) -> list[str]:
    """Return a line for each detector, data set and error, with the seeds that failed."""
    failed = results[results["error"] != ""]
    lines = []
    for (detector, dataset, error), rows in failed.groupby(["detector", "dataset", "error"], sort=False):
        seeds = ", ".join(map(str, rows["seed"]))
        lines.append(f"{detector} on {dataset}, seed{'s' if len(rows) > 1 else ''} {seeds}: {error}")
    return lines


def _blocks(table: pd.DataFrame, names: list[Any]) -> list[pd.DataFrame]:
    """Split a table that would be too wide for a terminal: some data sets at a time, then the means."""
    from .compare.summary import MADE_FOR

    rest = [column for column in table if column not in (MADE_FOR, *names)]
    blocks = [names[i : i + _DATASETS_A_BLOCK] for i in range(0, len(names), _DATASETS_A_BLOCK)]
    return [table[[MADE_FOR, *block]] for block in ([*blocks, rest] if len(blocks) > 1 else [names + rest])]


def _against_knn(table: pd.DataFrame, names: list[Any]) -> str:
    """Return a line for each of skood's detectors: on how many data sets it beats nearest neighbours."""
    from . import __all__ as public
    from .compare.summary import BASELINE, against_baseline

    if BASELINE not in table.index:
        return ""
    lines = ""
    for detector, (wins, ties, losses) in against_baseline(table, names).iterrows():
        if detector in public and wins + ties + losses:
            lines += f"{detector} is ahead of {BASELINE} on {wins} of {wins + ties + losses} data sets.\n"
    return lines


def _drawn(results: pd.DataFrame, out: Path) -> str:
    """Draw the pictures if matplotlib is installed, and return their names for the last line."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        print("matplotlib is not installed: no pictures (pip install 'skood[plot]').")
        return ""
    from .compare.pictures import draw

    draw(results, out)
    return ", auroc.png, scores-*.png, curves-*.png"


def run() -> NoReturn:
    """Run the command line as a program."""
    # With networks as small as the defaults a second thread gains nothing, and on a busy machine it makes a fit ten
    # times slower. Seconds can be compared only if all detectors have the same number of threads. Nothing has loaded
    # numpy or torch yet.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())


if __name__ == "__main__":
    run()

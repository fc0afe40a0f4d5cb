"""Run and print a table of one of the five papers, its figures beside ours, on available data.

    python benchmarks/paper_tables.py --list [--budget gpu]
    python benchmarks/paper_tables.py --missing [--table nsvae-3]
    python benchmarks/paper_tables.py --table nsvae-3 --data-home DIR [--budget gpu] [--seeds 1]

The script of the table runs and prints it, with three seeds by default. The budget "cpu" takes hours at most on two
cores for one seed; "gpu" is the papers' own, or comes nearest to it. ``--list`` prints which table of which paper it
is, what it needs and the command. ``--missing`` prints what is done, of three seeds each, and what is not, as
``docs/results`` and ``--out`` have it; and the tables and figures of the papers that have no command, with the reason.

Runs in ``docs/results`` are copied into ``--out`` instead of being run again. After an interruption, the same command
goes on from the last run.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

from papers import TABLES, WITHOUT
from papers.base import SIZE_OF, USUAL

HERE = Path(__file__).parent
RESULTS = HERE.parent / "docs" / "results"
N_SEEDS = 3
# Scripts that read no data folder.
WITHOUT_HOME = ("disentanglement",)

# --------------------------------------------------------------------------------------------------------------------
# What is done


def runs_of(script, out):
    """Return the rows of docs/results and of the folder ``out``, as dicts of text."""
    rows = []
    for path in (RESULTS / f"{script}.csv", out / script / "results.csv"):
        if path.exists():
            lines = path.read_text().splitlines(keepends=True)
            # A line without an end was cut off.
            rows += csv.DictReader(line for line in lines if line.endswith("\n"))
    return rows


def seeds_of(wanted, rows):
    """Return the seeds with a run, for each wanted combination of values."""
    seeds = {combination: set() for combination in product(*wanted.values())}
    for row in rows:
        combination = tuple(row.get(column) or USUAL.get(column, row.get(column)) for column in wanted)
        if combination in seeds:
            seeds[combination].add(row.get("seed", row.get("trial")))
    return seeds


def merged(combinations, wanted, always):
    """Return lines that name combinations by the columns of which not all values are among them, and by ``always``."""
    blocks = [tuple((value,) for value in combination) for combination in combinations]
    for column in range(len(wanted)):
        groups = {}
        for block in blocks:
            key = block[:column] + block[column + 1 :]
            groups[key] = groups.get(key, ()) + block[column]
        blocks = [(*key[:column], values, *key[column:]) for key, values in groups.items()]
    lines = []
    for block in blocks:
        named = [
            f"{column} {' / '.join(values)}"
            for (column, all_values), values in zip(wanted.items(), block, strict=True)
            if len(values) < len(all_values) or column == always
        ]
        lines.append("; ".join(named) or "all")
    return lines


def print_size(name, chosen, rows):
    """Print how many runs of a size are done, and which are not."""
    n_done = n_wanted = 0
    lacking = {n: [] for n in range(N_SEEDS)}
    # The column that tells the parts of a table apart, if it has several.
    first = chosen.wanted[0]
    differing = [column for column in first if any(part[column] != first[column] for part in chosen.wanted)]
    always = differing[0] if differing else None
    for wanted in chosen.wanted:
        seeds = seeds_of(wanted, rows)
        n_wanted += N_SEEDS * len(seeds)
        n_done += sum(min(len(found), N_SEEDS) for found in seeds.values())
        for n, lines in lacking.items():
            lines += merged([combination for combination, found in seeds.items() if len(found) == n], wanted, always)
    print(f"  {name}: {n_done} of {n_wanted} runs")
    if n_done:
        for n, lines in lacking.items():
            about = "no run" if n == 0 else f"{n} of {N_SEEDS} seeds"
            for line in lines:
                print(f"    {about}: {line}")


def print_missing(names, out, home):
    print(f"Runs with {N_SEEDS} seeds each, in docs/results and in {out}")
    for name in names:
        table = TABLES[name]
        rows = runs_of(table.script, out)
        print(f"\n{name}: {table.paper}, {table.table}")
        if table.small == table.paper_size:
            print_size("of one size", table.small, rows)
        else:
            print_size("small", table.small, rows)
            print_size("the paper's size", table.paper_size, rows)
        print(f"  not here of the paper's: {table.absent}")
        if home is not None:
            gone = [file for file in table.files if not (home / f"{file}.npz").exists()]
            if gone:
                print(f"  not in the data folder: {', '.join(gone)}")


def print_without():
    print("\nTables and figures without a command\n")
    for (paper, table), reason in WITHOUT.items():
        print(f"{paper}, {table}: {reason}")


def arguments_of(table, budget, seeds):
    """Return the arguments of a table's script for a budget and so many seeds."""
    return [*table.size(budget).arguments, "--trials" if table.script == "holdout_class" else "--seeds", str(seeds)]


def with_home(arguments, home):
    """Return arguments with the data folder in place of "DIR/"."""
    return [part.replace("DIR/", f"{home}/") for part in arguments]


def print_list(names, budget, seeds):
    for name in names:
        table = TABLES[name]
        arguments = arguments_of(table, budget, seeds)
        # A shell ends a command at a semicolon.
        shown = " ".join(f'"{part}"' if set(part) & set(" ;") else part for part in arguments)
        print(f"{name}: {table.paper}, {table.table}")
        files = ", ".join(f"{file}.npz" for file in table.files)
        print(f"    needs: {files or 'no file: the data comes with scikit-learn'}")
        print(f"    not here of the paper's: {table.absent}")
        home = "" if table.script in WITHOUT_HOME else " --data-home DIR"
        print(f"    python benchmarks/{table.script}.py {shown}{home}")


# --------------------------------------------------------------------------------------------------------------------
# Running


def with_known(script, out):
    """Return a folder for the runs of a script, which holds those of docs/results, too."""
    # They import torch, which what is only printed does not need.
    from runs import Runs

    folder, known, made = out / script, RESULTS / f"{script}.csv", importlib.import_module(script)
    folder.mkdir(parents=True, exist_ok=True)
    if known.exists():
        Runs(folder / "results.csv", made.KEYS, made.FIGURES, getattr(made, "LATER", {})).take(known)
    return folder


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=tuple(TABLES))
    parser.add_argument("--budget", choices=tuple(SIZE_OF), default="cpu")
    parser.add_argument("--data-home", type=Path, default=os.environ.get("SKOOD_DATA"))
    parser.add_argument("--out", type=Path, default=Path("comparison/paper_tables"))
    parser.add_argument("--seeds", type=int, default=N_SEEDS, help=f"number of seeds, from 0; {N_SEEDS} by default")
    parser.add_argument("--list", action="store_true", help="only print the tables, what they need and their commands")
    parser.add_argument("--missing", action="store_true", help="only print what is done and what is missing")
    options = parser.parse_args(arguments)
    home = None if options.data_home is None else Path(options.data_home)
    names = list(TABLES) if options.table is None else [options.table]
    if options.missing:
        print_missing(names, options.out, home)
        if options.table is None:
            print_without()
        return 0
    if options.list or options.table is None:
        print_list(names, options.budget, options.seeds)
        return 0
    if home is None:
        parser.error("--data-home or SKOOD_DATA is needed")
    table = TABLES[options.table]
    own = with_home(arguments_of(table, options.budget, options.seeds), home)
    own += [] if table.script in WITHOUT_HOME else ["--data-home", home]
    command = [sys.executable, HERE / f"{table.script}.py", *own]
    return subprocess.call([*command, "--out", with_known(table.script, options.out)])


if __name__ == "__main__":
    sys.exit(main())

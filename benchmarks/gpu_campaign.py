"""Check skood on a GPU, measure its speed there, and run the papers' tables at their full size, within given hours.

    python benchmarks/gpu_campaign.py --hours 8 --out DIR --data-home DATA
    python benchmarks/gpu_campaign.py --list

The pieces run one after another, in order of worth: `--list` prints them with their commands. When the hours are over,
the piece that is running is ended; the tests and the speeds, which keep nothing before their end, get a quarter of the
hours left each, unless they are the last piece. Runs are written when they are finished and a training after each of
its epochs, so that the same command goes on from there; on another machine too, if DIR is copied to it. Finished pieces
are not run again. What a piece prints is in ``DIR/logs``.

Runs in ``docs/results`` are known from the start. At the end the script prints what is done, what is left, and the
commands that copy new runs to ``docs/results``.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from paper_tables import HERE, N_SEEDS, RESULTS, TABLES, arguments_of, with_home, with_known
from runs import Runs

ROOT = HERE.parent
# Seconds that a piece has to end by itself.
PATIENCE = 30
# Scripts that keep nothing before their end, and the share of the hours left that they get while other pieces wait: one
# that hangs must not take all of them.
KEEP_NOTHING = ("pytest", "training_speed", "scoring_speed")
SHARE = 0.25


class Piece(NamedTuple):
    """A part of the campaign.

    Attributes
    ----------
    about : str
        What it is, for ``--list``.
    script : str
        Name of a script beside this one, or "pytest".
    arguments : list of str
    toy : list of str
        Arguments that follow at toy size.
    """

    about: str
    script: str
    arguments: list[str]
    toy: list[str]


def table(about, name, toy):
    """Return the piece that makes a table of `paper_tables` at the paper's size."""
    known = TABLES[name]
    return Piece(about, known.script, arguments_of(known, "gpu", N_SEEDS), ["--max-epochs", "1", *toy])


def rotations(about, size, toy_classifier):
    arguments = ["--dataset", "cifar10", "--size", size, "--trials", "3"]
    toy = ["--max-epochs", "1", "--trials", "1", "--classes", "airplane", "--classifiers", toy_classifier]
    return Piece(about, "holdout_class", arguments, toy)


ONE_SEED = ["--seeds", "1"]
FEW = ["--n-train", "10", "--n-test", "8", *ONE_SEED, "--detectors"]
PIECES = {
    "checks": Piece(
        "contract and invariants on the device, pickles read without it, scores to the last bit",
        "pytest",
        ["-q", "-m", "cuda", "tests"],
        ["--version"],
    ),
    "training speed": Piece("samples a second", "training_speed", [], ["--small", "--repeats", "1"]),
    "scoring speed": Piece(
        "rows a second",
        "scoring_speed",
        ["--rows", "2000000", "--rounds", "3", "--threads", "1"],
        ["--small", "--rows", "50", "--rounds", "1"],
    ),
    "reject classes": table(
        "Table 1: CIFAR-10, WRN-40-2",
        "reject-1-cifar",
        toy=["--methods", "reject classes", *ONE_SEED],
    ),
    "rotation 16-4": rotations("held-out classes of CIFAR-10, WRN-16-4", "gpu", "classes and rotations"),
    "DUM, Table 1": table(
        "corrupted CIFAR-10, ResNet-18", "dum-1", toy=["--severities", "1", *FEW, "DUM, circular;kNN"]
    ),
    "DUM, Table 3": table("CIFAR-10 against CIFAR-100, ResNet-34", "dum-3", toy=[*FEW, "kNN"]),
    "ADRA, Table 1": table(
        "one class of CIFAR-10 against the rest",
        "adra-1",
        toy=["--methods", "adapters K=1", "--classes", "airplane", *ONE_SEED],
    ),
    "NS-VAE, Table 4": table("negatives for CIFAR-10", "nsvae-4", toy=["--only", "generated", *ONE_SEED]),
    # The widest network, and by its operations the longest piece by far, with the protocol of the smaller one.
    "rotation 28-10": rotations("Table 3: held-out classes of CIFAR-10, WRN-28-10", "paper", "classes"),
}


def command_of(piece, options):
    """Return the command of a piece, and make the folder that it writes to."""
    toy = piece.toy if options.toy else []
    if piece.script == "pytest":
        return [sys.executable, "-m", "pytest", *piece.arguments, *toy]
    arguments = with_home(piece.arguments, options.data_home)
    command = [sys.executable, str(HERE / f"{piece.script}.py"), *arguments, "--device", options.device, *toy]
    if piece.script == "training_speed":
        return command
    if piece.script == "scoring_speed":
        return [*command, "--out", str(options.out / "scoring_speed.csv")]
    folder = options.out / piece.script if options.toy else with_known(piece.script, options.out)
    return [*command, "--data-home", str(options.data_home), "--out", str(folder)]


def shown(piece, device):
    """Return the command of a piece for ``--list``."""
    if piece.script == "pytest":
        return f"-m pytest {shlex.join(piece.arguments)}"
    home = [] if piece.script in KEEP_NOTHING else ["--data-home", "DIR"]
    return shlex.join([f"benchmarks/{piece.script}.py", *piece.arguments, "--device", device, *home])


def run(name, piece, seconds, options):
    """Run a piece for so many seconds at most; return how it ended."""
    log = options.out / "logs" / f"{name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        command = command_of(piece, options)
    except ValueError as error:
        print(f"\n{name}: {error}")
        return "failed"
    print(f"\n{name}: {shlex.join(command)}", flush=True)
    with log.open("a") as file:
        try:
            # The process has the file, too, and the lock with it as long as it lives.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another campaign runs it, or left it running when it was killed: the process that writes", log)
            return "runs elsewhere"
        # Epochs are to be seen in the file when they end, and not to be lost with the process.
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, env=environment) as process:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                return "out of time"
            finally:
                # Also when the user interrupts the campaign. Files are whole at any time: there is nothing to wait for
                # but the end of the process, which holds the device.
                process.terminate()
                try:
                    process.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    process.kill()
    if process.returncode:
        print("\n".join(log.read_text().splitlines()[-20:]))
        return "failed"
    return "finished"


def stop(number, frame):
    """End the campaign as Ctrl-C does, and with it the piece that is running, which would hold the device."""
    raise KeyboardInterrupt


def run_pieces(outcomes, device, options):
    """Run the pieces until the hours are over; put into ``outcomes`` how each that was begun ended."""
    end = time.monotonic() + 3600 * options.hours
    finished = Runs(options.out / "pieces.csv", ["piece", "device"], ["seconds"])
    for name in options.pieces:
        key, start = {"piece": name, "device": device}, time.monotonic()
        if finished.key(key) in finished.finished():
            outcomes[name] = "finished earlier"
            continue
        if start >= end:
            break
        outcomes[name] = "interrupted"
        waiting = [other for other in options.pieces if other not in outcomes]
        share = SHARE if PIECES[name].script in KEEP_NOTHING and waiting else 1
        outcomes[name] = run(name, PIECES[name], share * (end - start), options)
        if outcomes[name] == "finished":
            finished.add(key | {"seconds": time.monotonic() - start})


def print_end(outcomes, options):
    """Print how each piece ended, and the commands that copy new runs to docs/results."""
    print("\nPieces")
    for name in options.pieces:
        print(f"  {name:16} {outcomes.get(name, 'not begun')}")
    if options.toy:
        print(f"\nRuns of toy size are in {options.out}, and belong nowhere else")
        return
    print("\nNew runs, and where they belong")
    for script in dict.fromkeys(PIECES[name].script for name in options.pieces):
        try:
            merged = with_new(script, options.out)
        except ValueError as error:
            print(f"  {error}")
            continue
        known = RESULTS / f"{script}.csv"
        if merged is not None and not (known.exists() and known.read_bytes() == merged.read_bytes()):
            print(f"  cp {shlex.quote(str(merged))} {shlex.quote(str(known.relative_to(ROOT)))}")
    print("Runs that docs/results got later stay there if the same command, with --hours 0, prints these lines again.")


def with_new(script, out):
    """Return a file with the runs of docs/results and those of the campaign, or None if it has none of this script."""
    speeds = script == "scoring_speed"
    own = out / "scoring_speed.csv" if speeds else out / script / "results.csv"
    if not own.exists():
        return None
    known, merged = RESULTS / f"{script}.csv", out / "results" / f"{script}.csv"
    merged.unlink(missing_ok=True)
    made = importlib.import_module(script)
    # All speeds of a device are measured together, and replace older ones; other runs are those that were lacking.
    runs = (
        Runs(merged, ["device"], made.COLUMNS)
        if speeds
        else Runs(merged, made.KEYS, made.FIGURES, getattr(made, "LATER", {}))
    )
    for path in (own, known) if speeds else (known, own):
        if path.exists():
            runs.take(path)
    return merged


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, help="for all pieces together")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--data-home", type=Path, default=os.environ.get("SKOOD_DATA"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--pieces", help="separated by semicolons; all by default")
    parser.add_argument("--toy", action="store_true", help="tiny sizes in DIR/toy, to check only that all runs")
    parser.add_argument("--list", action="store_true", help="only print the pieces and their commands")
    options = parser.parse_args(arguments)
    options.pieces = options.pieces.split(";") if options.pieces else list(PIECES)
    unknown = set(options.pieces) - set(PIECES)
    if unknown:
        parser.error(f"--pieces: {sorted(unknown)} are none of {'; '.join(PIECES)}")
    if options.list:
        for name in options.pieces:
            piece = PIECES[name]
            print(f"{name}: {piece.about}\n    python {shown(piece, options.device)}")
        return 0
    if options.hours is None or options.out is None or options.data_home is None:
        parser.error("--hours, --out and --data-home (or SKOOD_DATA) are needed")
    device = torch.device(options.device)
    # Tests that need a device are skipped without it, which would count as finished.
    if options.hours > 0 and device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        parser.error(f"--device {options.device}: torch finds {torch.cuda.device_count()} CUDA devices here")
    options.out, options.data_home = options.out.resolve(), Path(options.data_home).resolve()
    if options.toy:
        # Pieces of toy size have the names of those at full size, which would count as done.
        options.out /= "toy"
    outcomes = {}
    # Not where they are ignored, as under nohup.
    ending = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) is signal.SIG_DFL]
    for one in ending:
        signal.signal(one, stop)
    try:
        run_pieces(outcomes, device.type, options)
    except KeyboardInterrupt:
        pass
    finally:
        for one in ending:
            signal.signal(one, signal.SIG_DFL)
    print_end(outcomes, options)
    return 0 if all(outcomes.get(name, "").startswith("finished") for name in options.pieces) else 1


if __name__ == "__main__":
    sys.exit(main())

"""The campaign for a day with a GPU: each piece runs at toy size, on a CPU."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

COLOUR = {
    "cifar10_train_1000perclass": 10,
    "cifar10_test_500perclass": 10,
    "cifar100_train_100perclass": 20,
    "cifar100_test_20perclass": 20,
}
GREY = ("mnist_test", "fashion_mnist_test", "notmnist_10k")
# Convolutions take most of a piece's time, and less of smaller images; grey ones are padded by two pixels a side.
SIDE = 8
SCRIPTS = ("reject_classes", "holdout_class", "dum_images", "adra_one_vs_rest", "ns_vae")


@pytest.fixture
def campaign(load_benchmark, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return load_benchmark("gpu_campaign")


@pytest.fixture
def command(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for name, n in COLOUR.items():
        X = rng.integers(0, 256, (n, 3, SIDE, SIDE), dtype=np.uint8)
        np.savez(tmp_path / "images" / f"{name}.npz", X=X, y=np.arange(n) % 5)
    for name in GREY:
        X = rng.integers(0, 256, (10, SIDE - 4, SIDE - 4), dtype=np.uint8)
        np.savez(tmp_path / "images" / f"{name}.npz", X=X, y=np.arange(10))
    return ["--data-home", str(tmp_path), "--out", str(tmp_path / "out"), "--device", "cpu", "--toy"]


@pytest.mark.slow
def test_each_piece_runs_at_toy_size(campaign, command, tmp_path, capsys):
    # The scoring speed has a test of its own; the wider network, which takes a minute, differs in its name alone.
    pieces = [name for name in campaign.PIECES if name not in ("scoring speed", "rotation 28-10")]
    command += ["--hours", "1", "--pieces", ";".join(pieces)]
    assert campaign.main(command) == 0
    printed = capsys.readouterr().out
    assert printed.count(" finished\n") == len(pieces)
    # Toy runs belong nowhere, and the folder itself stays free for runs at full size.
    assert "docs/results" not in printed
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["toy"]
    for script in SCRIPTS:
        results = pd.read_csv(tmp_path / "out" / "toy" / script / "results.csv")
        # Sizes are those of the GPU, and only images and epochs are few, and images small.
        assert set(results.get("size", ["paper"])) <= {"full", "gpu", "paper"}
    # What is finished is not run again.
    assert campaign.main(command) == 0
    assert capsys.readouterr().out.count("finished earlier") == len(pieces)


def test_piece_ends_with_the_hours_and_goes_on(campaign, command, tmp_path, capsys):
    one = [*command, "--pieces", "NS-VAE, Table 4;DUM, Table 3"]
    assert campaign.main([*one, "--hours", "1e-4"]) == 1
    printed = capsys.readouterr().out
    assert "NS-VAE, Table 4  out of time" in printed
    assert "DUM, Table 3     not begun" in printed
    assert not (tmp_path / "out" / "toy" / "pieces.csv").exists()
    with pytest.raises(SystemExit):
        campaign.main([*command, "--hours", "1", "--pieces", "odd"])


def test_failed_piece_shows_why(campaign, command, tmp_path, capsys):
    (tmp_path / "images" / "cifar10_train_1000perclass.npz").unlink()
    assert campaign.main([*command, "--hours", "1", "--pieces", "NS-VAE, Table 4"]) == 1
    printed = capsys.readouterr().out
    assert "FileNotFoundError" in printed
    assert "NS-VAE, Table 4  failed" in printed


@pytest.fixture
def full(campaign, command, monkeypatch, tmp_path):
    """Return what runs a piece that stands for all of those at full size, by the text of its script."""
    # Its name is that of a script whose results are known.
    (tmp_path / "scripts").mkdir()
    monkeypatch.setattr(campaign, "HERE", tmp_path / "scripts")
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)

    def run(text, *more, script="ns_vae", pieces=("one",)):
        (tmp_path / "scripts" / f"{script}.py").write_text(dedent(text))
        # Each gets its own name.
        made = {name: campaign.Piece("about", script, ["--name", name], []) for name in pieces}
        monkeypatch.setattr(campaign, "PIECES", made)
        return campaign.main([*command[:-1], "--hours", "1", *more])

    return run


def test_toy_runs_are_not_those_of_the_campaign(campaign, full, command, tmp_path, capsys):
    text = """
        import sys
        from pathlib import Path
        path = Path(sys.argv[sys.argv.index("--out") + 1], "results.csv")
        print(len(path.read_text().splitlines()) if path.exists() else "nothing", "known")
        path.parent.mkdir(exist_ok=True)
        path.exists() or path.write_text("toy\\n")
        """
    assert full(text, "--toy") == 0
    assert (tmp_path / "out" / "toy" / "ns_vae" / "results.csv").read_text() == "toy\n"
    assert "cp " not in capsys.readouterr().out
    assert full(text) == 0
    known = campaign.RESULTS / "ns_vae.csv"
    lines = len(known.read_text().splitlines())
    assert (tmp_path / "out" / "logs" / "one.txt").read_text() == f"{lines} known\n"


SPEEDS = "device,threads,task,estimator,against,n_rows,ms_per_row,ratio,rounds"


def test_device_that_is_not_there(full, tmp_path, capsys):
    """The tests for a GPU are skipped then, and would be among the pieces that are finished."""
    with pytest.raises(SystemExit):
        full("", "--device", "cuda:99")
    assert "--device cuda:99: torch finds " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_finished_on_another_device(full, monkeypatch, capsys):
    assert full("") == 0
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert full("", "--device", "cuda:0") == 0
    assert "finished earlier" not in capsys.readouterr().out
    assert full("", "--device", "cuda") == 0
    assert "finished earlier" in capsys.readouterr().out


@pytest.mark.parametrize(("script", "other"), [("training_speed", "finished"), ("ns_vae", "not begun")])
def test_piece_that_hangs_and_keeps_nothing_leaves_time_to_others(full, capsys, script, other):
    text = "import sys, time\nif 'one' in sys.argv: time.sleep(600)"
    hours = str(6 / 3600)
    assert full(text, "--hours", hours, script=script, pieces=("one", "two")) == 1
    printed = capsys.readouterr().out
    assert "one              out of time\n" in printed
    assert f"two              {other}\n" in printed


WAITS = """
    import os, signal, sys, time
    from pathlib import Path
    Path("PLACE").write_text(str(os.getpid()))
    print("an epoch")
    SIGNAL
    time.sleep(600)
    """


@pytest.fixture
def heeded():
    """Have a program heed a signal that the tests may ignore, as all programs under nohup ignore SIGHUP."""
    before = {}

    def heed(number):
        handler = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        before[number] = signal.signal(number, handler)

    yield heed
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_piece_ends_with_the_campaign(full, tmp_path, capsys, number, heeded):
    heeded(getattr(signal, number))
    place = tmp_path / "pid"
    text = WAITS.replace("PLACE", str(place)).replace("SIGNAL", f"os.kill(os.getppid(), signal.{number})")
    before = signal.getsignal(getattr(signal, number))
    assert full(text, pieces=("one", "two")) == 1
    printed = capsys.readouterr().out
    assert "one              interrupted\n" in printed
    assert "two              not begun\n" in printed
    with pytest.raises(ProcessLookupError):
        os.kill(int(place.read_text()), 0)
    # What it printed last is not lost.
    assert (tmp_path / "out" / "logs" / "one.txt").read_text() == "an epoch\n"
    assert signal.getsignal(getattr(signal, number)) is before


def test_piece_that_was_left_running_is_not_begun_again(full, tmp_path, capsys):
    """As it is after a kill of the campaign alone: the process lives, and writes what it prints into the same file."""
    text = "import sys\nprint(sys.argv[0])"
    log = tmp_path / "out" / "logs" / "one.txt"
    log.parent.mkdir(parents=True)
    with log.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting = [sys.executable, "-c", "input()"]
        with subprocess.Popen(waiting, stdin=subprocess.PIPE, stdout=file, stderr=file) as process:
            file.close()
            assert full(text, pieces=("one", "two")) == 1
            process.stdin.write(b"\n")
    printed = capsys.readouterr().out
    assert "one              runs elsewhere\n" in printed
    assert "two              finished\n" in printed
    assert log.read_text() == ""
    assert full(text, pieces=("one", "two")) == 0
    assert "one              finished\n" in capsys.readouterr().out


WRITES = """
    import sys
    from pathlib import Path
    path = Path(sys.argv[sys.argv.index("--out") + 1])
    if path.suffix != ".csv":
        path /= "results.csv"
    head = "HEAD" if not path.exists() else ""
    with path.open("a") as file:
        file.write((head and head + "\\n") + "ROW" + "\\n")
    """


@pytest.fixture
def results(campaign, monkeypatch, tmp_path):
    """The folder docs/results, with runs of one script and speeds of one device."""
    folder = tmp_path / "repository" / "docs" / "results"
    folder.mkdir(parents=True)
    # Whence the tables' scripts get known runs.
    monkeypatch.setattr(sys.modules["paper_tables"], "RESULTS", folder)
    monkeypatch.setattr(campaign, "RESULTS", folder)
    monkeypatch.setattr(campaign, "ROOT", tmp_path / "repository")
    (folder / "scoring_speed.csv").write_text(f"{SPEEDS}\ncpu,1,a,b,c,1,1,1,1\n")
    # In an order of its own.
    (folder / "reject_one_class.csv").write_text("seed,size,method,target,auroc,seconds\n0,full,kNN,ship,50,1\n")
    return folder


def copied(printed, folder):
    """Run the commands that the campaign printed."""
    commands = [line.split() for line in printed.splitlines() if line.startswith("  cp ")]
    for _, source, target in commands:
        shutil.copy(source, folder.parents[1] / target)
    return len(commands)


def test_speeds_of_other_devices_stay_among_the_results(full, results, capsys):
    text = WRITES.replace("HEAD", SPEEDS)
    before = (results / "scoring_speed.csv").read_text()
    assert full(text.replace("ROW", "gpu,1,a,b,c,2,2,2,2"), script="scoring_speed") == 0
    assert copied(capsys.readouterr().out, results) == 1
    after = (results / "scoring_speed.csv").read_text()
    assert sorted(after.splitlines()) == sorted([*before.splitlines(), "gpu,1,a,b,c,2,2,2,2"])


def test_runs_that_others_made_meanwhile_stay_among_the_results(full, results, capsys):
    known = results / "reject_one_class.csv"
    before = known.read_text()
    assert full(WRITES.replace("ROW", "1,full,kNN,ship,60,1"), script="reject_one_class") == 0
    # Another run; and one that was measured again.
    known.write_text(before.replace("ship,50", "ship,55") + "2,full,kNN,ship,70,1\n")
    assert full("", script="reject_one_class") == 0
    assert copied(capsys.readouterr().out.split("New runs")[-1], results) == 1
    assert known.read_text() == before.replace("ship,50", "ship,55") + "2,full,kNN,ship,70,1\n1,full,kNN,ship,60,1\n"
    # Then there is nothing new; on a machine without a GPU, too.
    assert full("", "--hours", "0", "--device", "cuda:99", script="reject_one_class") == 1
    assert copied(capsys.readouterr().out, results) == 0


def test_known_runs_of_other_columns_fail_one_piece(full, results, capsys):
    (results / "reject_one_class.csv").write_text("odd\n1\n")
    assert full("", script="reject_one_class", pieces=("one", "two")) == 1
    printed = capsys.readouterr().out
    assert "another version" in printed
    assert printed.count(" failed\n") == 2


def test_files_in_the_data_folder(campaign, tmp_path):
    piece = campaign.table("one that names files", "dum-1-cifar100", toy=[])
    options = SimpleNamespace(toy=False, device="cpu", data_home=tmp_path, out=tmp_path / "out")
    command = campaign.command_of(piece, options)
    assert command[command.index("--train") + 1].startswith(f"{tmp_path}/images/")
    assert not any(part.startswith("DIR/") for part in command)


def test_every_command_can_be_listed(campaign, capsys):
    assert campaign.main(["--list"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("    python ") == len(campaign.PIECES)
    # By default the speeds are those of a CPU.
    assert "python benchmarks/training_speed.py --device cuda\n" in printed
    assert printed.count("--device cuda --data-home DIR\n") == len(campaign.PIECES) - 3
    # What takes longer than all others keeps none of them waiting.
    assert list(campaign.PIECES)[-1] == "rotation 28-10"

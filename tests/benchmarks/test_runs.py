"""Options that benchmarks/runs.py adds; what it writes, and does not run again."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def Runs(load_benchmark):
    return load_benchmark("runs").Runs


def work(ran, name, figures):
    ran.append(name)
    if isinstance(figures, BaseException):
        raise figures
    return figures


def jobs(ran, found):
    return [({"method": name, "seed": seed}, partial(work, ran, name, figures)) for (name, seed), figures in found]


def test_options_of_a_command(load_benchmark, monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("SKOOD_DATA", raising=False)
    command = load_benchmark("runs").Command("About it.", "toy", seeds=3)
    with pytest.raises(SystemExit, match="2"):
        command.parse_args([])
    assert "--data-home or SKOOD_DATA is needed" in capsys.readouterr().err
    options = command.parse_args(["--data-home", str(tmp_path), "--seeds", "2"])
    assert vars(options) == {"data_home": tmp_path, "seeds": 2, "jobs": 1, "out": Path("comparison/toy")}

    monkeypatch.setenv("SKOOD_DATA", str(tmp_path))
    assert vars(load_benchmark("runs").Command(None, "toy", jobs=False).parse_args([])) == {
        "data_home": tmp_path,
        "out": Path("comparison/toy"),
    }


def test_what_is_in_the_file_is_not_run_again(Runs, tmp_path):
    runs, ran = Runs(tmp_path / "new" / "results.csv", ["method", "seed"], ["auroc", "seconds"]), []
    first = [(("a", 0), {"auroc": 0.5, "seconds": 1.23456789}), ((None, 1), [{"auroc": 1.0}, {"seconds": 2}])]
    table = runs.complete(jobs(ran, first))
    assert runs.path.read_text() == "method,seed,auroc,seconds\na,0,0.5,1.23457\nNone,1,1,\nNone,1,,2\n"
    assert ran == ["a", None]
    assert table["method"].tolist() == ["a", "None", "None"]
    np.testing.assert_array_equal(table["auroc"], [0.5, 1, np.nan])

    more = runs.complete(jobs(ran, [(("b", 0), {"auroc": 0.1}), *first[:1]]))
    assert ran == ["a", None, "b"]
    # Of the jobs alone, in the order of the file.
    assert more["method"].tolist() == ["a", "b"]
    assert runs.table()["method"].tolist() == ["a", "None", "None", "b"]


def test_what_was_finished_before_an_interruption_is_kept(Runs, tmp_path):
    runs, ran = Runs(tmp_path / "results.csv", ["method", "seed"], ["auroc"]), []
    found = [(("a", 0), {"auroc": 0.5}), (("b", 0), KeyboardInterrupt()), (("c", 0), {"auroc": 0.7})]
    with pytest.raises(KeyboardInterrupt):
        runs.complete(jobs(ran, found))
    assert list(runs.finished()) == [("a", "0")]
    found[1] = (("b", 0), {"auroc": 0.6})
    assert runs.complete(jobs(ran, found))["auroc"].tolist() == [0.5, 0.6, 0.7]
    assert ran == ["a", "b", "b", "c"]


def test_columns_of_a_file_stay_as_they_are(Runs, tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("auroc,seed,method\n0.5,0,a\n")
    Runs(path, ["method", "seed"], ["auroc"]).add({"method": "b", "seed": 1, "auroc": 0.25})
    assert path.read_text() == "auroc,seed,method\n0.5,0,a\n0.25,1,b\n"
    with pytest.raises(ValueError, match=r"another version, which differs in aupr: set another --out"):
        Runs(path, ["method", "seed"], ["auroc", "aupr"]).add({"method": "b", "seed": 2})
    with pytest.raises(ValueError, match=r"differs in size: set another --out"):
        Runs(path, ["method", "size", "seed"], ["auroc"]).complete([])


def test_run_that_fails_does_not_keep_others_from_being_made(Runs, tmp_path, capsys):
    runs, ran = Runs(tmp_path / "results.csv", ["method", "seed"], ["auroc"]), []
    found = [(("a", 0), ValueError("diverged")), (("b", 0), {"auroc": 0.5}), (("c", 0), {"auroc": 0.7})]
    with pytest.raises(RuntimeError, match=r"1 of 3 runs failed, see above: a, 0$"):
        runs.complete(jobs(ran, found))
    printed = capsys.readouterr().out
    assert "a, 0: failed\nTraceback" in printed
    assert "ValueError: diverged" in printed
    assert list(runs.finished()) == [("b", "0"), ("c", "0")]
    found[0] = (("a", 0), {"auroc": 0.6})
    assert sorted(runs.complete(jobs(ran, found))["auroc"]) == [0.5, 0.6, 0.7]
    assert ran == ["a", "b", "c", "a"]


def test_run_that_another_command_is_making_is_no_failure(Runs, tmp_path):
    runs = Runs(tmp_path / "results.csv", ["method", "seed"], ["auroc"])

    def claimed():
        # As the other command does later.
        runs.add({"method": "a", "seed": 0, "auroc": 0.75})
        raise ValueError("the checkpoint is being written by another fit")

    assert runs.complete([({"method": "a", "seed": 0}, claimed)])["auroc"].tolist() == [0.75]


HEAD = "method,seed,auroc,score\n"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        # Of the run that was cut off, the rows above are not all that it had.
        ("a,0,0.5,elbo\na,1,0.5,elbo\na,1,0.25,kl", "a,0,0.5,elbo\n"),
        ("a,0,0.5,elbo\na,1,0.5,elbo\nb,1,0.2", "a,0,0.5,elbo\na,1,0.5,elbo\n"),
        # Perhaps of the same run.
        ("a,0,0.5,elbo\na,1,0.5,elbo\na", "a,0,0.5,elbo\n"),
        ("a,0", ""),
    ],
)
def test_run_that_was_cut_off_is_made_again(Runs, tmp_path, text, kept):
    path = tmp_path / "results.csv"
    path.write_text(HEAD + text)
    runs = Runs(path, ["method", "seed"], ["auroc", "score"])
    assert set(runs.finished()) == {tuple(row.split(",")[:2]) for row in kept.splitlines()}
    assert runs.table()["method"].tolist() == [row[0] for row in kept.splitlines()]
    runs.add({"method": "c", "seed": 0, "auroc": 0.75, "score": "kl"})
    assert path.read_text() == f"{HEAD}{kept}c,0,0.75,kl\n"


def test_head_that_was_cut_off_is_written_again(Runs, tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("method,se")
    runs = Runs(path, ["method", "seed"], ["auroc", "score"])
    assert runs.finished() == {}
    runs.add({"method": "c", "seed": 0, "auroc": 0.75, "score": "kl"})
    assert path.read_text() == f"{HEAD}c,0,0.75,kl\n"


def test_another_command_may_have_come_first(Runs, tmp_path, capsys):
    runs, ran = Runs(tmp_path / "results.csv", ["method", "seed"], ["auroc"]), []

    def first():
        runs.add({"method": "b", "seed": 0, "auroc": 0.75})
        return {"auroc": 0.5}

    table = runs.complete([({"method": "a", "seed": 0}, first), *jobs(ran, [(("b", 0), {"auroc": 0.1})])])
    assert table["auroc"].tolist() == [0.75, 0.5]
    assert ran == []
    assert "b, 0: done by another command" in capsys.readouterr().out

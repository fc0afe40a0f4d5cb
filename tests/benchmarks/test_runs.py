"""Options that benchmarks/runs.py adds; what it writes, and does not run again."""

import fcntl
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
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


def test_rows_without_a_later_column_are_those_of_the_default(Runs, tmp_path, capsys):
    path = tmp_path / "results.csv"
    path.write_text("method,seed,auroc\na,0,0.5\n")
    runs, ran = (
        Runs(path, ["method", "seed", "epochs"], ["auroc", "trained_in"], {"epochs": "10", "trained_in": ""}),
        [],
    )

    def job(epochs, figures):
        return {"method": "a", "seed": 0, "epochs": epochs}, partial(work, ran, epochs, figures)

    assert runs.complete([job(10, {"auroc": 0.1})])["auroc"].tolist() == [0.5]
    assert ran == []
    # As long as nothing needs them, the file has no more columns; nor if rows of another such file are taken.
    (tmp_path / "other.csv").write_text("method,seed,auroc\nb,0,0.5\n")
    runs.take(tmp_path / "other.csv")
    assert path.read_text() == "method,seed,auroc\na,0,0.5\nb,0,0.5\n"
    assert capsys.readouterr().out == ""

    other = runs.complete([job(1, {"auroc": 0.25, "trained_in": "float32"})])
    assert ran == [1]
    assert other[["epochs", "auroc", "trained_in"]].to_numpy().tolist() == [["1", 0.25, "float32"]]
    assert path.read_text() == "method,seed,auroc,epochs,trained_in\na,0,0.5,,\nb,0,0.5,,\na,0,0.25,1,float32\n"
    printed = capsys.readouterr().out
    assert "2 rows do not say their epochs; it is taken to be '10'" in printed
    # The usual value is not worth saying.
    assert "a, 0, 1: " in printed
    both = runs.complete([job(10, {}), job(1, {})])
    assert both["epochs"].tolist() == ["10", "1"]
    assert ran == [1]
    assert set(runs.finished()) == {("a", "0", "10"), ("b", "0", "10"), ("a", "0", "1")}


def test_file_that_gets_columns_loses_no_row_of_another_command(Runs, tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("method,auroc\na,0.5\n")
    runs = Runs(path, ["method", "epochs"], ["auroc"], {"epochs": "10"})
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        # Both open the file as it is, and wait.
        threads = [threading.Thread(target=runs.add, args=[{"method": n, "epochs": 1, "auroc": 0.25}]) for n in "bc"]
        for thread in threads:
            thread.start()
            thread.join(0.5)
    for thread in threads:
        thread.join()
    assert set(runs.finished()) == {("a", "10"), ("b", "1"), ("c", "1")}


def test_later_columns_change_no_name_of_a_checkpoint(load_benchmark, tmp_path):
    checkpoint = load_benchmark("runs").checkpoint
    key, later = {"method": "a", "seed": 0}, {"max_epochs": "default"}
    before = checkpoint(tmp_path, key)
    assert checkpoint(tmp_path, key | later, later) == before
    assert checkpoint(tmp_path, key | {"max_epochs": 3}, later) != before


class Caught(Exception):
    """The keys of the runs that a script would make now."""


@pytest.fixture
def wanted(load_benchmark, monkeypatch, tmp_path):
    """Return the keys of the runs that a command wants, which stops before the first of them; and its script."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")

    def keys(script, *arguments):
        module = load_benchmark(script)

        def stop(self, jobs, n_jobs=1):
            raise Caught({self.key(key) for key, _ in jobs})

        with monkeypatch.context() as patched:
            patched.setattr(module.Runs, "complete", stop)
            patched.setattr(sys, "argv", [script, "--data-home", str(tmp_path), "--out", str(tmp_path), *arguments])
            with pytest.raises(Caught) as caught:
                module.main()
        return caught.value.args[0], module

    return keys


SETTINGS = {
    "reject_classes": (["--dataset", "digits", "--size", "short"], ["--max-epochs", "--precision"]),
    "reject_one_class": ([], ["--max-epochs", "--precision"]),
    "holdout_class": (["--dataset", "digits"], ["--max-epochs", "--precision"]),
    "ns_vae": (["--table", "3"], ["--max-epochs", "--precision"]),
    "ood_suite": ([], ["--precision", "--far"]),
    "posthoc_scores": ([], ["--precision"]),
    "vae_scores": ([], ["--precision", "--n-train"]),
    "vae_likelihoods": ([], ["--n-train"]),
    "thresholds": (["--groups", "pixels"], ["--max-train"]),
    "early_stopping": ([], ["--max-train"]),
}
CASES = [(script, option) for script, (_, options) in SETTINGS.items() for option in options]


@pytest.mark.parametrize(("script", "option"), CASES)
def test_runs_of_other_settings_are_other_runs(wanted, tmp_path, script, option):
    if script == "early_stopping":
        (tmp_path / "adbench").mkdir()
        np.savez(tmp_path / "adbench" / "29_Pima.npz", X=np.zeros((4, 2)), y=np.array([0, 0, 1, 1]))
    values = {"--precision": "bfloat16", "--far": f"own={tmp_path}"}
    usual, _ = wanted(script, *SETTINGS[script][0])
    other, _ = wanted(script, *SETTINGS[script][0], option, values.get(option, "7"))
    assert usual
    assert len(usual) == len(other)
    assert not usual & other


RESULTS = Path(__file__).parents[2] / "docs" / "results"


@pytest.mark.parametrize("script", SETTINGS)
def test_stored_rows_are_those_of_the_usual_settings(load_benchmark, monkeypatch, script):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    if not (RESULTS / f"{script}.csv").exists():
        pytest.skip("the results come with the repository alone")
    module = load_benchmark(script)
    later = getattr(module, "LATER", {})
    stored = pd.read_csv(RESULTS / f"{script}.csv", dtype=str, keep_default_na=False)
    runs = module.Runs(RESULTS / f"{script}.csv", module.KEYS, module.FIGURES, later)
    keys = [[row.get(name) or later.get(name, "") for name in module.KEYS] for row in stored.to_dict("records")]
    assert set(runs.finished()) == set(map(tuple, keys))
    assert len(runs.table()) == len(stored)

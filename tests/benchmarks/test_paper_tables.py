"""What benchmarks/paper_tables.py says of the tables: what they need, what is done and what is missing."""

import shlex
import sys
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest


@pytest.fixture
def tables(load_benchmark, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return load_benchmark("paper_tables")


@pytest.fixture
def missing(tables, monkeypatch, tmp_path, capsys):
    """Return what prints what is missing of a table, by the runs in the files given."""
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "results")
    monkeypatch.delenv("SKOOD_DATA", raising=False)

    def lines(*arguments, **files):
        for path, text in files.items():
            place = tmp_path / path.replace("__", "/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.with_suffix(".csv").write_text(text)
        tables.main(["--missing", "--out", str(tmp_path / "out"), *arguments])
        return [line.strip() for line in capsys.readouterr().out.splitlines()]

    return lines


VAE = "dataset,negatives,noise_model,size,precision,seed\n"


def test_list_has_every_table_with_its_needs_and_command(tables, capsys):
    for budget in ("cpu", "gpu"):
        tables.main(["--list", "--budget", budget])
        printed = capsys.readouterr().out
        blocks = dict(block.split(": ", 1) for block in printed.replace("\n    ", "\t").splitlines())
        assert list(blocks) == list(tables.TABLES)
        for name, table in tables.TABLES.items():
            about, needs, absent, command = blocks[name].split("\t")
            assert about == f"{table.paper}, {table.table}"
            assert needs.startswith("needs: ")
            assert all(f"{file}.npz" in needs for file in table.files)
            assert absent.startswith("not here of the paper's: ")
            assert command.startswith(f"python benchmarks/{table.script}.py ")
            # As many as --missing counts.
            assert command.count("--trials 3" if table.script == "holdout_class" else "--seeds 3") == 1
            # As a shell reads it, for which an open semicolon ends the command.
            words = list(shlex.shlex(command, posix=True, punctuation_chars=True))
            assert ";" not in words
            assert shlex.split(command)[2 : 2 + len(table.size(budget).arguments)] == table.size(budget).arguments
    assert "--size paper" in blocks["nsvae-4"]


def test_missing_counts_runs_and_names_what_lacks(missing):
    """Six rows of Table 4 with three seeds: of one all seeds are done, of one a single seed, and that at both sizes."""
    rows = [f"cifar10,cifar100,gaussian,small,auto,{seed}" for seed in (0, 0, 1, 2)]
    rows += ["cifar10,generated,bernoulli,small,auto,0", "cifar10,generated,bernoulli,paper,auto,0"]
    rows += ["mnist,generated,gaussian,small,auto,0", "cifar10,noise,gaussian,small,auto,0"]
    # Not in the precision of the command.
    rows += ["cifar10,generated,gaussian,small,bfloat16,0"]
    lines = missing("--table", "nsvae-4", results__ns_vae=VAE + "\n".join(rows) + "\n")
    at = lines.index("small: 4 of 18 runs")
    assert lines[at + 1 : at + 9] == [
        "no run: negatives cifar100; noise_model bernoulli",
        "no run: noise_model quantized_gaussian",
        "no run: negatives generated; noise_model gaussian",
        "1 of 3 seeds: negatives generated; noise_model bernoulli",
        "the paper's size: 1 of 18 runs",
        "no run: negatives cifar100; noise_model bernoulli",
        "no run: noise_model gaussian / quantized_gaussian",
        "1 of 3 seeds: negatives generated; noise_model bernoulli",
    ]


def test_runs_in_out_count_too(missing):
    row = "cifar10,cifar100,gaussian,small,auto,{}\n"
    both = {"results__ns_vae": VAE + row.format(0), "out__ns_vae__results": VAE + row.format(0) + row.format(1)}
    lines = missing("--table", "nsvae-4", **both)
    assert "small: 2 of 18 runs" in lines
    assert "2 of 3 seeds: negatives cifar100; noise_model gaussian" in lines
    assert "the paper's size: 0 of 18 runs" in lines
    # A row that was cut off is none.
    both = {"out__ns_vae__results": VAE + row.format(0) + row.format(1).strip()}
    assert "small: 1 of 18 runs" in missing("--table", "nsvae-4", **both)


def test_missing_without_results_and_data(missing, tmp_path):
    lines = missing("--table", "nsvae-1", "--data-home", str(tmp_path))
    assert "small: 0 of 12 runs" in lines
    (gone,) = (line for line in lines if line.startswith("not in the data folder"))
    assert "images/kmnist_t10k" in gone
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "kmnist_t10k.npz").touch()
    (gone,) = (
        line
        for line in missing("--table", "nsvae-1", "--data-home", str(tmp_path))
        if line.startswith("not in the data folder")
    )
    assert "images/kmnist_t10k" not in gone


def test_every_table_and_what_has_none(tables, missing):
    lines = missing()
    for name, table in tables.TABLES.items():
        assert f"{name}: {table.paper}, {table.table}" in lines
    for (paper, table), reason in tables.WITHOUT.items():
        assert f"{paper}, {table}: {reason}" in lines


def test_encoders_differ(missing):
    head = "protocol,dataset,n_train,encoder,output,detector,against,severity,seed\n"
    rows = [
        f"ood,cifar10,5000,{encoder},features,kNN,cifar100_test_20perclass,,{seed}\n"
        for seed, encoder in enumerate(("simclr", "simclr", "shipped"))
    ]
    assert "small: 2 of 48 runs" in missing("--table", "dum-3", results__dum_images=head + "".join(rows))


class Caught(Exception):
    """The runs that a script would make now."""


@pytest.mark.parametrize("budget", ["cpu", "gpu"])
@pytest.mark.parametrize(
    "script",
    [
        "ns_vae",
        "reject_classes",
        "reject_one_class",
        "holdout_class",
        "adra_one_vs_rest",
        "ood_suite",
    ],
)
def test_wanted_runs_are_those_of_the_command(tables, load_benchmark, monkeypatch, tmp_path, script, budget):
    """Of the commands themselves, which would take days: they stop before the first run."""
    module = load_benchmark(script)

    def stop(self, jobs, n_jobs=1):
        raise Caught([key for key, _ in jobs])

    monkeypatch.setattr(module.Runs, "complete", stop)
    for name, table in tables.TABLES.items():
        if table.script != script:
            continue
        chosen = table.size(budget)
        own = ["--data-home", str(tmp_path), "--out", str(tmp_path), *chosen.arguments, "--seeds", "1"]
        own = [part if part != "--seeds" or script != "holdout_class" else "--trials" for part in own]
        monkeypatch.setattr(sys, "argv", [script, *own])
        with pytest.raises(Caught) as caught:
            module.main()
        columns = list(chosen.wanted[0])
        made = [tuple(str(key[column]) for column in columns) for key in caught.value.args[0]]
        wanted = [values for part in chosen.wanted for values in product(*part.values())]
        assert sorted(made) == sorted(wanted), name


def test_wanted_methods_of_disentanglement_are_those_of_the_script(tables, load_benchmark):
    table, script = tables.TABLES["adra-figure-3"], load_benchmark("disentanglement")
    for chosen in (table.small, table.paper_size):
        assert chosen.wanted[0]["method"] == list(script.ORDER)
        assert chosen.wanted[0]["size"][0] in script.SIZES


def test_wanted_names_of_dum_are_those_of_the_scripts(tables, load_benchmark):
    from papers import dum

    from skood.corruptions import CORRUPTIONS

    images, uci = load_benchmark("dum_images"), load_benchmark("dum_uci")
    options = SimpleNamespace(device="cpu", size="small", max_epochs=None)
    assert list(images.detectors("features", 0, options)) == dum.ON_EMBEDDINGS
    assert list(images.detectors("pixels", 0, options)) == dum.ON_PIXELS
    assert list(CORRUPTIONS) == dum.CORRUPTIONS
    assert sorted([*dum.SMALL_SETS, *dum.LARGE_SETS]) == sorted(uci.PAPER)
    assert sorted(dum.SMALL_SETS) == sorted(uci.PAPER_TABLE_4)
    assert set(dum.QUADRATIC) == {name for name in uci.MOST_ROWS if "SimCLR" not in name}
    assert set(dum.DUM_2) == {"DUM, printed", *dum.LINEAR, *dum.QUADRATIC}
    assert set(dum.DUM_2) | set(dum.DUM_4) <= set(uci.methods(100, 256, 0))

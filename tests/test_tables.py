"""Tables as people have them, from the file to the table of results."""

import gzip
import lzma
import re
import sys
import zipfile
from decimal import Decimal
from io import StringIO
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat
from sklearn.preprocessing import StandardScaler

from skood import compare_detectors
from skood.__main__ import main
from skood.compare import NearestNeighborsDetector, OODPair
from skood.compare.protocols import PROTOCOLS
from skood.datasets import TableOptions, load, read_file

N = 60


@pytest.fixture
def numbers():
    """Rows of two numbers, the last quarter of another kind."""
    rng = np.random.default_rng(0)
    strange = np.arange(N) >= 3 * N // 4
    size = rng.normal(size=N) + 5 * strange
    return pd.DataFrame({"size": size, "age": rng.integers(20, 60, N), "kind": np.where(strange, "bad", "ok")})


@pytest.fixture
def mixed(numbers):
    """The same with text, dates, booleans and holes."""
    pytest.importorskip("skrub", reason="skrub encodes text: pip install 'skood[tables]'")
    strange = numbers["kind"] == "bad"
    table = numbers.assign(
        colour=np.where(strange, "green", np.where(np.arange(N) % 2, "red", "blue")),
        note=[f"visit {i}" for i in range(N)],
        when=pd.date_range("2020-01-01", periods=N).astype(str),
        wet=np.arange(N) % 3 == 0,
    )
    table.loc[3, "size"] = np.nan
    table.loc[4, "colour"] = None
    return table


@pytest.fixture
def compare(tmp_path, monkeypatch, capsys):
    """What runs the command in an empty folder and returns its exit code, what it printed, and its results.

    It runs as where matplotlib is not installed, because pictures take longer than the rest; all but where asked for.
    """
    monkeypatch.chdir(tmp_path)

    def run(*arguments, pictures=False):
        with monkeypatch.context() as patch:
            if not pictures:
                patch.setitem(sys.modules, "matplotlib", None)
            return run_here(*arguments)

    def run_here(*arguments):
        fast = ("--detectors", "kNN,IsolationForest", "--only", "--seeds", "1", "--jobs", "1", "--out", "out")
        try:
            code = main(["compare", *fast, *arguments])
        except SystemExit as stop:
            code = stop.code
        printed = capsys.readouterr()
        # The progress bars stand before an error.
        return code, printed.out + printed.err, pd.read_csv("out/results.csv") if code in (0, 1) else None

    return run


def write(table, name, **options):
    table.to_csv(name, index=False, **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("t.csv", {}),
        ("t.CSV", {"sep": ";"}),
        ("t.csv", {"sep": ";", "decimal": ","}),
        ("t.tsv", {"sep": "\t"}),
        ("t.txt", {"sep": " "}),
        ("t.data", {"sep": "|"}),
        ("t.csv.gz", {}),
        ("t.csv.zip", {}),
        ("t.csv.xz", {}),
    ],
)
def test_files_of_separated_values(compare, numbers, name, options):
    write(numbers, name, **options)
    code, printed, results = compare("--data", name, "--target", "kind", "--outlier", "bad")
    assert code == 0
    assert f"{name}: 45 inliers (45 labelled ok), 15 outliers (15 labelled bad)." in printed
    assert set(results["dataset"]) == {"t"}
    assert (results["auroc"] > 0.9).all()


def test_every_format_gives_the_same_rows(compare, numbers):
    write(numbers, "t.csv")
    expected, y = read_file("t.csv", "kind", ["bad"])
    np.testing.assert_array_equal(expected, numbers[["size", "age"]])
    for sep, decimal in ((";", ","), ("\t", "."), (" ", "."), ("|", ".")):
        write(numbers, "other.txt", sep=sep, decimal=decimal)
        X, labels = read_file("other.txt", "kind", ["bad"])
        np.testing.assert_array_equal(X, expected)
        np.testing.assert_array_equal(labels, y)
    write(numbers, "odd.txt", sep="~")
    np.testing.assert_array_equal(read_file("odd.txt", "kind", ["bad"], options=TableOptions(sep="~"))[0], expected)


def test_lines_of_many_thousand_fields(compare):
    rng = np.random.default_rng(0)
    wide = pd.DataFrame(rng.integers(10**8, 10**9, (6, 15_000))).add_prefix("gene_")
    write(wide.assign(kind=["ok"] * 4 + ["bad"] * 2), "t.csv", sep=";")
    X, y = read_file("t.csv", "kind", ["bad"])
    np.testing.assert_array_equal(X, wide)
    assert (y == -1).sum() == 2


def test_matlab(compare, numbers):
    savemat("t.mat", {"X": numbers[["size", "age"]].to_numpy(), "y": (numbers[["kind"]] == "bad").to_numpy(float)})
    code, printed, results = compare("--data", "t.mat")
    assert code == 0
    assert "45 inliers (45 labelled 0), 15 outliers (15 labelled 1)" in printed
    assert (results["auroc"] > 0.9).all()


def test_arff(compare, numbers):
    rows = "\n".join(numbers.astype(str).agg(",".join, axis=1))
    header = "@relation t\n@attribute size numeric\n@attribute age numeric\n@attribute kind {ok,bad}\n@data\n"
    with open("t.arff", "w") as file:
        file.write(header + rows + "\n?,30,ok\n")
    code, printed, results = compare("--data", "t.arff", "--target", "kind", "--inlier", "ok")
    assert code == 0
    assert "column 'size': 1 missing value, filled with the mean, and marked by a column." in printed
    assert (results["auroc"] > 0.9).all()


def test_arff_with_strings(compare, mixed):
    mixed = mixed.assign(name=[f"it's, no. {i}" for i in range(N)])
    header = "@relation t\n@attribute size real\n@attribute 'the name' string\n@attribute kind {ok,bad}\n@data\n"
    lines = [
        f"{'?' if np.isnan(row.size_) else row.size_},'{row.name_}',{row.kind_}".replace("it's", r"it\'s")
        for row in mixed.add_suffix("_").itertuples()
    ]
    with open("t.arff", "w") as file:
        file.write(header + "\n".join(lines))
    code, printed, _ = compare("--data", "t.arff", "--target", "kind", "--outlier", "bad")
    assert code == 0
    assert "column 'size': 1 missing value, filled with the mean, and marked by a column." in printed
    assert "column 'the name': text of 60 values, encoded as 30 columns" in printed
    X, _ = read_file("t.arff", "kind", ["bad"], options=TableOptions(encode=True))
    assert X["the name"].tolist() == mixed["name"].tolist()
    np.testing.assert_array_equal(X["size"], mixed["size"])


def test_parquet_without_pyarrow_says_what_to_install(compare, numbers, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name in ("t.parquet", "t.feather"):
        open(name, "w").close()
        code, printed, _ = compare("--data", name, "--target", "kind")
        assert code == 2
        assert "pip install pyarrow" in printed


@pytest.mark.parametrize("name", ["t.parquet", "t.feather"])
def test_parquet_and_feather(compare, mixed, name):
    pytest.importorskip("pyarrow", reason="pyarrow reads parquet")
    price = [Decimal(i % 50) / 4 for i in range(N)]
    mixed = mixed.assign(
        shape=pd.Categorical(mixed["colour"]),
        price=price,
        age=mixed["age"].astype("Int64").where(mixed.index != 7),
        when=pd.to_datetime(mixed["when"]),
    )
    getattr(mixed, f"to_{name.removeprefix('t.')}")(name)
    code, printed, results = compare("--data", name, "--target", "kind", "--outlier", "bad")
    assert code == 0
    assert results["error"].isna().all()
    assert (results["auroc"] > 0.7).all()
    assert f"{name}: 45 inliers (45 labelled ok), 15 outliers (15 labelled bad)." in printed
    for line in (
        "'size': 1 missing value, filled with the mean, and marked by a column.",
        "'age': 1 missing value, filled with the mean, and marked by a column.",
        "'colour': text of 3 values, a column for each; 1 missing value.",
        "'shape': text of 3 values, a column for each; 1 missing value.",
        "'when': dates, encoded as year, month, day and seconds.",
    ):
        assert f"column {line}" in printed
    assert "'price'" not in printed
    X, _ = read_file(name, "kind", ["bad"], options=TableOptions(encode=True))
    assert X["price"].tolist() == list(map(float, price))


def test_a_named_index_in_a_parquet_file_is_a_column(compare, numbers):
    pytest.importorskip("pyarrow", reason="pyarrow reads parquet")
    numbers.iloc[::-1].to_parquet("unnamed.parquet")
    numbers.set_index("size").to_parquet("named.parquet")
    for name in ("unnamed", "named"):
        X, _ = read_file(f"{name}.parquet", "kind", ["bad"])
        np.testing.assert_array_equal(X[np.argsort(X[:, 0])], numbers[["size", "age"]].sort_values("size"))


def test_a_broken_parquet_file_is_named(compare):
    pytest.importorskip("pyarrow", reason="pyarrow reads parquet")
    for name in ("t.parquet", "t.feather"):
        with open(name, "wb") as file:
            file.write(b"PAR1 cut off")
        code, printed, _ = compare("--data", name, "--target", "kind")
        assert code == 2
        assert f"{name}: not a readable .{name.removeprefix('t.')} file" in printed


def test_frames_of_polars_give_the_figures_of_pandas(mixed):
    polars = pytest.importorskip("polars", reason="polars is not installed")
    y = np.where(mixed["kind"] == "bad", -1, 1)
    frame = mixed.drop(columns="kind").assign(when=pd.to_datetime(mixed["when"]))
    same = polars.DataFrame({name: polars.Series(frame[name].tolist(), strict=False) for name in frame})
    same = same.with_columns(polars.col("size").fill_nan(None), price=polars.col("age").cast(polars.Decimal(8, 2)))
    frame["price"] = frame["age"]
    for columns in (["age", "wet"], list(frame)):
        expected, results = (
            compare_detectors(["kNN"], {"t": (X[columns], y)}, seeds=1)[["auroc", "aupr_out", "fpr95", "error"]]
            for X in (frame, same)
        )
        assert results["error"].tolist() == [""]
        pd.testing.assert_frame_equal(results, expected)


def test_archives_of_several_files(compare):
    with zipfile.ZipFile("t.csv.zip", "w") as archive:
        archive.writestr("a.csv", "a\n1")
        archive.writestr("b.csv", "a\n1")
    code, printed, _ = compare("--data", "t.csv.zip", "--target", "kind")
    assert code == 2
    assert "t.csv.zip: holds 2 files; unpack it and name one." in printed


@pytest.mark.parametrize("compressed", [gzip.compress, lzma.compress])
def test_a_file_cut_off_is_named(compare, compressed):
    name = "t.csv.gz" if compressed is gzip.compress else "t.csv.xz"
    with open(name, "wb") as file:
        file.write(compressed(b"a,b\n1,2\n" * 1000)[:-9])
    code, printed, _ = compare("--data", name, "--target", "b")
    assert code == 2
    assert f"{name}: not a readable .csv file" in printed


def test_text_dates_and_holes_are_encoded(compare, mixed):
    write(mixed, "t.csv")
    code, printed, results = compare("--data", "t.csv", "--target", "kind", "--outlier", "bad", pictures=True)
    assert code == 0
    assert {path.name for path in Path("out").glob("*.png")} == {"auroc.png", "scores-t.png", "curves-t.png"}
    for line in (
        "'size': 1 missing value, filled with the mean, and marked by a column.",
        "'colour': text of 3 values, a column for each; 1 missing value.",
        "'note': text of 60 values, encoded as 30 columns",
        "'when': dates, encoded as year, month, day and seconds.",
    ):
        assert f"column {line}" in printed
    assert "'age'" not in printed
    assert "'wet'" not in printed
    assert (results["error"].isna()).all()
    assert (results["auroc"] > 0.7).all()
    again = compare("--data", "t.csv", "--target", "kind", "--outlier", "bad")[2]
    pd.testing.assert_frame_equal(results, again)


@pytest.mark.parametrize("protocol", ["holdout-class", "one-versus-rest", "contaminated"])
def test_tables_under_the_other_protocols(compare, mixed, protocol):
    write(mixed, "t.csv")
    chosen = ["--outlier", "bad"] if protocol == "contaminated" else []
    code, _, results = compare("--data", "t.csv", "--target", "kind", "--protocol", protocol, *chosen)
    assert code == 0
    assert results["error"].isna().all()


class Recording(NearestNeighborsDetector):
    """Keeps what it is fitted on."""

    def fit(self, X, y=None):
        type(self).seen = np.array(X)
        return super().fit(X)


def test_encoders_know_the_training_rows_alone(mixed):
    X, y = mixed[["size", "colour"]].copy(), np.where(mixed["kind"] == "bad", -1, 1)
    compare_detectors({"r": Recording()}, {"t": (X, y)}, seeds=1)
    before = Recording.seen
    X.loc[y == -1, "size"] = 1e6
    X.loc[y == -1, "colour"] = "violet"
    results = compare_detectors({"r": Recording()}, {"t": (X, y)}, seeds=1)
    assert results["error"].tolist() == [""]
    np.testing.assert_array_equal(Recording.seen, before)


def test_frames_of_numbers_give_the_figures_of_arrays():
    X, y = load("wine")
    frame = pd.DataFrame(X, index=np.arange(len(X)) + 7)
    kinds = {"array": X, "frame": frame}
    results = [compare_detectors(["kNN"], {"d": (X, y)}, seeds=2) for X in kinds.values()]
    figures = ["auroc", "aupr_out", "fpr95", "error"]
    pd.testing.assert_frame_equal(results[0][figures], results[1][figures])


def test_stored_rows_of_a_file_of_numbers_are_known_again(compare, numbers):
    """Their keys are hashes of the array that pandas makes of the file, its order in memory included."""
    write(numbers, "t.csv")
    X, _ = read_file("t.csv", "kind", ["bad"])
    assert joblib.hash(X) == joblib.hash(pd.read_csv("t.csv").drop(columns="kind").to_numpy(dtype=np.float64))


def test_holes_are_filled_by_the_mean_of_the_training_rows():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": rng.normal(size=40), "b": rng.normal(size=40)})
    y = np.repeat([1, -1], 20)
    X.loc[y == -1, "a"] = np.nan
    compare_detectors({"r": Recording()}, {"t": (X, y)}, seeds=1)
    # No training row has a hole: nothing marks them, and the scaler sees numbers alone.
    np.testing.assert_allclose(Recording.seen, StandardScaler().fit_transform(Recording.seen), atol=1e-12)
    assert Recording.seen.shape == (10, 2)


def test_without_skrub_a_line_says_what_to_install(compare, mixed, monkeypatch):
    monkeypatch.setitem(sys.modules, "skrub", None)
    write(mixed, "t.csv")
    code, printed, _ = compare("--data", "t.csv", "--target", "kind", "--outlier", "bad")
    assert code == 2
    assert "numbers: colour, note, when. skrub encodes them: pip install 'skood[tables]'; or leave them out" in printed
    arguments = ["--data", "t.csv", "--target", "kind", "--outlier", "bad", "--drop", "colour,note,when"]
    assert compare(*arguments)[0] == 0


def test_no_encode_refuses(compare, numbers):
    write(numbers.assign(colour="red"), "text.csv")
    numbers.loc[3, "size"] = np.nan
    write(numbers, "holes.csv")
    for name, message in (
        ("text.csv", "text.csv: columns that are not numbers: colour; encode them, or leave them out (--drop)."),
        ("holes.csv", "holes.csv: column 'size' has no value in line 5 of the file"),
    ):
        code, printed, _ = compare("--data", name, "--target", "kind", "--outlier", "bad", "--no-encode")
        assert code == 2
        assert message in printed


def test_a_header_of_numbers_is_suspicious(compare, numbers):
    numbers["kind"] = (numbers["kind"] == "bad").astype(int)
    write(numbers.round(2), "t.data", header=False)
    code, printed, _ = compare("--data", "t.data", "--target", "1")
    assert code == 2
    assert "t.data: the first line, which should name the columns, is all numbers (" in printed
    assert "add --no-header and give the label column by its place, --target 3 for the last" in printed
    code, printed, results = compare("--data", "t.data", "--no-header", "--target", "3")
    assert code == 0
    assert "45 inliers (45 labelled 0), 15 outliers (15 labelled 1)" in printed
    assert (results["n_train"] == 22).all()
    numbers.columns = ["0", "1", "2"]
    write(numbers, "named.csv")
    assert compare("--data", "named.csv", "--target", "2")[0] == 2
    assert compare("--data", "named.csv", "--target", "2", "--header")[0] == 0


def test_a_header_of_numbers_and_text_is_suspicious(compare, numbers):
    write(numbers.round(2), "t.txt", header=False)
    code, printed, _ = compare("--data", "t.txt", "--target", "3", "--inlier", "ok")
    assert code == 2
    assert "is mostly numbers (" in printed
    assert compare("--data", "t.txt", "--target", "3", "--inlier", "ok", "--no-header")[0] == 0


def test_columns_that_count_the_rows(compare, numbers):
    numbers.assign(id=range(N)).to_csv("t.csv")
    code, printed, _ = compare("--data", "t.csv", "--target", "kind", "--outlier", "bad")
    assert code == 0
    assert "t.csv: left out a column without a name, which counts the rows." in printed
    assert "column 'id' counts the rows. If it only tells where a row stands in the file" in printed
    options = TableOptions(drop=["id"])
    X, _ = read_file("t.csv", "kind", ["bad"], options=options)
    assert X.shape == (N, 2)
    code, printed, _ = compare("--data", "t.csv", "--target", "kind", "--outlier", "bad", "--drop", "id,weight")
    assert code == 2
    assert "no column 'weight' (--drop); there are" in printed


@pytest.fixture
def read(tmp_path):
    """What writes a text into a file, and returns its rows, its labels, and what was said about it."""

    def write_and_read(text, encoding="utf-8", **options):
        path = tmp_path / "t.csv"
        path.write_bytes(text.encode(encoding))
        said = []
        how = TableOptions(encode=True, say=said.append, **options)
        X, y = read_file(path, "kind", ["bad"], options=how)
        return X, y, "\n".join(said)

    return write_and_read


def rows_of_text(numbers, sep, start="", end=""):
    """Return the rows of a table as text, with something before and after each of them."""
    lines = [f"{start.format(row)}{sep.join(map(str, fields))}{end}" for row, fields in enumerate(numbers.to_numpy())]
    return "\n".join([f"kind{sep}size{sep}age", *lines, ""])


@pytest.mark.parametrize("sep", [",", "\t", " ", ";"])
@pytest.mark.parametrize("row_name", ['"{}"', '"gene {}"'])
def test_names_of_rows_that_the_header_does_not_count(read, numbers, sep, row_name):
    """As R's write.table writes them."""
    text = rows_of_text(numbers[["kind", "size", "age"]], sep, start=row_name + sep)
    X, y, said = read(text)
    np.testing.assert_array_equal(X, numbers[["size", "age"]])
    np.testing.assert_array_equal(y == -1, numbers["kind"] == "bad")
    assert "t.csv: left out the first column, which has no name in the header." in said


@pytest.mark.parametrize("sep", [",", "\t", ";"])
def test_a_separator_at_the_end_of_each_row_is_no_column(read, numbers, sep):
    text = rows_of_text(numbers[["kind", "size", "age"]], sep, end=sep)
    X, _, said = read(text)
    np.testing.assert_array_equal(X, numbers[["size", "age"]])
    assert "left out" not in said
    X, _, said = read(text.replace("age", f"age{sep}", 1))
    np.testing.assert_array_equal(X, numbers[["size", "age"]])
    assert "left out a column without a name, which is empty." in said


@pytest.mark.parametrize("more", [",1,2", ","])
def test_rows_longer_than_the_header(read, numbers, more):
    text = rows_of_text(numbers[["kind", "size", "age"]], ",", end=more)
    with pytest.raises(ValueError, match=r"t\.csv: rows have more fields than the first line has names: "):
        read(f"{text}ok,1,2,3{',4' if more != ',' else ''}\n")


@pytest.mark.parametrize("header", ["kind,size,size", '"size",kind,"size"'])
def test_a_name_that_occurs_twice(read, header):
    with pytest.raises(ValueError, match=r"t\.csv: two columns are named 'size'; rename one\."):
        read(f"{header}\nok,ok,1\nbad,bad,2\n")


@pytest.mark.parametrize("sep", [",", "\t", "|", ";", "space"])
def test_decimal_commas_beside_any_separator(read, sep):
    mark = " " if sep == "space" else sep
    rows = [f'"{i},{i + 1:03d}"{mark}{"bad" if i > 7 else "ok"}{mark}"-0,5"' for i in range(10)]
    X, _, said = read("\n".join([mark.join(["size", "kind", "age"]), *rows]), sep=sep)
    np.testing.assert_allclose(X[:3], [[0.001, -0.5], [1.002, -0.5], [2.003, -0.5]])
    assert "t.csv: numbers have decimal commas." in said


@pytest.mark.parametrize("sep", [",", "\t"])
def test_thousands_are_not_taken_for_decimals(read, sep):
    pytest.importorskip("skrub", reason="skrub encodes text: pip install 'skood[tables]'")
    rows = [f'"{i},234"{sep}{"bad" if i > 7 else "ok"}' for i in range(1, 10)]
    X, _, said = read("\n".join([f"size{sep}kind", *rows]))
    assert X["size"].tolist() == [f"{i},234" for i in range(1, 10)]
    assert "column 'size': text of 9 values" in said


def test_the_index_of_a_frame_is_no_feature(read, numbers):
    shuffled = numbers.sample(frac=1, random_state=0)
    for table in (shuffled, pd.read_csv(StringIO(shuffled.to_csv()))):
        X, _, said = read(table.to_csv())
        np.testing.assert_array_equal(X, shuffled[["size", "age"]])
        assert "t.csv: left out a column without a name, which numbers the rows." in said
    X, _, said = read(numbers.set_index("size").reset_index(names="").to_csv(index=False))
    np.testing.assert_array_equal(X, numbers[["size", "age"]])
    assert "t.csv: a column without a name is kept, as 'Unnamed: 0'." in said
    X, _, _ = read(numbers.rename(columns={"age": ""}).to_csv(index=False), drop=["Unnamed: 1"])
    np.testing.assert_array_equal(X, numbers[["size"]])


@pytest.mark.parametrize(("encoding", "sep"), [("latin-1", ","), ("utf-16", "\t"), ("utf-16-be", ";")])
def test_encodings_of_long_files(read, encoding, sep):
    """Their first character that is not ASCII stands behind what is read to recognise the format."""
    note = "x" * 5000
    rows = [f"{i}{sep}{note}{sep}{'ok' if i % 2 else 'bad'}" for i in range(250)]
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    text = "\n".join([f"{mark}size{sep}note{sep}kind", *rows, f"7{sep}Köln{sep}ok", f"{sep}Köln{sep}", ""])
    with pytest.raises(ValueError, match=r"t\.csv: column 'kind' has no label in line 253 of the file"):
        read(text, encoding=encoding)
    X, _, _ = read(text.removesuffix(f"{sep}Köln{sep}\n"), encoding=encoding, drop=["note"])
    assert X.tolist() == [[i] for i in [*range(250), 7]]


def test_latin_1_without_a_line_feed(read):
    X, _, _ = read("\r".join(["größe,kind", "1,ok", "2,bad"]), encoding="latin-1")
    assert X.tolist() == [[1], [2]]


@pytest.mark.parametrize("sep", ["::", "", '"'])
def test_separators_that_are_not_one_character(compare, numbers, sep):
    write(numbers, "t.csv")
    code, printed, _ = compare("--data", "t.csv", "--target", "kind", "--outlier", "bad", "--sep", sep)
    assert code == 2
    assert f"sep={sep!r} (--sep) must be one character" in printed


def test_labels_of_inliers(compare, numbers):
    numbers.loc[[50, 51], "kind"] = "worse"
    write(numbers, "t.csv")
    code, printed, _ = compare("--data", "t.csv", "--target", "kind", "--inlier", "ok")
    assert code == 0
    assert "45 inliers (45 labelled ok), 15 outliers (13 labelled bad, 2 labelled worse)" in printed
    _, printed, _ = compare("--data", "t.csv", "--target", "kind", "--outlier", "bad")
    assert "47 inliers (45 labelled ok, 2 labelled worse), 13 outliers" in printed
    for more, message in (
        (["--outlier", "bad"], "not both"),
        (["--protocol", "holdout-class"], "--inlier is not for --protocol holdout-class"),
    ):
        code, printed, _ = compare("--data", "t.csv", "--target", "kind", "--inlier", "ok", *more)
        assert code == 2
        assert message in printed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,kind\n1,ok\n\n2,\n3,bad\n", "t.csv: column 'kind' has no label in line 4 of the file"),
        ('a,b,kind\n1,"two\nlines",ok\ninf,x,ok\n3,y,bad\n', "t.csv: column 'a' has inf in line 4 of the file"),
        ("a,kind\n1,ok\n1e30,bad\n", "column 'a' has 1e+30 in line 3 of the file"),
        ("a,a,kind,\n", "no rows"),
        ("kind\nok\nbad\n", "no column is left beside the labels"),
        ("a,kind\n1,ok\n2,bad,3\n", "line 3"),
        ('a,kind\n1,ok\n"2,bad\n', 't.csv: a quotation mark (") is opened and never closed'),
    ],
)
def test_what_is_wrong_with_a_file_is_said_once_before_the_first_fit(compare, tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    code, printed, _ = compare("--data", "t.csv", "--target", "kind", "--outlier", "bad")
    assert code == 2
    assert printed.count(message) == 1
    assert not (tmp_path / "out").exists()


def test_other_encodings(compare, numbers):
    numbers["größe"] = numbers["size"]
    write(numbers, "t.csv", encoding="latin-1")
    write(numbers, "bom.csv", encoding="utf-8-sig")
    for name in ("t.csv", "bom.csv"):
        X, _ = read_file(name, "kind", ["bad"], options=TableOptions(drop=["größe", "size"]))
        np.testing.assert_array_equal(X, numbers[["age"]])


def test_arrays_with_holes(compare, numbers):
    X = numbers[["size", "age"]].to_numpy()
    X[2, 0] = np.nan
    np.savez("t.npz", X=X, y=numbers["kind"].eq("bad").to_numpy())
    code, printed, results = compare("--data", "t.npz")
    assert code == 0
    assert "column 'feature 0': 1 missing value" in printed
    assert results["error"].isna().all()
    code, printed, _ = compare("--data", "t.npz", "--no-encode")
    assert code == 2
    assert "t.npz: column 'feature 0' has no value in row 2" in printed


@pytest.mark.parametrize("names", [["a", "a"], [0, "0"], pd.MultiIndex.from_tuples([("a", "x"), ("a", "x")])])
def test_columns_of_a_frame_that_have_the_same_name(names):
    X, y = np.random.default_rng(0).normal(size=(40, 2)), np.repeat([1, -1], 20)
    X[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"data set 't': two columns are named .*; rename one\."):
        compare_detectors(["kNN"], {"t": (pd.DataFrame(X, columns=names), y)}, seeds=1)


def test_columns_of_several_levels():
    X, y = load("wine")
    levels = pd.MultiIndex.from_product([["a"], range(X.shape[1])])
    results = [compare_detectors(["kNN"], {"d": (rows, y)}, seeds=1) for rows in (X, pd.DataFrame(X, columns=levels))]
    assert results[0]["auroc"].tolist() == results[1]["auroc"].tolist()


def test_the_column_of_labels_cannot_be_dropped(compare, numbers):
    write(numbers, "t.csv")
    code, printed, _ = compare("--data", "t.csv", "--target", "kind", "--outlier", "bad", "--drop", "age,kind")
    assert code == 2
    assert "t.csv: 'kind' is the column of labels (--target): take it out of --drop." in printed


def test_labels_with_commas(compare, numbers):
    write(numbers.replace({"kind": {"bad": "a,b"}}), "t.csv")
    for option, label in (("--outlier", "a,b"), ("--inlier", "ok"), ("--outlier", "a,b ")):
        code, printed, _ = compare("--data", "t.csv", "--target", "kind", option, label)
        assert code == (2 if label.endswith(" ") else 0), printed
        assert "15 outliers (15 labelled a,b)" in printed or "no row is labelled a, b; labels are ok, a,b." in printed
    write(numbers.assign(kind=["a", "b", *["ok"] * (N - 2)]), "t.csv")
    _, printed, _ = compare("--data", "t.csv", "--target", "kind", "--outlier", "a, b")
    assert "2 outliers (1 labelled a, 1 labelled b)" in printed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind,a,b,c\n{}ok,18\n{}", "line 21 has 2 fields, the header 4"),
        ("a,b,c,kind\n{}1,2\n{}", "line 21 has 2 fields, the header 4"),
        ("a,b,c,kind\n\n  \n{}1,2\n{}", "line 23 has 2 fields, the header 4"),
        ("a,b,kind,c\n{}1\n{}", "line 21 has 1 field, the header 4"),
        ('a,b,kind,c\n3,"4\n5",ok,6\n{}1,2\n{}', "line 23 has 2 fields, the header 4"),
        ("a b c kind\n{}1 2\n{}", "line 21 has 2 fields, the header 4"),
    ],
)
def test_a_row_that_is_cut_off_is_refused(read, text, message):
    places = text.split("\n")[0].replace(" ", ",").split(",")
    row = ",".join("ok" if place == "kind" else "1" for place in places)
    rows = f"{row}\n" * 19
    text = text.format(rows, rows.replace("ok", "bad"))
    with pytest.raises(ValueError, match=f"{message}: complete the line"):
        read(text.replace(",", " ") if " b " in text else text)


def test_separators_at_the_end_of_the_header_alone_are_no_column(read):
    X, _, _ = read("a,kind,\n1,ok\n2,bad\n")
    assert X.tolist() == [[1], [2]]


TABLE = "size;age;kind\n" + "1;2;ok\n" * 5 + "5;6;bad\n"


@pytest.mark.parametrize(
    ("before", "n"),
    [
        ("# made by X\n", 1),
        ('# 3" disks; on Monday\n\n#\n', 3),
        ("sep=;\n", 1),
        ('"sep=;"\r\n', 1),
        ("sep=;\n# X\n", 2),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lines_before_the_names_are_left_out(read, before, n, encoding):
    X, _, said = read(before + TABLE, encoding)
    assert X.tolist() == [[1, 2]] * 5 + [[5, 6]]
    assert f"t.csv: left out {n} line{'s' if n > 1 else ''} before the table." in said
    with pytest.raises(ValueError, match=f"no label in line {7 + n} of the file"):
        read(before + TABLE.replace("6;bad", "6;") + "7;8;bad\n", encoding)


def test_a_first_line_that_tells_the_separator(read):
    X, _, _ = read("sep=|\n" + TABLE.replace(";", "|"))
    assert X.tolist() == [[1, 2]] * 5 + [[5, 6]]


def test_names_that_begin_with_a_hash(read):
    X, _, _ = read("# X\n#" + TABLE, drop=["age"])
    assert X.tolist() == [[1]] * 5 + [[5]]


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (
            "# X\nReport\n",
            "line 1 begins with #, but the first line after the comments has 1 field and most others 3: ",
        ),
        ("Report\n\n", "line 3 has 3 fields instead of 1. Name every column, correct this line, delete lines before"),
    ],
)
def test_titles_before_the_names_are_refused(read, start, message):
    for text in (TABLE, TABLE.replace(";", ",")):
        with pytest.raises(ValueError, match=re.escape(message)):
            read(start + text)


def test_workbooks_and_archives_that_are_named_as_text(compare):
    for name, message in (
        ("[Content_Types].xml", "t.csv: this is an Excel workbook, not text: open it and save the sheet as CSV."),
        ("t.csv", "t.csv: this is a zip archive, not text: name it t.csv.zip, or unpack it."),
    ):
        with zipfile.ZipFile("t.csv", "w") as archive:
            archive.writestr(name, "a,kind\n1,ok")
        code, printed, _ = compare("--data", "t.csv", "--target", "kind")
        assert code == 2
        assert message in printed


# --------------------------------------------------------------------------------------------------------------------
# How numbers are written

GERMAN = str.maketrans(",.", ".,")


@pytest.fixture
def amounts():
    """Rows of a large or small whole number and a fraction."""
    rng = np.random.default_rng(0)
    bad = np.arange(N) % 5 == 0
    qty = np.where(bad, rng.integers(20_000, 90_000, N), rng.integers(300, 999, N))
    return pd.DataFrame({"qty": qty, "b": rng.normal(size=N).round(3), "kind": np.where(bad, "bad", "ok")})


def as_text(table, sep=";", **ways):
    """Return a file some of whose columns are written in other ways."""
    return table.assign(**{name: table[name].map(way) for name, way in ways.items()}).to_csv(sep=sep, index=False)


def with_comma(number):
    return f"{number:,}".translate(GERMAN)


@pytest.mark.parametrize("sep", [";", "\t"])
@pytest.mark.parametrize("n_whole", [0, N - 3])
def test_points_are_thousands_beside_decimal_commas(read, amounts, sep, n_whole):
    """Even if the first comma comes after the lines by which the format is recognised."""
    amounts.loc[: n_whole - 1, "b"] = 0
    X, _, said = read(as_text(amounts, sep, qty=with_comma, b=lambda x: with_comma(x) if x else "0"))
    np.testing.assert_array_equal(X, amounts[["qty", "b"]])
    assert "t.csv: numbers have decimal commas. Columns: b." in said
    first = with_comma(amounts["qty"][0])
    number, other = first.replace(".", ""), first.replace(".", ",")
    assert (
        f"'{first}' is taken as {number}, as other columns have decimal commas; if it is {first}, write {other}."
        in said
    )


def test_points_are_decimals_where_no_column_has_commas(read, amounts):
    X, _, said = read(as_text(amounts.drop(columns="b"), qty=with_comma))
    np.testing.assert_array_equal(X[:, 0], amounts["qty"].where(amounts["kind"] == "ok", amounts["qty"] / 1000))
    assert "qty" not in said


def test_a_column_of_decimal_points_beside_one_of_commas(read, amounts):
    amounts["version"] = np.where(np.arange(N) % 2, 1.2, 0.5)
    X, _, said = read(as_text(amounts, b=with_comma))
    np.testing.assert_array_equal(X, amounts[["qty", "b", "version"]])
    assert "t.csv: numbers have decimal commas. Columns: b." in said


def test_labels_with_decimal_points_beside_decimal_commas(compare, amounts):
    text = as_text(amounts, b=with_comma, kind=lambda kind: float(kind == "bad"))
    Path("t.csv").write_text(text)
    code, printed, _ = compare("--data", "t.csv", "--target", "kind", "--outlier", "1")
    assert code == 0, printed
    assert "12 outliers (12 labelled 1)" in printed


@pytest.mark.parametrize(
    "mark", [" ", "\N{NO-BREAK SPACE}", "\N{NARROW NO-BREAK SPACE}", "'", "\N{RIGHT SINGLE QUOTATION MARK}"]
)
@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("sep", [";", "\t", ","])
def test_spaces_and_apostrophes_separate_thousands(read, amounts, mark, decimal, sep):
    amounts["b"] *= 4e6

    def spelt(number):
        return f"{number:,}".replace(".", decimal if decimal == "." else "_").replace(",", mark).replace("_", ",")

    X, _, said = read(as_text(amounts, sep, qty=spelt, b=spelt))
    np.testing.assert_allclose(X, amounts[["qty", "b"]])
    longest = max(amounts["qty"].map(spelt), key=len)
    assert f"column 'qty': {longest!r} is taken as {longest.replace(mark, '')}." in said


@pytest.mark.parametrize("text", ["12 34", "1 2345", "1 234 56", "1 234'567", "0 123", "1  234"])
def test_other_spaces_do_not_separate_thousands(read, amounts, text):
    pytest.importorskip("skrub", reason="skrub encodes text: pip install 'skood[tables]'")
    X, _, _ = read(as_text(amounts, qty=lambda _: text))
    assert X["qty"].tolist() == [text] * N


def test_commas_that_may_be_of_lists_or_thousands_stay_in_text(read, amounts):
    pytest.importorskip("skrub", reason="skrub encodes text: pip install 'skood[tables]'")
    pairs = as_text(amounts, ",", qty=lambda x: f"{x % 7},{x % 5}")
    thousands = as_text(amounts.drop(columns="b"), ",", qty=lambda x: f"{x:,}")
    for text in (pairs, thousands):
        X, _, said = read(text)
        assert pd.api.types.infer_dtype(X["qty"]) == "string"
        assert "may be a number, but need not; the column is taken as text. If it holds numbers, write them" in said


@pytest.mark.parametrize(
    ("sep", "way"),
    [
        (",", "{:,.2f}".format),
        (",", "${:,.2f}".format),
        (",", "-$ {:.1f}".format),
        (",", "{:.2f} €".format),
        (",", "{:.1f}%".format),
        (";", lambda x: f"{x:,.2f}".translate(GERMAN)),
        (";", lambda x: f"{x:.2f} €".translate(GERMAN)),
        (",", lambda x: f"£{x:,.2f}".translate(GERMAN)),
    ],
)
def test_amounts_are_numbers(read, amounts, sep, way):
    X, _, said = read(as_text(amounts, sep, qty=way))
    np.testing.assert_array_equal(X[:, 0], amounts["qty"] * (-1 if way(1).startswith("-") else 1))
    assert f"t.csv: column 'qty': '{way(amounts['qty'][0])}' is taken as " in said


@pytest.mark.parametrize("sep", [",", ";"])
@pytest.mark.parametrize(
    "way",
    [
        lambda x: f"{x} {'$' if x % 2 else '€'}",
        lambda x: f"1.{x}.3",
        lambda x: f"192.168.{x % 256}.100",
        lambda x: f"0171/{x}",
        lambda x: f"030 {x}",
        lambda x: f"$0{x}",
        lambda x: f"12-{x}",
        lambda x: f"{x}:30",
    ],
)
def test_what_only_looks_like_a_number_stays_text(read, amounts, sep, way):
    pytest.importorskip("skrub", reason="skrub encodes text: pip install 'skood[tables]'")
    X, _, said = read(as_text(amounts, sep, qty=way))
    assert X["qty"].tolist() == amounts["qty"].map(way).tolist()
    assert "is taken as" not in said


def test_one_decimal_point_in_a_column_of_decimal_commas_is_refused(read, amounts):
    rows = as_text(amounts, b=with_comma).splitlines()
    rows[7] = "1;0.5;ok"
    with pytest.raises(
        ValueError, match=r"column 'b' has 59 numbers with decimal commas, but also '0\.5' in line 8 of"
    ):
        read("\n".join(rows))


def test_marks_of_missing_values_in_numbers(read, amounts):
    marks = ["n.a.", "N/A", "-", "--", ".", "missing", "Unknown", "#DIV/0!", "#VALUE!"]
    table = amounts.astype({"b": object})
    table.loc[range(3, 12), "b"] = marks
    X, _, said = read(as_text(table, ","))
    np.testing.assert_array_equal(X["b"].astype(float), amounts["b"].where(~amounts.index.isin(range(3, 12))))
    assert (
        "t.csv: column 'b': 'n.a.', '-', '--', '.', 'missing', 'Unknown', '#DIV/0!', '#VALUE!' (8 in all) are" in said
    )


def test_marks_of_missing_values_in_text_are_text(read, amounts):
    pytest.importorskip("skrub", reason="skrub encodes text: pip install 'skood[tables]'")
    X, _, said = read(as_text(amounts, ",", qty=lambda x: "unknown" if x > 999 else "missing" if x % 2 else "red"))
    assert set(X["qty"]) == {"unknown", "missing", "red"}
    assert "missing value" not in said


@pytest.mark.parametrize("odd", ["abc", "1\0002", "12,x", "0.5.1"])
@pytest.mark.parametrize("way", [str, "${}".format])
def test_a_few_values_that_are_no_numbers_are_refused(read, amounts, odd, way):
    table = amounts.assign(b=amounts["b"].map(way))
    table.loc[[5, 9], "b"] = odd
    unit = " with $" if way(1) == "$1" else ""
    message = re.escape(
        f"t.csv: column 'b' has 58 numbers{unit}, but also {odd!r} in line 7 of the file, {odd!r} in line 11"
    )
    with pytest.raises(ValueError, match=f"{message} of the file: correct these, leave them empty"):
        read(as_text(table, ","))
    X, _, _ = read(as_text(table, ","), drop=["b"])
    np.testing.assert_array_equal(X[:, 0], amounts["qty"])


def test_text_with_many_numbers_stays_text(read, amounts):
    pytest.importorskip("skrub", reason="skrub encodes text: pip install 'skood[tables]'")
    table = amounts.assign(b=np.where(np.arange(N) % 8, amounts["qty"].astype(str), "A1"), few="1")
    table["few"] = [*"12345678", "x", *[""] * (N - 9)]
    X, _, _ = read(as_text(table, ","))
    assert X["b"].tolist() == table["b"].tolist()
    assert X["few"].tolist()[:9] == [*"12345678", "x"]


# --------------------------------------------------------------------------------------------------------------------
# What is in distribution in one file, outliers in others


@pytest.fixture
def pair(compare, mixed):
    """The normal rows in in.csv, the others in new.csv: other columns first, one more, dates and text as they are."""
    normal = mixed["kind"] == "ok"
    inside = mixed[normal].assign(kind=np.where(np.arange(normal.sum()) % 2, "a", "b"))
    outside = mixed[~normal].drop(columns="kind")
    write(inside, "in.csv")
    write(outside[outside.columns[::-1]].assign(source="clinic"), "new.csv", sep=";")
    return inside.reset_index(drop=True), outside.reset_index(drop=True)


PAIR = ("--protocol", "ood-pair", "--data", "in.csv", "--target", "kind", "--unseen", "new.csv")


def test_pairs_of_files_with_columns_that_are_left_out(compare, pair):
    inside, outside = pair
    inside.assign(note="a").to_csv("in.csv")
    outside.assign(note="b", source="clinic").to_csv("new.csv")
    code, printed, _ = compare(*PAIR, "--drop", "note")
    assert code == 0, printed
    # The other file has them, and it is said there, or the user knows.
    assert "new.csv: left out source, which the file of --data does not have." in printed
    assert "new.csv: left out 1 column without a name." in printed
    assert "note, which" not in printed


def test_pairs_of_files_with_text(compare, pair):
    code, printed, results = compare(*PAIR, pictures=True)
    assert code == 0, printed
    assert len(list(Path("out").glob("*.png"))) == 3
    assert printed.count("'colour': text of 2 values") == 1
    assert "new.csv: left out source, which the file of --data does not have." in printed
    assert results["dataset"].tolist() == ["in/new"] * 2
    assert results["error"].isna().all()
    assert (results["auroc"] > 0.8).all()
    again = compare(*PAIR)[2]
    pd.testing.assert_frame_equal(results, again)


@pytest.mark.parametrize("engine", ["pandas", "polars"])
def test_pairs_of_frames_are_those_of_files(compare, pair, engine):
    _, _, from_files = compare(*PAIR, "--detectors", "kNN")
    inside, outside = pair
    y = inside.pop("kind")
    frames = inside, outside[outside.columns[::-1]]
    if engine == "polars":
        polars = pytest.importorskip("polars", reason="polars is in 'skood[frames]'")
        frames = [polars.from_pandas(table) for table in frames]
    pair = OODPair(frames[0], {"new": frames[1]}, y=y)
    results = compare_detectors(["kNN"], {"in": pair}, protocol="ood-pair", seeds=1)
    assert results["error"].tolist() == [""]
    np.testing.assert_allclose(results["auroc"], from_files["auroc"])


def test_encoders_of_a_pair_know_the_training_rows_alone(pair):
    inside, outside = pair
    del inside["kind"]
    seen = []
    for colour in ("green", "violet"):
        unseen = {"new": outside.assign(colour=colour, size=1e6 if colour == "violet" else 0.0)}
        results = compare_detectors({"r": Recording()}, {"t": OODPair(inside, unseen)}, protocol="ood-pair", seeds=1)
        assert results["error"].tolist() == [""]
        seen.append(Recording.seen)
    np.testing.assert_array_equal(*seen)


def test_numbers_of_pairs_are_matched_by_name(compare, numbers):
    del numbers["kind"]
    write(numbers, "in.csv")
    write(numbers[["age", "size"]], "new.csv")
    pair = OODPair(numbers, {"new": numbers[["age", "size"]]})
    problem = PROTOCOLS["ood-pair"]("t", pair)
    np.testing.assert_array_equal(problem.X, pd.concat([numbers, numbers]))
    arrays = OODPair(numbers, {"new": numbers.to_numpy()}, auxiliary=numbers.to_numpy()[:5])
    np.testing.assert_array_equal(PROTOCOLS["ood-pair"]("t", arrays).X[: N + 5], pd.concat([numbers, numbers[:5]]))
    code, printed, results = compare("--protocol", "ood-pair", "--data", "in.csv", "--unseen", "new.csv")
    assert code == 0, printed
    # The same rows: nothing tells them apart.
    assert (abs(results["auroc"] - 0.5) < 0.2).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop(columns="size"), "unseen new has no column 'size'; columns are matched by their names"),
        (lambda rows: rows.assign(more=1), "unseen new has a column 'more', which X lacks; leave it out"),
        (lambda rows: rows.assign(colour=1), "column 'colour' holds text in X, numbers in unseen new; make them alike"),
        (lambda rows: rows.assign(size="x"), "column 'size' holds numbers in X, text in unseen new"),
        (lambda rows: rows.assign(size=np.inf), "unseen new: column 'size' has inf in row 0"),
        (lambda rows: np.ones((3, 4)), r"unseen new has rows of shape \(4,\); expected 6 columns"),
        (lambda rows: rows[:0], "unseen new has no rows"),
        (lambda rows: rows.rename(columns={"age": "size"}), "unseen new: two columns are named 'size'; rename one"),
    ],
)
def test_pairs_that_do_not_match(pair, change, message):
    inside, outside = pair
    del inside["kind"]
    with pytest.raises(ValueError, match=f"^data set 't': {message}"):
        compare_detectors(["kNN"], {"t": OODPair(inside, {"new": change(outside)})}, protocol="ood-pair", seeds=1)


def test_a_file_beside_lacks_a_column(compare, pair):
    write(pair[1].drop(columns="size"), "new.csv")
    code, printed, _ = compare(*PAIR)
    assert code == 2
    assert "new.csv: no column 'size', which the file of --data has; there are age, colour" in printed


# --------------------------------------------------------------------------------------------------------------------
# Ten public files, as they are laid out


def strange_rows():
    return np.arange(N) >= 3 * N // 4


def measured(n_columns, strange):
    """Return columns of numbers of which the strange rows differ."""
    rng = np.random.default_rng(0)
    return [(rng.normal(size=N) + 4 * strange).round(4) for _ in range(n_columns)]


def lines_of(columns, sep):
    return [sep.join(map(str, row)) for row in zip(*columns, strict=True)]


def with_missing(column, mark):
    return [mark if row % 11 == 5 else value for row, value in enumerate(column)]


def valve_sensors(strange):
    """SKAB: semicolons, dates, two columns of labels."""
    dates = pd.date_range("2020-03-09 10:14:33", periods=N, freq="s").strftime("%Y-%m-%d %H:%M:%S")
    rows = lines_of([dates, *measured(3, strange), strange.astype(float), 0.0 * strange], ";")
    return ["datetime;Accelerometer1RMS;Current;Pressure;anomaly;changepoint", *rows]


def network_traffic(strange):
    """NSL-KDD: no header, text, names of attacks, a second column that tells."""
    rng = np.random.default_rng(1)
    attack = np.where(strange, rng.choice(["neptune", "smurf", "satan"], N), "normal")
    protocol, service = rng.choice(["tcp", "udp", "icmp"], N), rng.choice(["http", "smtp", "ftp_data"], N)
    return lines_of([0 * strange, protocol, service, *measured(3, strange), attack, 20 - 5 * strange], ",")


def machine_failures(strange):
    """ai4i2020: a byte order mark, units in brackets, an identifier, the kinds of failure beside the label."""
    product, kind = [f"M{14860 + row}" for row in range(N)], np.random.default_rng(1).choice(list("LMH"), N)
    rows = lines_of([range(1, N + 1), product, kind, *measured(2, strange), 1 * strange, 1 * strange, 0 * strange], ",")
    return ["\ufeffUDI,Product ID,Type,Air temperature [K],Torque [Nm],Machine failure,TWF,HDF", *rows]


def strokes(strange):
    """The stroke file: identifiers, text, N/A."""
    rng = np.random.default_rng(1)
    glucose, bmi = measured(2, strange)
    columns = [rng.permutation(9000)[:N], rng.choice(["Male", "Female"], N), rng.choice(["Yes", "No"], N), glucose]
    rows = lines_of([*columns, with_missing(bmi, "N/A"), 1 * strange], ",")
    return ["id,gender,ever_married,avg_glucose_level,bmi,stroke", *rows]


def horses(strange):
    """Horse-colic: no header, spaces, question marks."""
    rows = lines_of(
        [1 + strange % 2, *(with_missing(column, "?") for column in measured(3, strange)), 1 + strange], " "
    )
    return [f"{row} " for row in rows]


def card_payments(strange):
    """The sample of the credit-card file: quoted names, a column without one that counts."""
    rows = lines_of([range(N), *measured(3, strange), [f'"{label}"' for label in 1 * strange]], ",")
    return ['"","V1","V2","Amount","Class"', *rows]


def diabetes(strange):
    """Pima: numbers alone, no header."""
    return lines_of([*measured(4, strange), 1 * strange], ",")


def oil_spills(strange):
    """Oil-spill: numbers alone, the first of them the number of the patch, a column that is constant."""
    return lines_of([range(1, N + 1), *measured(3, strange), 0 * strange, np.where(strange, 1, -1)], ",")


def mammograms(strange):
    """Mammography: no header, labels in quotes of their own."""
    return lines_of([*measured(3, strange), np.where(strange, "'1'", "'-1'")], ",")


def biopsies(strange):
    """Wisconsin: no header, identifiers, a column with question marks, classes 2 and 4."""
    first, second, third = measured(3, strange)
    number = np.random.default_rng(1).permutation(10**6)[:N]
    return lines_of([number, first, with_missing(second, "?"), third, 2 + 2 * strange], ",")


LAYOUTS = [
    (valve_sensors, "1.csv", "--target anomaly --drop changepoint,datetime", "15 outliers (15 labelled 1)"),
    (valve_sensors, "1.csv", "--target anomaly --drop changepoint", "'datetime': dates, encoded as year, month, day"),
    (network_traffic, "KDDTrain+.txt", "--no-header --target 7 --inlier normal --drop 8", "45 labelled normal)"),
    (machine_failures, "ai4i2020.csv", "--target|Machine failure|--drop|UDI,Product ID,TWF,HDF", "'Type': text of 3"),
    (strokes, "stroke.csv", "--target stroke --drop id", "'bmi': 5 missing values, filled with the mean"),
    (horses, "horse-colic.data", "--no-header --target 5 --outlier 2", "fields are separated by spaces."),
    (card_payments, "creditcard.csv.gz", "--target Class", "left out a column without a name, which counts the rows."),
    (diabetes, "pima.csv", "--no-header --target 5", "45 inliers (45 labelled 0), 15 outliers (15 labelled 1)"),
    (oil_spills, "oil-spill.csv", "--no-header --target 6 --outlier 1", "column '1' counts the rows."),
    (mammograms, "mammography.csv", "--no-header|--target|4|--outlier|'1'", "15 outliers (15 labelled '1')"),
    (biopsies, "breast-cancer-wisconsin.data", "--no-header --target 5 --outlier 4 --drop 1", "'3': 5 missing values"),
]


@pytest.mark.parametrize(("layout", "name", "options", "said"), LAYOUTS)
def test_layouts_of_public_files(compare, layout, name, options, said):
    if layout in (valve_sensors, network_traffic, machine_failures, strokes):
        pytest.importorskip("skrub", reason="skrub encodes text: pip install 'skood[tables]'")
    text = "\n".join(layout(strange_rows())) + "\n"
    with (gzip.open if name.endswith(".gz") else open)(name, "wt", encoding="utf-8") as file:
        file.write(text)
    code, printed, results = compare("--data", name, *options.split("|" if "|" in options else " "))
    assert code == 0, printed
    assert said in printed
    assert results["error"].isna().all()
    assert (results["auroc"] > 0.8).all()

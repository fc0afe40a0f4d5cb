"""Data sets that cannot be compared: found before the first fit where they can be, and otherwise at no loss."""

import numpy as np
import pandas as pd
import pytest

from skood import compare_detectors
from skood.compare import NearestNeighborsDetector, OODPair, format_table, summarize


class Counting(NearestNeighborsDetector):
    fits = 0

    def fit(self, X, y=None):
        type(self).fits += 1
        return super().fit(X)


@pytest.fixture(autouse=True)
def _forget():
    Counting.fits = 0


ROWS = np.random.default_rng(0).normal(size=(60, 2))
MARKED = np.repeat([1, -1], [40, 20])
GOOD = {"novelty": (ROWS, MARKED), "holdout-class": (ROWS, MARKED + 1), "ood-pair": OODPair(ROWS, {"u": ROWS + 9})}
BAD = {
    "novelty": ((ROWS, np.ones(60)), "'last' has 0 outliers"),
    "holdout-class": ((ROWS, np.ones(60)), "'last' has 1 class"),
    "ood-pair": (OODPair(ROWS, {}), "'last' has no unseen rows"),
}


@pytest.mark.parametrize("protocol", GOOD)
def test_data_that_do_not_fit_are_found_before_the_first_fit(protocol):
    bad, message = BAD[protocol]
    data = {"first": GOOD[protocol], "loaded": lambda: GOOD[protocol], "last": bad}
    with pytest.raises(ValueError, match=message):
        compare_detectors({"d": Counting()}, data, protocol=protocol)
    assert Counting.fits == 0


@pytest.mark.parametrize("protocol", GOOD)
@pytest.mark.parametrize("how", ["does not fit", "cannot be loaded"])
def test_a_function_that_fails_loses_nothing(protocol, how, tmp_path):
    bad, message = BAD[protocol]
    load = (lambda: 1 / 0) if how == "cannot be loaded" else (lambda: bad)
    message = "data set 'last' cannot be loaded: division by zero" if how == "cannot be loaded" else message
    detectors = {"d": Counting(), "e": Counting(3)}
    data = {"first": GOOD[protocol], "last": load, "after": lambda: GOOD[protocol]}
    results = compare_detectors(detectors, data, protocol=protocol, seeds=2, out=tmp_path)
    failed = results[results["dataset"] == "last"]
    assert failed["error"].str.startswith("ValueError: data set ").all()
    assert failed["error"].str.contains(message, regex=False).all()
    assert failed[["detector", "seed"]].to_numpy().tolist() == [["d", 0], ["d", 1], ["e", 0], ["e", 1]]
    assert (failed["protocol"] == protocol).all()
    assert failed["auroc"].isna().all()
    assert (results.drop(failed.index)["error"] == "").all()
    assert results["dataset"].str.startswith("after").sum() == results["dataset"].str.startswith("first").sum() >= 4
    # Nothing is stored of what was not done.
    assert "last" not in set(pd.read_csv(tmp_path / "results.csv")["dataset"])
    table = summarize(results)
    assert table["last"].isna().all()
    assert table.attrs["partial"] == []
    assert "-" in format_table(table)


def test_a_function_that_fails_first_is_an_error():
    data = {"first": lambda: 1 / 0, "last": GOOD["novelty"]}
    with pytest.raises(ValueError, match="data set 'first' cannot be loaded: division by zero"):
        compare_detectors({"d": Counting()}, data)
    assert Counting.fits == 0


ALIKE = {
    "one-versus-rest": {"x": (ROWS, np.repeat(["a/b", "c"], 30)), "x/a": (ROWS, np.repeat(["b", "d"], 30))},
    "holdout-class": {"x": (ROWS, np.array(["1", 1, 2], dtype=object)[np.arange(60) % 3])},
    "ood-pair": {"x": OODPair(ROWS, {"a/b": ROWS}), "x/a": OODPair(ROWS, {"b": ROWS + 9})},
}


@pytest.mark.parametrize(("protocol", "data"), ALIKE.items())
def test_names_that_are_alike_when_they_are_joined_are_refused(protocol, data):
    name = "x/1" if protocol == "holdout-class" else "x/a/b"
    with pytest.raises(ValueError, match=rf"two data sets are named '{name}' in the results: rename"):
        compare_detectors({"d": Counting()}, data, protocol=protocol)
    assert Counting.fits == 0


def test_a_loaded_data_set_of_the_same_name_is_a_row_that_says_so():
    data = ALIKE["ood-pair"]
    data = {"x": data["x"], "x/a": lambda: data_of_a()}
    results = compare_detectors({"d": Counting()}, data, protocol="ood-pair", seeds=1)
    assert results["dataset"].tolist() == ["x/a/b", "x/a"]
    assert results["error"][0] == ""
    assert "two data sets are named 'x/a/b' in the results" in results["error"][1]


def data_of_a():
    return ALIKE["ood-pair"]["x/a"]

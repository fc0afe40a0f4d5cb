"""PyOD's detectors by name: on a package of its shape, and on PyOD itself where it is installed."""

import pickle
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from skood import compare_detectors
from skood.compare.fingerprint import fingerprint
from skood.compare.pyod import PyODDetector, find_pyod

TOY = """
    import numpy as np
    from sklearn.base import BaseEstimator

    class Base(BaseEstimator): ...

    class ToyFar_Out(Base):
        \"\"\"Distance from the origin; outliers are the rows whose score is above the threshold.\"\"\"

        def __init__(self, contamination=0.1, power=1, verbose=1, random_state=None):
            self.contamination = contamination
            # Like some of PyOD's, it does not leave its arguments as they were.
            self.power = float(power)
            self.verbose = verbose
            self.random_state = random_state

        def fit(self, X, y=None):
            assert y is None
            self.decision_scores_ = self.decision_function(X)
            self.threshold_ = np.percentile(self.decision_scores_, 100 * (1 - self.contamination))
            return self

        def decision_function(self, X):
            return np.abs(X).sum(1) ** self.power
"""
NEEDY = """
    class Needy:
        def __init__(self, base): ...
"""


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """A package that stands in for PyOD."""
    models = tmp_path / "pyod" / "models"
    models.mkdir(parents=True)
    (tmp_path / "pyod" / "__init__.py").touch()
    modules = {"__init__": "", "toy_far_out": TOY, "needy": NEEDY, "missing": "import no_such_library", "base": ""}
    for name, text in modules.items():
        (models / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    real = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "pyod"}
    yield
    for name in list(sys.modules):
        if name.split(".")[0] == "pyod":
            del sys.modules[name]
    sys.modules.update(real)


@pytest.mark.usefixtures("toys")
def test_scores_labels_and_threshold_are_those_of_scikit_learn():
    name, detector = find_pyod("pyod:toyfarout")
    assert name == "pyod:ToyFar_Out"
    X = np.arange(10.0)[:, None]
    detector = PyODDetector(detector.model, contamination=0.2).fit(X)
    assert detector.score_samples([[3.0], [-5.0]]).tolist() == [-3, -5]
    assert detector.score_samples([[3.0]]).dtype == np.float64
    # 80 % of 0, ..., 9.
    assert detector.offset_ == pytest.approx(-7.2)
    assert detector.decision_function([[3.0]]).tolist() == pytest.approx([4.2])
    assert detector.predict(X).tolist() == [1] * 8 + [-1] * 2
    assert detector.fit_predict(X).tolist() == [1] * 8 + [-1] * 2
    # As the model itself has it.
    assert (detector.model_.decision_function(X) > detector.model_.threshold_).tolist() == [False] * 8 + [True] * 2
    assert detector.model.contamination == 0.1


@pytest.mark.usefixtures("toys")
def test_it_is_an_estimator():
    _, detector = find_pyod("pyod:TOY_FAR_OUT")
    assert detector.get_params()["model__verbose"] == 0
    detector.set_params(model__random_state=7, contamination=0.5)
    copied = clone(detector)
    assert copied.get_params()["model__random_state"] == 7
    assert copied.contamination == 0.5
    assert copied.model is not detector.model
    assert fingerprint(copied) == fingerprint(detector) != fingerprint(find_pyod("pyod:toyfarout")[1])
    fitted = detector.fit([[1.0], [2.0], [3.0]])
    assert not hasattr(detector.model, "threshold_")
    assert pickle.loads(pickle.dumps(fitted)).score_samples([[2.0]]).tolist() == [-2]
    assert fitted.n_features_in_ == 1
    with pytest.raises(ValueError, match="2 features"):
        fitted.score_samples([[1.0, 2.0]])
    with pytest.raises(ValueError, match="NaN"):
        detector.fit([[np.nan], [1.0]])
    with pytest.raises(ValueError, match="contamination"):
        PyODDetector(detector.model, contamination=0.9).fit([[1.0], [2.0]])


@pytest.mark.usefixtures("toys")
def test_in_a_comparison(tmp_path):
    rng = np.random.default_rng(0)
    data = {
        "blob": (np.concatenate([rng.normal(size=(30, 2)), rng.normal(9, 1, (10, 2))]), np.repeat([1, -1], [30, 10]))
    }
    results = compare_detectors(["kNN", "pyod:ToyFar_Out"], data, seeds=1, out=tmp_path)
    assert results["detector"].tolist() == ["kNN", "pyod:ToyFar_Out"]
    assert results["auroc"].tolist() == [1, 1]
    again = compare_detectors(["kNN", "PyOD:toyfarout"], data, seeds=1, out=tmp_path)
    pd.testing.assert_frame_equal(again, results)


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pyod:ToyFar", r"no detector 'ToyFar'; similar names are pyod:toy_far_out\."),
        ("pyod:zzz", r"no detector 'zzz'\.$"),
        ("pyod:base", "no detector 'base'"),
        ("pyod:Needy", "pyod:Needy cannot be made without arguments"),
        ("pyod:missing", "pyod:missing cannot be imported: No module named 'no_such_library'"),
        ("toyfarout", "no detector 'toyfarout'; choose from .* and pyod:NAME"),
    ],
)
def test_names_that_are_none(name, message):
    with pytest.raises(ValueError, match=message):
        compare_detectors([name])


def test_without_pyod(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyod", None)
    monkeypatch.setitem(sys.modules, "pyod.models", None)
    with pytest.raises(
        ValueError, match=r"pyod:ABOD needs PyOD, which is not installed: pip install 'skood\[pyod\]'\."
    ):
        compare_detectors(["pyod:ABOD"], ["wine"])


@pytest.mark.slow
def test_the_real_package():
    pytest.importorskip("pyod")
    results = compare_detectors(["pyod:ABOD", "pyod:sampling", "pyod:COPOD", "kNN"], ["wine"], seeds=1)
    assert results["detector"].tolist() == ["pyod:ABOD", "pyod:Sampling", "pyod:COPOD", "kNN"]
    assert results["error"].tolist() == [""] * 4
    # A sign that is the wrong way around would be below 0.5.
    assert (results["auroc"] > 0.6).all()
    with pytest.raises(ValueError, match="similar names are pyod:copod"):
        compare_detectors(["pyod:CPOD"], ["wine"])

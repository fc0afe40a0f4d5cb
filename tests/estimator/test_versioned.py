"""What all estimators share: pickles carry skood's version, and HTML links to the documents."""

import copy
import importlib
import io
import pickle
import warnings
from pathlib import Path

import joblib
import pytest
from configurations import CLASSIFIERS, CONFIGURATIONS, ENCODERS, WRAPPERS
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNet

import skood
from skood import DUMDetector, FitOnInliers, OpenSetClassifier
from skood.compare import NearestNeighborsDetector
from skood.estimator import versioned

X = [[0.0], [2.0]]


def all_estimators():
    """Return every class of an estimator in any module of skood."""
    source = Path(skood.__file__).parent
    names = [".".join(path.relative_to(source.parent).with_suffix("").parts) for path in source.rglob("*.py")]
    modules = [importlib.import_module(name.removesuffix(".__init__")) for name in names if "__main__" not in name]
    own = {one for module in modules for one in vars(module).values() if getattr(one, "__module__", "") in names}
    return sorted((one for one in own if isinstance(one, type) and issubclass(one, BaseEstimator)), key=str)


def of_another_version(estimator, monkeypatch, version="9.9.9"):
    """Return the pickle that another version would have written."""
    with monkeypatch.context() as patch:
        patch.setattr(versioned, "__version__", version)
        return pickle.dumps(estimator)


def test_every_estimator_has_the_base():
    # A net of skorch is part of a fitted estimator, whose pickle says the version.
    own = [one for one in all_estimators() if not issubclass(one, NeuralNet)]
    assert len(own) > 20
    assert [one for one in own if not issubclass(one, versioned.VersionedEstimator)] == []


@pytest.mark.parametrize(
    "estimator", [*CONFIGURATIONS.values(), *CLASSIFIERS.values(), *ENCODERS.values(), *WRAPPERS.values()]
)
def test_another_version_warns(estimator, monkeypatch):
    pickled = of_another_version(estimator, monkeypatch)
    with pytest.warns(InconsistentVersionWarning, match=r"saved by skood 9\.9\.9, but is read by skood 0") as record:
        read = pickle.loads(pickled)
    assert record[-1].message.estimator_name == type(estimator).__name__
    assert str(read) == str(estimator)
    assert "_skood_version" not in vars(read)


def test_the_warning_names_the_line_and_the_versions(monkeypatch):
    pickled = of_another_version(FitOnInliers(StandardScaler()).fit(X), monkeypatch)
    with pytest.warns(versioned.InconsistentSkoodWarning) as record:
        pickle.loads(pickled)
    assert record[0].filename == __file__
    warning = record[0].message
    assert (warning.estimator_name, warning.original_version) == ("FitOnInliers", "9.9.9")
    assert warning.current_version == skood.__version__


def test_a_pickle_without_a_version_is_of_an_earlier_one():
    estimator = FitOnInliers(StandardScaler())
    state = estimator.__getstate__()
    del state["_skood_version"]
    with pytest.warns(InconsistentVersionWarning, match=r"saved by skood 0\.1\.0\.dev"):
        estimator.__setstate__(state)


def test_the_same_version_is_silent():
    estimator = FitOnInliers(StandardScaler()).fit(X)
    file = io.BytesIO()
    joblib.dump(estimator, file)
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        copies = [joblib.load(file), copy.copy(estimator), copy.deepcopy(estimator), clone(estimator)]
    assert all("_skood_version" not in vars(one) for one in copies)
    # What is read is not changed by it: a state may be read twice.
    state = estimator.__getstate__()
    estimator.__setstate__(state)
    assert state["_skood_version"] == skood.__version__


@pytest.fixture
def address(tmp_path, monkeypatch):
    """An installed skood whose metadata name an address; as it stands in the repository it has none."""
    folder = tmp_path / "skood-9.9.dist-info"
    folder.mkdir()
    urls = "Project-URL: Source, https://code.example\nProject-URL: Documentation, https://skood.example/stable/"
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: skood\nVersion: 9.9\n{urls}\n")
    monkeypatch.syspath_prepend(tmp_path)
    versioned._documentation.cache_clear()
    yield "https://skood.example/stable/generated"
    versioned._documentation.cache_clear()


def test_html_links_to_the_page_of_the_estimator(address):
    pipeline = make_pipeline(StandardScaler(), DUMDetector())
    assert f'href="{address}/skood.DUMDetector.html"' in pipeline._repr_html_()
    assert f'href="{address}/skood.OpenSetClassifier.html"' in OpenSetClassifier(DUMDetector())._repr_html_()
    # It has no page of its own.
    assert address not in NearestNeighborsDetector()._repr_html_()


def test_without_an_address_html_has_no_link(address, monkeypatch):
    monkeypatch.undo()
    versioned._documentation.cache_clear()
    assert "skood.DUMDetector.html" not in DUMDetector()._repr_html_()

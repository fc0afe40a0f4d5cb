"""Files that are damaged, forged or much larger than they look are refused by name; others are read as written."""

import copy
import gzip
import inspect
import io
import json
import lzma
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat

from skood import ResidualAdapterDetector, backbones
from skood._npz import open_npz
from skood.datasets import TableOptions, read_file
from skood.detectors._adapter_files import write

# ------------------------------------------------------------------------------------------------- adapters in files


@pytest.fixture(scope="module")
def adapters():
    """Return a fitted detector, which stands on a small network, and the rows that it was fitted on."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Tanh())
    X = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
    y = np.repeat([1, -1], 16)
    settings = {"max_epochs": 1, "random_state": 0, "device": "cpu", "contamination": 0, "batch_norm": "own"}
    return ResidualAdapterDetector(network, **settings).fit(X, y), X


@pytest.fixture(scope="module", params=[".npz", ".safetensors"])
def good_file(adapters, tmp_path_factory, request):
    """Return the path and the bytes of a file of adapters."""
    path = tmp_path_factory.mktemp("adapters") / f"good{request.param}"
    adapters[0].save_adapters(path)
    return path, path.read_bytes()


def load(detector, source):
    return ResidualAdapterDetector(detector.backbone, contamination=0, device="cpu").load_adapters(source)


def refused_or_right(adapters, path):
    """Whatever stands in a file: it is refused by its name, or the scores are those of the good one."""
    detector, X = adapters
    try:
        loaded = load(detector, path)
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
        return False
    assert np.array_equal(loaded.score_samples(X), detector.score_samples(X))
    assert loaded.offset_ == detector.offset_
    return True


@given(place=st.integers(0, 2**20), byte=st.integers(0, 255))
def test_no_byte_of_a_file_changes_a_score(adapters, good_file, place, byte):
    path, content = good_file
    tampered = bytearray(content)
    tampered[place % len(content)] = byte
    other = path.with_stem("tampered")
    other.write_bytes(tampered)
    refused_or_right(adapters, other)


def test_a_write_that_fails_leaves_the_file(adapters, good_file, tmp_path, monkeypatch):
    """As on a full disk."""
    path = tmp_path / good_file[0].name
    path.write_bytes(good_file[1])

    class Full(io.FileIO):
        def write(self, data):
            super().write(data[:100])
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(io, "open", lambda file, *args, **kwargs: Full(file, "w"))
        with pytest.raises(OSError, match="No space left"):
            adapters[0].save_adapters(path)
    assert path.read_bytes() == good_file[1]
    assert len(list(tmp_path.iterdir())) == 1


def test_the_error_of_a_write_names_the_path_given(adapters, good_file, tmp_path):
    """Not the file beside it in which the content is written first."""
    path = tmp_path / "none" / good_file[0].name
    with pytest.raises(FileNotFoundError) as missing:
        adapters[0].save_adapters(path)
    assert missing.value.filename == str(path)
    folder = tmp_path / good_file[0].name
    folder.mkdir()
    with pytest.raises(IsADirectoryError) as occupied:
        adapters[0].save_adapters(folder)
    assert occupied.value.filename == str(folder)
    assert [*tmp_path.iterdir()] == [folder]
    assert not [*folder.iterdir()]


@given(st.integers(0, 2**20))
def test_a_file_that_is_cut_off_is_refused(adapters, good_file, length):
    path, content = good_file
    other = path.with_stem("torn")
    other.write_bytes(content[: length % len(content)])
    assert not refused_or_right(adapters, other)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**9),
    st.floats(),
    st.sampled_from(["", "fit", "score_samples", "radial", "probability", "knn", "frozen", "[0, 1]"]),
    st.lists(st.integers(0, 4), max_size=4),
    st.dictionaries(st.sampled_from(["fit", "score_samples", "n_adapters"]), st.integers(0, 3), max_size=2),
)


@given(st.data())
def test_no_entry_of_the_description_is_trusted(adapters, good_file, data):
    """An entry that is replaced, dropped or added is refused, or the detector is the same."""
    detector, X = adapters
    state = detector.adapter_state()
    about = json.loads(str(state["about"]))
    place = data.draw(st.sampled_from([about, about["settings"], about["fitted"]]))
    name = data.draw(st.sampled_from([*place, "fit", "score_samples", "__class__", "_check_rows"]))
    if data.draw(st.booleans()):
        place.pop(name, None)
    else:
        place[name] = data.draw(VALUES)
    state["about"] = np.array(json.dumps(about))
    path = good_file[0].with_stem("forged")
    # With a checksum that is right.
    write(path, state)
    try:
        loaded = load(detector, path)
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017
        return
    assert set(vars(loaded)) <= set(vars(detector)) | {"_settings"}
    assert np.isfinite(loaded.score_samples(X)).all()
    assert callable(loaded.fit)


def forged(**changes):
    """Return what changes a state: the value of an entry, or what a function makes of it."""

    def change(state):
        for name, value in changes.items():
            name = next(key for key in state if key.startswith(name.replace("__", ".")))
            state[name] = value(state[name]) if callable(value) else value
        return state

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (forged(module=lambda value: np.full_like(value, np.nan)), "holds NaN or infinity"),
        (forged(offset=np.float64(np.nan)), "'offset' holds NaN or infinity"),
        (forged(offset=np.array([0.0, 1.0])), "offset is no single number"),
        (forged(training_scores=lambda value: value[::-1]), "training_scores are not in order"),
        (forged(training_scores=np.array([])), "training_scores are not in order"),
        (forged(training_scores=lambda value: value + 1e3), "score_type_ is 'radial', but"),
        (forged(module=lambda value: value.astype(np.float64)), "in names, shapes or types"),
        (forged(module=lambda value: value[None]), "in names, shapes or types"),
        (forged(about=np.array("{")), "about is no JSON text"),
        (forged(about=np.array("[" * 100_000)), "about is no JSON text"),
        (forged(about=np.array("[]")), "about is no dict"),
        (forged(about=np.array(7)), "about is no text"),
        (lambda state: state | {"fit": np.zeros(1)}, "'fit' is unknown"),
        (
            lambda state: state | {"module.x": np.array([{}], dtype=object)},
            "holds object and no numbers|Python objects",
        ),
        (lambda state: {name: value for name, value in state.items() if name != "offset"}, "there is no offset"),
        (lambda state: state | {"module.x.running_var": -np.ones(2, np.float32)}, "negative variances"),
    ],
)
@pytest.mark.parametrize("as_file", ["", ".npz", ".safetensors"])
def test_states_that_were_forged(adapters, change, told, as_file, tmp_path):
    state = change(adapters[0].adapter_state())
    source = state
    if as_file == ".safetensors" and ("object" in told or "no text" in told):
        pytest.skip("such a file holds no objects, and only text describes it")
    if as_file:
        source = tmp_path / f"forged{as_file}"
        write(source, state)
    with pytest.raises(ValueError, match=told) as caught:
        load(adapters[0], source)
    assert not as_file or "fit this backbone" in str(caught.value) or str(source) in str(caught.value)


@pytest.mark.parametrize(
    ("place", "name", "value", "told"),
    [
        ("fitted", "score_type_", "knn", "score_type_ is unknown"),
        ("fitted", "fit", 1, r"fitted has the unknown entries \['fit'\]"),
        ("fitted", "n_features_in_", -1, "n_features_in_ is no positive integer"),
        ("fitted", "image_shape_", [1, 2, 2], "image_shape_ is not that of n_features_in_ pixels"),
        ("settings", "n_adapters", 10**9, "n_adapters=1000000000 is no possible size"),
        ("settings", "head_size", 10**9, "head_size=1000000000 is no possible size"),
        ("settings", "adapter_gain", float("nan"), "adapter_gain=nan is no positive number"),
        ("settings", "batch_norm", "none", "batch_norm is unknown"),
        (None, "version", 2, "its version is 2, not 1"),
        (None, "scaling", [[1.0]], "scaling is not two rows of numbers"),
        (None, "feature_names_in", ["a", "a", "b"], "feature_names_in does not name each feature"),
    ],
)
def test_descriptions_that_were_forged(adapters, place, name, value, told):
    state = adapters[0].adapter_state()
    about = json.loads(str(state["about"]))
    (about if place is None else about[place])[name] = value
    with pytest.raises(ValueError, match=f"the adapters: not what save_adapters or adapter_state gave: {told}"):
        load(adapters[0], state | {"about": np.array(json.dumps(about))})


def test_another_score_than_that_of_the_file_is_refused(adapters):
    detector = ResidualAdapterDetector(adapters[0].backbone, score_type="probability", device="cpu")
    with pytest.raises(ValueError, match="trained with score_type='radial', but here it is 'probability'"):
        detector.load_adapters(adapters[0].adapter_state())


def test_files_without_a_version_are_read(adapters):
    state = adapters[0].adapter_state()
    about = json.loads(str(state["about"]))
    del about["version"]
    loaded = load(adapters[0], state | {"about": np.array(json.dumps(about))})
    assert np.array_equal(loaded.score_samples(adapters[1]), adapters[0].score_samples(adapters[1]))


# ------------------------------------------------------------------------------------------------------ other archives


def test_shipped_weights_that_are_damaged_are_refused(monkeypatch, tmp_path):
    """The weights are read as any other file is."""
    folder = tmp_path / "weights"
    folder.mkdir()
    shipped = backbones.files("skood") / "weights"
    for ending in (".json", ".npz"):
        (folder / f"{backbones.SHIPPED}{ending}").write_bytes((shipped / f"{backbones.SHIPPED}{ending}").read_bytes())
    path = folder / f"{backbones.SHIPPED}.npz"
    with open_npz(path) as stored:
        weights = {name: stored[name] for name in stored.names}
    load_anew = inspect.unwrap(backbones.load_shipped)
    monkeypatch.setattr(backbones, "files", lambda package: tmp_path)
    assert load_anew() is not None
    name = next(iter(weights))
    for change in ({name: weights[name][:1]}, {name: np.full_like(weights[name], np.nan)}, {"x": np.zeros(1)}):
        np.savez(path, **weights | change)
        with pytest.raises(ValueError, match="not the weights that came with skood") as caught:
            load_anew()
        assert str(path) in str(caught.value)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"not a \.npz"):
        load_anew()


@given(place=st.integers(0, 2**20), byte=st.integers(0, 255))
def test_no_byte_of_a_data_set_changes_a_row(tmp_path_factory, place, byte):
    rng, buffer = np.random.default_rng(0), io.BytesIO()
    X, y = rng.normal(size=(10, 2)), np.repeat([1, -1], 5)
    np.savez_compressed(buffer, X=X, y=y)
    content = bytearray(buffer.getvalue())
    content[place % len(content)] = byte
    path = tmp_path_factory.getbasetemp() / "tampered.npz"
    path.write_bytes(content)
    try:
        read, labels = read_file(path)
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017
        return
    assert np.array_equal(read, X)
    assert np.array_equal(labels, y)


def bomb(path, n_bytes):
    """Write a .npz file whose X is zeros, a thousandth as long."""
    header = io.BytesIO()
    shape = (n_bytes // 8, 1)
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("X.npy", "w") as member:
            member.write(header.getvalue())
            for _ in range(n_bytes // 2**20):
                member.write(bytes(2**20))
        with archive.open("y.npy", "w") as member:
            np.lib.format.write_array(member, np.ones(shape[0]))
    return path


def test_what_grows_too_much_is_refused(tmp_path):
    options = TableOptions(most_bytes=2**23)
    X = np.zeros((2**20, 2))
    labels = np.r_[np.ones(2**20 - 1), -1]
    savemat(tmp_path / "a.mat", {"X": X, "y": labels}, do_compression=True)
    text = b"a,target\n" + b"0.0000000000,0\n" * 2**20
    for ending, compress in ((".gz", gzip.compress), (".xz", lzma.compress)):
        (tmp_path / f"a.csv{ending}").write_bytes(compress(text))
    with zipfile.ZipFile(tmp_path / "a.csv.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", text)
    bomb(tmp_path / "a.npz", 2**24)
    for name in ("a.mat", "a.csv.gz", "a.csv.xz", "a.csv.zip", "a.npz"):
        with pytest.raises(
            ValueError, match=r"GiB or more when it is decompressed, but only 0\.00781 GiB are allowed"
        ) as told:
            read_file(tmp_path / name, "target" if ".csv" in name else "y", options=options)
        assert str(told.value).startswith(str(tmp_path / name))
    X, _ = read_file(tmp_path / "a.mat", options=TableOptions(most_bytes=2**25))
    assert X.shape == (2**20, 2)


def test_a_bomb_is_refused_by_default(tmp_path):
    """It says that it holds more than it does: nothing of it is read."""
    path = bomb(tmp_path / "a.npz", 2**20)
    content = bytearray(path.read_bytes())
    # The first entry of the directory, and in it what its array grows to.
    place = content.index(b"PK\1\2") + 24
    content[place : place + 4] = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz: grows by 4 GiB or more when it is decompressed, but only 2 GiB are"):
        read_file(path)


@pytest.mark.parametrize("array", [np.array([{}, {}], dtype=object), np.array(["a", None], dtype=object)])
def test_python_objects_are_never_unpickled(array, tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, X=np.zeros((2, 1)), y=array)
    with pytest.raises(ValueError, match="array 'y' holds Python objects, which are not read") as caught:
        read_file(path)
    assert "allow_pickle" not in str(caught.value)


def test_a_copy_of_a_detector_is_untouched_by_what_fails_to_load(adapters, good_file):
    detector, X = copy.deepcopy(adapters[0]), adapters[1]
    torn = good_file[0].with_stem("torn")
    torn.write_bytes(good_file[1][:-100])
    with pytest.raises(ValueError, match="torn"):
        detector.load_adapters(torn)
    assert np.array_equal(detector.score_samples(X), adapters[0].score_samples(X))

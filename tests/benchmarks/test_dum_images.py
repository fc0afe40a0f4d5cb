"""Published images in benchmarks/dum_images.py: SVHN as either set, a folder, and CIFAR-10-C."""

from pathlib import Path
from types import SimpleNamespace

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat
from sklearn.covariance import EmpiricalCovariance

from skood import DUMDetector
from skood.corruptions import CORRUPTIONS


@pytest.fixture
def command(tmp_path, load_benchmark, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    script = load_benchmark("dum_images")
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for name in ("cifar10_train_1000perclass", "cifar10_test_500perclass", "cifar100_test_20perclass"):
        X = rng.integers(0, 256, (10, 3, 32, 32), dtype=np.uint8)
        np.savez(tmp_path / "images" / f"{name}.npz", X=X, y=np.arange(10))
    black = np.zeros((32, 32, 3, 12), np.uint8)
    savemat(tmp_path / "svhn.mat", {"X": black, "y": np.ones((12, 1), np.uint8)})
    common = ["--data-home", str(tmp_path), "--encoder", "shipped", "--detectors", "kNN", "--device", "cpu"]

    def run(*arguments):
        script.main([*common, "--out", str(tmp_path / "out"), *arguments])
        return pd.read_csv(tmp_path / "out" / "results.csv")

    return run


def test_sets_of_other_files(command, tmp_path, capsys):
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "LSUN").mkdir()
    for number in range(3):
        image.new("RGB", (40, 36)).save(tmp_path / "LSUN" / f"{number}.png")
    results = command(
        "--dataset", "cifar10", "--against", f"svhn={tmp_path / 'svhn.mat'}", "--against", f"lsun={tmp_path / 'LSUN'}"
    )
    assert set(results["against"]) == {"cifar100_test_20perclass", "svhn", "lsun"}
    # Black images are far from noise.
    assert (results.set_index("against").loc[["svhn", "lsun"], "auroc"] == 100).all()
    with pytest.raises(SystemExit):
        command("--dataset", "cifar10", "--against", "svhn=missing.mat")
    assert "'svhn=missing.mat' must be NAME=PATH" in capsys.readouterr().err


def test_another_set_in_distribution(command, tmp_path):
    noise = tmp_path / "images" / "cifar10_test_500perclass.npz"
    own = ["--train", str(tmp_path / "svhn.mat"), "--test", str(tmp_path / "svhn.mat")]
    results = command("--dataset", "svhn", *own, "--against", f"noise={noise}")
    assert (results[results["detector"] == "kNN"]["auroc"] == 100).all()
    assert set(results["against"]) == {"noise"}
    with pytest.raises(SystemExit):
        command("--dataset", "svhn")
    with pytest.raises(SystemExit):
        command("--dataset", "cifar10", *own)


def test_published_corruptions(command, tmp_path):
    # Nearly black images are far from noise.
    dark = np.random.default_rng(1).integers(0, 20, (50, 32, 32, 3), dtype=np.uint8)
    for name in CORRUPTIONS:
        np.save(tmp_path / f"{name}.npy", dark)
    np.save(tmp_path / "labels.npy", np.zeros(50, int))
    made = command("--dataset", "cifar10", "--protocol", "corruptions", "--severities", "1")
    assert set(made["protocol"]) == {"corruptions"}
    both = command(
        "--dataset", "cifar10", "--protocol", "corruptions", "--severities", "1", "--corrupted", str(tmp_path)
    )
    published = both[(both["protocol"] == "published corruptions") & (both["against"] != "none")]
    assert set(published["against"]) == set(CORRUPTIONS)
    assert (published["auroc"] == 100).all()


def test_encoder_that_was_being_written_is_trained_again(command, tmp_path, monkeypatch):
    own = ["--dataset", "cifar10", "--encoder", "simclr", "--max-epochs", "1"]

    def killed(value, path):
        Path(path).write_bytes(b"half of a file")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(joblib, "dump", killed)
        with pytest.raises(KeyboardInterrupt):
            command(*own)
    assert set(command(*own)["output"]) == {"embedding", "features", "pixels"}
    assert len(list((tmp_path / "out").glob("encoder*.joblib"))) == 1


def test_runs_and_encoders_of_other_settings_are_others(command, tmp_path):
    own = ["--dataset", "cifar10", "--encoder", "simclr"]
    for n, settings in enumerate((["1"], ["2"], ["1", "--precision", "bfloat16"]), start=1):
        results = command(*own, "--max-epochs", *settings)
        # On two outputs of the encoder, and on pixels.
        assert len(results) == 3 * n
        assert len(list((tmp_path / "out").glob("encoder*.joblib"))) == n
    kinds = results[["max_epochs", "precision"]].drop_duplicates().to_numpy().tolist()
    assert kinds == [[1, "auto"], [2, "auto"], [1, "bfloat16"]]


def test_detector_that_there_is_not(command, capsys):
    with pytest.raises(SystemExit):
        command("--dataset", "cifar10", "--detectors", "kNN;odd")
    assert "--detectors: there is no 'odd'; choose of DUM;DUM, circular;" in capsys.readouterr().err


def test_detector_that_fails_does_not_keep_others_from_being_fitted(command, tmp_path, monkeypatch, capsys):
    def failing(self, X):
        raise ValueError("no covariance")

    own = ["--dataset", "cifar10", "--detectors", "kNN;Mahalanobis"]
    with monkeypatch.context() as patched:
        patched.setattr(EmpiricalCovariance, "fit", failing)
        with pytest.raises(RuntimeError, match=r"1 of 3 runs failed, see above: ood, cifar10, .*Mahalanobis"):
            command(*own)
    assert "ValueError: no covariance" in capsys.readouterr().out
    # Those of pixels come last.
    assert set(pd.read_csv(tmp_path / "out" / "results.csv")["output"]) == {"features", "pixels"}
    assert len(command(*own)) == 3


def test_mahalanobis_distances_are_those_of_scikit_learn(load_benchmark, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    X = np.random.default_rng(0).normal(3, size=(50, 4)).astype(np.float32)
    detector = load_benchmark("dum_images").Mahalanobis().fit(X)
    expected = EmpiricalCovariance().fit(X).mahalanobis(X)
    # It takes hours for the maps of the paper's network.
    monkeypatch.setattr(EmpiricalCovariance, "mahalanobis", None)
    np.testing.assert_allclose(detector.score_samples(X), -expected, rtol=1e-4)


def test_linear_probe_tells_classes_apart(command, tmp_path, capsys):
    """An image of each class in one grey: a linear probe is right about all of them, or half of them if they agree."""
    grey = np.repeat(np.arange(0, 250, 25, dtype=np.uint8), 3 * 32 * 32).reshape(10, 3, 32, 32)
    np.savez(tmp_path / "train.npz", X=grey, y=np.arange(10) > 4)
    np.savez(tmp_path / "test.npz", X=grey, y=np.arange(10) % 5 > 4)
    np.savez(tmp_path / "unlabelled.npz", X=grey)
    own = ["--dataset", "grey", "--train", str(tmp_path / "train.npz"), "--against", f"own={tmp_path / 'test.npz'}"]
    half = command(*own, "--test", str(tmp_path / "test.npz"))
    assert (half.loc[half["output"] == "pixels", "probe_accuracy"] == 50).all()
    assert "linear probe" in capsys.readouterr().out
    own[1] = "grey, all right"
    right = command(*own, "--test", str(tmp_path / "train.npz"))
    right = right[(right["dataset"] == "grey, all right") & (right["output"] == "pixels")]
    assert (right["probe_accuracy"] == 100).all()
    own[1] = "grey, no labels"
    none = command(*own, "--test", str(tmp_path / "unlabelled.npz"))
    assert none.loc[none["dataset"] == "grey, no labels", "probe_accuracy"].isna().all()


def test_runs_of_a_file_without_probe_are_not_mixed(command, tmp_path):
    (tmp_path / "out").mkdir()
    old = "protocol,dataset,n_train,n_test,encoder,output,detector,against,severity,seed,auroc,pvalue,fit_seconds\n"
    (tmp_path / "out" / "results.csv").write_text(old)
    with pytest.raises(ValueError, match="differs in probe_accuracy: set another --out"):
        command("--dataset", "cifar10")


def test_largest_pvalues(load_benchmark, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    rows = [("none", 0.1), ("none", 0.9), ("none", 0.3), ("fog", 1e-5), ("fog", 0.02), ("snow", 0.0)]
    results = pd.DataFrame(rows, columns=["against", "pvalue"]).assign(detector="kNN")
    largest = load_benchmark("dum_images").largest_pvalues(results)
    assert largest["kNN"].to_dict() == {"none": 0.3, "fog": 0.02, "snow": 0}


def test_corruptions_at_the_papers_size_have_the_papers_settings(load_benchmark, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    script = load_benchmark("dum_images")

    def printed(**options):
        found = script.detectors("features", 0, SimpleNamespace(device="cpu", max_epochs=None, **options))
        return {name: found[name].get_params() for name in ("DUM, printed", "DUM, printed, circular")}

    own = {"random_state": 0, "device": "cpu", "contamination": 0}
    settings = printed(size="paper", protocol="corruptions")
    assert settings["DUM, printed"] == DUMDetector.from_paper("corruptions", **own).get_params()
    assert settings["DUM, printed, circular"] == settings["DUM, printed"] | {"covariance": "circular"}
    for options in ({"size": "paper", "protocol": "ood"}, {"size": "small", "protocol": "corruptions"}):
        settings = printed(**options)["DUM, printed"]
        assert (settings["optimizer"], settings["normalize"], settings["scaling"]) == ("adam", "l2", None)


def test_maps_before_pooling(load_benchmark, monkeypatch, tmp_path):
    """Of a ResNet-18 on images of 16 pixels: 512 channels of 2 x 2."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    script = load_benchmark("dum_images")
    X = np.random.default_rng(0).integers(0, 256, (8, 3, 16, 16), dtype=np.uint8)
    common = {"encoder": "simclr", "device": "cpu", "precision": "auto", "max_epochs": 1, "out": tmp_path}
    options = SimpleNamespace(size="paper", protocol="corruptions", dataset="noise", **common)
    widths = {output: embed(X).shape[1] for (_, output), embed in script.embeddings(X, 0, options).items()}
    assert widths == {"embedding": 128, "features": 512, "maps": 2048, "pixels": 768}


def test_each_seed_has_an_encoder_of_its_own_which_is_read_only_to_run_something(load_benchmark, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    script = load_benchmark("dum_images")
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for name in script.DATASETS["fashion-mnist"]:
        X = rng.integers(0, 256, (12, 8, 8), dtype=np.uint8)
        np.savez(tmp_path / "images" / f"{name}.npz", X=X, y=np.arange(12) % 2)
    common = ["--data-home", str(tmp_path), "--out", str(tmp_path / "out"), "--max-epochs", "1", "--device", "cpu"]
    common += ["--detectors", "Mahalanobis", "--seeds", "2"]
    script.main(common)
    first = pd.read_csv(tmp_path / "out" / "results.csv")
    areas = first[first["output"] == "features"].pivot(index="against", columns="seed", values="auroc")
    assert (areas[0] != areas[1]).any()
    encoders = list((tmp_path / "out").glob("encoder-*.joblib"))
    assert len(encoders) == 2
    for path in encoders:
        path.unlink()
    script.main(common)
    assert not list((tmp_path / "out").glob("encoder-*.joblib"))
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out" / "results.csv"), first)

"""Scores of likelihoods in benchmarks/vae_scores.py and vae_likelihoods.py: by hand, and both commands at toy size."""

import io
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import norm


@pytest.fixture
def scripts(load_benchmark, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return load_benchmark("vae_scores"), load_benchmark("vae_likelihoods")


def linear(shift=0.0):
    """A model x = 2 z + noise of variance 1/2, whose encoder gives the posterior, with its mean shifted.

    The precision of the posterior is 1 + 4 / (1/2) = 9, its mean 2 x / (1/2) / 9.
    """

    class Decoder:
        def __call__(self, latent):
            return 2 * latent

        def log_likelihood(self, rows, mean):
            return -(rows - mean).square() - math.log(math.pi) / 2

    def encode(rows):
        return 4 / 9 * rows + shift, torch.full_like(rows, -math.log(9))

    return SimpleNamespace(decoder=Decoder(), encode=encode)


ROWS = torch.tensor([[0.0], [1.0], [-3.0]], dtype=torch.float64)


def test_importance_weights_of_the_posterior_give_the_likelihood(scripts):
    """Then all weights are equal: each draw gives the density of N(0, 4 + 1/2)."""
    found = scripts[1].importance_weighted(linear(), ROWS, seed=0)
    np.testing.assert_allclose(found, norm(scale=math.sqrt(4.5)).logpdf(ROWS[:, 0]), rtol=1e-6)


def test_importance_weights_of_another_distribution(scripts, monkeypatch):
    monkeypatch.setattr(scripts[1], "N_DRAWS", 20_000)
    found = scripts[1].importance_weighted(linear(shift=0.2), ROWS, seed=0)
    np.testing.assert_allclose(found, norm(scale=math.sqrt(4.5)).logpdf(ROWS[:, 0]), atol=0.02)


def test_regret_is_the_divergence_from_the_posterior(scripts):
    """A mean that is off by 1/2 loses precision / 2 * 1/4 = 9/8; eight draws of noise change that a little."""
    np.testing.assert_allclose(scripts[1].regret(linear(shift=0.5), ROWS, seed=0), 9 / 8, atol=0.4)
    assert (scripts[1].regret(linear(), ROWS, seed=0) < 0.4).all()


def test_size_of_an_image_file(scripts):
    rng = np.random.default_rng(0)
    X = np.stack([np.zeros((1, 16, 16), np.uint8), rng.integers(0, 256, (1, 16, 16), dtype=np.uint8)])
    file = io.BytesIO()
    Image.fromarray(X[1, 0]).save(file, "PNG", optimize=True)
    sizes = scripts[1].png_nats(X)
    assert sizes[1] == pytest.approx(8 * len(file.getvalue()) * math.log(2))
    assert sizes[0] < sizes[1] / 2


@pytest.mark.parametrize("number", [0, 1])
def test_command(scripts, number, monkeypatch, tmp_path, capsys):
    script = scripts[number]
    small = {"N_BATCHES": 4, "N_TEST": 20, "N_DRAWS": 2, "N_STEPS": 2}
    for name, value in small.items():
        if hasattr(script, name):
            monkeypatch.setattr(script, name, value)
    settings = ["no negatives;Gaussian", "bernoulli;Gaussian, learned variance"][number]
    arguments = ["--data-home", str(tmp_path), "--only", "digits 9", "--n-train", "60", "--settings", settings]
    monkeypatch.setattr("sys.argv", ["", *arguments, "--out", str(tmp_path)])
    script.main()
    assert "the 9" in capsys.readouterr().out
    runs = pd.read_csv(tmp_path / "results.csv")
    assert list(runs["setting"]) == settings.split(";")
    assert runs.filter(like="auroc").apply(lambda column: column.between(0, 1)).all(axis=None)
    # The deviance of a Gaussian is its ELBO but for a constant.
    elbo, robust = runs[["auroc_elbo", "auroc_robust"]].iloc[1]
    assert elbo == pytest.approx(robust, abs=1e-5)
    script.main()
    assert len(pd.read_csv(tmp_path / "results.csv")) == 2


def test_images_of_bytes_are_darkened(scripts, monkeypatch, tmp_path):
    """Then all images are floats, those that are scored, too; of darker training images the scores differ."""
    script = scripts[0]
    monkeypatch.setattr(script, "N_BATCHES", 4)
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        X = rng.integers(0, 256, (60, 1, 28, 28), dtype=np.uint8)
        np.savez(tmp_path / "images" / f"fashion_mnist_{part}.npz", X=X, y=np.arange(60) % 2)
    arguments = ["--data-home", str(tmp_path), "--only", "fashion class 0", "--settings", "no negatives"]
    monkeypatch.setattr("sys.argv", ["", *arguments, "--perturb", "0.5", "--out", str(tmp_path)])
    script.main()
    by_perturbation = pd.read_csv(tmp_path / "results.csv").groupby("perturb")["auroc_elbo"].mean()
    assert by_perturbation[0.5] != pytest.approx(by_perturbation[0.0], abs=1e-3)

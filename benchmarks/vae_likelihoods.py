"""Compare scores of a likelihood from the literature with those of NegSampleVAE, on models without negatives.

    python benchmarks/vae_likelihoods.py --data-home DIR [--seeds 3] [--only "digits 9;fashion"]

The sets and the training are those of ``benchmarks/vae_scores.py``; settings differ in the likelihood of pixels and in
the weight of the divergence in training (Higgins et al., "beta-VAE", ICLR 2017). Each row of ``results.csv`` is one
setting on one unseen set, with the AUROC of each score, on at most 300 test images of each kind:

elbo, robust
        The scores of `NegSampleVAE`.
typicality
    -|ELBO - its mean on training rows|: too high likelihoods are also a sign of outliers (Nalisnick et al., "Detecting
    Out-of-Distribution Inputs to Deep Generative Models Using Typicality", 2019).
complexity
    ELBO plus the nats of the image as a PNG file (Serra et al., "Input complexity and out-of-distribution detection
    with likelihood-based generative models", ICLR 2020). The Gaussian likelihood is a density, which differs by a
    constant.
importance
    The importance-weighted bound, of 64 draws (Burda, Grosse and Salakhutdinov, ICLR 2016).
regret
    -(the largest ELBO with a posterior fitted to the row alone by 100 steps of Adam, minus that of the encoder) (Xiao,
    Yan and Amit, "Likelihood Regret", NeurIPS 2020).
waic
    Mean minus variance of the ELBO over three models (Choi, Jang and Alemi, "WAIC, but Why?", 2018).

A setting is written when it is finished, and the same command goes on from there.
"""

from __future__ import annotations

import io
import math
import time
from functools import partial

import numpy as np
import torch
from PIL import Image
from runs import Command, Runs
from vae_scores import BATCH_SIZE, CASES, N_BATCHES, drawn

from skood import NegSampleVAE
from skood.detectors.negative_sampling_vae import gaussian_kl
from skood.metrics import auroc

N_TEST, N_DRAWS, N_STEPS, N_MODELS = 300, 64, 100, 3
SETTINGS = {
    "bernoulli": {},
    "Gaussian, learned variance": {"noise_model": "gaussian", "variance": "learned"},
    "KL weight .25": {"kl_weight": 0.25},
    "KL weight 4": {"kl_weight": 4.0},
}
SCORES = ("elbo", "robust", "typicality", "complexity", "importance", "regret", "waic")
KEYS = ["inside", "setting", "n_train", "seed"]
FIGURES = ["outside", "seconds", *(f"auroc_{score}" for score in SCORES)]


def png_nats(X):
    """Return the size of each image as a PNG file, in nats."""
    sizes = []
    for image in X if X.dtype == np.uint8 else np.rint(255 * X / X.max()).astype(np.uint8):
        file = io.BytesIO()
        Image.fromarray(image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)).save(file, "png", optimize=True)
        sizes.append(8 * math.log(2) * file.tell())
    return np.array(sizes)


def log_likelihood(module, rows, latent):
    return module.decoder.log_likelihood(rows, module.decoder(latent)).flatten(1).sum(1)


def importance_weighted(module, rows, seed):
    """Return the log of the mean of p(x|z) p(z) / q(z|x) over draws of z."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        mean, log_variance = module.encode(rows)
        weights = []
        for _ in range(N_DRAWS):
            noise = torch.randn(mean.shape, generator=generator)
            latent = mean + torch.exp(log_variance / 2) * noise
            prior_less_posterior = (noise.square() + log_variance - latent.square()).sum(1) / 2
            weights.append(log_likelihood(module, rows, latent) + prior_less_posterior)
        return (torch.logsumexp(torch.stack(weights), 0) - math.log(N_DRAWS)).numpy()


def regret(module, rows, seed):
    """Return the gain of each row's ELBO by fitting the posterior to the row alone."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        start = module.encode(rows)
    noise = torch.randn((8, *start[0].shape), generator=generator)

    def elbo(mean, log_variance):
        latents = (mean + torch.exp(log_variance / 2) * one for one in noise)
        return torch.stack([log_likelihood(module, rows, latent) for latent in latents]).mean(0) - gaussian_kl(
            mean, log_variance
        )

    own = [part.clone().requires_grad_() for part in start]
    optimizer = torch.optim.Adam(own, lr=0.05)
    for _ in range(N_STEPS):
        optimizer.zero_grad()
        (-elbo(*own).sum()).backward()
        optimizer.step()
    with torch.no_grad():
        return (elbo(*own) - elbo(*start)).numpy()


def scores_of(models, X, training_elbo, seed):
    """Return the scores of rows by name, from the first model, with its mean ELBO in training, and from all models."""
    vae = models[0]
    elbo = vae.score_components(X)["elbo"].to_numpy()
    rows = torch.from_numpy(np.concatenate([vae._represented(part) for part in np.array_split(X, 4)]))
    module = vae.module_.eval().requires_grad_(False)
    ensemble = np.stack([model.score_components(X)["elbo"] for model in models])
    return {
        "elbo": elbo,
        "robust": vae.score_samples(X),
        "typicality": -np.abs(elbo - training_elbo),
        "complexity": elbo + png_nats(X),
        "importance": importance_weighted(module, rows, seed),
        "regret": -regret(module, rows, seed),
        "waic": ensemble.mean(0) - ensemble.var(0),
    }


def run(inside, setting, seed, options):
    X, _, X_test, unseen = CASES[inside](options.data_home, options.n_train)
    epochs = math.ceil(N_BATCHES / math.ceil(len(X) / BATCH_SIZE))
    start, models = time.perf_counter(), []
    for number in range(N_MODELS):
        vae = NegSampleVAE(
            negatives=None,
            max_epochs=epochs,
            batch_size=BATCH_SIZE,
            contamination=0,
            score_type="robust",
            random_state=N_MODELS * seed + number,
            **SETTINGS[setting],
        )
        models.append(vae.fit(X))
    training_elbo = models[0].score_components(X)["elbo"].mean()
    inliers = scores_of(models, drawn(X_test, N_TEST), training_elbo, seed)
    rows = []
    for name, outliers in unseen.items():
        outliers = scores_of(models, drawn(outliers, N_TEST), training_elbo, seed)
        truth = np.repeat([1, -1], [len(inliers["elbo"]), len(outliers["elbo"])])
        figures = {
            f"auroc_{score}": auroc(truth, np.concatenate([inliers[score], outliers[score]])) for score in SCORES
        }
        rows.append({"outside": name, "seconds": time.perf_counter() - start, **figures})
    return rows


def main():
    parser = Command(__doc__, "vae_likelihoods", seeds=1)
    parser.add_argument("--n-train", type=int, default=2_500)
    parser.add_argument("--only", help="sets in distribution, separated by semicolons; all by default")
    parser.add_argument("--settings", help="settings, separated by semicolons; all by default")
    options = parser.parse_args()
    insides = parser.names("--only", options.only, CASES)
    settings = parser.names("--settings", options.settings, SETTINGS)
    jobs = [
        (
            dict(zip(KEYS, (inside, setting, options.n_train, seed), strict=True)),
            partial(run, inside, setting, seed, options),
        )
        for seed in range(options.seeds)
        for inside in insides
        for setting in settings
    ]
    results = Runs(options.out / "results.csv", KEYS, FIGURES).complete(jobs, options.jobs)
    names = [f"auroc_{score}" for score in SCORES]
    print(results.groupby(["setting", "inside", "outside"], sort=False)[names].mean().round(2).to_string())


if __name__ == "__main__":
    main()

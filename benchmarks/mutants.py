"""Break skood on purpose, one line at a time, and check that the tests notice.

Each mutant is a small mistake with which everything still runs: a wrong sign, constant or distribution. Its tests must
fail. Run the script after changes of tests or of the methods' code::

    python benchmarks/mutants.py [--only NAME ...] [--list]

If a refactoring has removed the old text of a mutant, that is an error: mend the mutant.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Mutant(NamedTuple):
    """Hold a mistake in a file: the old text, which occurs once, the new text, and tests, of which one must fail.

    Paths are relative to the repository. Tests are pytest's: ``tests/test_x.py::test_name``.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


DUM, TEST_DUM = "skood/detectors/dum.py", "tests/detectors/test_dum.py::"
REJECT, TEST_REJECT = "skood/detectors/reject_classes.py", "tests/detectors/test_reject_classes.py::"
VAE, TEST_VAE = "skood/detectors/negative_sampling_vae.py", "tests/detectors/test_negative_sampling_vae.py::"
ROTATION, TEST_ROTATION = "skood/detectors/rotation.py", "tests/detectors/test_rotation.py::"
ADAPTERS, TEST_ADAPTERS = "skood/detectors/residual_adapters.py", "tests/detectors/test_residual_adapters.py::"
SIMCLR, TEST_SIMCLR = "skood/encoders/contrastive.py", "tests/encoders/test_contrastive.py::"
BLUR = "skood/corruptions/blur.py"
DIGITAL = "skood/corruptions/digital.py"
PIECES = "skood/corruptions/pieces.py"
WEATHER = "skood/corruptions/weather.py"
TEST_CORRUPTIONS = "tests/test_corruptions.py::"
OUTLIERS, TEST_OUTLIERS = "skood/outliers.py", "tests/test_outliers.py::"
LOGITS, FEATURES, DISTANCES = (f"skood/scores/{name}.py" for name in ("logits", "features", "distances"))
TEST_SCORES = "tests/test_scores.py::"
THRESHOLDS, TEST_THRESHOLDS = "skood/thresholds.py", "tests/test_thresholds.py::"
OPTIM, TEST_TRAINING = "skood/training/optim.py", "tests/training/test_training.py::"
OFFSET, TEST_OFFSET = "skood/estimator/offset.py", "tests/estimator/test_offset.py::"

MUTANTS = [
    # ------------------------------------------------------------------------------------------------------------ DUM
    Mutant(
        "dum-noise-uniform",
        DUM,
        "scale.uniform_(math.log(low), math.log(high), generator=fit_generator(rows.device)).exp_()",
        "scale.uniform_(low, high, generator=fit_generator(rows.device))",
        (TEST_DUM + "test_scales_of_the_views_are_log_uniform",),
    ),
    Mutant(
        "dum-noise-of-one-scale",
        DUM,
        "scale = torch.empty(bag_size, len(rows), 1, device=rows.device)",
        "scale = torch.empty(1, 1, 1, device=rows.device)",
        (TEST_DUM + "test_scales_of_the_views_are_log_uniform",),
    ),
    Mutant(
        "dum-noise-of-one-scale-a-row",
        DUM,
        "scale = torch.empty(bag_size, len(rows), 1, device=rows.device)",
        "scale = torch.empty(1, len(rows), 1, device=rows.device)",
        (TEST_DUM + "test_scales_of_the_views_are_log_uniform",),
    ),
    Mutant(
        "dum-circular-base-sum",
        DUM,
        "square.mean(1, keepdim=True) if raw.shape[1] == 1",
        "square.sum(1, keepdim=True) if raw.shape[1] == 1",
        (TEST_DUM + "test_base_by_hand",),
    ),
    Mutant(
        "dum-reach-of-the-least-noise",
        DUM,
        "self.view_noise[1] if noisy else None",
        "self.view_noise[0] if noisy else None",
        (TEST_DUM + "test_base_by_hand",),
    ),
    Mutant(
        "dum-three-views", DUM, "_VIEWS_PER_BAG = 2", "_VIEWS_PER_BAG = 3", (TEST_DUM + "test_default_sizes_of_bags",)
    ),
    Mutant(
        "dum-bags-of-a-quarter",
        DUM,
        "half = len(rows) // 2",
        "half = len(rows) // 4",
        (TEST_DUM + "test_default_sizes_of_bags",),
    ),
    Mutant(
        "dum-paper-bound",
        DUM,
        '"max_log_variance": 5.0,',
        '"max_log_variance": 50.0,',
        (TEST_DUM + "test_all_that_the_paper_sets",),
    ),
    Mutant(
        "dum-paper-schedule",
        DUM,
        '"schedule": "constant",\n        }',
        '"schedule": "cosine",\n        }',
        (TEST_DUM + "test_all_that_the_paper_sets",),
    ),
    Mutant(
        "dum-product-of-variances",
        DUM,
        "return (weights * mean).sum(dim), -torch.logsumexp(-log_variance, dim)",
        "return (weights * mean).sum(dim), log_variance.mean(dim)",
        (TEST_DUM + "test_product_of_two_experts",),
    ),
    Mutant(
        "dum-whitening-of-both",
        DUM,
        '"whiten" if self.bags == "views" and few else "standard"',
        '"whiten" if few else "standard"',
        (TEST_DUM + "test_auto_scaling",),
    ),
    # ----------------------------------------------------------------------------------------- made outliers, SimCLR
    Mutant(
        "noise-uniform",
        OUTLIERS,
        "scale.uniform_(math.log(low), math.log(high), generator=generator).exp_()",
        "scale.uniform_(low, high, generator=generator)",
        (TEST_OUTLIERS + "test_noise_has_the_scales_asked_for",),
    ),
    Mutant(
        "noise-of-one-scale",
        OUTLIERS,
        "torch.empty(n_outliers, *[1] * (rows.ndim - 1), device=rows.device)",
        "torch.empty(1, *[1] * (rows.ndim - 1), device=rows.device)",
        (TEST_OUTLIERS + "test_noise_has_the_scales_asked_for",),
    ),
    Mutant(
        "noise-of-each-feature",
        OUTLIERS,
        "torch.empty(n_outliers, *[1] * (rows.ndim - 1), device=rows.device)",
        "torch.empty(n_outliers, *rows.shape[1:], device=rows.device)",
        (TEST_OUTLIERS + "test_noise_has_the_scales_asked_for",),
    ),
    Mutant(
        "blend-the-other-way",
        OUTLIERS,
        "torch.lerp(outliers, _drawn(rows, len(outliers)), alpha)",
        "torch.lerp(outliers, _drawn(rows, len(outliers)), 1 - alpha)",
        (TEST_OUTLIERS + "test_blend_by_hand",),
    ),
    Mutant(
        "simclr-both-views-corrupted",
        SIMCLR,
        "return torch.cat([rows, corrupt_features(rows, self.corruption_rate)])",
        "return torch.cat([corrupt_features(rows, self.corruption_rate) for _ in range(2)])",
        (TEST_SIMCLR + "test_one_view_of_a_vector_is_the_row_itself",),
    ),
    Mutant(
        "simclr-itself-among-the-others",
        SIMCLR,
        "similarity.masked_fill(itself, -torch.inf)",
        "similarity",
        (TEST_SIMCLR + "test_nt_xent_by_hand",),
    ),
    Mutant(
        "simclr-paper-views",
        SIMCLR,
        '"augmentation": "simclr",\n            "scaling"',
        '"augmentation": "simclr-no-flip",\n            "scaling"',
        (TEST_SIMCLR + "test_settings_of_the_paper",),
    ),
    # ------------------------------------------------------------------------------------------------- reject classes
    Mutant(
        "reject-clusters-of-logits",
        REJECT,
        "clusters.labels(features[len(rows) :], len(self.classes_)",
        "clusters.labels(outside, len(self.classes_)",
        (TEST_REJECT + "test_clusters_are_of_the_features",),
    ),
    Mutant(
        "reject-self-is-balanced",
        REJECT,
        'self_labels if self.pseudo_labels == "self" else balanced_labels',
        "balanced_labels",
        (TEST_REJECT + "test_own_answers_may_be_one_class_and_balanced_ones_are_not",),
    ),
    Mutant(
        "reject-weight-of-the-rows",
        REJECT,
        "return inside + outlier_weight * functional.cross_entropy(outlier_logits, pseudo_labels)",
        "return outlier_weight * inside + functional.cross_entropy(outlier_logits, pseudo_labels)",
        (TEST_REJECT + "test_loss_by_hand",),
    ),
    Mutant(
        "reject-entropy-of-a-distribution",
        REJECT,
        "reject, surprise = p[:, n_classes:], -p * log_p",
        "reject, surprise = p[:, n_classes:], -p * p[:, n_classes:].sum(1, keepdim=True) * log_p",
        (TEST_REJECT + "test_scores_by_hand",),
    ),
    Mutant(
        "reject-scores-without-temperature",
        REJECT,
        "reject_score(logits / self.temperature_, len(self.classes_), kind, weights)",
        "reject_score(logits, len(self.classes_), kind, weights)",
        (TEST_REJECT + "test_temperature_divides_the_logits",),
    ),
    Mutant(
        "reject-features-scores-without-temperature",
        REJECT,
        "return logits[:, : len(self.classes_)] / self.temperature_, features",
        "return logits[:, : len(self.classes_)], features",
        (TEST_REJECT + "test_post_hoc_scores_look_at_the_classes_alone",),
    ),
    Mutant(
        "reject-augments-rows-alone",
        REJECT,
        "both = self._augmented(torch.cat([rows, outliers]))",
        "both = torch.cat([self._augmented(rows), outliers])",
        (TEST_REJECT + "test_rows_and_outliers_are_augmented_alike",),
    ),
    Mutant(
        "reject-paper-dropout",
        REJECT,
        '"network": "wrn-16-2", "dropout": 0.3,',
        '"network": "wrn-16-2",',
        (TEST_REJECT + "test_all_that_the_paper_sets",),
    ),
    # ------------------------------------------------------------------------------------------------------------ VAE
    Mutant(
        "vae-encoder-without-noise",
        VAE,
        "latent = mean[:n_rows] + torch.exp(0.5 * log_variance[:n_rows]) * noise",
        "latent = mean[:n_rows]",
        (TEST_VAE + "test_training_draws_from_the_posterior",),
    ),
    Mutant(
        "vae-encoder-variance",
        VAE,
        "torch.exp(0.5 * log_variance[:n_rows]) * noise",
        "torch.exp(log_variance[:n_rows]) * noise",
        (TEST_VAE + "test_training_draws_from_the_posterior",),
    ),
    Mutant(
        "vae-decoder-without-noise",
        VAE,
        "latent = mean + torch.exp(0.5 * log_variance) * torch.randn(mean.shape, **drawing(rows.device))",
        "latent = mean",
        (TEST_VAE + "test_training_draws_from_the_posterior",),
    ),
    Mutant(
        "vae-decoder-variance",
        VAE,
        "torch.exp(0.5 * log_variance) * torch.randn(mean.shape",
        "torch.exp(log_variance) * torch.randn(mean.shape",
        (TEST_VAE + "test_training_draws_from_the_posterior",),
    ),
    Mutant(
        "vae-scores-without-noise",
        VAE,
        "(mean + torch.exp(0.5 * log_variance) * shared for shared in noise)",
        "(mean for shared in noise)",
        (TEST_VAE + "test_monte_carlo_scores_draw_from_the_posterior",),
    ),
    Mutant(
        "vae-scores-variance",
        VAE,
        "(mean + torch.exp(0.5 * log_variance) * shared for shared in noise)",
        "(mean + torch.exp(log_variance) * shared for shared in noise)",
        (TEST_VAE + "test_monte_carlo_scores_draw_from_the_posterior",),
    ),
    Mutant(
        "vae-negatives-to-the-first-prior",
        VAE,
        "gaussian_kl(mean[n_rows:], log_variance[n_rows:], self.shift_).mean()",
        "gaussian_kl(mean[n_rows:], log_variance[n_rows:]).mean()",
        (TEST_VAE + "test_loss_by_hand",),
    ),
    Mutant(
        "vae-decoder-without-weight",
        VAE,
        "return self.negative_weight_ * divergence.mean() - likelihood.mean()",
        "return divergence.mean() - likelihood.mean()",
        (TEST_VAE + "test_loss_by_hand",),
    ),
    Mutant(
        "vae-standardised-by-variances",
        VAE,
        "deviations = both.std(0)",
        "deviations = both.var(0)",
        (TEST_VAE + "test_deviance_of_images",),
    ),
    Mutant(
        "vae-memory-unused",
        VAE,
        "kept = self.batches[int(torch.randint(len(self.batches), (), **drawing()))][:half]",
        "kept = rows[:half]",
        (TEST_VAE + "test_memory_of_generated_rows",),
    ),
    Mutant(
        "vae-boundary-at-the-shift",
        VAE,
        "-self.latent_dim_ * self.shift_**2 / 8",
        "-self.latent_dim_ * self.shift_**2 / 2",
        (TEST_VAE + "test_natural_boundary_is_halfway_between_the_priors",),
    ),
    Mutant(
        "vae-statistics-of-the-other-batch",
        VAE,
        "with running_statistics(module.encoder):",
        "with contextlib.nullcontext():",
        (TEST_VAE + "test_statistics_of_batch_normalisation_are_those_of_what_is_scored",),
    ),
    Mutant(
        "vae-paper-bounds",
        VAE,
        '"log_variance_bounds": (-80.0, 80.0)',
        '"log_variance_bounds": (-20.0, 10.0)',
        (TEST_VAE + "test_from_paper",),
    ),
    Mutant(
        "vae-lower-quantile",
        VAE,
        "_displaced_quantile = 0.2",
        "_displaced_quantile = 0.1",
        (TEST_VAE + "test_the_free_threshold_is_a_higher_quantile_of_displaced_rows",),
    ),
    # ------------------------------------------------------------------------------------------------------- rotation
    Mutant(
        "rotation-weight",
        ROTATION,
        'weight = 10.0 if self.auxiliary_ == "cpc" else 0.5',
        'weight = 10.0 if self.auxiliary_ == "cpc" else 1.0',
        (TEST_ROTATION + "test_the_weight_weighs_the_auxiliary_loss",),
    ),
    Mutant(
        "rotation-statistics-swapped",
        ROTATION,
        "enumerate((module, auxiliary))",
        "enumerate((auxiliary, module))",
        (TEST_ROTATION + "test_classes_go_by_the_statistics_of_rows_as_they_are",),
    ),
    Mutant(
        "rotation-never-the-last",
        ROTATION,
        "which = torch.randint(n_transforms, (len(rows),)",
        "which = torch.randint(n_transforms - 1, (len(rows),)",
        (TEST_ROTATION + "test_a_random_transform_of_each_row",),
    ),
    Mutant(
        "rotation-corner-scored",
        ROTATION,
        "return module(self._centred(rows))",
        "return module(rows[..., : self._in_shape[1], : self._in_shape[1]])",
        (TEST_ROTATION + "test_scores_are_of_the_middle",),
    ),
    Mutant(
        "rotation-paper-weight",
        ROTATION,
        '"augmentation": "crop-flip", "auxiliary_weight": 1.0}',
        '"augmentation": "crop-flip"}',
        (TEST_ROTATION + "test_settings_of_the_paper",),
    ),
    # ------------------------------------------------------------------------------------------------------- adapters
    Mutant(
        "adapters-mean-of-each-part",
        ADAPTERS,
        "(h.sum() - log_outlier_probability(h_corpus).sum()) / (len(h) + len(h_corpus))",
        "h.mean() - log_outlier_probability(h_corpus).mean()",
        (TEST_ADAPTERS + "test_hypersphere_loss_by_hand",),
    ),
    Mutant(
        "adapters-spread-of-a-quarter",
        ADAPTERS,
        "_SPREAD = 0.5",
        "_SPREAD = 0.25",
        (TEST_ADAPTERS + "test_one_class_loss_by_hand",),
    ),
    Mutant(
        "adapters-own-neighbours",
        ADAPTERS,
        "torch.where(itself, distance[:, 1:], distance[:, :-1])",
        "torch.where(itself, distance[:, :-1], distance[:, :-1])",
        (TEST_ADAPTERS + "test_frozen_features_by_nearest_neighbours",),
    ),
    Mutant(
        "adapters-pull-of-twice-the-strength",
        ADAPTERS,
        "return (self.l2_strength * distance + self.weight_decay * head) / 2",
        "return self.l2_strength * distance + self.weight_decay * head / 2",
        (TEST_ADAPTERS + "test_l2sp_by_hand",),
    ),
    Mutant(
        "adapters-gain-of-all-alike",
        ADAPTERS,
        "_IMAGE_GAIN_OF_TWO * math.sqrt(self.n_adapters / 2)",
        "_IMAGE_GAIN_OF_TWO",
        (TEST_ADAPTERS + "test_gain_of_adapters",),
    ),
    Mutant(
        "adapters-boundary-of-one",
        ADAPTERS,
        'return -math.log(2) if self.score_type_ == "radial" else 0.0',
        'return -1.0 if self.score_type_ == "radial" else 0.0',
        (TEST_ADAPTERS + "test_the_natural_threshold_is_half_the_probability",),
    ),
    Mutant(
        "adapters-centre-of-the-last",
        ADAPTERS,
        "module.center.copy_(embeddings.mean(0))",
        "module.center.copy_(embeddings[-1])",
        (TEST_ADAPTERS + "test_the_centre_is_that_of_the_first_embeddings",),
    ),
    Mutant(
        "adapters-paper-augmentation",
        ADAPTERS,
        'paper | {"augmentation": "crop-flip"} | params',
        "paper | params",
        (TEST_ADAPTERS + "test_settings_of_the_paper",),
    ),
    # --------------------------------------------------------------------------------------------------- corruptions
    Mutant(
        "glass-reach",
        BLUR,
        "(1.5, 4, 2)",
        "(1.5, 3, 2)",
        (TEST_CORRUPTIONS + "test_glass",),
    ),
    Mutant(
        "glass-rounds",
        BLUR,
        "(0.6, 1, 2)",
        "(0.6, 1, 1)",
        (TEST_CORRUPTIONS + "test_glass",),
    ),
    Mutant(
        "glass-sigma",
        BLUR,
        "(0.4, 1, 1), (0.25, 1, 2)",
        "(0.5, 1, 1), (0.25, 1, 2)",
        (TEST_CORRUPTIONS + "test_glass",),
    ),
    Mutant(
        "glass-to-both-sides",
        BLUR,
        "generator.integers(-reach, reach, (2,",
        "generator.integers(-reach, reach + 1, (2,",
        (TEST_CORRUPTIONS + "test_glass",),
    ),
    Mutant(
        "glass-blurred-once",
        BLUR,
        "return blurred(images, sigma)\n\n\n@corruption(\n    cifar=((6, 1)",
        "return images\n\n\n@corruption(\n    cifar=((6, 1)",
        (TEST_CORRUPTIONS + "test_glass",),
    ),
    Mutant(
        "fog-decay",
        WEATHER,
        "(0.75, 2.5), (1, 2)",
        "(0.75, 2), (1, 2)",
        (TEST_CORRUPTIONS + "test_roughness_of_fog",),
    ),
    Mutant(
        "fog-decay-of-large-images",
        WEATHER,
        "(2.5, 1.7)",
        "(2.5, 2)",
        (TEST_CORRUPTIONS + "test_roughness_of_fog",),
    ),
    Mutant(
        "plasma-decays-slowly",
        PIECES,
        "amplitude / decay**2",
        "amplitude / decay",
        (TEST_CORRUPTIONS + "test_roughness_of_fog",),
    ),
    Mutant(
        "plasma-without-diamonds",
        PIECES,
        "on_rows = (corners + right + centers + above) / 4",
        "on_rows = (corners + right) / 2",
        (TEST_CORRUPTIONS + "test_roughness_of_fog",),
    ),
    Mutant(
        "snow-mean",
        WEATHER,
        "(0.25, 0.3, 2.25, 0.6, 12, 6, 0.85)",
        "(0.15, 0.3, 2.25, 0.6, 12, 6, 0.85)",
        (TEST_CORRUPTIONS + "test_flakes_of_snow",),
    ),
    Mutant(
        "snow-deviation",
        WEATHER,
        "(0.1, 0.2, 1, 0.5, 10, 4, 0.9)",
        "(0.1, 0.3, 1, 0.5, 10, 4, 0.9)",
        (TEST_CORRUPTIONS + "test_flakes_of_snow",),
    ),
    Mutant(
        "snow-zoom",
        WEATHER,
        "(0.15, 0.3, 1.75, 0.55, 10, 4, 0.7)",
        "(0.15, 0.3, 2.75, 0.55, 10, 4, 0.7)",
        (TEST_CORRUPTIONS + "test_flakes_of_snow",),
    ),
    Mutant(
        "snow-threshold",
        WEATHER,
        "(0.55, 0.3, 4.5, 0.85, 12, 8, 0.65)",
        "(0.55, 0.3, 4.5, 0.75, 12, 8, 0.65)",
        (TEST_CORRUPTIONS + "test_flakes_of_snow",),
    ),
    Mutant(
        "snow-length",
        WEATHER,
        "(0.55, 0.3, 2.5, 0.85, 12, 12, 0.55)",
        "(0.55, 0.3, 2.5, 0.85, 12, 8, 0.55)",
        (TEST_CORRUPTIONS + "test_flakes_of_snow",),
    ),
    Mutant(
        "snow-sideways",
        WEATHER,
        "generator.uniform(-135, -45)",
        "generator.uniform(-45, 45)",
        (TEST_CORRUPTIONS + "test_flakes_of_snow",),
    ),
    Mutant(
        "snow-upright-copy",
        WEATHER,
        "scene + flakes + flakes[:, :, ::-1, ::-1]",
        "scene + 2 * flakes",
        (TEST_CORRUPTIONS + "test_snow_falls_on_a_whiter_scene",),
    ),
    Mutant(
        "elastic-strength",
        DIGITAL,
        "(0.12, 0.01, 0.02)",
        "(0.1, 0.01, 0.02)",
        (TEST_CORRUPTIONS + "test_elastic",),
    ),
    Mutant(
        "elastic-sigma",
        DIGITAL,
        "(0.08, 0.06, 0.06)",
        "(0.08, 0.05, 0.06)",
        (TEST_CORRUPTIONS + "test_elastic",),
    ),
    Mutant(
        "elastic-reach",
        DIGITAL,
        "(0.16, 0.03, 0.02)",
        "(0.16, 0.03, 0.03)",
        (TEST_CORRUPTIONS + "test_elastic",),
    ),
    Mutant(
        "elastic-without-the-slip",
        DIGITAL,
        "244 / 224 * length",
        "length",
        (TEST_CORRUPTIONS + "test_elastic",),
    ),
    Mutant(
        "elastic-noise-of-one-sign",
        DIGITAL,
        "generator.uniform(-1, 1, (2, *sides))",
        "generator.uniform(0, 1, (2, *sides))",
        (TEST_CORRUPTIONS + "test_elastic",),
    ),
    # ------------------------------------------------------------------------------------------------------- training
    Mutant(
        "average-of-few-updates",
        OPTIM,
        "(1 + self.n_updates) / (10 + self.n_updates)",
        "self.n_updates / (10 + self.n_updates)",
        (TEST_TRAINING + "test_weight_average_by_hand",),
    ),
    Mutant(
        "nesterov-momentum",
        OPTIM,
        '{"momentum": 0.9, "nesterov": True}',
        '{"momentum": 0.95, "nesterov": True}',
        (TEST_TRAINING + "test_sgd_begins_with_momentum_of_nothing",),
    ),
    Mutant(
        "one-cycle-rises-to-the-half",
        OPTIM,
        """    if progress < 0.3:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / 0.3)) / 2
    return (1 + math.cos(math.pi * (progress - 0.3) / 0.7)) / 2""",
        """    if progress < 0.5:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / 0.5)) / 2
    return (1 + math.cos(math.pi * (progress - 0.5) / 0.5)) / 2""",
        (TEST_TRAINING + "test_one_cycle_is_torchs",),
    ),
    Mutant(
        "held-out-rank-without-the-new-row",
        "skood/estimator/held_out.py",
        "math.floor(false_alarms * (len(ascending) + 1) + 1e-9)",
        "math.floor(false_alarms * len(ascending) + 1e-9)",
        ("tests/estimator/test_held_out.py::test_the_threshold_by_hand",),
    ),
    Mutant(
        "whitening-without-shrinkage",
        "skood/estimator/whitening.py",
        "np.sqrt((1 - self.shrinkage_) * values + self.shrinkage_)",
        "np.sqrt(np.maximum(values, 1e-9))",
        ("tests/estimator/test_whitening.py::test_of_the_shrunk_correlation_it_leaves_none",),
    ),
    # -------------------------------------------------------------------------------------------- scores, thresholds
    Mutant(
        "odin-moves-down",
        LOGITS,
        "step = epsilon * gradient.sign()",
        "step = -epsilon * gradient.sign()",
        (TEST_SCORES + "test_odin_of_a_linear_model",),
    ),
    Mutant(
        "odin-by-the-gradient-itself",
        LOGITS,
        "step = epsilon * gradient.sign()",
        "step = epsilon * gradient",
        (TEST_SCORES + "test_odin_of_a_linear_model",),
    ),
    Mutant(
        "knn-mean-of-distances",
        FEATURES,
        "return -self.nearest.distances(unit(features), self.k)[:, -1]",
        "return -self.nearest.distances(unit(features), self.k).mean(1)",
        (TEST_SCORES + "test_of_features_by_hand",),
    ),
    Mutant(
        "mahalanobis-covariance-of-all",
        DISTANCES,
        "centred = rows - means[places]",
        "centred = rows - rows.mean(0)",
        (TEST_SCORES + "test_learnt_by_hand",),
    ),
    Mutant(
        "mahalanobis-layers-weigh-alike",
        DISTANCES,
        "[weight * to_means(",
        "[to_means(",
        (TEST_SCORES + "test_mahalanobis_of_several_layers_is_their_sum",),
    ),
    Mutant(
        "vim-scale-of-the-sum",
        FEATURES,
        "alpha = abs(max_logit(logits).mean()) / scale if scale else 0.0",
        "alpha = abs(max_logit(logits).sum()) / scale if scale else 0.0",
        (TEST_SCORES + "test_learnt_by_hand",),
    ),
    Mutant(
        "rotation-score-of-the-mean-row",
        LOGITS,
        "told = log_softmax(rotation_logits).diagonal(dim1=1, dim2=2)",
        "told = log_softmax(rotation_logits)[:, 0]",
        (TEST_SCORES + "test_rotation_by_hand",),
    ),
    Mutant(
        "kl-the-other-way",
        LOGITS,
        "even_product(log_p.exp(), self.log_templates).amax(1) - minus_entropy(log_p)",
        "even_product(log_p, self.log_templates.exp()).amax(1) - minus_entropy(log_p)",
        (TEST_SCORES + "test_kl_matching_is_the_divergence",),
    ),
    Mutant(
        "p-values-of-ties",
        THRESHOLDS,
        '_ranked(self.score_samples(X)), side="right")',
        '_ranked(self.score_samples(X)), side="left")',
        (TEST_THRESHOLDS + "test_p_values_by_hand",),
    ),
    Mutant(
        "conformal-rank-without-the-new-row",
        THRESHOLDS,
        "math.floor(self.alpha * (len(calibration) + 1) + 1e-9)",
        "math.ceil(self.alpha * len(calibration))",
        (TEST_THRESHOLDS + "test_predictions_are_p_values_whatever_the_level",),
    ),
    Mutant(
        "offset-of-one-fewer",
        OFFSET,
        "math.ceil(contamination * (len(ascending) - 1) - 1e-9)",
        "math.floor(contamination * (len(ascending) - 1))",
        (TEST_OFFSET + "test_contamination_by_hand",),
    ),
    Mutant(
        "offset-of-displaced-rows",
        OFFSET,
        "(rows[nearest] - rows)[rng.permutation(len(rows))]",
        "(rows[nearest] - rows)",
        (TEST_OFFSET + "test_displaced_rows_by_hand",),
    ),
]


def copied(folder: Path) -> None:
    """Copy what is needed to run tests: the package, the tests and the settings of pytest."""
    for name in ("skood", "tests", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)


def run(folder: Path, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run tests in a copy of the repository, up to the first that fails."""
    # Python takes two versions of a file with the same second and length for the same, and reuses the bytecode.
    env = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    # "-m" puts the current folder, the copy, before all others from which Python imports.
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def killed_by(mutant: Mutant, folder: Path) -> str | None:
    """Return the first test that fails with a mutant in this copy of the repository, or None if all pass.

    Raises
    ------
    ValueError
        If the old text does not occur in the file exactly once, or the tests cannot be run.
    """
    path = folder / mutant.file
    whole = path.read_text()
    if whole.count(mutant.old) != 1:
        raise ValueError(
            f"the old text occurs {whole.count(mutant.old)} times in {mutant.file}, not once: mend the mutant."
        )
    path.write_text(whole.replace(mutant.old, mutant.new))
    try:
        done = run(folder, mutant.tests)
    finally:
        path.write_text(whole)
    failed = re.search(r"^FAILED (\S+)", done.stdout, flags=re.MULTILINE)
    # Exit codes other than 0 and 1 mean that tests are missing, or that code cannot be imported.
    if done.returncode not in (0, 1) or bool(done.returncode) != bool(failed):
        raise ValueError(f"its tests cannot be run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return failed[1] if failed else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the mutants; return 1 if one survives or cannot be made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run only these mutants")
    parser.add_argument("--list", action="store_true", help="only print the names")
    options = parser.parse_args(arguments)
    unknown = set(options.only or ()) - {mutant.name for mutant in MUTANTS}
    if unknown:
        parser.error(f"no mutant {', '.join(sorted(unknown))}; --list prints all names.")
    mutants = [mutant for mutant in MUTANTS if not options.only or mutant.name in options.only]
    if options.list:
        print("\n".join(mutant.name for mutant in mutants))
        return 0
    n_left = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copied(folder)
        # A test that fails without a mutant would kill all of them.
        done = run(folder, sorted({test for mutant in mutants for test in mutant.tests}))
        if done.returncode:
            print(f"The tests fail without a mutant:\n{done.stdout[-4000:]}{done.stderr[-2000:]}")
            return 1
        for mutant in mutants:
            try:
                killer = killed_by(mutant, folder)
                told = f"killed by {killer}" if killer else "SURVIVED"
            except ValueError as error:
                killer, told = None, f"ERROR: {error}"
            n_left += killer is None
            print(f"{mutant.name}: {told}", flush=True)
    print(f"{len(mutants) - n_left} of {len(mutants)} killed.")
    return int(n_left > 0)


if __name__ == "__main__":
    sys.exit(main())

"""Score rows by a trained classifier: published out-of-distribution scores, each as one function.

As in scikit-learn, higher = more normal. Logits f(x) have one column for each class; features z(x) are the input of the
last linear layer, f = W z + b.

All but `odin` and `odin_log_odds` take array-likes and return an ndarray of float64. A row's score is then the same to
the last bit alone, beside any other rows, and in any order. If rows are given as a tensor, they return a tensor,
computed in float64 on its device (in float32 on MPS, which lacks float64), to which gradients flow. Rows of another
shape than is described are a ValueError that names the parameter.
"""

from .activations import ash_b, ash_p, ash_s, dice, learn_dice, learn_react, learn_vra, react, scale, vra
from .classes import (
    gradnorm,
    gram,
    learn_gram,
    learn_nci,
    learn_nnguide,
    learn_openmax,
    learn_she,
    nci,
    nnguide,
    openmax,
    she,
)
from .distances import (
    layer_weights,
    learn_mahalanobis,
    learn_mahalanobis_pp,
    learn_relative_mahalanobis,
    learn_relative_mahalanobis_pp,
    mahalanobis,
    mahalanobis_pp,
    relative_mahalanobis,
    relative_mahalanobis_pp,
)
from .features import fdbd, knn, learn_fdbd, learn_knn, learn_vim, vim
from .fitted import METHODS, FittedScore, Method
from .logits import (
    energy,
    entropy,
    find_temperature,
    gen,
    kl_matching,
    learn_kl_matching,
    max_logit,
    moved_up,
    msp,
    msp_log_odds,
    odin,
    odin_log_odds,
    rotation,
)

__all__ = [
    "METHODS",
    "FittedScore",
    "Method",
    "ash_b",
    "ash_p",
    "ash_s",
    "dice",
    "energy",
    "entropy",
    "fdbd",
    "find_temperature",
    "gen",
    "gradnorm",
    "gram",
    "kl_matching",
    "knn",
    "layer_weights",
    "learn_dice",
    "learn_fdbd",
    "learn_gram",
    "learn_kl_matching",
    "learn_knn",
    "learn_mahalanobis",
    "learn_mahalanobis_pp",
    "learn_nci",
    "learn_nnguide",
    "learn_openmax",
    "learn_react",
    "learn_relative_mahalanobis",
    "learn_relative_mahalanobis_pp",
    "learn_she",
    "learn_vim",
    "learn_vra",
    "mahalanobis",
    "mahalanobis_pp",
    "max_logit",
    "moved_up",
    "msp",
    "msp_log_odds",
    "nci",
    "nnguide",
    "odin",
    "odin_log_odds",
    "openmax",
    "react",
    "relative_mahalanobis",
    "relative_mahalanobis_pp",
    "rotation",
    "scale",
    "she",
    "vim",
    "vra",
]

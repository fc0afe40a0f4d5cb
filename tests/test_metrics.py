import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from skood.metrics import aupr_out, auroc, fpr_at_tpr

# Four inliers, three outliers; one outlier hides at 3.5.
Y = np.array([1, 1, 1, 1, -1, -1, -1])
SCORE = np.array([4.0, 3.0, 2.0, 1.0, 3.5, 0.5, 0.0])


def test_by_hand():
    # Pairs in which the outlier scores lower: 1 for 3.5, 4 for 0.5, 4 for 0; of 12.
    assert auroc(Y, SCORE) == pytest.approx(9 / 12)
    # From the lowest score: out, out, in, in, in, out, in. Precision 1, 1 and 3/6 at each third of recall.
    assert aupr_out(Y, SCORE) == pytest.approx((1 + 1 + 3 / 6) / 3)
    assert fpr_at_tpr(Y, SCORE) == 0.75
    assert fpr_at_tpr(Y, SCORE, tpr=0.5) == 0
    assert fpr_at_tpr(Y, SCORE, tpr=2 / 3) == 0


def test_ties_and_perfection():
    assert auroc([1, -1], [0, 0]) == 0.5
    assert fpr_at_tpr([1, -1], [0, 0]) == 1
    assert fpr_at_tpr([1, 1, -1], [1, 2, 0]) == 0
    assert auroc([1, 1, -1], [1, 2, 0]) == aupr_out([1, 1, -1], [1, 2, 0]) == 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-5, 5)), min_size=2))
def test_as_scikit_learn_with_outliers_positive(rows):
    outlier, score = (np.array(column) for column in zip(*rows, strict=True))
    if outlier.all() or not outlier.any():
        return
    y = np.where(outlier, -1, 1)
    assert auroc(y, score) == roc_auc_score(outlier, -score)
    assert aupr_out(y, score) == average_precision_score(outlier, -score)
    rates = [np.mean(score[~outlier] <= t) for t in score if np.mean(score[outlier] <= t) >= 0.95]
    assert fpr_at_tpr(y, score) == pytest.approx(min(rates))


@pytest.mark.parametrize("dtype", [np.uint8, bool])
def test_scores_of_any_type(dtype):
    score = np.array([1, 1, 1, 0], dtype=dtype)
    assert auroc([1, 1, -1, -1], score) == auroc([1, 1, -1, -1], score.astype(float)) == 0.75


def test_classes_are_inliers():
    assert auroc([0, 3, 7, 7, -1, -1, -1], SCORE) == auroc(Y, SCORE)


@pytest.mark.parametrize("metric", [auroc, aupr_out, fpr_at_tpr])
def test_what_is_undefined_is_an_error(metric):
    with pytest.raises(ValueError, match=r"np.where\(y_true == 1, -1, 1\)"):
        metric([0, 1, 1], [1, 2, 3])
    with pytest.raises(ValueError, match="no outliers"):
        metric([1, 1], [1, 2])
    with pytest.raises(ValueError, match="only outliers"):
        metric([-1, -1], [1, 2])
    with pytest.raises(ValueError, match="score contains NaN"):
        metric([-1, 1], [1, np.nan])
    with pytest.raises(ValueError, match="inconsistent"):
        metric([-1, 1], [1])
    with pytest.raises(ValueError, match="y contains NaN, first in row 2"):
        metric([-1, 1, np.nan], [1, 2, 3])


@pytest.mark.parametrize("tpr", [0, 1.5, -1])
def test_bad_tpr(tpr):
    with pytest.raises(ValueError, match="tpr"):
        fpr_at_tpr(Y, SCORE, tpr)

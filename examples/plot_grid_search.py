"""
A grid search over a detector's hyperparameters
===============================================

A detector in a Pipeline, searched by scikit-learn's ``GridSearchCV``. Detectors need their own folds: ``OutlierKFold``
trains on inliers alone, and tests on other inliers and the outliers. The score is the AUROC. The outliers that choose
the parameters cannot test the choice, so that a part of the rows is held out.
"""

# %%
# Malignant tumours are the outliers. A third of the rows is held out for the test.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer

from skood import DUMDetector
from skood.compare import NearestNeighborsDetector
from skood.datasets import load
from skood.metrics import auroc, get_scorer
from skood.model_selection import DropOutliers, OutlierKFold

X, y = load("breast_cancer")
X_search, X_test, y_search, y_test = train_test_split(X, y, test_size=1 / 3, stratify=y, random_state=0)

# %%
# The grid varies the largest noise of DUM's views, and the scaling of features. ``DropOutliers`` removes outliers
# before the scaler of the Pipeline is fitted; the detector itself would leave them out anyway. AUROC needs no
# threshold, and ``contamination=0`` saves the fits that would set one.
pipeline = make_pipeline(
    QuantileTransformer(n_quantiles=100, output_distribution="normal"),
    DUMDetector(hidden_sizes=(64,), max_epochs=30, contamination=0, random_state=0),
)
reaches, scalings = [1, 3, 10, 30], ["standard", "whiten"]
search = GridSearchCV(
    DropOutliers(pipeline),
    {
        "estimator__dumdetector__view_noise": [(0.05, reach) for reach in reaches],
        "estimator__dumdetector__scaling": scalings,
    },
    scoring=get_scorer("auroc"),
    cv=OutlierKFold(3, random_state=0),
).fit(X_search, y_search)

# %%
# The best detector of the grid, and nearest neighbours in the same Pipeline, score the held-out rows.
baseline = DropOutliers(make_pipeline(pipeline[0], NearestNeighborsDetector())).fit(X_search, y_search)
chosen, neighbours = (auroc(y_test, detector.score_samples(X_test)) for detector in (search, baseline))
print(search.best_params_)
print(f"AUROC on the test rows: {chosen:.3f}, nearest neighbours {neighbours:.3f}")

figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
results = search.cv_results_
for scaling in scalings:
    own = np.array([params["estimator__dumdetector__scaling"] == scaling for params in results["params"]])
    ax.errorbar(reaches, results["mean_test_score"][own], results["std_test_score"][own], marker="o", label=scaling)
ax.axhline(neighbours, color="grey", linestyle="--", label="nearest neighbours, test rows")
ax.set(xscale="log", xlabel="reach of the noise", ylabel="AUROC, mean and spread of three folds")
ax.legend(title="scaling")
plt.show()

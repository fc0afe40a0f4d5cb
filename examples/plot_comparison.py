"""
Deep detectors beside classical ones
====================================

``compare_detectors`` fits every detector on the inliers of every data set, and measures how well it ranks outliers
below new inliers. It takes detectors of skood and of scikit-learn. On the command line, ``python -m skood compare``
does the same.
"""

# %%
# Two data sets of scikit-learn. Trainings of deep detectors are short here; the defaults take longer.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor

from skood import DUMDetector, NegSampleVAE, ResidualAdapterDetector, compare_detectors
from skood.compare import NearestNeighborsDetector, format_table, summarize

detectors = {
    "DUMDetector": DUMDetector(max_epochs=60),
    "NegSampleVAE": NegSampleVAE(max_epochs=15),
    "ResidualAdapterDetector": ResidualAdapterDetector(pretrain_epochs=5, max_epochs=5),
    "IsolationForest": IsolationForest(),
    "LOF": LocalOutlierFactor(novelty=True),
    "kNN": NearestNeighborsDetector(),
}
names = ["breast_cancer", "wine"]
results = compare_detectors(detectors, names, seeds=2)

# %%
# The table has means over seeds for each data set, ranks, and wins/ties/losses against nearest neighbours. A deep
# detector that loses to them is not worth its training, whatever its AUROC. The columns "false alarms" and "caught" are
# the shares of new inliers and of outliers that ``predict`` calls outliers.
table = summarize(results)
print(format_table(table))

figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
places = np.arange(len(table))
for i, name in enumerate(names):
    ax.barh(places + 0.4 * i - 0.2, table[name], height=0.4, label=name)
    ax.axvline(table.loc["kNN", name], color=f"C{i}", linestyle="--", linewidth=1)
ax.set_yticks(places, table.index)
ax.invert_yaxis()
ax.set(xlim=(0.8, 1), xlabel="AUROC; dashed: nearest neighbours")
figure.legend(loc="outside upper center", ncols=2)
plt.show()

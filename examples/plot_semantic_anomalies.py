"""
Which digit was never seen?
===========================

A classifier learns nine digits; the tenth is held out of training. Its images differ from the others only in meaning.
`RotationAuxClassifier` learns to classify the digits and, in alternate steps, by how much images were rotated: to know
what is upright, it must learn more about shapes. For comparison there is the classifier alone, trained for as many
steps.

`compare_scores` computes all published scores of a trained classifier in one call. No score is best everywhere, nor is
the auxiliary task: by some scores the classifier alone is better.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skood import RotationAuxClassifier, compare_scores
from skood.metrics import aupr_out

# %%
# The test half has all ten digits; the one held out is the anomaly.
data, unseen = load_digits(), 4
images, digit = data.images[:, None] / 16, data.target
X_train, X_test, y_train, y_test = train_test_split(images, digit, test_size=0.5, stratify=digit, random_state=0)
X_train, y_train = X_train[y_train != unseen], y_train[y_train != unseen]
truth = np.where(y_test == unseen, -1, 1)

# %%
# With rotations there are two steps per batch, so that the classifier alone gets twice the epochs.
rotations = RotationAuxClassifier(max_epochs=14, contamination=0, random_state=0).fit(X_train, y_train)
alone = RotationAuxClassifier(auxiliary=None, max_epochs=28, contamination=0, random_state=0).fit(X_train, y_train)
tables = {}
for name, classifier in (("with rotations", rotations), ("alone", alone)):
    accuracy = (classifier.predict_class(X_test) == y_test)[truth == 1].mean()
    print(f"{name}: {accuracy:.3f} of the known digits named rightly")
    table = compare_scores(classifier, X_test[truth == 1], X_test[truth == -1], X_train=X_train, y_train=y_train)
    tables[name] = table["aupr"]
table = pd.DataFrame(tables).reindex(tables["with rotations"].index)
print(f"\naverage precision, where chance is {(truth == -1).mean():.2f}\n\n{table.round(2)}")

# %%
# The detector's own score: the digit with the lowest mean is the one it has never seen.
score = rotations.score_samples(X_test)
means = np.array([score[y_test == number].mean() for number in range(10)])
print(f"\nThe digit never seen is {means.argmin()} (average precision {aupr_out(truth, score):.2f}).")

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
table.plot.barh(ax=left, width=0.8)
left.invert_yaxis()
left.axvline((truth == -1).mean(), color="0.5", linewidth=1, label="chance")
left.set(title=f"{unseen} held out: average precision", ylabel="")
left.legend(fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.4, -0.06))
middle.bar(range(10), means, color=["tab:red" if number == unseen else "tab:blue" for number in range(10)])
middle.set(title="mean score of each digit", xticks=range(10))
# The least normal images, from the top left.
sheet = np.full((6 * 9, 10 * 9), np.nan)
for place, row in enumerate(np.argsort(score)[:60]):
    top, across = 9 * (place // 10), 9 * (place % 10)
    sheet[top : top + 8, across : across + 8] = X_test[row, 0]
    color = "tab:red" if y_test[row] == unseen else "tab:blue"
    right.text(across + 7.5, top + 7.5, y_test[row], color=color, ha="right", va="bottom", fontsize=8)
right.imshow(sheet, cmap="gray_r")
right.set(title=f"the 60 least normal images; red: {unseen}", xticks=[], yticks=[])
plt.show()

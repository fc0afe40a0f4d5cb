"""
A classifier that may say "none of these"
=========================================

A network learns the handwritten digits 0 to 4, with 5, 6 and 7 as auxiliary outliers; 8 and 9 are never seen in
training. `RejectClassDetector` has additional outputs, the reject classes, for images of no known digit;
`OpenSetClassifier` makes it a scikit-learn classifier that may answer "none". For comparison there is a logistic
regression that abstains if its largest probability is small.

The corpus matters: two kinds of outliers may be too few to learn from. With 5 among the known digits, and only 6 and 7
as auxiliary outliers, the logistic regression detects 8 and 9 better.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skood import OpenSetClassifier, RejectClassDetector
from skood.metrics import auroc, coverage_at_risk
from skood.plotting import RiskCoverageDisplay

# %%
# Known digits are split into training and test rows; y marks auxiliary outliers by -1.
data = load_digits()
images, digit = data.images[:, None] / 16, data.target
known, auxiliary, unseen = digit <= 4, (digit >= 5) & (digit <= 7), digit >= 8
X_known, X_test, y_known, y_test = train_test_split(images[known], digit[known], test_size=0.5, random_state=0)
X_train = np.concatenate([X_known, images[auxiliary]])
y_train = np.concatenate([y_known, np.full(auxiliary.sum(), -1)])

# %%
# Images have the shape (n, channels, height, width); the default for them is a small convolutional network.
classifier = OpenSetClassifier(RejectClassDetector(max_epochs=10, random_state=0)).fit(X_train, y_train)
X_all = np.concatenate([X_test, images[unseen]])
y_all = np.concatenate([y_test, np.full(unseen.sum(), -1)])
answer = classifier.predict(X_all)
print(f"digits 0 to 4 named rightly:     {(answer == y_all)[y_all >= 0].mean():.3f}")
print(f"digits 8 and 9 rejected:         {(answer == -1)[y_all == -1].mean():.3f}")
print(f"open-set accuracy:               {classifier.score(X_all, y_all):.3f}")
print(f"AUROC of known against unseen:   {auroc(y_all, classifier.score_samples(X_all)):.3f}")
print("training outliers by reject class:", classifier.detector_.reject_class_counts_)

# %%
# The classifier that abstains measures its confidence by the largest probability. It is wrong about every unseen digit.
regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
regression.fit(X_known.reshape(len(X_known), -1), y_known)
probability = regression.predict_proba(X_all.reshape(len(X_all), -1))
regression_answer, sureness = regression.classes_[probability.argmax(1)], probability.max(1)
print(f"AUROC of logistic regression:    {auroc(y_all, sureness):.3f}")

# %%
# The risk is the share of wrong answers among the rows that are answered, most confident first. Every answer for an
# unseen digit is wrong, so that the risk must rise once all known digits are answered.
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
RiskCoverageDisplay.from_estimator(classifier, X_all, y_all, name="reject classes", ax=left)
RiskCoverageDisplay.from_predictions(y_all, regression_answer, sureness, name="logistic regression", ax=left)
left.axvline((y_all >= 0).mean(), color="0.7", linewidth=1, label="share of known digits")
left.legend()
detector = classifier.detector_
for name, prediction, score in (
    ("reject classes", detector.predict_class(X_all), detector.decision_function(X_all)),
    ("logistic regression", regression_answer, sureness),
):
    print(
        f"{name}: {coverage_at_risk(y_all, prediction, score, risk=0.05):.3f} of all rows can be answered at 5 % risk"
    )

# The images with their answers, most confident first from the top left.
chosen = np.argsort(-detector.decision_function(X_all))[:: len(X_all) // 60][:60]
sheet = np.full((6 * 9, 10 * 9), np.nan)
for place, row in enumerate(chosen):
    top, across = 9 * (place // 10), 9 * (place % 10)
    sheet[top : top + 8, across : across + 8] = X_all[row, 0]
    color = "tab:green" if answer[row] == y_all[row] else "tab:red"
    right.text(across + 7, top + 7, "none" if answer[row] == -1 else answer[row], color=color, ha="right", fontsize=8)
right.imshow(sheet, cmap="gray_r")
right.set(title="surest to least sure; green: right", xticks=[], yticks=[])
plt.show()

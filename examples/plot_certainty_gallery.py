"""
What a detector is certain of
=============================

``DUMDetector`` learns an uncertainty for each embedding, without labels. Fitted on a contrastive encoder's embeddings
of images, as in the paper, it is best seen in pictures: the most certain images are prototypes, the least certain are
odd.
"""

# %%
# The encoder learns which views come from the same image. It needs no labels either.
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline

from skood import DUMDetector, SimCLREncoder
from skood.plotting import CertaintyGalleryDisplay

images, digit = load_digits(return_X_y=True)
images, digit = images[:900] / 16, digit[:900]
encoder = SimCLREncoder(image_shape=(1, 8, 8), output="features", max_epochs=20, random_state=0)
detector = make_pipeline(encoder, DUMDetector(max_epochs=15, random_state=0)).fit(images)

# %%
# The most and the least certain images of all digits, and of one digit. Numbers are scores; those below the threshold
# are orange. Views of one image differ in certainty, too: some parts of it nobody could recognise.
figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
settings = {"image_shape": (1, 8, 8), "n_images": 6, "n_columns": 6}
CertaintyGalleryDisplay.from_estimator(detector, images, name="all digits", ax=axes[0], **settings)
CertaintyGalleryDisplay.from_estimator(detector, images, labels=digit, of=4, name="fours", ax=axes[1], **settings)
CertaintyGalleryDisplay.from_views(
    detector, images[0], "simclr-no-flip", random_state=0, name="views of a zero", ax=axes[2], **settings
)
plt.show()

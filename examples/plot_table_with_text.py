"""
A table with text, dates and holes
==================================

The orders of a shop, as a database holds them: numbers, names, remarks, dates, and missing values. skrub encodes such a
table as numbers in one line; the detector behind it says which orders are odd, and which columns make them odd. This
example needs ``pip install 'skood[explain,tables]'``.
"""

# %%
# The table is simulated. Usual orders have a price that fits the product and a weight that fits the price, and some
# values are missing. Odd orders are pencils at the price of a desk, have a date of another year, or weigh five times as
# much.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from skrub import tabular_pipeline

from skood import NegSampleVAE
from skood.metrics import auroc


def make_orders(n, seed):
    """Return a table of n usual orders."""
    rng = np.random.default_rng(seed)
    prices = {"pencil": 1, "lamp": 40, "chair": 120, "desk": 400}
    product = rng.choice(list(prices), n, p=[0.4, 0.3, 0.2, 0.1])
    price = np.array([prices[name] for name in product]) * rng.lognormal(0, 0.1, n)
    working_days = pd.bdate_range("2025-01-01", "2025-12-31")
    remark = rng.choice(["ring twice", "leave at the door", "call before delivery"], n)
    return pd.DataFrame(
        {
            "product": product,
            "price": price,
            "weight": np.where(rng.random(n) < 0.1, np.nan, np.sqrt(price) * rng.lognormal(0, 0.1, n)),
            "day": rng.choice(working_days, n),
            "remark": pd.Series(remark).where(rng.random(n) < 0.8),
            "paid": rng.random(n) < 0.9,
        }
    )


orders, new = make_orders(600, seed=0), make_orders(300, seed=1)
odd = make_orders(90, seed=2)
odd.loc[:29, "product"], odd.loc[:29, "price"] = "pencil", 400
odd.loc[30:59, "day"] = pd.Timestamp("2015-06-01")
odd.loc[60:, "weight"] = 5 * np.sqrt(odd.loc[60:, "price"])
print(orders.head())

# %%
# ``tabular_pipeline`` encodes text and dates, imputes missing values and scales, in front of any estimator. All steps
# are fitted on the rows of ``fit`` alone. With pandas as output, encoded columns have names.
detector = tabular_pipeline(NegSampleVAE(negatives=None, max_epochs=60, random_state=0))
detector.set_output(transform="pandas").fit(orders)

y = np.repeat([1, -1], [len(new), len(odd)])
test = pd.concat([new, odd], ignore_index=True)
print(f"AUROC {auroc(y, detector.score_samples(test)):.2f}")
print(f"called odd: {(detector.predict(new) == -1).mean():.0%} of usual orders", end=", ")
print(f"{(detector.predict(odd) == -1).mean():.0%} of odd ones")

# %%
# Which columns make an order odd? ``explain`` returns the contribution of each encoded column to an order's score: the
# more negative, the odder. skrub knows from which column of the table each was encoded, and the imputer's indicators of
# missing values have the name of their column.
vectorizer, vae = detector[0], detector[-1]


def original(column):
    """Return the column of the table from which a column was encoded."""
    return vectorizer.output_to_input_[column.removeprefix("missingindicator_")]


def explain(rows):
    """Return the contribution of each column of the table to the score of each row; lower = odder."""
    contributions = vae.explain(detector[:-1].transform(rows))
    return contributions.T.groupby(original).sum().T


groups = {"a pencil for 400": odd[:30], "ten years ago": odd[30:60], "five times the weight": odd[60:]}
contributions = pd.DataFrame({name: explain(rows).median() for name, rows in groups.items()}).loc[orders.columns]
print(contributions.round(1))

# %%
# Each column's share of the negative contributions: the largest share belongs to the column that was changed.
shares = contributions.clip(upper=0)
(shares / shares.sum()).T.plot.barh(stacked=True, figsize=(8, 3), xlabel="share of what lowers the score")
plt.tight_layout()
plt.show()

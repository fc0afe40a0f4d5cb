"""Detect outliers by the scores of a classifier that is trained already."""

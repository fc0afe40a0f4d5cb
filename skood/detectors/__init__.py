"""The detectors: one method in each file."""

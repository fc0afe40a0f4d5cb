"""Encoders, and trained networks that detectors stand on."""

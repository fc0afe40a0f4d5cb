"""Train encoders, and find the trained networks that detectors use."""

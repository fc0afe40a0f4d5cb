"""The scikit-learn contract, for users who write a detector of their own."""

"""Hyperparameter optimization service for Keras."""

__version__ = "0.1.0"

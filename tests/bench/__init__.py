"""Measurements: each a ratio against a baseline written by hand, both taken in the same run."""

"""Benchmarks: each a ratio to a hand-written baseline measured in the same run."""

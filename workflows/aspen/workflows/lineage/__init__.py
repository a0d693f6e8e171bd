"""Lineages: pangolin, and what it says."""

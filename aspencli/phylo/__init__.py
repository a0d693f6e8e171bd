"""Phylogenetic runs and trees."""

"""Phylogenetic runs: how they are listed, started, renamed and deleted."""

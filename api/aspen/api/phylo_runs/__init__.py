"""Listing, starting, renaming, and deleting phylogenetic runs."""

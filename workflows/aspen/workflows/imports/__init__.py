"""Imports: public repositories, lineages, and locations."""

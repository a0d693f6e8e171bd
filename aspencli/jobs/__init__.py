"""Compute jobs: in the database, and in what runs them."""

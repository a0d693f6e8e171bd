"""Samples: list, create, edit, delete, and rename them."""

"""Samples: creation, update, deletion, listing, names, and submission forms."""

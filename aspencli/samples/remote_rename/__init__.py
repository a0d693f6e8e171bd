"""Rename samples in bulk through the API: planned locally, and sent in batches."""

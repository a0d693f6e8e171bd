"""Renaming samples in bulk through the API: planned here, and sent in parts."""

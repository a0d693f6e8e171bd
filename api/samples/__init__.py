"""Samples: how they are listed, changed, made, deleted, found by their names, and handed out."""

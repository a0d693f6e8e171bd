"""Guides whose outputs are real: ``python -m tests.guides`` writes them, a test tells drift."""

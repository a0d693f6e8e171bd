"""Guides with real output: ``python -m tests.guides`` updates it, and a test detects drift."""

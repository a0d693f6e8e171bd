"""Renaming through an API that fails, is killed, and is deliberately slow."""

"""Failures injected into bulk renames: the real command on a real PostgreSQL."""

"""Accidents that really happen to a bulk rename: the real command, on a real PostgreSQL."""

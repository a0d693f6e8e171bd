"""Renaming through an API that fails, is killed, and is slow on purpose."""

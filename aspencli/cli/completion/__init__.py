"""Completion in the shell: the scripts, the names of commands and options, and stored values."""

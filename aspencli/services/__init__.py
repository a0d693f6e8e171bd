"""The logic behind the commands, independent of argument parsing and output."""

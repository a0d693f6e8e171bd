"""The command line: commands, options, confirmation, output, and the console."""

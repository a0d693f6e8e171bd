"""The commands, one module per noun: parse arguments, call one service, render the result."""

"""One module a noun: parse, call one service, render."""

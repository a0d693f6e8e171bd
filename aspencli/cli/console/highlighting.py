"""Syntax highlighting of ``sqltime`` log lines on a terminal."""

from __future__ import annotations

import logging
from functools import lru_cache

from pygments import highlight
from pygments.formatters import TerminalFormatter
from pygments.lexers import PostgresLexer

from aspen.database.profiling.sqltime import FORMAT

_START = "Start Query: "
_LONGEST = 20_000  # characters; a longer statement is mostly data
_DIM, _BOLD, _RED, _PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[31m", "\x1b[0m"


class HighlightingFormatter(logging.Formatter):
    """A formatter that writes the same text as the plain one, with colors added."""

    def __init__(self) -> None:
        super().__init__(FORMAT)

    def format(self, record: logging.LogRecord) -> str:
        """Format one record in color."""
        text = super().format(record)
        lead = f"{record.levelname}:{record.name}:"
        message = text.removeprefix(lead)
        if message.startswith(_START):
            return f"{_DIM}{lead}{_START}{_PLAIN}{coloured(message.removeprefix(_START))}"
        what, colon, rest = message.partition(": ")
        style = _RED if what == "Query Failed" else _BOLD
        return f"{_DIM}{lead}{what}{colon}{_PLAIN}" + (f"{style}{rest}{_PLAIN}" if rest else "")


@lru_cache(maxsize=64)
def coloured(statement: str) -> str:
    """Return a statement with colors and otherwise unchanged."""
    if len(statement) > _LONGEST:
        return statement
    lexer = PostgresLexer(stripnl=False, ensurenl=False)
    return str(highlight(statement, lexer, TerminalFormatter()))

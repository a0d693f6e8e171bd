"""Detection of statements that would end or change the transaction of a guarded session.

A guarded transaction is read-only from its first query on, and PostgreSQL lets no statement change
that. But a statement could end the transaction, and the next one in the same string could begin
another. So statements that end or begin transactions are never sent.
"""

from __future__ import annotations

import re
from functools import lru_cache

# PostgreSQL's lexical rules (scan.l), as far as they decide where a statement ends. There are no
# driver placeholders here, because the input is the text that is sent to the server.
_TOKEN = re.compile(
    r"""
    (?P<gap>[ \t\n\r\f\v]+|--[^\n\r]*)
  | (?P<comment>/\*)
  | (?P<value>
        [eE]'(?:[^'\\]++|\\.|'')*+'?
      | (?:[bBxXnN]|[uU]&)?'(?:[^']++|'')*+'?
      | \$(?P<tag>[A-Za-z_\x80-\U0010ffff][A-Za-z_0-9\x80-\U0010ffff]*|)\$.*?(?:\$(?P=tag)\$|\Z)
    )
  | (?P<name>"(?:[^"]++|"")*+"?|[A-Za-z_\x80-\U0010ffff][A-Za-z_0-9$\x80-\U0010ffff]*)
  | (?P<number>[0-9]+)
  | (?P<sign>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_BOUNDARY = re.compile(r"/\*|\*/")
_SUSPECT = re.compile(r"\b(?:commit|end|rollback|abort|begin|start|prepare)\b", re.IGNORECASE)
_SHORT = 8_192  # characters; longer statements are not cached


def ends_transaction(statement: str) -> str | None:
    """Return the command in a string of statements that ends or begins a transaction, if any.

    Args:
        statement: The text that is sent to the server.
    """
    if not _SUSPECT.search(statement):  # the usual case
        return None
    return _look_up(statement) if len(statement) <= _SHORT else _look(statement)


def is_transaction_mode(statement: str) -> bool:
    """Return True for ``SET TRANSACTION``, which must come before any query."""
    return _first_words(statement)[:2] == ["SET", "TRANSACTION"]


def may_matter(statement: str) -> bool:
    """Return False if the statement cannot possibly end a transaction."""
    return _SUSPECT.search(statement) is not None


@lru_cache(maxsize=1_024)
def _first_words(statement: str) -> list[str]:
    return next(iter(_openings(statement[:200], 2)), [])


def _look(statement: str) -> str | None:
    for words in _openings(statement, 3):
        if words and _is_control(words):
            return " ".join(words[:2] if words[0] == "PREPARE" else words[:1])
    return None


_look_up = lru_cache(maxsize=1_024)(_look)


def _is_control(words: list[str]) -> bool:
    match words:
        case ["COMMIT" | "END" | "ABORT" | "BEGIN" | "START", *_]:
            return True
        case ["ROLLBACK", "TO", *_] | ["ROLLBACK", "WORK" | "TRANSACTION", "TO", *_]:
            return False
        case ["ROLLBACK", *_] | ["PREPARE", "TRANSACTION", *_]:
            return True
    return False


def _openings(text: str, count: int) -> list[list[str]]:
    """Return the leading words of each statement, up to the first other token."""
    found: list[list[str]] = [[]]
    position, open_ = 0, True
    while match := _TOKEN.match(text, position):
        position = match.end()
        kind = match.lastgroup
        if kind == "comment":
            position = _end_of_comment(text, position)
        elif kind == "gap":
            continue
        elif match[0] == ";":
            found.append([])
            open_ = True
        elif open_ and kind == "name" and len(found[-1]) < count:
            found[-1].append(match[0].upper())
        else:
            open_ = False
    return found


def _end_of_comment(text: str, position: int) -> int:
    """Return the end of a comment that began before the position; comments nest."""
    depth = 1
    while depth and (mark := _BOUNDARY.search(text, position)):
        depth += 1 if mark[0] == "/*" else -1
        position = mark.end()
    return len(text) if depth else position

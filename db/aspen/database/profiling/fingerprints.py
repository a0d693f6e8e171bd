"""Statement fingerprints: the text without literals, comments, and lengths of lists.

This is a tokenizer for PostgreSQL's lexical rules, not a parser: it must accept whatever the
server is sent, including incomplete statements and those for later versions, and never fail.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

_TOKEN = re.compile(
    r"""
    (?P<gap>\s+|--[^\n]*)
  | (?P<comment>/\*)
  | (?P<value>
        [eE]'(?:[^'\\]++|\\.|'')*+'?           # '' stands for a quote, and so does \'
      | (?:[bBxXnN]|[uU]&)?'(?:[^']++|'')*+'?
      | \$(?P<tag>[A-Za-z_\x80-\uffff][\w\x80-\uffff]*|)\$.*?(?:\$(?P=tag)\$|\Z)
      | %\([^)]*\)s | %s | \$\d+              # placeholders of the drivers
      | (?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?
    )
  | (?P<name>"(?:[^"]++|"")*+"?|[^\W\d][\w$]*)
  | (?P<sign>::|[(),;]|.)
    """,
    re.VERBOSE | re.DOTALL,
)
LONG = 8_192
"""Length in characters; longer statements are cached for a short time only."""
_BOUNDARY = re.compile(r"/\*|\*/")
_CAST = r"(?:::[\w.]+(?:\ [A-Z]+)*(?:\(\?(?:,\ \?)*\))?(?:\[\])*)?"
_ITEM = rf"(?:\?|NULL|DEFAULT|TRUE|FALSE){_CAST}"
_LIST = rf"\({_ITEM}(?:,\ {_ITEM})*\)"
_IN = re.compile(rf"\b(IN)\ {_LIST}", re.IGNORECASE)
_ARRAY = re.compile(rf"\b(ARRAY)\ ?\[{_ITEM}(?:,\ {_ITEM})*\]", re.IGNORECASE)
_VALUES = re.compile(rf"\b(VALUES)\ {_LIST}(?:,\ {_LIST})*", re.IGNORECASE)
_SAVEPOINT = re.compile(r"\bsa_savepoint_\d+\b")
_TIGHT_BEFORE = frozenset("),;.]")
_TIGHT_AFTER = frozenset("(.[")


def fingerprint(statement: str) -> str:
    """Return a statement with values as ``?``, lists as ``(...)``, and gaps as single spaces."""
    # Thousands of short texts are cached, but few long ones: a batch can be a megabyte.
    return _of_short(statement) if len(statement) <= LONG else _of_long(statement)


def _fingerprint(statement: str) -> str:
    text = _joined(_tokens(statement))
    text = _IN.sub(r"\1 (...)", text)
    text = _ARRAY.sub(r"\1[...]", text)
    text = _VALUES.sub(r"\1 (...)", text)
    return _SAVEPOINT.sub("sa_savepoint_N", text).rstrip("; ")


_of_short = lru_cache(maxsize=4_096)(_fingerprint)
_of_long = lru_cache(maxsize=16)(_fingerprint)


def _tokens(statement: str) -> list[tuple[str, bool]]:
    """Return each token, and whether there is a gap before it."""
    found: list[tuple[str, bool]] = []
    position, gap = 0, False
    while match := _TOKEN.match(statement, position):
        position = match.end()
        kind = match.lastgroup if match.lastgroup != "tag" else "value"
        if kind == "comment":
            position, gap = _end_of_comment(statement, position), True
        elif kind == "gap":
            gap = True
        else:
            found.append(("?" if kind == "value" else match[0], gap))
            gap = False
    return found


def _end_of_comment(statement: str, position: int) -> int:
    """Return the end of a comment that began before the position; comments nest."""
    depth = 1
    while depth and (mark := _BOUNDARY.search(statement, position)):
        depth += 1 if mark[0] == "/*" else -1
        position = mark.end()
    return len(statement) if depth else position


def _joined(tokens: list[tuple[str, bool]]) -> str:
    parts: list[str] = []
    before = ""
    for token, gap in tokens:
        if before == "," or (
            gap and before not in _TIGHT_AFTER and before and token not in _TIGHT_BEFORE
        ):
            parts.append(" ")
        parts.append(token)
        before = token
    return "".join(parts)


class Part(NamedTuple):
    """A statement of a script.

    Attributes:
        line: The number of its first line.
        statement: The text, without a semicolon.
    """

    line: int
    statement: str


def split_statements(text: str) -> list[Part]:
    """Return the statements of a script, without the semicolons between them."""
    found: list[tuple[int, int]] = []
    start = position = 0
    while match := _TOKEN.match(text, position):
        position = match.end()
        if match.lastgroup == "comment":
            position = _end_of_comment(text, position)
        elif match[0] == ";":
            found.append((start, match.start()))
            start = position
    found.append((start, len(text)))
    return [_part(text, *ends) for ends in found if fingerprint(text[slice(*ends)])]


def _part(text: str, start: int, end: int) -> Part:
    statement = text[start:end]
    begin = start + len(statement) - len(statement.lstrip())
    return Part(text.count("\n", 0, begin) + 1, statement.strip())

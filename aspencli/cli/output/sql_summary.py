"""Shortening of SQL statements for one line of a table.

A statement that is cut at its end shows its first columns and nothing else. `shorten_sql` leaves
out the middle of its lists instead, so that the tables and conditions remain visible:
``SELECT a, b, ... FROM t WHERE ...``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

DOTS = "..."
_LONGEST = 100_000  # characters that are examined
_TOKEN = re.compile(
    r"""
      (?P<space>   \s+ | --[^\r\n]* )
    | (?P<comment> /\* )
    | (?P<text>    [eE]'(?:[^'\\]|\\.|'')*(?:'|$)
                 | (?:[bBxXnN]|[uU]&)?'(?:[^']|'')*(?:'|$)
                 | (?:[uU]&)?"(?:[^"]|"")*(?:"|$)
                 | (?P<dollar>\$(?:[^\W\d]\w*)?\$).*?(?:(?P=dollar)|$) )
    | (?P<word>    [^\W\d][\w$]* )
    | (?P<other>   \$\d+ | %\(\w+\)s | [\d.]+ | :: | . )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_SHORTENED = ("columns", "values", "query", "tables")  # in this order
_QUERIES = frozenset({"SELECT", "WITH", "VALUES", "INSERT", "UPDATE", "DELETE", "TABLE"})
_AFTER_FROM = frozenset(
    {"WHERE", "GROUP", "HAVING", "WINDOW", "ORDER", "LIMIT", "OFFSET", "FETCH", "FOR", "RETURNING"}
    | {"UNION", "INTERSECT", "EXCEPT", "SET"}
)
_AFTER_COLUMNS = {
    "SELECT": _AFTER_FROM | {"FROM", "INTO"},
    "RETURNING": _AFTER_FROM,
    "SET": frozenset({"FROM", "WHERE", "RETURNING"}),
}
_JOINS = frozenset({"JOIN", "INNER", "LEFT", "RIGHT", "FULL", "CROSS", "NATURAL"})


@dataclass(frozen=True)
class _Token:
    """A piece of a statement."""

    text: str
    spaced: bool  # white space or a comment precedes it
    word: str = ""  # in upper case if it may be a keyword


@dataclass(frozen=True)
class _Parenthesis:
    """The pieces between two parentheses; the closing one may be missing."""

    parts: list[_Part]
    spaced: bool
    closed: bool
    word: str = ""


@dataclass(frozen=True)
class _List:
    """A part of a statement that can be shortened: ``columns``, ``values`` or ``tables``."""

    kind: str
    items: list[list[_Part]]
    spaced: bool = True
    word: str = ""


_Part = _Token | _Parenthesis | _List
_Keep = Callable[[str, int], bool]


def shorten_sql(sql: str, width: int) -> str:
    """Return a statement on one line, no longer than the width.

    White space is collapsed and comments are removed. If the result is too long, these are
    shortened, each only if the previous ones do not suffice: the column lists of SELECT, RETURNING,
    and SET; lists of values and arguments; subqueries; and joined tables. If that is still too
    long, the end of the statement is left out.
    """
    parts = _grouped(_tokens(sql[:_LONGEST]))
    budgets: dict[str, int] = {}
    text = _text(parts, _within(budgets))
    for kind in _SHORTENED:
        if len(text) <= width:
            break
        budgets[kind] = 0
        text = _text(parts, _within(budgets))
    if len(text) > width:
        # What has no tables has no middle to leave out either.
        has_tables = any(part.word == "FROM" for part in parts)
        text = text if has_tables else _text(parts, _within({}))
        return text[: max(width - len(DOTS), 0)].rstrip(" .") + DOTS[: max(width, 0)]
    for kind in reversed(budgets):  # lists shortened last get the remaining space first
        text = _lengthen(parts, budgets, kind, width)
    return text


def one_line(sql: str) -> str:
    """Return a whole statement on one line, without comments."""
    return shorten_sql(sql, _LONGEST)


def _lengthen(parts: Sequence[_Part], budgets: dict[str, int], kind: str, width: int) -> str:
    """Set the largest budget for a kind with which the text fits, and return that text."""
    low, high = 0, width + 1
    found = _text(parts, _within(budgets))
    while high - low > 1:
        middle = (low + high) // 2
        text = _text(parts, _within({**budgets, kind: middle}))
        if len(text) <= width:
            low, found = middle, text
        else:
            high = middle
    budgets[kind] = low
    return found


def _within(budgets: dict[str, int]) -> _Keep:
    """Return a test of whether a part of a kind may have that length."""
    limits = dict(budgets)
    return lambda kind, length: kind not in limits or length <= limits[kind]


# Reading


def _tokens(sql: str) -> list[_Token]:
    found: list[_Token] = []
    place, spaced = 0, False
    while place < len(sql):
        match = _TOKEN.match(sql, place)
        assert match is not None  # noqa: S101 - the last alternative matches any character
        place = match.end()
        if match["comment"] is not None:
            place, spaced = _comment_end(sql, place), True
        elif match["space"] is not None:
            spaced = True
        else:
            is_column = bool(found) and found[-1].text == "."
            word = match["word"].upper() if match["word"] and not is_column else ""
            found.append(_Token(match[0], spaced, word))
            spaced = False
    return found


def _comment_end(sql: str, place: int) -> int:
    """Return the end of a comment, which may contain others, and may be incomplete."""
    depth = 1
    while depth:
        edge = _COMMENT_EDGE.search(sql, place)
        if edge is None:
            return len(sql)
        depth += 1 if edge[0] == "/*" else -1
        place = edge.end()
    return place


def _grouped(tokens: Sequence[_Token]) -> list[_Part]:
    """Return the parts of a statement, with lists and parentheses as one part each."""
    levels: list[tuple[list[_Part], bool]] = [([], False)]
    for token in tokens:
        if token.text == "(":
            levels.append(([], token.spaced))
        elif token.text == ")" and len(levels) > 1:
            _close(levels, closed=True)
        else:
            levels[-1][0].append(token)
    while len(levels) > 1:
        _close(levels, closed=False)
    return _listed(levels[0][0])


def _close(levels: list[tuple[list[_Part], bool]], *, closed: bool) -> None:
    parts, spaced = levels.pop()
    if parts and parts[0].word in _QUERIES:
        inner = _listed(parts)
    else:
        inner = [_List("values", _split(parts), spaced=False)] if parts else []
    levels[-1][0].append(_Parenthesis(inner, spaced, closed))


def _listed(parts: Sequence[_Part]) -> list[_Part]:
    """Return the parts of one level, with its column lists and table lists as one part each."""
    found: list[_Part] = []
    seen: set[str] = set()
    rest = list(parts)
    while rest:
        part = rest.pop(0)
        before = found[-1].word if found else ""
        found.append(part)
        seen.add(part.word)
        is_list = part.word in {"SELECT", "RETURNING"} or (part.word == "SET" and "UPDATE" in seen)
        if is_list:
            while part.word == "SELECT" and rest and rest[0].word in {"DISTINCT", "ALL"}:
                found.append(rest.pop(0))
                if rest and rest[0].word == "ON":
                    found += [rest.pop(0) for _ in rest[:2]]
            found += _taken(rest, _AFTER_COLUMNS[part.word], "columns")
        elif part.word == "FROM" and before != "DISTINCT" and seen & {"SELECT", "DELETE", "UPDATE"}:
            found += _taken(rest, _AFTER_FROM, "tables")
    return found


def _taken(rest: list[_Part], ends: frozenset[str], kind: str) -> list[_Part]:
    """Remove the parts before the end of a list, and return them as that list."""
    size = next((number for number, part in enumerate(rest) if part.word in ends), len(rest))
    # IS DISTINCT FROM in a column list does not end it.
    while 0 < size < len(rest) and rest[size].word == "FROM" and rest[size - 1].word == "DISTINCT":
        later = (n for n in range(size + 1, len(rest)) if rest[n].word in ends)
        size = next(later, len(rest))
    taken, rest[:size] = rest[:size], []
    if kind == "columns" and not rest:
        return taken  # nothing follows that would have to remain visible
    split = _split_tables if kind == "tables" else _split
    return [_List(kind, split(taken))] if taken else []


def _split(parts: Sequence[_Part]) -> list[list[_Part]]:
    items: list[list[_Part]] = [[]]
    for part in parts:
        if isinstance(part, _Token) and part.text == ",":
            items.append([])
        else:
            items[-1].append(part)
    return items


def _split_tables(parts: Sequence[_Part]) -> list[list[_Part]]:
    """Return the first table, and each further one with the words that join it."""
    items: list[list[_Part]] = [[]]
    for number, part in enumerate(parts):
        follows = number and parts[number - 1].word in _JOINS | {"OUTER"}
        if (part.word in _JOINS and not follows and items[-1]) or (
            isinstance(part, _Token) and part.text == ","
        ):
            items.append([])
        items[-1].append(part)
    return items


# Writing


def _text(parts: Sequence[_Part], keep: _Keep) -> str:
    pieces: list[str] = []
    for part in parts:
        text = _part_text(part, keep)
        if part.spaced and pieces and text and text not in {",", ";", ")"}:
            pieces.append(" ")
        pieces.append(text)
    return "".join(pieces)


def _part_text(part: _Part, keep: _Keep) -> str:
    if isinstance(part, _Token):
        return part.text
    if isinstance(part, _List):
        return _list_text(part, keep)
    text = _text(part.parts, keep)
    is_query = bool(part.parts) and part.parts[0].word in _QUERIES
    if is_query and not keep("query", len(text)):
        text = DOTS
    return f"({text}{')' if part.closed else ''}"


def _list_text(part: _List, keep: _Keep) -> str:
    texts = [_text(item, keep) for item in part.items]
    glue = [" " if text.startswith(",") else ", " for text in texts]
    if part.kind == "tables":
        glue = ["" if text.startswith(",") else " " for text in texts]
    length, remaining = 0, sum(map(len, texts))
    for number, text in enumerate(texts):
        length += len(text) + len(glue[number])
        is_first_table = part.kind == "tables" and not number
        if not (is_first_table or keep(part.kind, length) or remaining <= len(DOTS)):
            return _joined([*texts[:number], DOTS], [*glue[:number], glue[-1] or " "])
        remaining -= len(text)
    return _joined(texts, glue)


def _joined(texts: Sequence[str], glue: Sequence[str]) -> str:
    pairs = zip(glue, texts, strict=True)
    return "".join(text if not number else g + text for number, (g, text) in enumerate(pairs))

"""Searches in a subset of Auth0's query language, as conditions in SQL.

A search consists of terms joined by AND or by OR, such as ``email:"a@example.org"``,
``name:Mor*``, ``blocked:true``, or ``created_at:[2026-01-01 TO 2026-02-01}``: square brackets
include a bound, braces exclude it, and an asterisk is an open end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum, auto

from aspen.local.auth0.management import ManagementError, bad_query
from aspen.local.auth0.settings import iso

_TERM = re.compile(
    r"(?:(?P<joint>AND|OR)\b)?\s*(?P<field>[\w.]+):"
    r'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<range>[\[{][^\[\]{}]*[\]}])'
    r'|(?P<bare>[^\s"()\[\]{}]+))\s*'
)
_RANGE = re.compile(r'([\[{])\s*("?)([^\s"]+)\2\s+TO\s+("?)([^\s"]+)\4\s*([\]}])')
_TRUTH = {"true": 1, "false": 0}
# A year, month, day, minute, or second, which stands for all moments in it.
_PERIOD = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d:\d\d(:\d\d)?)?)?)?")
_START = "0001-01-01T00:00:00"
_LAST = "~"  # sorts after every character of a time


class Kind(Enum):
    """The type of a field, which determines its comparisons."""

    TEXT = auto()
    """Ignores case."""
    EXACT = auto()
    """Distinguishes case."""
    BOOLEAN = auto()
    TIME = auto()
    """Seconds since 1970, compared as Auth0 shows them: to the millisecond."""


Fields = Mapping[str, tuple[str, Kind]]
"""The column and the type of each field that a search may name."""


def conditions(query: str, fields: Fields) -> tuple[str, dict[str, object]]:
    """Return a search as an SQL condition, and its parameters; an empty one is always true.

    Raises:
        ManagementError: The search is not valid, or uses more of the language than this subset.
    """
    terms: list[str] = []
    joints: set[str] = set()
    values: dict[str, object] = {}
    position = 0
    while position < len(query.rstrip()):
        term = _TERM.match(query, position)
        if not term or bool(term["joint"]) != bool(terms) or term["field"] not in fields:
            raise _unclear(query)
        if terms:
            joints.add(term["joint"])
        terms.append(_condition(query, term, *fields[term["field"]], values))
        position = term.end()
    if len(joints) > 1:
        raise _unclear(query)
    return f" {''.join(joints)} ".join(terms) or "true", values


def _condition(
    query: str, term: re.Match[str], column: str, kind: Kind, values: dict[str, object]
) -> str:
    quoted, bare, name = term["quoted"], term["bare"], f"value{len(values)}"
    if kind is Kind.TIME and term["range"]:
        return _in_range(query, term["range"], column, values)
    if term["range"] or kind is Kind.TIME or (kind is Kind.BOOLEAN and bare not in _TRUTH):
        raise _unclear(query)
    if kind is Kind.BOOLEAN:
        values[name] = _TRUTH[bare]
        return f"{column} = :{name}"
    if quoted is not None:
        values[name] = re.sub(r"\\(.)", r"\1", quoted)
        return f"{column} = :{name} COLLATE {'NOCASE' if kind is Kind.TEXT else 'BINARY'}"
    if kind is Kind.EXACT:
        values[name] = re.sub(r"([?\[])", r"[\1]", bare)
        return f"{column} GLOB :{name}"
    values[name] = re.sub(r"([%_\\])", r"\\\1", bare).replace("*", "%")
    return f"{column} LIKE :{name} ESCAPE '\\'"


def _in_range(query: str, text: str, column: str, values: dict[str, object]) -> str:
    """Return the condition that a time is in a range."""
    parts = _RANGE.fullmatch(text)
    if parts is None:
        raise _unclear(query)
    opening, _, first, _, last, closing = parts.groups()
    limits = []
    # A period is included as a whole, or excluded as a whole.
    for bound, included, when_included, when_excluded in (
        (first, opening == "[", (">=", ""), (">", _LAST)),
        (last, closing == "]", ("<=", _LAST), ("<", "")),
    ):
        if bound != "*":
            comparison, suffix = when_included if included else when_excluded
            name = f"value{len(values)}"
            values[name] = _bound(query, bound) + suffix
            limits.append(f"iso({column}) {comparison} :{name}")
    return f"({' AND '.join(limits) or f'{column} IS NOT NULL'})"


def _bound(query: str, text: str) -> str:
    """Return a bound of a range as the start of all times in it."""
    plain = text.removesuffix("Z")
    try:
        if _PERIOD.fullmatch(plain):
            datetime.fromisoformat(plain + _START[len(plain) :])
            return plain
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise _unclear(query) from error
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return iso(aware.timestamp()).removesuffix("Z")


def _unclear(query: str) -> ManagementError:
    return bad_query(f"'Object didn't pass validation for format lucene: {query}' on property q.")

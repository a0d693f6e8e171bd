r"""The output of results through a jq expression or a template.

A template is text with placeholders, applied to each row as it has it in JSON:

    text        = { literal | "{{" | "}}" | "\n" | "\t" | "\\" | placeholder }
    placeholder = "{" path [ "|" filter ] "}"
    path        = "." | name { "." ( name | number ) }
    filter      = "json" | "sh" | "csv" | "count"

It reads values and does nothing else: no attributes, no calls, no loops.
"""

from __future__ import annotations

import io
import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aspencli.cli.output.formats import Column, NamedRow, Row, as_mapping, plain, write_rows
from aspencli.errors import BadInputError
from aspencli.text import csv_cell, json_document, json_text, nearest, no_formula, visible

if TYPE_CHECKING:
    from aspencli.cli.output.formats import Results

_MANUAL = "https://jqlang.org/manual/"
_WHITE = "\n\t"


class Filter(ABC):
    """A way to print results that replaces the formats."""

    @abstractmethod
    def rows(self, columns: Sequence[Column], rows: Iterable[Row | NamedRow]) -> Iterator[str]:
        """Yield the lines for rows.

        Raises:
            BadInputError: It does not fit the rows.
        """

    @abstractmethod
    def document(self, value: Any) -> Iterator[str]:
        """Yield the lines for one JSON value; see `rows`."""


def _safe(text: str) -> str:
    """Return text of data for any stream; its line breaks and tabs are kept."""
    if text.isprintable():
        return text
    return "".join(char if char in _WHITE else visible(char) for char in text)


# jq


class Jq(Filter):
    """A jq expression.

    With JSON Lines it is applied to each row, in constant memory; with JSON, to the list of rows.

    Raises:
        BadInputError: The package is not installed, or the expression cannot be parsed.
    """

    def __init__(self, expression: str, *, by_row: bool, command: str):
        try:
            import jq
        except ImportError as error:
            raise BadInputError(
                "--jq requires the Python package jq, which is not installed.",
                hint="Install it: python -m pip install 'aspencli[jq]', or pipe the result of "
                "--output json to the program jq.",
            ) from error
        self._by_row, self._command = by_row, command
        try:
            self._program = jq.compile(expression)
        except ValueError as error:
            lines = str(error).removeprefix("jq: ").splitlines() or [""]
            raise BadInputError(
                f"Invalid value for --jq: {lines[0].removeprefix('error: ')}",
                hint=f"Put the expression in single quotes, such as '.[].name'. Manual: {_MANUAL}",
                details=[line for line in lines[1:] if line and "compile error" not in line],
            ) from error

    def rows(self, columns: Sequence[Column], rows: Iterable[Row | NamedRow]) -> Iterator[str]:
        """Yield the lines for rows; see `Filter.rows`."""
        fields = ", ".join(column.key for column in columns)
        if self._by_row:
            for row in rows:
                yield from self._apply(_as_json(columns, "jsonl", [row]), f"one row ({fields})")
        else:
            what = f"a list of rows ({fields}), so begin with .[]"
            yield from self._apply(_as_json(columns, "json", rows), what)

    def document(self, value: Any) -> Iterator[str]:
        """Yield the lines for one JSON value; see `Filter.rows`."""
        yield from self._apply(json_document(value), "one object")

    def _apply(self, text: str, what: str) -> Iterator[str]:
        try:
            for value in self._program.input_text(text):
                yield _safe(value) if isinstance(value, str) else json_text(value)
        except ValueError as error:
            raise BadInputError(
                f"The --jq expression failed: {error}",
                hint=f"Its input is {what}. For the types: {_schema_of(self._command)}",
            ) from error


def _schema_of(command: str) -> str:
    program, _, words = command.partition(" ")
    return f"{program} schema {words}"


def _as_json(columns: Sequence[Column], form: str, rows: Iterable[Row | NamedRow]) -> str:
    text = io.StringIO()
    write_rows(text, form, columns, rows)
    return text.getvalue()


# Templates


def _joined(value: Any) -> str:
    """Return a value as people read it: the items of a list with commas."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(map(_joined, value))
    return json_text(value) if isinstance(value, dict) else str(value)


def _count(value: Any) -> str:
    if value is None:
        return "0"
    return str(len(value)) if isinstance(value, (list, dict)) else "1"


_FILTERS: dict[str, Callable[[Any], str]] = {
    "json": json_text,
    "sh": lambda value: shlex.quote(_joined(value)),
    "csv": lambda value: csv_cell(no_formula(_joined(value))),
    "count": _count,
}
_TOKEN = re.compile(r"\{\{|\}\}|\\[nt\\]|\{([^{}]*)\}|[{}]")
_LITERALS = {"{{": "{", "}}": "}", r"\n": "\n", r"\t": "\t", "\\\\": "\\"}
_SYNTAX = (
    "Write {name}, {name.part}, or {name|filter}, with one of the filters "
    f"{', '.join(_FILTERS)}; {{{{ and }}}} are braces."
)


@dataclass(frozen=True)
class _Place:
    """A placeholder."""

    typed: str
    path: tuple[str, ...]
    show: Callable[[Any], str]

    def text(self, row: Any) -> str:
        """Return its text for a row."""
        value = row
        for number, name in enumerate(self.path):
            value = _member(value, name, self.path[:number])
        return _safe(self.show(value))


def _member(value: Any, name: str, before: Sequence[str]) -> Any:
    if isinstance(value, list):
        if name.isdigit():
            return value[int(name)] if int(name) < len(value) else None
        return [_member(item, name, before) for item in value]
    if value is None:
        return None
    if isinstance(value, Mapping) and name in value:
        return value[name]
    place = ".".join(before) or "the result"
    has = ", ".join(map(str, value)) if isinstance(value, Mapping) else ""
    raise BadInputError(
        f"The template does not fit the result: {place} has no part {name}.",
        hint=f"It has: {has}." if has else f"{place} is a single value.",
    )


class Template(Filter):
    """Text with placeholders, for each row.

    Raises:
        BadInputError: It cannot be parsed, or names a field that the command does not have.
    """

    def __init__(self, text: str, fields: Sequence[str] | None):
        self._parts: list[str | _Place] = []
        end = 0
        for token in _TOKEN.finditer(text):
            self._parts.append(text[end : token.start()])
            self._parts.append(self._part(token, fields))
            end = token.end()
        self._parts.append(text[end:])

    def _part(self, token: re.Match[str], fields: Sequence[str] | None) -> str | _Place:
        if token[0] in _LITERALS:
            return _LITERALS[token[0]]
        if token[1] is None:
            raise BadInputError(
                f"Invalid value for --template: unmatched {token[0]} at character "
                f"{token.start() + 1}",
                hint=_SYNTAX,
            )
        path, bar, name = (part.strip() for part in token[1].partition("|"))
        if (bar and name not in _FILTERS) or not path:
            what = f"unknown filter {name!r}" if path else "an empty placeholder"
            raise BadInputError(f"Invalid value for --template: {what}", hint=_SYNTAX)
        names = () if path == "." else tuple(path.split("."))
        if names and fields is not None and names[0] not in fields:
            near = nearest(names[0], fields)[:1]
            lead = f"Did you mean {near[0]}? " if near else ""
            raise BadInputError(
                f"Unknown field in --template: {names[0] or path}",
                hint=f"{lead}Choose from: {', '.join(fields)}.",
            )
        return _Place(token[0], names, _FILTERS[name] if bar else _joined)

    def rows(self, columns: Sequence[Column], rows: Iterable[Row | NamedRow]) -> Iterator[str]:
        """Yield a text for each row; see `Filter.rows`."""
        keys = [column.key for column in columns]
        for row in rows:
            values = as_mapping(row)
            yield from self.document({key: plain(values[key]) for key in keys})

    def document(self, value: Any) -> Iterator[str]:
        """Yield the text for one JSON value; see `Filter.rows`."""
        yield "".join(p if isinstance(p, str) else p.text(value) for p in self._parts)


def template_for(results: Results | None, text: str, command: str) -> Template:
    """Return the template for the results of a command.

    Raises:
        BadInputError: It cannot be used, see `Template`, or there are no results.
    """
    if results is None:
        raise _no_results("--template", command)
    # A document has other fields than the rows in its place.
    names = [column.key for column in results.columns()]
    return Template(text, None if results.document is not None else names)


def jq_for(results: Results | None, expression: str, command: str, *, by_row: bool) -> Jq:
    """Return the jq expression for the results of a command; see `template_for`."""
    if results is None:
        raise _no_results("--jq", command)
    return Jq(expression, by_row=by_row, command=command)


def _no_results(option: str, command: str) -> BadInputError:
    return BadInputError(
        f"{option} does not apply to {command}, which has no JSON output.",
        hint="List the commands that have: aspencli schema",
    )

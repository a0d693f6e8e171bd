"""Reports of diagnostics: cells, columns, and notes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aspencli.cli.output.console import Output
from aspencli.cli.output.formats import Column
from aspencli.cli.output.sql_summary import one_line
from aspencli.diagnostics import Report, Shown
from aspencli.text import duration_text, size_text

_SECOND = 1_000  # milliseconds
_RIGHT = frozenset({"right", "seconds", "millis", "bytes", "share"})


def show_report(out: Output, columns: Sequence[tuple[str, str, str]], report: Report) -> None:
    """Show the rows, and the notes below them.

    Args:
        out: Destination.
        columns: Columns as `aspencli.diagnostics.Diagnostic` describes them.
        report: Rows and notes.
    """
    people = out.chosen_form == "table"
    unwanted = {key for key, _, words in columns if "omit" in words} | set(report.without)
    out.rows(
        [_column(*each) for each in columns if not (people and each[0] in unwanted)],
        [{key: shown(out, row[key], words) for key, _, words in columns} for row in report.rows],
        empty=report.empty,
    )
    for kind, message in (*(report.asides if people else ()), *report.notes):
        {"info": out.info, "warn": out.warn, "hint": out.hint}[kind](message)


def shown(out: Output, value: Any, words: str) -> Any:
    """Return a value as text for a table, and unchanged otherwise.

    Args:
        out: Destination.
        value: Value, or text and value.
        words: Words that tell what it is, as in the columns of a diagnostic.
    """
    people = out.chosen_form == "table"
    if isinstance(value, Shown):
        return value.text if people else value.value
    kind = next((word for word in words.split() if word in _TEXTS), None)
    return _TEXTS[kind](value) if people and kind and value is not None else value


def _column(key: str, title: str, words: str) -> Column:
    given = frozenset(words.split())
    return Column(
        key,
        title,
        right=not given.isdisjoint(_RIGHT),
        secondary="secondary" in given,
        whole="whole" in given,
        sql="sql" in given,
    )


def _millis(millis: float) -> str:
    return f"{millis:.1f} ms" if millis < _SECOND else duration_text(millis / _SECOND)


_TEXTS: dict[str, Callable[[Any], str]] = {
    "seconds": duration_text,
    "millis": _millis,
    "bytes": size_text,
    "share": "{:.0%}".format,
    "list": lambda values: ", ".join(map(str, values)),
    "sql": one_line,
}

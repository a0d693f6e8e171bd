"""Conversion of a file's rows to COPY lines, and of a plan's cells to changes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from aspen.database.bulk.rows import KEEP, Cell, Change, Request
from aspen.database.bulk.spec import Spec
from aspen.database.copy import NULL, copy_line

_ODD = re.compile(r"[\\\t\n\r]").search


def lines_of(spec: Spec, requests: Iterable[Request]) -> Iterator[str]:
    """Return the requests in COPY's text format, for the table of `plan_sql.create_rows`."""
    if spec.is_plain and not spec.expects:
        return _plain_lines(requests)
    return _lines(spec, requests)


def _plain_lines(requests: Iterable[Request]) -> Iterator[str]:
    for line, key, (value,), _expected, _within, _label in requests:
        # Control characters were rejected earlier, so only backslashes need escaping.
        if value.__class__ is str and "\\" not in key and "\\" not in value:
            yield f"{line}\t{key}\t{value}\n"
        else:
            yield copy_line(line, key, value)


def _lines(spec: Spec, requests: Iterable[Request]) -> Iterator[str]:
    partial, expects, labels = spec.partial, spec.expects, spec.tells_label
    within = spec.within is not None
    for line, key, values, expected, place, label in requests:
        cells = [str(line), _cell(key)]
        if labels:
            cells.append(_cell(label))
        if within:
            cells.append(_cell(place))
        for number, value in enumerate(values):
            cells.append(_cell(value))
            if partial:
                cells.append("f" if value is KEEP else "t")
            if expects:
                cells.append(_cell(expected[number] if expected else None))
        cells[-1] += "\n"
        yield "\t".join(cells)


def _cell(value: Cell) -> str:
    if isinstance(value, str):
        return copy_line(value)[:-1] if _ODD(value) else value
    return NULL


def changes_of(spec: Spec) -> Callable[[Sequence[Any]], tuple[Change, ...]]:
    """Return a function that converts the cells queried by `sql_read` to changes."""
    if spec.is_plain:
        (column,) = spec.columns
        return lambda cells: (Change(column.name, *cells),)
    # For each column: whether it is given, the old value, the new value, whether they are the same.
    parts, start = [], 0
    for column in spec.columns:
        first = start + spec.partial
        end = first + (3 if column.reference else 2)
        if not column.hidden:
            parts.append((column.name, start if spec.partial else None, first, end))
        start = end

    def changes(cells: Sequence[Any]) -> tuple[Change, ...]:
        return tuple(
            [
                Change(name, *cells[first:end])
                for name, named, first, end in parts
                if named is None or cells[named]
            ]
        )

    return changes

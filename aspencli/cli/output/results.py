"""Declarations of what commands print, for ``--columns`` and for ``aspencli schema``.

Only the standard library is imported here, because every command module declares its results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from typing import Any, TypedDict, TypeVar

from aspencli.cli.output.formats import Column

Function = TypeVar("Function", bound=Callable[..., Any])
_NAME = "results"  # the attribute of the function, which decorators copy


@dataclass(frozen=True)
class Results:
    """The declared results of a command.

    Attributes:
        given: The columns of its rows; several if it prints one kind of rows or another. A name
            such as ``package.module:NAME`` is imported when it is needed.
        row: The class of the rows, or its name, for the types of columns that do not state theirs.
        document: The type of an object, or its name, that JSON has in place of the first kind of
            rows.
    """

    given: tuple[tuple[Column, ...] | str, ...]
    row: type | str | None = None
    document: Any = None

    def tables(self) -> Iterator[tuple[Column, ...]]:
        """Yield the columns of each kind of rows."""
        for table in self.given:
            yield load(table) if isinstance(table, str) else table

    def columns(self) -> Iterator[Column]:
        """Yield the columns of all kinds of rows, each name once."""
        found: dict[str, Column] = {}
        for column in (column for table in self.tables() for column in table):
            found.setdefault(column.key, column)
        yield from found.values()


def load(name: str) -> Any:
    """Return what has a name such as ``package.module:NAME``."""
    module, _, path = name.partition(":")
    return attrgetter(path)(import_module(module))


def shape(name: str, keys: Iterable[str], **types: Any) -> Any:
    """Return the type of objects with these keys: texts that may be missing, or as stated."""
    members = {**dict.fromkeys(keys, str | None), **types}
    return TypedDict(name, members)  # type: ignore[operator] # the keys are known at run time only


def prints(
    *tables: tuple[Column, ...] | str, row: type | str | None = None, document: Any = None
) -> Callable[[Function], Function]:
    """Return a decorator that declares what a command prints; see `Results`."""

    def declare(function: Function) -> Function:
        vars(function)[_NAME] = Results(tables, row, document)
        return function

    return declare


def results_of(command: Any) -> Results | None:
    """Return what a command prints, or None if it prints no rows and no document."""
    found = getattr(command.callback, _NAME, None)
    return found if isinstance(found, Results) else None

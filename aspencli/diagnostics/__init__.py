"""Read-only diagnostics from a server's system catalogs, for any target.

Each module with a `DIAGNOSTIC` answers one question: it holds the SQL, the columns of the answer,
and what the doctor makes of it. The commands of `aspencli db` are built from these modules, so
adding one adds a command. They are imported for its help: they import SQLAlchemy and the driver
only inside functions. PostgreSQL 13 to 18 are supported: a column that not every version has is
looked up before it is used, or read from the row as JSON.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from aspen.database.engine import Database
    from aspen.database.sessions import ReadSession


class Severity(enum.Enum):
    """The severity of a result, mildest first."""

    OK = "ok"
    NOTE = "note"
    UNKNOWN = "unknown"
    WARNING = "warning"
    PROBLEM = "problem"

    @property
    def weight(self) -> int:
        """Return the severity as a number; higher is worse."""
        return list(Severity).index(self)


@dataclass(frozen=True)
class Examined:
    """The verdict of a check, what was found, and the next step."""

    verdict: Severity
    message: str
    step: str | None = None
    details: tuple[str, ...] = ()  # worst first
    check: str = ""  # the doctor fills it in


class Option(NamedTuple):
    """An option of a diagnostic's command.

    Attributes:
        parameter: The parameter of the diagnostic's function that gets its value.
        name: The name on the command line; a metavar in brackets for arguments.
        help: Its line in the help.
        choices: The values to choose from, the default first; empty for a flag or an argument.
        several: Whether it is repeatable, and by default empty.
    """

    parameter: str
    name: str
    help: str
    choices: tuple[str, ...] = ()
    several: bool = False


LIMIT = Option("limit", "--limit", "")
"""The maximum number of rows, together with ``--all``; None for all rows."""


class Shown(NamedTuple):
    """A value, and the text that stands for it in tables."""

    value: Any
    text: str


class Report(NamedTuple):
    """The answer of a diagnostic.

    Attributes:
        rows: The rows, by column key; a value may be a `Shown`.
        empty: The message if there are no rows.
        notes: Messages below the rows, each with its kind: ``info``, ``warn`` or ``hint``.
        asides: Messages before these that only tables have, because their columns lack them.
        without: The keys of columns that tables leave out this time.
    """

    rows: Sequence[dict[str, Any]]
    empty: str = ""
    notes: Sequence[tuple[str, str]] = ()
    asides: Sequence[tuple[str, str]] = ()
    without: Collection[str] = ()


class Diagnostic(NamedTuple):
    """A question about a database, with its command.

    Attributes:
        report: Returns the answer, given a session and the values of the options; its docstring
            is the command's help.
        columns: The columns, as key, title, and words for tables: ``right`` aligns it,
            ``secondary`` shortens or drops it first, ``whole`` never cuts it, ``omit`` leaves it
            out, and ``seconds``, ``millis``, ``bytes``, ``share``, ``list``, ``sql``, ``number``,
            and ``flag`` tell what the values are, as ``right`` does for whole numbers.
        examples: The examples in the help.
        place: The place among the commands and checks.
        check: Returns the doctor's verdict.
        panel: The panel of the group's help.
        options: The options.
        opens: Opens the command's session; None for one as all diagnostics have it. The doctor
            has one for all checks.
    """

    report: Callable[..., Report]
    columns: Sequence[tuple[str, str, str]]
    examples: Sequence[str]
    place: int = 1_000
    check: Callable[[ReadSession], Examined] | None = None
    panel: str = "Health"
    options: Sequence[Option] = ()
    opens: Callable[[Database], AbstractContextManager[ReadSession]] | None = None


@cache
def diagnostics() -> dict[str, Diagnostic]:
    """Return the diagnostics by name, which is that of their module, ordered by place."""
    modules = {one.name: import_module(f"{__name__}.{one.name}") for one in iter_modules(__path__)}
    found = {
        name: module.DIAGNOSTIC for name, module in modules.items() if hasattr(module, "DIAGNOSTIC")
    }
    return dict(sorted(found.items(), key=lambda item: item[1].place))

"""Cells, columns, and notes of tables about the state of a database."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import TYPE_CHECKING

from aspencli.cli.output.console import Output
from aspencli.cli.output.formats import Column
from aspencli.cli.output.sql_summary import one_line
from aspencli.text import counted, duration_text, size_text

if TYPE_CHECKING:
    from aspencli.diagnostics.session import Rights


OUTLIER_COLUMNS = (
    Column("total_ms", "Total", right=True),
    Column("share", "Share", right=True),
    Column("calls", "Calls", right=True),
    Column("mean_ms", "Mean", right=True),
    Column("max_ms", "Slowest", right=True, secondary=True),
    Column("rows", "Rows", right=True, secondary=True),
    Column("hit", "Cache hit", right=True, secondary=True),
    Column("read_bytes", "Read", right=True, secondary=True),
    Column("read_ms", "Read time", right=True, secondary=True),
    Column("temp_bytes", "Temp", right=True, secondary=True),
    Column("user", "User", secondary=True),
    Column("query_id", "Query ID", secondary=True),
    Column("query", "Statement", sql=True),
)
SIZE_COLUMNS = (
    Column("table", "Table", whole=True),
    Column("rows", "Rows", right=True),
    Column("total", "Total", right=True),
    Column("heap", "Heap", right=True),
    Column("toast", "TOAST", right=True, secondary=True),
    Column("indexes", "Indexes", right=True),
    Column("estimated", "Estimated", secondary=True),
)
INDEX_COLUMNS = (
    Column("finding", "Finding"),
    Column("table", "Table", whole=True),
    Column("index", "Index or key", whole=True),
    Column("columns", "Columns", secondary=True),
    Column("rows", "Rows", right=True, secondary=True),
    Column("size", "Size", right=True),
    Column("scans", "Scans", right=True, secondary=True),
    Column("why", "Why", secondary=True),
    Column("step", "Statement", secondary=True),
)
BLOAT_COLUMNS = (
    Column("kind", "Kind", secondary=True),
    Column("name", "Name", whole=True),
    Column("table", "Table", secondary=True),
    Column("size", "Size", right=True),
    Column("wasted", "Wasted", right=True),
    Column("share", "Share", right=True),
    Column("dead_rows", "Dead rows", right=True, secondary=True),
    Column("vacuumed", "Vacuumed", secondary=True, whole=True),
    Column("analysed", "Analyzed", secondary=True, whole=True),
    Column("step", "Statement", secondary=True),
)
SETTING_COLUMNS = (
    Column("name", "Setting", whole=True),
    Column("value", "Value"),
    Column("default", "Default", secondary=True),
    Column("source", "Source"),
    Column("pending_restart", "Pending restart", secondary=True),
    Column("remark", "Remark"),
    Column("about", "Description", secondary=True),
)
_SECOND = 1_000  # milliseconds
_STEPS = 10  # statements listed below a table
_NAMED = 5  # tables named in a message


def seconds_text(out: Output, seconds: float | None) -> float | str | None:
    """Return seconds as text for a table, as a number otherwise."""
    if seconds is None or out.chosen_form != "table":
        return seconds
    return duration_text(seconds)


def bytes_text(out: Output, size: int | None) -> int | str | None:
    """Return bytes as text for a table, as a number otherwise."""
    return size_text(size) if size is not None and out.chosen_form == "table" else size


def query_text(out: Output, query: str | None) -> str | None:
    """Return a statement on one line for a table, which may shorten it; unchanged otherwise."""
    if query is None or out.chosen_form != "table":
        return query
    return one_line(query)


def warn_hidden(out: Output, rights: Rights, count: int, noun: str, part: str) -> None:
    """Warn about what the server hides from this user, and show how to make it visible."""
    if count:
        out.warn(f"User {rights.user} cannot see {part} {counted(count, noun)} of other users.")
        out.hint(f"Ask an administrator to run: {rights.cure}")


def millis_text(out: Output, millis: float | None) -> float | str | None:
    """Return milliseconds as text for a table, as a number otherwise."""
    if millis is None or out.chosen_form != "table":
        return millis
    return f"{millis:.1f} ms" if millis < _SECOND else duration_text(millis / _SECOND)


def share_text(out: Output, share: float | None) -> float | str | None:
    """Return a share as a percentage for a table, as a number from 0 to 1 otherwise."""
    return f"{share:.0%}" if share is not None and out.chosen_form == "table" else share


def for_people(out: Output, columns: Sequence[Column], without: Set[str]) -> list[Column]:
    """Return the columns; for a table, without the less important ones."""
    people = out.chosen_form == "table"
    return [column for column in columns if not (people and column.key in without)]


def print_next_steps(out: Output, steps: Sequence[str]) -> None:
    """List corrective statements below a table, whose cells would truncate them."""
    if out.chosen_form == "table":
        for step in steps[:_STEPS]:
            out.hint(step)
        if len(steps) > _STEPS:
            out.info(f"{len(steps) - _STEPS} more statements not shown; show all with -o json")


def warn_omitted(out: Output, tables: Sequence[str], how: str) -> None:
    """Warn about tables that could not be examined because another session locks them."""
    if tables:
        verb = "is" if len(tables) == 1 else "are"
        names = ", ".join(tables[:_NAMED]) + (" ..." if len(tables) > _NAMED else "")
        out.warn(
            f"{counted(len(tables), 'table')} {verb} locked by another session, and {how}: {names}"
        )
        out.hint("Find the session: aspencli db activity")

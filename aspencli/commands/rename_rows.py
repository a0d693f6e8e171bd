"""What bulk renames show: columns, which are contracts, and the rows and words for them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from aspencli.output.rendering import Column, Row, write_rows
from aspencli.output.text import visible
from aspencli.services.report import reason_of

if TYPE_CHECKING:
    from db.bulk.rename_types import MovedRow, Plan, PlannedRow, Problem

PLAN_COLUMNS = (
    Column("line", "Line", right=True, whole=True),
    Column("private_identifier", "Private identifier", whole=True),
    Column("public_identifier_before", "Public identifier now", whole=True),
    Column("public_identifier_after", "Public identifier then", whole=True),
    Column("action", "Action"),
)
MOVED_COLUMNS = (
    Column("private_identifier", "Private identifier", whole=True),
    Column("public_identifier_written", "Public identifier as written", whole=True),
    Column("public_identifier_now", "Public identifier now", whole=True),
)
RESULT_COLUMNS = (
    Column("group_id", "Group"),
    Column("group", "Name"),
    Column("rows", "Rows", right=True),
    Column("changed", "Changed", right=True),
    Column("already", "Already so", right=True),
    Column("left_out", "Left alone", right=True),
    Column("undo_file", "Undo file", whole=True),
    Column("run", "Run"),
)


def plan_row(row: PlannedRow) -> Row:
    """A row of the plan."""
    return {
        "line": row.line,
        "private_identifier": row.private_identifier,
        "public_identifier_before": row.before,
        "public_identifier_after": row.after,
        "action": row.action,
    }


def moved_row(row: MovedRow) -> Row:
    """A row that somebody changed since it was written."""
    return {
        "private_identifier": row.private_identifier,
        "public_identifier_written": row.expected,
        "public_identifier_now": row.found,
    }


def write_moved(path: Path, rows: Iterable[MovedRow]) -> Path:
    """Write such rows to a CSV file that only its owner may read; the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    with path.open("w", encoding="utf-8", newline="") as file:
        write_rows(file, "csv", MOVED_COLUMNS, map(moved_row, rows))
    return path


def problem_line(problem: Problem) -> str:
    """A problem as one line of text."""
    return visible(f"line {problem.line}: {reason_of(problem)}")


def nothing_to_do(plan: Plan) -> str:
    """Why nothing was changed."""
    if not plan.rows:
        return "Nothing to change: the file holds no rows."
    if plan.left_out:
        return "Nothing was changed."
    return "Nothing to change: it is so already."


def samples(count: int) -> str:
    """So many samples, in words."""
    return f"{count:,} sample" + ("" if count == 1 else "s")

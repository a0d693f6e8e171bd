"""Output shared by all bulk runs: the result, and text for problems."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from aspencli import files
from aspencli.commands.bulk_views import View
from aspencli.output.rendering import Column, write_rows
from aspencli.output.text import visible
from aspencli.services.report import reason_of

if TYPE_CHECKING:
    from db.bulk.rows import MovedRow, Plan, Problem

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
TALLY_COLUMNS = (
    Column("rows", "Rows", right=True),
    Column("created", "Created", right=True),
    Column("changed", "Changed", right=True),
    Column("deleted", "Deleted", right=True),
    *RESULT_COLUMNS[-4:],
)


def write_moved(path: Path, view: View, rows: Iterable[MovedRow]) -> Path:
    """Write rows changed since to a CSV file readable by its owner only; return its path."""
    files.make_folder(path.parent)
    with os.fdopen(files.create(path), "w", encoding="utf-8", newline="") as file:
        write_rows(file, "csv", view.moved_columns, map(view.moved_row, rows))
    return path


def problem_line(problem: Problem) -> str:
    """Return a problem as one line of text."""
    return visible(f"line {problem.line}: {reason_of(problem)}")


def nothing_to_do(plan: Plan) -> str:
    """Return a message that says why nothing was changed."""
    if not plan.rows:
        return "Nothing to change: the file holds no rows."
    if plan.left_out:
        return "Nothing was changed."
    return "Nothing to change: it is so already."

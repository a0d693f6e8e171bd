"""The first rows, and the note about the remaining ones."""

from __future__ import annotations

import io
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from aspencli.cli.output.console import Output, show_page
from aspencli.cli.output.formats import Column

COLUMNS = (Column("id", "Id"),)


class Number(NamedTuple):
    """A row."""

    id: int


@dataclass
class Numbers:
    """A list of a given size, and the number of rows requested from it."""

    size: int
    asked: int | None = -1
    counted: int = 0

    def rows(self, limit: int | None) -> Generator[Any, None, None]:
        self.asked = limit
        end = self.size if limit is None else min(limit, self.size)
        yield from map(Number, range(1, end + 1))

    def count(self) -> int:
        self.counted += 1
        return self.size


def _page(size: int, limit: int | None) -> tuple[list[int], str, Numbers]:
    found, out, err = Numbers(size), io.StringIO(), io.StringIO()
    show_page(Output("tsv", stdout=out, stderr=err), COLUMNS, found, limit, noun="numbers")
    return [int(line) for line in out.getvalue().splitlines()[1:]], err.getvalue(), found


@pytest.mark.parametrize(("size", "limit"), [(3, None), (3, 3), (2, 3)])
def test_page_with_all_rows_shows_no_note_and_runs_no_count(size: int, limit: int | None) -> None:
    shown, said, found = _page(size, limit)
    assert (shown, said, found.counted) == (list(range(1, size + 1)), "", 0)


def test_page_with_remaining_rows_shows_total_and_next_page_hint() -> None:
    shown, said, found = _page(12_345, 3)
    assert shown == [1, 2, 3]
    assert said == (
        "3 of 12,345 numbers shown\n→ Show all with --all, or the next page with --after 3.\n"
    )
    assert found.asked == 4  # just enough to know that there are more


def test_empty_page_reports_no_rows_found() -> None:
    assert _page(0, 3)[:2] == ([], "No numbers found.\n")

"""Writes the table of docs/guides/old-runbook.md from old-spellings.toml, or compares it."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

SOURCE = Path(__file__).with_name("old-spellings.toml")
TARGET = Path(__file__).with_name("guides") / "old-runbook.md"
_HEADER = "| old | here | ends with |\n|---|---|---|\n"


def render(page: str) -> str:
    """Return the page with its first table as the data has it."""
    rows = tomllib.loads(SOURCE.read_text(encoding="utf-8"))["row"]
    lines = [f"| `{row['old']}` | {row['here']} | {row.get('ends', '')} |\n" for row in rows]
    before, _, after = page.partition(_HEADER)
    return (
        before + _HEADER + "".join(lines).replace("|  |", "| |") + after[after.index("\n\n") + 1 :]
    )


def main() -> int:
    """Write the table, or compare it with what is there."""
    found = TARGET.read_text(encoding="utf-8")
    page = render(found)
    if sys.argv[1:] != ["--check"]:
        TARGET.write_text(page, encoding="utf-8")
        return 0
    if page == found:
        return 0
    sys.stderr.write("docs/guides/old-runbook.md is out of date; run: make docs\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())

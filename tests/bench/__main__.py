"""``make bench``: every measurement, as a table and as JSON.

The arguments are the parts to measure (``startup``, ``renames``, ``local``; all by default),
``--json FILE``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench import local, renames, startup
from tests.bench.measuring import Comparison

PARTS: dict[str, Callable[[], Iterator[Comparison]]] = {
    "startup": startup.measure,
    "renames": lambda: renames.measure(100_000, 200_000, rounds=5),
    "local": local.measure,
}


def main() -> int:
    """Measure; exit with 1 where a goal is missed."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="what to measure")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    chosen = parser.parse_args()
    table = Table("measured", "baseline", "ours s", "theirs s", "ratio", "goal", "MB", box=None)
    found: list[Comparison] = []
    console = Console(stderr=True)
    for part in chosen.parts or PARTS:
        with console.status(f"Measuring {part} ..."):
            found.extend(PARTS[part]())
    for one in found:
        table.add_row(*_cells(one), style=None if one.holds else "red")
    Console(width=130 if not sys.stdout.isatty() else None).print(table)
    if chosen.json:
        rows = [{**asdict(one), "ratio": one.ratio, "holds": one.holds} for one in found]
        chosen.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0 if all(one.holds for one in found) else 1


def _cells(one: Comparison) -> list[str]:
    return [
        one.name,
        one.baseline,
        f"{one.ours.seconds:.3f}",
        f"{one.theirs.seconds:.3f}",
        f"{one.ratio:.2f}",
        f"≤ {one.goal:g}",
        f"{one.ours.peak_mb:.0f} / {one.theirs.peak_mb:.0f}",
    ]


if __name__ == "__main__":
    sys.exit(main())

"""``make bench``: compare the commands and the service with hand-written code, as a table and JSON.

The default takes two or three minutes. ``make bench FULL=1`` takes half an hour: it uses a table of
2,000,000 samples, changes up to 1,000,000 of them, and reads lists of up to 1,000,000. ARGS selects
the parts to measure, and may contain ``--json FILE``. Three parts run only if selected:
``millions`` (a file of ten million rows; takes minutes, and 10 GB of disk), ``renames-api``
(through an API that is slow on purpose; takes minutes), and ``remote`` (through a bastion; needs
sshd, and a PostgreSQL with TLS). If ``profiler`` is selected, or with ``FULL=1``, it also records
concurrent threads and a million queries (three minutes).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from aspen.local.postgres.binaries import find_binaries
from benchmarks.speed import (
    api_lists,
    console,
    light,
    lists,
    local,
    millions,
    profiler,
    recording,
    remote,
    renames,
    renames_api,
    service,
    startup,
    workers,
)
from benchmarks.speed.lab import Lab, machine, opened
from benchmarks.speed.measuring import Comparison

_PARTS = (
    *("startup", "light", "console", "local", "profiler", "service", "renames", "swaps", "orm"),
    *("workers", "lists", "api-lists"),
    *("millions", "renames-api", "remote"),
)
_USUAL = _PARTS[:-3]
_SMALL, _LARGE = 200_000, 2_000_000  # samples
_SWAPS = {_SMALL: 20_000, _LARGE: 100_000}  # rows


def main() -> int:
    """Run the benchmarks; exit with 1 if a goal is missed."""
    chosen = _parser().parse_args()
    parts = chosen.parts or _USUAL
    screen = Console(stderr=True)
    found: list[Comparison] = []
    facts: dict[str, object] = {**machine(), "rounds": chosen.rounds}
    with screen.status("Measuring ...") as status:
        for one in _measured(parts, chosen.rounds, facts, full=chosen.full):
            found.append(one)
            status.update(f"Measured: {one.task} ({one.rows:,} rows) ...")
    Console(width=140 if not sys.stdout.isatty() else None).print(_table(found))
    if chosen.json:
        content = {"machine": facts, "comparisons": [one.as_json() for one in found]}
        chosen.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0 if all(one.holds for one in found) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *_PARTS], help="parts to measure")
    parser.add_argument(
        "--full", action="store_true", help="use the sizes that the goals are set for"
    )
    parser.add_argument("--rounds", type=int, default=5, help="number of runs of each measurement")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    return parser


def _measured(
    parts: Collection[str], rounds: int, facts: dict[str, object], *, full: bool
) -> Iterator[Comparison]:
    alone = {
        "startup": startup.measure,
        "light": light.measure,
        "console": console.measure,
        "local": local.measure,
        "service": lambda: service.measure(service.FULL if full else service.SMALL, rounds),
        "lists": lambda: lists.measure(lists.FULL if full else lists.SMALL, rounds),
        "api-lists": lambda: api_lists.measure(api_lists.FULL if full else api_lists.SMALL, rounds),
        "workers": lambda: workers.measure(rounds),
        "profiler": profiler.measure,
        "millions": millions.measure,
        "renames-api": renames_api.measure,
        "remote": remote.measure,
    }
    for part, measure in alone.items():
        if part in parts:
            yield from measure()
    if "profiler" in parts and (full or parts is not _USUAL):
        yield from recording.measure()
    facts["postgresql"] = find_binaries().version
    if {"renames", "swaps", "orm"}.intersection(parts):
        with opened(_LARGE if full else _SMALL) as lab:
            yield from _renamed(lab, parts, rounds, renames.FULL if full else renames.SMALL)


def _renamed(
    lab: Lab, parts: Collection[str], rounds: int, sizes: tuple[renames.Size, ...]
) -> Iterator[Comparison]:
    for size in sizes:
        if "renames" in parts:
            yield from renames.measure(lab, size, rounds)
    if "swaps" in parts:
        yield from renames.measure_swaps(lab, _SWAPS[lab.samples], rounds)
    for size in sizes:
        if "orm" in parts:
            yield from renames.measure_orm(lab, size, rounds)


def _table(found: list[Comparison]) -> Table:
    names = ("measured", "rows", "beside", "ours s", "theirs s", "ratio", "goal", "ours MB")
    table = Table(*names, "theirs MB", box=None)
    for one in found:
        table.add_row(*_cells(one), style=None if one.holds else "red")
    return table


def _cells(one: Comparison) -> list[str]:
    return [
        one.task,
        f"{one.rows:,}" if one.rows else "",
        one.baseline,
        f"{one.ours.seconds:.2f}",
        f"{one.theirs.seconds:.2f}",
        f"{one.ratio:.2f}",
        "" if one.goal is None else f"≤ {one.goal:g}",
        f"{one.ours.peak_mb:.0f}" + ("" if one.goal_mb is None else f" < {one.goal_mb:.0f}"),
        f"{one.theirs.peak_mb:.0f}",
    ]


if __name__ == "__main__":
    sys.exit(main())

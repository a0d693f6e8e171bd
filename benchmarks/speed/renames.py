"""Bulk renames compared with the same work by hand in psql, and with ORM objects."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.speed.lab import GROUP, Lab
from benchmarks.speed.measuring import Comparison, Contender, Sample, by_turns

PSQL = r"psql: \copy and one UPDATE"
ORM = "SQLAlchemy's ORM, as the service"
REPORT = "rename --report"
RENAME, AGAIN, AT_ONCE = "rename", "rename, again", "rename, again at once"
DRY_RUN = "rename --dry-run"
_MEMORY_MB = 64
_RENAMED = "bench_renamed"

_BY_HAND = """
BEGIN;
CREATE TEMPORARY TABLE mapping (private_identifier varchar, public_identifier varchar);
\\copy mapping FROM '{mapping}' WITH (FORMAT csv, HEADER)
UPDATE aspen.samples s SET public_identifier = m.public_identifier FROM mapping m
 WHERE s.submitting_group_id = {group} AND s.private_identifier = m.private_identifier;
COMMIT;
"""
# One UPDATE cannot pass on an identifier, so by hand all rows give theirs up first.
_BY_HAND_SWAPPED = _BY_HAND.replace(
    "UPDATE",
    "UPDATE aspen.samples s SET public_identifier = 'parked ' || s.id FROM mapping m\n"
    " WHERE s.submitting_group_id = {group} AND s.private_identifier = m.private_identifier;\n"
    "UPDATE",
)


@dataclass(frozen=True)
class Size:
    """A number of rows to rename, and the goals for it.

    Attributes:
        rows: The number of rows.
        goals: The highest acceptable ratio to psql, for each task that has a goal.
        orm_rounds: The maximum number of rounds with the ORM.
    """

    rows: int
    goals: Mapping[str, float]
    orm_rounds: int


FULL = (
    Size(1_000, {}, 5),
    Size(10_000, {}, 5),
    Size(100_000, {RENAME: 1.5, REPORT: 1.5, AGAIN: 0.4, DRY_RUN: 0.8}, 5),
    # The ORM takes minutes and 7 GB.
    Size(1_000_000, {RENAME: 1.3, REPORT: 1.3, AGAIN: 0.4, DRY_RUN: 0.8}, 1),
)
# Start-up is a large part of so little work.
SMALL = (Size(20_000, {RENAME: 2.5, AGAIN: 2.0, DRY_RUN: 2.0}, 1),)


def measure(lab: Lab, size: Size, rounds: int) -> Iterator[Comparison]:
    """Measure a rename with and without a report, a rerun with nothing to do, and a dry run.

    The rerun is measured twice: on a table as clean as the others get, and right after the first
    run, before the server has cleaned up.
    """
    mapping = lab.mapping(size.rows)
    _rename(lab, mapping)
    lab.keep(_RENAMED)
    found = by_turns(
        {
            PSQL: lambda: _by_hand(lab, mapping),
            RENAME: lambda: _rename(lab, mapping),
            AT_ONCE: lambda: lab.run(lab.renaming(mapping, "--yes")),  # before cleanup
            REPORT: lambda: _rename(lab, mapping, "--report", str(lab.folder / "report.csv")),
            AGAIN: lambda: _again(lab, mapping),
            DRY_RUN: lambda: _dry_run(lab, mapping),
        },
        rounds,
    )
    lab.drop(_RENAMED)
    for task in (RENAME, REPORT, AGAIN, AT_ONCE, DRY_RUN):
        yield Comparison(
            task,
            PSQL,
            found[task],
            found[PSQL],
            size.goals.get(task),
            rows=size.rows,
            samples=lab.samples,
            rounds=rounds,
            goal_mb=_MEMORY_MB,
        )


def measure_orm(lab: Lab, size: Size, rounds: int) -> Iterator[Comparison]:
    """Measure renames with ORM objects."""
    rounds = min(rounds, size.orm_rounds)
    mapping = lab.mapping(size.rows)
    found = by_turns(
        {ORM: lambda: _by_orm(lab, mapping), RENAME: lambda: _rename(lab, mapping)}, rounds
    )
    yield Comparison(
        RENAME,
        ORM,
        found[RENAME],
        found[ORM],
        rows=size.rows,
        samples=lab.samples,
        rounds=rounds,
        goal_mb=_MEMORY_MB,
    )


def measure_swaps(lab: Lab, rows: int, rounds: int) -> Iterator[Comparison]:
    """Measure the cost of identifiers that move within the file."""
    shares = {"none": 0, "1 %": rows // 100, "all": rows}
    mappings = {share: lab.mapping(rows, swapped=count) for share, count in shares.items()}
    contenders: dict[str, Contender] = {
        PSQL: lambda: _by_hand(lab, mappings["none"]),
        "parked": lambda: _by_hand(lab, mappings["all"], _BY_HAND_SWAPPED),
    }
    for share, mapping in mappings.items():
        contenders[share] = lambda mapping=mapping: _rename(lab, mapping)  # type: ignore[misc]
    found = by_turns(contenders, rounds)
    for share in shares:
        yield Comparison(
            f"rename, {share} swapped",
            "psql: two UPDATEs" if share == "all" else PSQL,
            found[share],
            found["parked" if share == "all" else PSQL],
            rows=rows,
            samples=lab.samples,
            rounds=rounds,
            goal_mb=_MEMORY_MB,
        )


def _by_hand(lab: Lab, mapping: Path, statements: str = _BY_HAND) -> Sample:
    lab.fresh()
    script = lab.folder / "by_hand.sql"
    script.write_text(statements.format(mapping=mapping, group=GROUP))
    return lab.run([lab.psql, "-qX", "-v", "ON_ERROR_STOP=1", "-f", str(script)])


def _by_orm(lab: Lab, mapping: Path) -> Sample:
    lab.fresh()
    return lab.run([sys.executable, str(Path(__file__).with_name("orm.py")), str(mapping)])


def _rename(lab: Lab, mapping: Path, *options: str) -> Sample:
    lab.fresh()
    return lab.run(lab.renaming(mapping, "--yes", *options))


def _again(lab: Lab, mapping: Path) -> Sample:
    lab.fresh(_RENAMED)
    return lab.run(lab.renaming(mapping, "--yes"))


def _dry_run(lab: Lab, mapping: Path) -> Sample:
    lab.fresh()
    return lab.run(lab.renaming(mapping, "--dry-run"))

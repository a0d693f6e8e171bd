"""A file of ten million rows: refused for one bad last line, and planned without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aspen.local.postgres.server import DATABASE
from benchmarks.speed.lab import GROUP, Lab, opened
from benchmarks.speed.measuring import Comparison, Sample, run

ROWS = 10_000_000
_MEMORY_MB = 64
_BASELINE = r"psql: \copy and one join"
_BAD_INPUT = 2

_BY_HAND = """
CREATE TEMPORARY TABLE mapping (private_identifier varchar, public_identifier varchar);
\\copy mapping FROM '{mapping}' WITH (FORMAT csv, HEADER)
SELECT count(*) FROM mapping m LEFT JOIN aspen.samples s
    ON s.submitting_group_id = {group} AND s.private_identifier = m.private_identifier;
"""


def measure(rows: int = ROWS) -> Iterator[Comparison]:
    """Measure both once: the time and the client's memory."""
    with opened(rows) as lab:
        mapping = lab.mapping(rows)
        theirs = _by_hand(lab, mapping)
        yield _told("dry run, accepted", _accepted(lab, mapping), theirs, rows)
        yield _told("dry run, bad last line", _refused(lab, mapping, rows), theirs, rows)


def _accepted(lab: Lab, mapping: Path) -> Sample:
    return run(lab.renaming(mapping, "--dry-run"), lab.environment(DATABASE))


def _refused(lab: Lab, mapping: Path, rows: int) -> Sample:
    with mapping.open("a") as file:
        file.write("RCPHL-1,\n")

    def check(said: str) -> None:
        reason = f"line {rows + 2}: public_identifier: is blank"
        if reason not in said or "1 problem" not in said:
            raise RuntimeError(f"it was refused for another reason: {said}")

    command = lab.renaming(mapping, "--dry-run")
    return run(command, lab.environment(DATABASE), allowed=(_BAD_INPUT,), said=check)


def _by_hand(lab: Lab, mapping: Path) -> Sample:
    script = lab.folder / "join.sql"
    script.write_text(_BY_HAND.format(mapping=mapping, group=GROUP))
    command = [lab.psql, "-qX", "-v", "ON_ERROR_STOP=1", "-f", str(script)]
    return run(command, lab.environment(DATABASE))


def _told(task: str, ours: Sample, theirs: Sample, rows: int) -> Comparison:
    return Comparison(
        task,
        _BASELINE,
        ours,
        theirs,
        rows=rows,
        samples=rows,
        rounds=1,
        goal_mb=_MEMORY_MB,
    )

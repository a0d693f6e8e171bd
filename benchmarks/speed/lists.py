"""``samples list`` compared with psql, which prints the same columns of the same rows."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from aspen.local.postgres.server import DATABASE
from benchmarks.speed.lab import opened
from benchmarks.speed.measuring import Comparison, Sample, compare, run

SMALL, FULL = 100_000, 1_000_000  # rows
LIST = "samples list --all"
_MACHINE_GOAL, _TABLE_GOAL = 2.5, 8.0
_MEMORY_MB = 80.0
_QUERY = """
SELECT s.id, s.private_identifier, s.public_identifier, g.name AS "group", p.slug AS pathogen,
       s.collection_date,
       nullif(concat_ws(' / ', l.region, l.country, l.division, l.location), '') AS location,
       s.private, u.name AS uploaded_by
  FROM aspen.samples s
  JOIN aspen.groups g ON g.id = s.submitting_group_id
  JOIN aspen.pathogens p ON p.id = s.pathogen_id
  JOIN aspen.users u ON u.id = s.uploaded_by_id
  LEFT JOIN aspen.locations l ON l.id = s.location_id
 ORDER BY s.id
"""
_IN_ONE_LINE = " ".join(_QUERY.split())
_BASELINES = (
    ("csv", r"psql: \copy to csv", rf"\copy ({_IN_ONE_LINE}) TO STDOUT (FORMAT csv, HEADER)"),
    (
        "jsonl",
        r"psql: \copy of row_to_json",
        rf"\copy (SELECT row_to_json(r) FROM ({_IN_ONE_LINE}) r) TO STDOUT",
    ),
    ("table", "psql: aligned", _QUERY),
)
_WIDTH = 120  # characters


def measure(rows: int, rounds: int) -> Iterator[Comparison]:
    """Measure each format as it is piped, and the table on a terminal as well."""
    with opened(rows) as lab:
        environment = lab.environment(DATABASE)
        for form, baseline, command in _BASELINES:
            ours = [lab.aspencli, *LIST.split(), "-o", form]
            theirs = [lab.psql, "-qX", "-P", "pager=off", "-c", command]
            found = compare(
                f"{LIST} -o {form}",
                partial(run, ours, environment),
                baseline,
                partial(run, theirs, environment),
                goal=_TABLE_GOAL if form == "table" else _MACHINE_GOAL,
                rounds=rounds,
            )
            yield replace(found, rows=rows, samples=rows, goal_mb=_MEMORY_MB)
        found = compare(
            f"{LIST} on a terminal",
            partial(_on_terminal, ours, environment),
            baseline,
            partial(_on_terminal, theirs, environment),
            goal=_TABLE_GOAL,
            rounds=rounds,
        )
        yield replace(found, rows=rows, samples=rows, goal_mb=_MEMORY_MB)


def _on_terminal(command: Sequence[str], environment: Mapping[str, str]) -> Sample:
    """Run a command on a terminal, and discard what it writes there."""
    reading, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, _WIDTH, 0, 0))
    reader = threading.Thread(target=_discard, args=[reading])
    reader.start()
    try:
        return run(command, {**environment, "TERM": "xterm-256color"}, stdout=terminal)
    finally:
        os.close(terminal)
        reader.join()
        os.close(reading)


def _discard(reading: int) -> None:
    with suppress(OSError):  # no process has the terminal open any more
        while os.read(reading, 65_536):
            pass

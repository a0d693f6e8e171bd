"""The console compared with bare IPython and a bare session, and ``db psql`` with psql."""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import pexpect
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session

from aspen.database.engine import Database
from aspen.database.models import Group
from aspen.database.profiling.recorder import Recorder
from aspen.local.postgres.server import DATABASE
from aspencli.cli.console.run import ConsoleRequest
from aspencli.cli.console.workspace import Workspace
from aspencli.cli.output.console import Output
from aspencli.config import Safety
from benchmarks.speed.lab import Lab, opened
from benchmarks.speed.measuring import Comparison, Sample, by_turns, compare, run

_COLOUR = r"(?:\x1b\[[\d;]*m)*"
_PROMPT = rf"In \[{_COLOUR}%d{_COLOUR}\]:"
_QUERY = "session.query(User).first()"
_SQL, _COMPLETED = "%sql SELECT * FROM sam", "sample_lineages"
_THINKING_S = 2.0
_PROMPT_GOAL, _QUERY_S, _PSQL_S, _COMPLETION_S = 1.15, 0.150, 0.150, 0.100
_CELL_S, _CELLS = 0.001, 1_000
_SESSION_GOAL, _PROFILE_GOAL = 1.15, 1.4
_CHUNK, _TURNS = 50, 100  # small queries per turn, and turns of each kind
_SMALL = sa.select(sa.func.count()).select_from(Group)
_STATEMENT = sa.text("SELECT 1")
_ROUNDS = 11
_WAIT_S = 30


def measure() -> Iterator[Comparison]:
    """Measure the first prompt and query, a statement through psql, small queries, and cells."""
    with opened(1_000) as lab:
        environment = lab.environment(DATABASE) | _terminal(lab)
        ours = [lab.aspencli, "db", "interact"]
        ipython = [str(Path(sys.executable).with_name("ipython")), "--no-banner"]
        for command in (ours, ipython):  # this creates the profile, history, and bytecode
            _first_prompt(command, environment)
        yield compare(
            "db interact, first prompt",
            lambda: _first_prompt(ours, environment),
            "ipython --no-banner",
            lambda: _first_prompt(ipython, environment),
            goal=_PROMPT_GOAL,
            rounds=_ROUNDS,
        )
        first = by_turns({"ours": lambda: _first_query(ours, environment)}, _ROUNDS)["ours"]
        allowed = f"{_QUERY_S * 1_000:.0f} ms"
        yield Comparison(
            f"db interact, first query after {_THINKING_S:g} s",
            *(allowed, first, Sample(_QUERY_S, 0.0), 1.0),
            rounds=_ROUNDS,
        )
        completion = by_turns({"ours": lambda: _first_completion(ours, environment)}, _ROUNDS)
        yield Comparison(
            "db interact, first completion of SQL",
            f"{_COMPLETION_S * 1_000:.0f} ms",
            completion["ours"],
            Sample(_COMPLETION_S, 0.0),
            1.0,
            rounds=_ROUNDS,
        )
        yield _psql(lab, environment)
        yield from _queries(lab)
        yield _cells(lab)


def _queries(lab: Lab) -> Iterator[Comparison]:
    """Measure small queries in the console and in a profiled script.

    All run in this process in turns, each turn with a new workspace, because what a
    workspace registers applies to every engine of the process.
    """
    found: dict[str, list[float]] = {"bare": [], "console": [], "profiled": []}
    engine = sa.create_engine(lab.cluster.url(DATABASE))
    with Session(engine) as bare:
        for _ in range(_TURNS):
            found["bare"] += _times(bare)
            for kind, around in (("console", None), ("profiled", _recorded)):
                with Workspace(_request(lab, around), "") as workspace:
                    found[kind] += _times(workspace.session)
    engine.dispose()
    # The 10th percentile, because a query is so short that any other load shows.
    each = {
        kind: Sample(quantiles(seconds, n=10)[0] * 1_000, 0.0) for kind, seconds in found.items()
    }
    for kind, task, goal in (
        ("console", "db interact, small query", _SESSION_GOAL),
        ("profiled", "db profile, small query", _PROFILE_GOAL),
    ):
        yield Comparison(
            task, "SQLAlchemy session", each[kind], each["bare"], goal, rows=1_000, rounds=_TURNS
        )


def _times(session: Session) -> list[float]:
    session.scalar(_SMALL)
    times = []
    for _ in range(_CHUNK):
        began = time.perf_counter()
        session.scalar(_SMALL)
        times.append(time.perf_counter() - began)
    return times


@contextmanager
def _recorded(engine: Engine) -> Iterator[None]:
    with Recorder(engine):
        yield


def _cells(lab: Lab) -> Comparison:
    """Measure the extra cost of each cell after the profiler was turned on and off again."""
    added = median(_added(lab) for _ in range(_ROUNDS))
    return Comparison(
        "cells, profiler off again, added",
        f"{_CELL_S * 1_000:g} ms each",
        Sample(added * _CELLS, 0.0),
        Sample(_CELL_S * _CELLS, 0.0),
        goal=1.0,
        rows=_CELLS,
        rounds=_ROUNDS,
    )


def _request(
    lab: Lab, around: Callable[[Engine], AbstractContextManager[None]] | None = None
) -> ConsoleRequest:
    address = lab.cluster.url(DATABASE)
    return ConsoleRequest(
        open_database=lambda: Database(address),
        address=address,
        target_label="local",
        safety=Safety.LOCAL,
        confirm_write=lambda: False,
        messages=Output(stderr=io.StringIO()),
        around=around,
    )


def _added(lab: Lab) -> float:
    with Workspace(_request(lab), "") as workspace:
        plain = _each(workspace, nullcontext)
        workspace.profile(on=True)
        with redirect_stderr(io.StringIO()), workspace.profiling.cell():
            workspace.session.scalar(_STATEMENT)
        workspace.profile(on=False)
        return _each(workspace, workspace.profiling.cell) - plain


def _each(workspace: Workspace, cell: Callable[[], AbstractContextManager[None]]) -> float:
    """Return the seconds that one query takes in a cell."""
    session = workspace.session
    session.scalar(_STATEMENT)
    began = time.perf_counter()
    for _ in range(_CELLS):
        with cell():
            session.scalar(_STATEMENT)
    return (time.perf_counter() - began) / _CELLS


def _psql(lab: Lab, environment: Mapping[str, str]) -> Comparison:
    statement = ["-c", "SELECT 1"]
    # Use the psql that `db psql` runs: Debian's is a wrapper, which starts more slowly.
    psql = shutil.which("psql") or lab.psql
    found = compare(
        "db psql -c",
        lambda: run([lab.aspencli, "db", "psql", *statement], environment),
        f"psql -c, and {_PSQL_S * 1_000:.0f} ms",
        lambda: run([psql, "-X", *statement], environment),
        goal=1.0,
        rounds=_ROUNDS,
    )
    return replace(found, theirs=replace(found.theirs, seconds=found.theirs.seconds + _PSQL_S))


def _terminal(lab: Lab) -> dict[str, str]:
    return {
        "IPYTHONDIR": str(lab.folder / "ipython"),
        "TERM": "xterm-256color",
        "PROMPT_TOOLKIT_NO_CPR": "1",  # nothing here reports the cursor position
    }


def _first_prompt(command: Sequence[str], environment: Mapping[str, str]) -> Sample:
    """Measure the time from the start of a console to its first prompt."""
    child, began = _started(command, environment)
    try:
        child.expect(_PROMPT % 1)
        return Sample(time.perf_counter() - began, _peak_mb(child.pid))
    finally:
        child.close(force=True)


def _first_query(command: Sequence[str], environment: Mapping[str, str]) -> Sample:
    """Measure the time from Enter to the next prompt, after a pause before typing."""
    child, _ = _started(command, environment)
    try:
        child.expect(_PROMPT % 1)
        time.sleep(_THINKING_S)
        child.send(_QUERY)
        child.expect_exact(_QUERY[-1])
        time.sleep(0.2)  # typed text is drawn with a delay
        began = time.perf_counter()
        child.send("\r")
        child.expect(_PROMPT % 2)
        seconds = time.perf_counter() - began
        if "Out[" not in re.sub(_COLOUR, "", child.before):
            raise RuntimeError(f"{_QUERY} was answered with {child.before!r}")
        return Sample(seconds, _peak_mb(child.pid))
    finally:
        child.close(force=True)


def _first_completion(command: Sequence[str], environment: Mapping[str, str]) -> Sample:
    """Measure the time from Tab to the list of tables, right after the SQL was typed."""
    child, _ = _started(command, environment)
    try:
        child.expect(_PROMPT % 1)
        time.sleep(_THINKING_S)
        child.send(_SQL)
        child.expect_exact(_SQL[-3:])
        time.sleep(0.2)  # typed text is drawn with a delay
        began = time.perf_counter()
        child.send("\t")
        child.expect_exact(_COMPLETED)
        return Sample(time.perf_counter() - began, _peak_mb(child.pid))
    finally:
        child.close(force=True)


def _started(command: Sequence[str], environment: Mapping[str, str]) -> tuple[Any, float]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    child = pexpect.spawn(
        command[0],
        list(command[1:]),
        env={**kept, **environment},
        dimensions=(50, 240),
        encoding="utf-8",
        timeout=_WAIT_S,
    )
    child.delaybeforesend = None
    return child, began


def _peak_mb(pid: int) -> float:
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0

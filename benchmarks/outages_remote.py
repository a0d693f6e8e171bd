"""``make outages-remote``: stop the bastion during commands, and check what they report.

In each outage a console, a bulk rename, and a migration run at the same time, each in a database of
its own, while the bastion's sshd is stopped for 10 or 100 s. Afterwards the report of each is
compared with its database, and the command that it suggests is run. Exits with 1 if a report is
wrong, or the work is not complete in the end.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg2

from tests.deployments.rig import Deployment, operator, running

_OUTAGES_S = (10.0, 100.0)
_ROWS = 60_000
_WITHIN_S = 2.5  # from the first connection to the outage
_BEGINS_S = 30.0  # for a command to reach the server
_ENDS_S = 300.0
_UNKNOWN = "it is unknown whether"
_CONSOLE = """
session.execute(sa.text("UPDATE aspen.samples SET private = NOT private"))
session.execute(sa.text("SELECT pg_sleep(2)"))
session.commit()
print("committed")
"""
# True if all is done, False if nothing is, NULL otherwise.
_RENAMED = """
SELECT bool_and(public_identifier LIKE 'after-%')
    OR nullif(bool_or(public_identifier LIKE 'after-%'), true)
FROM aspen.samples WHERE private_identifier LIKE 'more-%'
"""
_TURNED = """
SELECT bool_and(private) OR nullif(bool_or(private), true) FROM aspen.samples
WHERE private_identifier LIKE 'more-%'
"""
_BUILT = """
SELECT CASE WHEN (to_regclass('aspen.samples') IS NULL)
    = (to_regclass('public.alembic_version') IS NULL)
    THEN to_regclass('aspen.samples') IS NOT NULL END
"""


@dataclass
class _Work:
    """A command in its own database, and how to see what it did there."""

    kind: str
    stack: str
    words: tuple[str, ...]
    done: str  # the query for how much of it is done
    process: subprocess.Popen[str] | None = None
    outcome: str = "did not end"

    def start(self, deployment: Deployment) -> None:
        self.process = subprocess.Popen(
            self._command(),
            env=dict(deployment.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def faults(self, deployment: Deployment) -> Iterator[str]:
        """Wait for the end, and yield what is wrong with the report or with the data."""
        assert self.process is not None
        try:
            _, err = self.process.communicate(timeout=_ENDS_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            yield "did not end"
            return
        code = self.process.returncode
        self.outcome = "done" if code == 0 else "unknown" if _UNKNOWN in err else "not done"
        _settled(deployment, self.stack)
        is_done = self._is_done(deployment)
        if is_done is None:
            yield f"half done (exit code {code})"
        elif code == 0 and not is_done:
            yield "reported as done, but is not"
        elif code != 0 and _UNKNOWN not in err and is_done:
            yield f"done, but reported as {err.strip()!r}"
        elif code not in {0, 1, 5}:
            yield f"exit code {code}: {err.strip()!r}"
        if self.kind != "console" and not is_done:
            again = subprocess.run(
                self._command(),
                env=dict(deployment.environment),
                capture_output=True,
                text=True,
                check=False,
                timeout=_ENDS_S,
            )
            if again.returncode or not self._is_done(deployment):
                yield f"not done when run again: {again.stderr.strip()!r}"

    def _command(self) -> list[str]:
        target = ("--env", "rdev", "--stack", self.stack)
        return [sys.executable, "-m", "aspencli", *target, *self.words]

    def _is_done(self, deployment: Deployment) -> bool | None:
        return _ask(deployment, self.stack, self.done)


def main() -> int:
    """Cause the outages; exit with 1 if anything was reported wrongly."""
    parser = argparse.ArgumentParser(prog="make outages-remote", description=__doc__)
    parser.add_argument("--commands", type=int, default=50, help="number of commands to cut off")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    chance = random.Random(chosen.seed)
    outcomes: Counter[tuple[str, float, str]] = Counter()
    faults: list[str] = []
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server's account needs to pass through
        with running(folder) as servers:
            deployment = operator(servers, folder)
            deployment.add_samples(_ROWS)
            numbers = itertools.count(1)
            while (left := chosen.commands - sum(outcomes.values())) > 0:
                number = next(numbers)
                seconds = _OUTAGES_S[number % len(_OUTAGES_S)]
                works = list(_works(deployment, number))[:left]
                for work, found in _outage(deployment, works, seconds, chance):
                    outcomes[work.kind, seconds, work.outcome] += 1
                    faults += (f"{work.kind}, {seconds:.0f} s: {fault}" for fault in found)
    for (kind, seconds, outcome), count in sorted(outcomes.items()):
        sys.stdout.write(f"{kind}, {seconds:.0f} s: {outcome} {count}\n")
    for fault in faults:
        sys.stdout.write(f"FAULT {fault}\n")
    total = sum(outcomes.values())
    sys.stdout.write(f"{total} commands cut off; {total - len(faults)} reported correctly\n")
    return 1 if faults else 0


def _works(deployment: Deployment, number: int) -> Iterator[_Work]:
    """Yield the works of one outage, after creating their databases."""
    mapping = deployment.folder / "mapping.csv"
    rows = (f"more-{n},after-{n}" for n in range(1, _ROWS + 1))
    mapping.write_text("\n".join(("private_identifier,public_identifier", *rows, "")))
    bulk = ("samples", "update-public-ids", "--via", "db", "--group-id", "1", "--yes")
    for copy in (1, 2):
        stack = f"console-{number}-{copy}"
        _create(deployment, stack, filled=True)
        words = ("--yes", "db", "interact", "--write", "--reason", "an outage", "-c", _CONSOLE)
        yield _Work("console", stack, words, _TURNED)
        stack = f"bulk-{number}-{copy}"
        _create(deployment, stack, filled=True)
        yield _Work("bulk rename", stack, (*bulk, "-f", str(mapping)), _RENAMED)
    stack = f"migration-{number}"
    _create(deployment, stack, filled=False)
    yield _Work("migration", stack, ("db", "upgrade", "--yes"), _BUILT)


def _create(deployment: Deployment, stack: str, *, filled: bool) -> None:
    template = " TEMPLATE aspen_db" if filled else ""
    deployment.sql(f'CREATE DATABASE "{stack}" OWNER boss{template}')


def _outage(
    deployment: Deployment, works: list[_Work], seconds: float, chance: random.Random
) -> Iterator[tuple[_Work, list[str]]]:
    for work in works:
        work.start(deployment)
    deadline = time.monotonic() + _BEGINS_S
    while not deployment.sessions() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(chance.uniform(0, _WITHIN_S))
    met = [work for work in works if work.process is not None and work.process.poll() is None]
    deployment.bastion.pause(seconds)
    for work in works:
        found = list(work.faults(deployment))
        deployment.sql(f'DROP DATABASE "{work.stack}"')
        if work in met or found:  # the others ended before
            yield work, found


def _settled(deployment: Deployment, stack: str) -> None:
    """Wait until the server has no session in a database."""
    deadline = time.monotonic() + _BEGINS_S
    asked = f"SELECT 1 FROM pg_stat_activity WHERE datname = '{stack}'"
    while deployment.sql(asked):
        if time.monotonic() > deadline:
            raise TimeoutError(stack)
        time.sleep(0.1)


def _ask(deployment: Deployment, stack: str, query: str) -> bool | None:
    address = deployment.superuser.replace("/aspen_db", f"/{stack}")
    with (
        contextlib.closing(psycopg2.connect(address)) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(query)
        ((found,),) = cursor.fetchall()
    return None if found is None else bool(found)


if __name__ == "__main__":
    sys.exit(main())

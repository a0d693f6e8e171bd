"""The kinds of failures, each injected into one run of the command."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from aspen.local.postgres import server as postmaster
from benchmarks.accidents.site import Site, Trial, wait_until
from benchmarks.accidents.wire import AtCommit, Wire

Accident = Callable[[Trial, Random], None]
_LOCK = """
SELECT FROM aspen.samples WHERE submitting_group_id = :group AND private_identifier = :lab
   FOR UPDATE
"""
_LOCK_ALL = (
    "SELECT FROM aspen.samples WHERE submitting_group_id = :group ORDER BY id DESC FOR UPDATE"
)
_WAITS = """
SELECT count(*) FROM pg_stat_activity
 WHERE application_name LIKE 'aspencli/%' AND wait_event_type = 'Lock'
"""


class UnavailableError(Exception):
    """An error for a failure that this machine cannot produce; the message says why."""


@contextmanager
def _met(
    trial: Trial, chance: Random, seen: Callable[[Site], object] = lambda _site: True
) -> Iterator[tuple[subprocess.Popen[bytes], Wire]]:
    """Yield a run and its wire at a random moment of the target stage, or once the run has ended.

    Args:
        trial: The run.
        chance: The source of the random moment.
        seen: A condition to wait for first.
    """
    hold = _HOLDS.get(trial.aim, "pass")
    with Wire(trial.site.lab.address, at_commit=hold) as wire:
        trial.address = wire.address
        with trial.started() as process:

            def is_over() -> bool:
                return process.poll() is not None

            def has_come() -> bool:
                return trial.has_come_to(trial.aim) if hold == "pass" else wire.held.is_set()

            wait_until(lambda: seen(trial.site) or is_over())
            wait_until(lambda: has_come() or is_over(), pause=0.0005)
            with suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0, 0.9) * trial.lasts.get(trial.aim, 0.002))
            stage = trial.stage() if hold == "pass" else trial.aim
            trial.met = "too late" if is_over() else stage
            yield process, wire
            wire.let_go()


# These stages are too short to hit, so the COMMIT or its answer is held back.
_HOLDS: dict[str, AtCommit] = {
    "committing": "hold the question",
    "after the commit": "hold the answer",
}


def _signals(*numbers: signal.Signals) -> Accident:
    def happen(trial: Trial, chance: Random) -> None:
        trial.forks = signal.SIGINT not in numbers  # the interpreter handles part of SIGINT
        with _met(trial, chance) as (process, _wire):
            for number in numbers:
                process.send_signal(number)
                time.sleep(chance.uniform(0, 0.1))

    return happen


def _server_is_killed(trial: Trial, chance: Random) -> None:
    data = trial.site.cluster.data
    with _met(trial, chance):
        for pid in postmaster.family(data):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _with_backend(do: Callable[[Site, int], None]) -> Accident:
    def happen(trial: Trial, chance: Random) -> None:
        pids: list[int] = []

        def has_backend(site: Site) -> bool:  # this query takes longer than a stage
            pids[:] = site.backends()
            return bool(pids)

        with _met(trial, chance, has_backend):
            for pid in pids:
                do(trial.site, pid)

    return happen


def _kill(_site: Site, pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _terminate(site: Site, pid: int) -> None:
    site.lab.execute("SELECT pg_terminate_backend(:pid)", pid=pid)


def _network_is_cut(trial: Trial, chance: Random) -> None:
    with _met(trial, chance) as (_process, wire):
        wire.cut()


def _network_stalls(trial: Trial, chance: Random) -> None:
    """Stall the network for a while, then cut it or let it flow again."""
    with _met(trial, chance) as (process, wire):
        wire.stall()
        with suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.2, 1.5))
        chance.choice([wire.cut, wire.flow])()


def _commit_is_lost(trial: Trial, chance: Random) -> None:
    lost = chance.choice(["lose the question", "lose the answer"])
    with Wire(trial.site.lab.address, at_commit=lost) as wire:  # type: ignore[arg-type] # literals
        trial.address = wire.address
        with trial.started():
            pass
    assert (trial.code == 0) == (lost == "lose the answer"), trial.said
    (run,) = trial.runs()
    assert run.outcome.value in {"written", "rolled back"}, run.outcome


@contextmanager
def _locked(trial: Trial, chance: Random) -> Iterator[sa.Connection]:
    """Hold a lock on one sample of the mapping, as another user's transaction would."""
    values = {"group": trial.work.group, "lab": f"L{chance.randrange(10, 200)}"}
    with trial.site.lab.engine.connect() as connection:
        connection.execute(sa.text(_LOCK), values)
        yield connection
        connection.rollback()


def _limit(old: bytes, new: bytes) -> Accident:
    """Return a failure that shortens a timeout on its way to the server to save minutes."""

    def happen(trial: Trial, chance: Random) -> None:
        edit = {old: new}
        with Wire(trial.site.lab.address, edit=edit) as wire, _locked(trial, chance):
            trial.address = wire.address
            with trial.started():
                pass
        assert trial.code in {5, 7}, trial.said

    return happen


def _deadlock(trial: Trial, chance: Random) -> None:
    """Cause a deadlock; either transaction may be the victim."""
    site = trial.site
    with _locked(trial, chance) as other, trial.started() as process:

        def is_waiting() -> bool:
            with site.lab.engine.connect() as connection:
                return bool(connection.scalar(sa.text(_WAITS)))

        wait_until(lambda: is_waiting() or process.poll() is not None)
        time.sleep(chance.uniform(0, 0.3))
        with suppress(OperationalError):  # this transaction may be the victim
            other.execute(sa.text(_LOCK_ALL), {"group": trial.work.group})
        other.rollback()


def _two_runs(trial: Trial, chance: Random) -> None:
    """Run the same rows in opposite orders at once; neither run may fail on the other's locks."""
    trial.options = []  # two runs cannot share one report
    with trial.started(trial.work.other) as second:
        time.sleep(chance.uniform(0, 0.3))
        with trial.started():
            pass
        first_code, first_said = trial.code, trial.said
        second.wait()
    assert {first_code, trial.code} <= {0, 7}, first_said + trial.said
    assert 0 in {first_code, trial.code}
    assert "Conflict with another transaction" not in first_said + trial.said
    trial.code = 0


@contextmanager
def _small_disk(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "aspen-accidents", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        raise UnavailableError("only root may mount a tiny disk here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _disk_full(place: str) -> Accident:
    def happen(trial: Trial, chance: Random) -> None:
        folder = trial.home / place
        with _small_disk(folder, f"size={chance.choice([4, 8, 16])}k"):
            if place == "reports":
                trial.options = ["--report", str(trial.report)]
            if place == "state/history":
                with suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
                    while file.write(b"x" * 4096):
                        pass
            with trial.started():
                pass
            left = {path.name for path in folder.iterdir()} - {"filler"}
        trial.options = []
        assert left <= {"journal.jsonl"}, left
        assert trial.code == 1, trial.said
        assert "Cannot write " in trial.said, trial.said

    return happen


def _read_only(trial: Trial, chance: Random) -> None:
    place = chance.choice(["state/undo", "reports", "state/history"])
    folder = trial.home / place
    with _small_disk(folder, "ro,size=64k"):
        if place == "reports":
            trial.options = ["--report", str(trial.report)]
        with trial.started():
            pass
    trial.options = []
    assert trial.code == 1, trial.said
    assert "Cannot write " in trial.said, trial.said


KINDS: dict[str, Accident] = {
    "kill -9 of the client": _signals(signal.SIGKILL),
    "Ctrl-C twice": _signals(signal.SIGINT, signal.SIGINT),
    "SIGTERM": _signals(signal.SIGTERM),
    "kill -9 of the server": _server_is_killed,
    "kill -9 of its backend": _with_backend(_kill),
    "pg_terminate_backend": _with_backend(_terminate),
    "network cut": _network_is_cut,
    "network stalled": _network_stalls,
    "connection lost at COMMIT": _commit_is_lost,
    "lock timeout": _limit(b"lock_timeout=10000", b"lock_timeout=300ms"),
    "statement timeout": _limit(b"statement_timeout=1800000", b"statement_timeout=300.0ms"),
    "deadlock": _deadlock,
    "two runs at once": _two_runs,
    "disk full at the undo file": _disk_full("state/undo"),
    "disk full at the report": _disk_full("reports"),
    "disk full at the history": _disk_full("state/history"),
    "read-only folder": _read_only,
    "kill -9 of an undo": _signals(signal.SIGKILL),
    "kill -9 of an import": _signals(signal.SIGKILL),
    "kill -9 of the backend of an import": _with_backend(_kill),
    "connection lost at the COMMIT of an import": _commit_is_lost,
}
_SAMPLES, _IMPORTS = ("renames", "columns", "renames"), ("users", "groups")
WORKS: dict[str, tuple[str, ...]] = dict.fromkeys(KINDS, _SAMPLES) | {
    "kill -9 of an undo": ("undo",),
    "kill -9 of an import": _IMPORTS,
    "kill -9 of the backend of an import": _IMPORTS,
    "connection lost at the COMMIT of an import": _IMPORTS,
}
"""The work that each failure is injected into, in turn."""

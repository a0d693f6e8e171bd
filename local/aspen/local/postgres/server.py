"""The local PostgreSQL server: its processes, its start and stop, its status and logs.

``python -m aspen.local.postgres.server --home D`` starts it, also after a crash.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg2
from psycopg2.extensions import connection as DriverConnection  # noqa: N812 - a class

from aspen.database.settings import DRIVER
from aspen.local import logs, processes
from aspen.local.postgres.binaries import Binaries, find_binaries, major_of, reachable_binaries
from aspen.local.postgres.paths import (
    LAPTOP,
    READER,
    SUPERUSER,
    WRITER,
    Places,
    initialize,
    server_environment,
    size_of,
    sweep,
    write_for,
    write_settings,
)
from aspen.local.processes import HOST, Account, file_lock, free_port, is_free, server_account
from aspen.local.services import POSTGRES, PartStatus, Phase, Started, Steps, Stopped
from aspencli import machine
from aspencli.errors import AspenError, ConflictError, NotFoundError, UnreachableError
from aspencli.machine import PID_FILE, Postmaster, is_postmaster, read_postmaster

__all__ = ["DATABASE", "READER", "SUPERUSER", "WRITER", "Cluster"]

DATABASE = "aspen_db"
_READY_S = 120.0  # includes recovery after a crash
_STARTS = 5  # attempts, in case another program takes the port at the last moment
_HARD_S = 6.0  # PostgreSQL gives its child processes 5 s, then kills them
_ORPHANS_S = 3.0  # the time that child processes need to notice that the main process is gone


def _cluster_name(data: Path) -> str:
    """Return the name in the titles of the server's processes, unique to the data folder."""
    return f"aspencli-{hashlib.sha256(str(data).encode()).hexdigest()[:8]}"


def _has_crashed(data: Path) -> bool:
    """Return True if a server ended here without cleaning up."""
    return (data / PID_FILE).exists() and read_postmaster(data) is None and not _main(data)


def _clear(data: Path) -> None:
    """Clean up after a crash, so that the next server can start.

    PostgreSQL refuses to start while a process of the dead server is alive, or if the process ID
    in the stale file now belongs to another process of the same user.
    """
    processes.end(lambda: family(data), patience=_ORPHANS_S)
    (data / PID_FILE).unlink(missing_ok=True)


def family(data: Path) -> list[int]:
    """Return every process of this data folder's server, including orphans."""
    title, main = f"postgres: {_cluster_name(data)}", f"-D {data}"
    return [
        pid
        for pid, command in machine.running()
        if command.startswith(title) or command.endswith(main)
    ]


def stop(data: Path, *, patience: float) -> Stopped:
    """Stop the server: disconnect its clients, and roll back their open transactions.

    ``patience`` is the number of seconds to wait for a fast shutdown before an immediate one, which
    may take as long again before the processes are killed.
    """
    began = time.monotonic()
    members = family(data)
    how = "" if not members else "fast"
    for pid in _main(data):
        processes.send(pid, signal.SIGINT)
        if not processes.wait_until(lambda pid=pid: not is_postmaster(pid, data), patience):  # type: ignore[misc]
            how = "immediate"
            processes.send(pid, signal.SIGQUIT)
            hard = min(patience, _HARD_S)
            processes.wait_until(lambda pid=pid: not is_postmaster(pid, data), hard)  # type: ignore[misc]
    kill = how == "immediate"
    if processes.end(lambda: family(data), patience=0 if kill else _ORPHANS_S, kill=kill):
        how = "killed"
    if how in {"killed", "immediate"}:
        with contextlib.suppress(FileNotFoundError):
            (data / PID_FILE).unlink()
    return Stopped(bool(members), how, time.monotonic() - began)


def _main(data: Path) -> list[int]:
    return [pid for pid, command in machine.running() if command.endswith(f"-D {data}")]


class Cluster:
    """A PostgreSQL server with its data, on 127.0.0.1.

    Args:
        home: The folder of the local deployment; the server uses ``home/postgres``.
        settings: PostgreSQL settings that override the laptop defaults.
    """

    def __init__(self, home: Path, *, settings: Mapping[str, str] | None = None):
        self._places = Places(home)
        self._settings = dict(settings or {})

    @property
    def data(self) -> Path:
        """Return PostgreSQL's data folder."""
        return self._places.data

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from starting, stopping, or preparing the server."""
        self._places.make()
        with file_lock(self._places.lock):
            yield

    def up(self, *, progress: Steps | None = None) -> Started:
        """Start the server, creating it if there is none, and wait until it accepts connections.

        Raises:
            AspenError: It cannot be started; the message says why, the details show its log.
        """
        began = time.monotonic()
        with self.lock():
            running = read_postmaster(self.data)
            if running and self._wait_until_ready(running.pid):
                return Started(True, self.port, running.pid, time.monotonic() - began)
            started = self._start(progress or (lambda _step: None))
            return replace(started, seconds=time.monotonic() - began)

    def down(self, *, patience: float = 10.0) -> Stopped:
        """Stop the server and all of its processes; see `stop`."""
        if not self._places.folder.exists():
            return Stopped()
        with self.lock():
            return stop(self.data, patience=patience)

    def reset(self) -> bool:
        """Stop the server and delete its data, passwords, and port; return True if it had data."""
        if not self._places.folder.exists():
            return False
        with self.lock():
            stop(self.data, patience=5)
            sweep(self.data)
            return self._places.delete()

    def status(self) -> PartStatus:
        """Return the server's status, without waiting."""
        data, running = self.data, read_postmaster(self.data)
        binaries = self._installed()
        return PartStatus(
            name=POSTGRES,
            state=self._state(running),
            pid=running.pid if running else None,
            port=self._places.remembered().port,
            version=binaries.version if binaries else None,
            data=data,
            size=size_of(data),
            uptime=time.time() - running.since if running else None,
            program=binaries.bindir if binaries else None,
            url=f"postgresql://{WRITER}@{HOST}:{running.port}/{DATABASE}" if running else None,
        )

    def url(self, database: str = DATABASE, user: str = WRITER) -> str:
        """Return the URL of a database on this server, including the password.

        Raises:
            NotFoundError: There is no server yet.
        """
        port = self._places.remembered().port
        if port is None:
            raise NotFoundError(
                "The local database was never started.", hint="Start it: aspencli local up"
            )
        password = self._places.passwords()[user]
        return f"{DRIVER}://{user}:{quote(password, safe='')}@{HOST}:{port}/{database}"

    def connect(self, database: str, **options: Any) -> DriverConnection:
        """Return a new connection as the server's superuser."""
        made: DriverConnection = psycopg2.connect(
            host=HOST,
            port=self.port,
            user=SUPERUSER,
            password=self.passwords()[SUPERUSER],
            dbname=database,
            connect_timeout=10,
            **options,
        )
        return made

    def passwords(self) -> dict[str, str]:
        """Return the password of each role."""
        return self._places.passwords()

    def logs(self, lines: int = 100) -> list[str]:
        """Return the last messages of the server."""
        return logs.tail(logs.current_log(self.data), lines)

    def _start(self, progress: Steps) -> Started:
        account = server_account(self.data)
        if not self.data.exists():
            self._places.settle(account)
        data = self.data
        binaries = reachable_binaries(find_binaries(major=major_of(data)), account)
        password = self._places.passwords(make=not data.exists())[SUPERUSER]
        created = not data.exists()
        if created:
            progress("initializing")
            durable = self._settings.get("fsync") != "off"
            initialize(binaries, data, account, password, durable=durable)
        repaired = _has_crashed(data)
        if repaired or family(data):
            _clear(data)
        progress("starting")
        notes: list[str] = []
        for _ in range(_STARTS):
            port = self._choose_port(notes)
            write_settings(data, account, self._all_settings(binaries, port))
            pid = self._spawn(binaries, account)
            if self._wait_until_ready(pid):
                return Started(False, port, pid, 0.0, created, repaired, tuple(notes))
        raise UnreachableError(
            "All ports that were tried are in use by other programs.", hint="Try again in a moment."
        )

    def _spawn(self, binaries: Binaries, account: Account) -> int:
        log = self.data / logs.STARTUP_LOG
        write_for(account, log, "")
        return processes.spawn_detached(
            [binaries.program("postgres"), "-D", str(self.data)],
            account=account,
            environ=server_environment(),
            log=log,
        )

    def _wait_until_ready(self, pid: int) -> bool:
        """Return True once it accepts connections, False if its port is taken; raise if it ends."""
        deadline = time.monotonic() + _READY_S
        while not self._answers():
            if not is_postmaster(pid, self.data):
                said = logs.tail(self.data / logs.STARTUP_LOG, 5) + self.logs(8)
                if any("could not bind" in line for line in said):
                    return False
                raise AspenError(
                    "PostgreSQL exited during startup.",
                    hint=f"Its last messages are above; full log: {logs.current_log(self.data)}",
                    details=said,
                )
            if time.monotonic() > deadline:
                raise UnreachableError(
                    f"PostgreSQL was not ready after {_READY_S:.0f} s.",
                    hint="It may still be recovering. Check 'aspencli local logs', then try again.",
                )
            time.sleep(processes.POLL_S)
        return True

    def _answers(self) -> bool:
        """Return True if the server accepts connections.

        Raises:
            ConflictError: The server rejects the stored password.
        """
        try:
            self.connect("postgres").close()
        except psycopg2.OperationalError as error:
            if "password authentication failed" in str(error):
                raise ConflictError(
                    f"The local database rejected the password in {self._places.passwords_file}.",
                    hint="Restore the right file, or delete the data: aspencli local reset",
                ) from error
            return False
        return True

    def _choose_port(self, notes: list[str]) -> int:
        """Return the port of the last start or, if it is taken, a new one with a note."""
        remembered = self._places.remembered()
        if remembered.port is not None and is_free(remembered.port):
            return remembered.port
        # Each home starts its search at a different port, so that two rarely want the same one.
        port = free_port(int(_cluster_name(self.data)[-8:], 16))
        if remembered.port is not None:
            notes.append(
                f"Port {remembered.port} is in use by another program; using {port} instead."
            )
        self._places.remember(replace(remembered, port=port))
        return port

    def _all_settings(self, binaries: Binaries, port: int) -> dict[str, str]:
        settings = {**LAPTOP, "port": str(port), "cluster_name": _cluster_name(self.data)}
        if "pg_stat_statements" in binaries.extensions:
            settings["shared_preload_libraries"] = "pg_stat_statements"
        return settings | self._settings

    @property
    def port(self) -> int:
        """Return the port of its last start; 0 if it never started."""
        return self._places.remembered().port or 0

    def _state(self, running: Postmaster | None) -> Phase:
        if running:
            return Phase.RUNNING
        if not self.data.exists():
            return Phase.ABSENT
        return Phase.CRASHED if _has_crashed(self.data) else Phase.STOPPED

    def _installed(self) -> Binaries | None:
        with contextlib.suppress(AspenError):  # a status is shown even without programs
            return find_binaries(major=major_of(self.data))
        return None


def main() -> int:
    """Start PostgreSQL; return the exit code, 0 if it is running."""
    parser = argparse.ArgumentParser(prog="python -m aspen.local.postgres.server")
    parser.add_argument("--home", type=Path, required=True, help="folder of the deployment")
    try:
        started = Cluster(parser.parse_args().home).up()
    except AspenError as error:
        lines = [error.message, *error.details]
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        return error.exit_code
    notes = [*started.notes, *(["recovered after a crash"] if started.repaired else [])]
    sys.stdout.write("".join(f"{note}\n" for note in [*notes, f"ready on port {started.port}"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

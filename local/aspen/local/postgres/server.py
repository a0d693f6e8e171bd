"""The local PostgreSQL server: start, stop, and reset it, and get its status and logs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import psycopg2

from aspen.database.settings import DRIVER
from aspen.local import logs, processes
from aspen.local.postgres import process
from aspen.local.postgres.binaries import Binaries, find_binaries, major_of
from aspen.local.postgres.initdb import LAPTOP, initialize, sweep, write_settings
from aspen.local.postgres.initdb import server_environment as environment
from aspen.local.postgres.paths import (
    READER,
    SUPERUSER,
    WRITER,
    Places,
    reachable_binaries,
    server_account,
    size_of,
)
from aspen.local.processes import HOST, file_lock, free_port, is_free
from aspen.local.services import PartStatus, Started, State, Steps, Stopped
from aspencli.errors import AspenError, ConflictError, NotFoundError, UnreachableError
from aspencli.files import write_whole
from aspencli.machine import Postmaster, is_postmaster, read_postmaster


def answers(port: int, user: str, places: Places) -> bool:
    """Return True if a server accepts a user's connections.

    Raises:
        ConflictError: The server rejects the stored password.
    """
    try:
        connection = psycopg2.connect(
            host=HOST,
            port=port,
            user=user,
            password=places.passwords()[user],
            dbname="postgres",
            connect_timeout=10,
        )
    except psycopg2.OperationalError as error:
        if "password authentication failed" in str(error):
            raise ConflictError(
                f"The local database rejected the password in {places.passwords_file}.",
                hint="Restore the right file, or delete the data: aspencli local reset",
            ) from error
        return False
    connection.close()
    return True


__all__ = ["DATABASE", "READER", "SUPERUSER", "WRITER", "Cluster"]

DATABASE = "aspen_db"
_READY_S = 120.0  # includes recovery after a crash
_STARTS = 5  # attempts, in case another program takes the port at the last moment


class Cluster:
    """A PostgreSQL server with its data, on 127.0.0.1.

    Args:
        home: The folder of the local deployment; the server uses ``home/postgres``.
        settings: PostgreSQL settings that override the laptop defaults.
    """

    name = "postgres"

    def __init__(self, home: Path, *, settings: Mapping[str, str] | None = None):
        self._places = Places(home)
        self._settings = dict(settings or {})

    def __repr__(self) -> str:
        return f"<Cluster {self._places.folder}>"

    @property
    def data(self) -> Path:
        """Return PostgreSQL's data folder."""
        return self._places.data

    @property
    def log_path(self) -> Path:
        """Return the file that the server currently logs to."""
        return logs.current_log(self.data)

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
            started = self._start(progress or _silent)
            return replace(started, seconds=time.monotonic() - began)

    def down(self, *, patience: float = 10.0) -> Stopped:
        """Stop the server and all of its processes; open transactions are rolled back.

        Args:
            patience: The seconds to wait before an immediate shutdown.
        """
        if not self._places.folder.exists():
            return Stopped(was_running=False, how="", seconds=0.0)
        with self.lock():
            return process.stop(self.data, patience=patience)

    def reset(self) -> bool:
        """Stop the server and delete its data, passwords, and port; return True if it had data."""
        if not self._places.folder.exists():
            return False
        with self.lock():
            process.stop(self.data, patience=5)
            sweep(self.data)
            return self._places.delete()

    def status(self) -> PartStatus:
        """Return the server's status, without waiting."""
        data, running = self.data, read_postmaster(self.data)
        binaries = self._installed()
        return PartStatus(
            name=self.name,
            state=self._state(running),
            pid=running.pid if running else None,
            port=self._places.remembered().port,
            version=binaries.version if binaries else None,
            data=data,
            size=size_of(data),
            uptime=time.time() - running.since if running else None,
            program=binaries.bindir if binaries else None,
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

    def passwords(self) -> dict[str, str]:
        """Return the password of each role."""
        return self._places.passwords()

    def logs(self, lines: int = 100) -> list[str]:
        """Return the last messages of the server."""
        return logs.tail(self.log_path, lines)

    def follow(self, lines: int = 0) -> Iterator[str]:
        """Return an iterator over the server's last messages, then new ones until it ends."""
        return logs.follow(self.data, lines, until=lambda: read_postmaster(self.data) is None)

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
        repaired = process.has_crashed(data)
        if repaired or process.family(data):
            process.clear(data)
        progress("starting")
        notes: list[str] = []
        for _ in range(_STARTS):
            port = self._choose_port(notes)
            write_settings(data, account, self._all_settings(binaries, port))
            write_whole(data / logs.STARTUP_LOG, "")
            account.give(data / logs.STARTUP_LOG)
            pid = processes.spawn_detached(
                [binaries.program("postgres"), *process.arguments(data)],
                account=account,
                environ=environment(),
                log=data / logs.STARTUP_LOG,
            )
            if self._wait_until_ready(pid):
                return Started(False, port, pid, 0.0, created, repaired, tuple(notes))
        raise UnreachableError(
            "All ports that were tried are in use by other programs.", hint="Try again in a moment."
        )

    def _wait_until_ready(self, pid: int) -> bool:
        """Return True once it accepts connections, False if its port is taken; raise if it ends."""
        deadline = time.monotonic() + _READY_S
        while not answers(self.port, SUPERUSER, self._places):
            if not is_postmaster(pid, self.data):
                said = logs.tail(self.data / logs.STARTUP_LOG, 5) + self.logs(8)
                if any("could not bind" in line for line in said):
                    return False
                raise AspenError(
                    "PostgreSQL exited during startup.",
                    hint=f"Its last messages are above; full log: {self.log_path}",
                    details=said,
                )
            if time.monotonic() > deadline:
                raise UnreachableError(
                    f"PostgreSQL was not ready after {_READY_S:.0f} s.",
                    hint="It may still be recovering. Check 'aspencli local logs', then try again.",
                )
            time.sleep(processes.POLL_S)
        return True

    def _choose_port(self, notes: list[str]) -> int:
        """Return the port of the last start or, if it is taken, a new one with a note."""
        remembered = self._places.remembered()
        if remembered.port is not None and is_free(remembered.port):
            return remembered.port
        # Each home starts its search at a different port, so that two rarely want the same one.
        port = free_port(int(process.cluster_name(self.data)[-8:], 16))
        if remembered.port is not None:
            notes.append(
                f"Port {remembered.port} is in use by another program; using {port} instead."
            )
        self._places.remember(replace(remembered, port=port))
        return port

    def _all_settings(self, binaries: Binaries, port: int) -> dict[str, str]:
        settings = {
            **LAPTOP,
            "port": str(port),
            "cluster_name": process.cluster_name(self.data),
        }
        if "pg_stat_statements" in binaries.extensions:
            settings["shared_preload_libraries"] = "pg_stat_statements"
        return settings | self._settings

    @property
    def port(self) -> int:
        """Return the port of its last start; 0 if it never started."""
        return self._places.remembered().port or 0

    def _state(self, running: Postmaster | None) -> State:
        if running:
            return State.RUNNING
        if not self.data.exists():
            return State.ABSENT
        return State.CRASHED if process.has_crashed(self.data) else State.STOPPED

    def _installed(self) -> Binaries | None:
        with contextlib.suppress(AspenError):  # a status is shown even without programs
            return find_binaries(major=major_of(self.data))
        return None


def _silent(step: str) -> None:
    del step

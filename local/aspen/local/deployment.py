"""The whole deployment: PostgreSQL, and the services that a supervisor keeps running.

The first start also creates the database's schema and adds the test data.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from aspen.local.aws.content import OBJECTS, ObjectFolder, publish, read_credentials
from aspen.local.postgres import process
from aspen.local.postgres.paths import SUPERUSER, WRITER, Places, size_of
from aspen.local.processes import HOST
from aspen.local.services import (
    CLIENT_ID,
    PARTS,
    POSTGRES,
    PartStatus,
    PartSteps,
    Started,
    Stopped,
    with_needed,
)
from aspen.local.services import State as Doing
from aspen.local.state import PartRecord, Phase, State
from aspen.local.supervisor.client import LostError, PortTakenError, Supervision
from aspen.local.supervisor.state import Timing
from aspencli import __version__
from aspencli.files import open_own
from aspencli.machine import Endpoints, read_postmaster, write_endpoints

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from aspen.local.postgres.prepare import Prepared
    from aspen.local.postgres.server import Cluster
    from aspen.local.seed import Objects, RolesResult

_API = "api"
_PATIENCE_S = 5.0  # for PostgreSQL to shut down cleanly
_TRIES = 4  # another program may take a port, or end the supervisor, at the last moment

_DOING = {
    Phase.STARTING: Doing.STARTING,
    Phase.RUNNING: Doing.RUNNING,
    Phase.UNRESPONSIVE: Doing.UNRESPONSIVE,
    Phase.RESTARTING: Doing.RESTARTING,
    Phase.STOPPED: Doing.STOPPED,
}


@dataclass(frozen=True)
class Up:
    """The result of bringing the deployment up.

    Attributes:
        started: The result of starting each part, by name.
        prepared: The result of preparing the database; None if it was ready.
        filled: The test data added to an empty database; None if none was added.
        empty: True if the database has no groups.
        seconds: The total time.
    """

    started: dict[str, Started]
    prepared: Prepared | None
    filled: RolesResult | None
    empty: bool
    seconds: float

    @property
    def changed(self) -> bool:
        """Return True if anything was started, created, migrated, or filled."""
        idle = all(one.already_running for one in self.started.values())
        return bool(self.prepared or self.filled) or not idle


@dataclass
class _Made:
    """The changes that a start has made to the database, over all of its attempts."""

    prepared: Prepared | None = None
    filled: RolesResult | None = None


class Deployment:
    """The deployment in a folder.

    Args:
        home: The folder.
        settings: PostgreSQL settings that override the laptop defaults.
        timing: The timeouts and intervals of a new supervisor.
    """

    def __init__(
        self,
        home: Path,
        *,
        settings: Mapping[str, str] | None = None,
        timing: Timing | None = None,
    ):
        self.state, self._settings = State(home), settings
        self.supervision = Supervision(self.state, timing)
        self.objects = ObjectFolder(self.state.part("aws") / OBJECTS)

    @cached_property
    def cluster(self) -> Cluster:
        """Return the PostgreSQL server."""
        from aspen.local.postgres.server import Cluster

        return Cluster(self.state.home, settings=self._settings)

    def up(self, names: Iterable[str] = PARTS, progress: PartSteps | None = None) -> Up:
        """Start parts and their dependencies, and wait until they are ready.

        The database is created and migrated if needed. If the API is started and the database has
        no groups, the test data is added. Parts that are already running are not affected. If a
        service cannot be started, the services started by this call are stopped; if the call is
        interrupted, so is PostgreSQL.

        Raises:
            AspenError: A part cannot be started; the message says why, the details show its log.
        """
        wanted, notes, began = with_needed(names), list[str](), time.monotonic()
        made = _Made()
        with self.state.lock():
            for attempt in range(1, _TRIES + 1):
                try:
                    up = self._up(wanted, progress or (lambda _part, _step: None), notes, made)
                    return replace(up, seconds=time.monotonic() - began)
                except (PortTakenError, LostError):
                    self.supervision.stop()  # the next attempt starts a new one
                    if attempt == _TRIES:
                        raise
        raise AssertionError  # unreachable: the loop returns or raises

    def down(self) -> dict[str, Stopped]:
        """Stop every part, PostgreSQL last; return the results by part name."""
        if not self.state.home.exists():
            return {name: Stopped(was_running=False, how="", seconds=0.0) for name in PARTS[::-1]}
        with self.state.lock():
            stopped = self._stop_services()
            return {**stopped, POSTGRES: self.cluster.down()}

    def status(self) -> list[PartStatus]:
        """Return the status of each part."""
        database = self.cluster.status()
        if database.pid:
            database = replace(database, url=self.database_url())
        services = [
            service_status(self.state, self.supervision, name) for name in PARTS if name != POSTGRES
        ]
        return [with_restarts(one, self.supervision) for one in (database, *services)]

    def reset(self) -> dict[str, bool]:
        """Stop every part and delete its data; return, by part name, whether there was any."""
        if not self.state.home.exists():
            return dict.fromkeys(PARTS[::-1], False)
        with self.state.lock():
            had = {name: bool(one.how) for name, one in self._stop_services().items()}
            for name in had:
                folder = self.state.part(name)
                had[name] |= folder.exists()
                shutil.rmtree(folder, ignore_errors=True)
            had[POSTGRES] = self.cluster.reset()
            self.state.clear()
        return had

    def running_ports(self) -> dict[str, int]:
        """Return the port on 127.0.0.1 of each running service."""
        record, ports = self.supervision.record(), self.state.ports()
        return {name: ports[name] for name, kept in record.items() if name in ports and kept.lives}

    def database_url(self) -> str:
        """Return the URL of the database, without its password."""
        url = make_url(self.cluster.url())
        plain = URL.create("postgresql", url.username, None, url.host, url.port, url.database)
        return plain.render_as_string()

    def prepare(self, progress: PartSteps | None = None) -> Prepared:
        """Create the database if needed, migrate it, and grant the roles their privileges."""
        from aspen.local.postgres.prepare import prepare

        tell = progress or (lambda _part, _step: None)
        return prepare(self.cluster, progress=lambda step: tell(POSTGRES, step))

    def publish(self) -> None:
        """Upload stored files that the running S3 lacks, such as those added since it started."""
        kept = self.supervision.record().get("aws")
        if kept and kept.runs:
            address = f"http://{HOST}:{self.state.ports()['aws']}"
            publish(address, read_credentials(self.state.part("aws")), self.objects)

    def publish_endpoints(self) -> None:
        """Write the addresses for the commands, once the ports of this start are chosen."""
        addresses = {name: f"http://{HOST}:{port}" for name, port in self.state.ports().items()}
        found = Endpoints(
            database=self.cluster.url(user=WRITER),
            admin=self.cluster.url(user=SUPERUSER),
            port=self.cluster.port,
            data=str(self.cluster.data),
            services=addresses,
            client_id=CLIENT_ID,
            record=str(self.state.record),
        )
        write_endpoints(self.state.home, found)

    def _up(self, names: tuple[str, ...], progress: PartSteps, notes: list[str], made: _Made) -> Up:
        since, before = time.time(), self.supervision.record()
        alone = names == (POSTGRES,)
        with self._undone(alone=alone):
            # The services load while PostgreSQL starts.
            services = [] if alone else self.supervision.start(names, notes)

            server = self.cluster.up(progress=lambda step: progress(POSTGRES, step))
            self.publish_endpoints()
            if not is_at_head(self.cluster):
                made.prepared = self.prepare(progress)
            made.filled = (self._fill(progress) if _API in names else None) or made.filled
            if services:
                self.supervision.wait(services, since, progress)
            if made.filled:
                self.publish()
        started = {POSTGRES: replace(server, notes=(*notes, *server.notes))}
        started |= {name: self._started(name, before.get(name), since) for name in services}
        return Up(started, made.prepared, made.filled, is_empty(self.cluster), 0.0)

    def _started(self, name: str, before: PartRecord | None, since: float) -> Started:
        """Return the result of starting a service, which is running by now."""
        now = self.supervision.record()[name]
        # An unresponsive service that answers again was waited for, not started.
        ran = {Phase.RUNNING, Phase.UNRESPONSIVE}
        already = bool(before and before.process == now.process and before.phase in ran)
        pid = now.process.pid if now.process else 0  # 0 if it has just ended again
        seconds = 0.0 if already else now.since - since
        return Started(already, self.state.ports()[name], pid, seconds)

    @contextmanager
    def _undone(self, *, alone: bool) -> Iterator[None]:
        """Stop what was started if the block fails."""
        supervised = self.supervision.process
        served = read_postmaster(Places(self.state.home).data)
        try:
            yield
        except BaseException as error:
            if not alone and self.supervision.process != supervised:
                self.supervision.stop()
            if not isinstance(error, Exception) and not served:
                # Do not import anything here: a module whose import was interrupted stays
                # half-loaded.
                process.stop(Places(self.state.home).data, patience=_PATIENCE_S)
            raise

    def _stop_services(self) -> dict[str, Stopped]:
        stopped = self.supervision.stop()
        idle = Stopped(was_running=False, how="", seconds=0.0)
        return {name: stopped.get(name, idle) for name in reversed(PARTS) if name != POSTGRES}

    def _fill(self, progress: PartSteps) -> RolesResult | None:
        """Add the test data to an empty database, or the rest of it after an interruption."""
        if not (self.state.filling.exists() or is_empty(self.cluster)):
            return None
        progress(POSTGRES, "adding the test data")
        return fill(self.cluster, self.objects, self.state.filling)


def with_restarts(status: PartStatus, supervision: Supervision) -> PartStatus:
    """Return the status with the supervisor's restart information, if a supervisor is running."""
    kept = supervision.record().get(status.name)
    if not (kept and supervision.process):
        return status
    return replace(
        status,
        restarts=kept.restarts,
        last_restart=kept.last_restart,
        reason=kept.reason,
    )


def service_status(state: State, supervision: Supervision, name: str) -> PartStatus:
    """Return a service's status, without waiting."""
    record, folder, port = supervision.record(), state.part(name), state.ports().get(name)
    kept = record.get(name, PartRecord())
    process = kept.process if kept.lives else None
    if name not in record:
        doing = Doing.ABSENT
    elif supervision.process or kept.phase is Phase.STOPPED:
        doing = _DOING[kept.phase]
        if doing is Doing.RUNNING and not process:  # the supervisor has not noticed yet
            doing = Doing.RESTARTING
    else:
        doing = Doing.CRASHED  # together with its supervisor
    return PartStatus(
        name=name,
        state=doing,
        pid=process.pid if process else None,
        port=port,
        version=_version() if name == "aws" else __version__,
        data=folder,
        size=size_of(folder),
        uptime=time.time() - kept.since if process and doing is Doing.RUNNING else None,
        program=None,
        url=f"http://{HOST}:{port}" if process else None,
        reason="supervisor exited" if doing is Doing.CRASHED else "",
    )


def _version() -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("moto")
    except PackageNotFoundError:
        return None


def is_at_head(cluster: Cluster) -> bool:
    """Return True if the database exists, accepts its own role, and needs no migration.

    A revision that this program does not know is assumed to be newer than its own.
    """
    from aspen.database import migrate

    with _engine(cluster) as engine:
        try:
            at = migrate.current(engine)
        except OperationalError:  # no such role or database: never prepared
            return False
    return at == migrate.head() or (at is not None and not migrate.has(at))


def is_empty(cluster: Cluster) -> bool:
    """Return True if the database has no groups, and therefore no users or samples."""
    with _engine(cluster) as engine, engine.connect() as connection:
        return not connection.scalar(sa.text("SELECT EXISTS (SELECT FROM aspen.groups)"))


def fill(cluster: Cluster, objects: Objects, unfinished: Path) -> RolesResult:
    """Add the test data.

    Args:
        cluster: The server with the database.
        objects: Where to store the files that the rows refer to.
        unfinished: A marker file that exists until all of the data is added.
    """
    from aspen.database.engine import Database
    from aspen.local.seed import seed_roles

    os.close(open_own(unfinished))
    database = Database(cluster.url(), application_name="aspencli local", writable=True)
    try:
        filled = seed_roles(database, objects)
    finally:
        database.dispose()
    unfinished.unlink()
    return filled


@contextmanager
def _engine(cluster: Cluster) -> Iterator[Engine]:
    engine = sa.create_engine(cluster.url(), poolclass=NullPool)
    try:
        yield engine
    finally:
        engine.dispose()

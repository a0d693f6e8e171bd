"""The whole deployment: PostgreSQL, and the services that a supervisor keeps running.

The first start also creates the database's schema and adds the test data.
"""

from __future__ import annotations

import os
import shutil
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from aspen.database import settings
from aspen.local import logs
from aspen.local.auth0.outbox import Outbox
from aspen.local.aws.content import (
    OBJECTS,
    ObjectFolder,
    credentials_file,
    made_values,
    publish,
    read_credentials,
)
from aspen.local.postgres import server
from aspen.local.postgres.binaries import find_binaries
from aspen.local.postgres.paths import Places, size_of
from aspen.local.postgres.prepare import Prepared, prepare
from aspen.local.postgres.server import SUPERUSER, WRITER, Cluster
from aspen.local.processes import HOST
from aspen.local.services import (
    CLIENT_ID,
    MANAGEMENT_CLIENT_ID,
    PARTS,
    POSTGRES,
    SUPERVISOR,
    WORKER,
    PartStatus,
    PartSteps,
    Phase,
    Started,
    Stopped,
    installed_parts,
    with_needed,
)
from aspen.local.state import DeploymentFiles, PartRecord, Timing, jobs_folder
from aspen.local.supervision import LostError, PortTakenError, Supervision
from aspencli import __version__
from aspencli.errors import NotFoundError, UnreachableError
from aspencli.files import data_dir, open_own
from aspencli.machine import (
    Endpoints,
    clear_environment,
    read_endpoints,
    read_postmaster,
    write_endpoints,
)

if TYPE_CHECKING:
    from aspen.identity.management import Credentials
    from aspen.local.seed import Seeded
    from aspen.workflows.engine.local import LocalEngine

_API, _IDENTITY = "api", "identity"
_PATIENCE_S = 5.0  # for PostgreSQL to shut down cleanly
_TRIES = 4  # another program may take a port, or end the supervisor, at the last moment


@dataclass
class Up:
    """The result of bringing the deployment up, over all of its attempts.

    Attributes:
        started: The result of starting each part, by name.
        prepared: The result of preparing the database; None if it was ready.
        filled: The test data added to an empty database; None if none was added.
        empty: True if the database has no groups.
        seconds: The total time.
    """

    started: dict[str, Started]
    prepared: Prepared | None = None
    filled: Seeded | None = None
    empty: bool = False
    seconds: float = 0.0

    @property
    def changed(self) -> bool:
        """Return True if anything was started, created, migrated, or filled."""
        idle = all(one.already_running for one in self.started.values())
        return bool(self.prepared or self.filled) or not idle


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
        self.state = DeploymentFiles(home)
        self.cluster = Cluster(self.state.home, settings=settings)
        self.supervision = Supervision(self.state, timing)
        self.objects = ObjectFolder(self.state.part("aws") / OBJECTS)
        self.outbox = Outbox(self.state.part(_IDENTITY))

    def up(self, names: Iterable[str] = (), progress: PartSteps | None = None) -> Up:
        """Start parts and their dependencies, or all installed ones, and wait until they are ready.

        The database is created and migrated if needed. If the API is started and the database has
        no groups, the test data is added. Parts that are already running are not affected. If a
        service cannot be started, the services started by this call are stopped; if the call is
        interrupted, so is PostgreSQL.

        Raises:
            AspenError: A part cannot be started; the message says why, the details show its log.
        """
        wanted = with_needed(tuple(names) or installed_parts())
        notes, began, up = list[str](), time.monotonic(), Up({})
        with self.state.lock():
            for left in reversed(range(_TRIES)):
                try:
                    self._up(wanted, progress or (lambda _part, _step: None), notes, up)
                    break
                except (PortTakenError, LostError):
                    self.supervision.stop()  # the next attempt starts a new one
                    if not left:
                        raise
        up.seconds = time.monotonic() - began
        return up

    def down(self) -> dict[str, Stopped]:
        """Stop every part, PostgreSQL last; return the results by part name."""
        if not self.state.home.exists():
            return dict.fromkeys(installed_parts()[::-1], Stopped())
        with self.state.lock():
            stopped = self._stop_services()
            return {**stopped, POSTGRES: self.cluster.down()}

    def status(self) -> list[PartStatus]:
        """Return the status of each part."""
        found = [
            self.cluster.status()
            if name == POSTGRES
            else service_status(self.state, self.supervision, name)
            for name in installed_parts()
        ]
        return [with_restarts(one, self.supervision) for one in found]

    def reset(self) -> dict[str, bool]:
        """Stop every part and delete its data; return, by part name, whether there was any."""
        if not self.state.home.exists():
            return dict.fromkeys(installed_parts()[::-1], False)
        with self.state.lock():
            had = {name: bool(one.how) for name, one in self._stop_services().items()}
            for name in had:
                folder = self.state.part(name)
                had[name] |= folder.exists()
                shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(self.state.part(WORKER), ignore_errors=True)  # uninstalled since, maybe
            had[POSTGRES] = self.cluster.reset()
            self.state.clear()
        return had

    def logs(
        self, names: Sequence[str], lines: int, *, follow: bool = False
    ) -> Iterator[tuple[str, str]]:
        """Return the last messages of some or all sources in time order, with the source's name.

        If ``follow`` is True, new messages follow until nothing is running.

        Raises:
            NotFoundError: There are no messages.
        """
        finders = {name: self._log_finder(name) for name in names or (*PARTS, SUPERVISOR)}
        if not any(find().exists() for find in finders.values()):
            whose = ", ".join(names) or "the local deployment"
            raise NotFoundError(
                f"No log messages yet; never started: {whose}", hint="Start it: aspencli local up"
            )
        if follow:
            return logs.follow_all(finders, lines, until=self._is_down)
        tails = {name: logs.tail(find(), lines) for name, find in finders.items()}
        return iter(logs.merged(tails)[-lines:] if lines else [])

    def prepare(self, progress: PartSteps | None = None) -> Prepared:
        """Create the database if needed, migrate it, and grant the roles their privileges."""
        tell = partial(progress, POSTGRES) if progress else None
        return prepare(self.cluster, progress=tell)

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
            aws_credentials=str(credentials_file(self.state.part("aws"))),
        )
        write_endpoints(self.state.home, found)

    def _up(self, names: tuple[str, ...], progress: PartSteps, notes: list[str], up: Up) -> None:
        since, before = time.time(), self.supervision.record()
        alone = names == (POSTGRES,)
        with self._undone(alone=alone):
            # The services load while PostgreSQL starts.
            services = [] if alone else self.supervision.start(names, notes)

            # An earlier attempt may have started it, before another part lost its port.
            database = up.started.setdefault(
                POSTGRES, self.cluster.up(progress=partial(progress, POSTGRES))
            )
            self.publish_endpoints()
            if not is_at_head(self.cluster):
                up.prepared = self.prepare(progress)
            up.filled = (self._fill(progress) if _API in names else None) or up.filled
            if services:
                self.supervision.wait(services, since, progress)
            if up.filled:
                self.publish()
        up.started = {POSTGRES: replace(database, notes=(*notes, *database.notes))}
        up.started |= {name: self._started(name, before.get(name), since) for name in services}
        up.empty = is_empty(self.cluster)

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
        served = read_postmaster(self.cluster.data)
        try:
            yield
        except BaseException as error:
            if not alone and self.supervision.process != supervised:
                self.supervision.stop()
            if not isinstance(error, Exception) and not served:
                # Do not import anything here: a module whose import was interrupted stays
                # half-loaded.
                server.stop(self.cluster.data, patience=_PATIENCE_S)
            raise

    def _stop_services(self) -> dict[str, Stopped]:
        stopped = self.supervision.stop()
        parts = [name for name in PARTS if name in stopped or name in installed_parts()]
        return {name: stopped.get(name, Stopped()) for name in reversed(parts) if name != POSTGRES}

    def _fill(self, progress: PartSteps) -> Seeded | None:
        """Add the test data to an empty database, or the rest of it after an interruption."""
        unfinished = self.state.filling  # it exists until all of the data is added
        if not (unfinished.exists() or is_empty(self.cluster)):
            return None
        progress(POSTGRES, "adding the test data")
        from aspen.database.engine import Database
        from aspen.local.seed import seed_roles

        os.close(open_own(unfinished))
        database = Database(self.cluster.url(), application_name="aspencli local", writable=True)
        try:
            filled = seed_roles(database, self.objects)
        finally:
            database.dispose()
        unfinished.unlink()
        return filled

    def _log_finder(self, name: str) -> Callable[[], Path]:
        if name == POSTGRES:
            return lambda: logs.current_log(self.cluster.data)
        return lambda: self.state.log(name)

    def _is_down(self) -> bool:
        return read_postmaster(self.cluster.data) is None and self.supervision.process is None


class Laptop:
    """The deployment in this user's data directory, as the command line reaches it."""

    @cached_property
    def deployment(self) -> Deployment:
        """Return the deployment as a whole."""
        # Settings meant for other servers would break connections to the deployment's own.
        clear_environment(settings.MISLEADING | settings.CONNECTION)
        return Deployment(data_dir())

    def endpoints(self) -> Endpoints | None:
        """Return the addresses of a deployment that an earlier version started, else None.

        That version wrote no file of them.
        """
        if not {_API, _IDENTITY} <= DeploymentFiles(data_dir()).ports().keys():
            return None
        self.deployment.publish_endpoints()
        return read_endpoints(data_dir())

    def management_credentials(self) -> Credentials:
        """Return the credentials for the Management API of its identity provider.

        Raises:
            UnreachableError: It is not running.
        """
        from aspen.identity.management import Credentials, provider_url

        self.check_api()
        files = DeploymentFiles(data_dir())
        made = made_values(files.part("aws"))
        found = read_endpoints(data_dir())
        issuer = found.auth_url if found else None
        secret = made["AUTH0_MANAGEMENT_CLIENT_SECRET"]
        return Credentials(provider_url(issuer or ""), MANAGEMENT_CLIENT_ID, secret, CLIENT_ID)

    def check_api(self) -> None:
        """Check that its API and its identity provider are running.

        Raises:
            UnreachableError: One of them is not.
        """
        record = self.deployment.supervision.record()
        running = {name for name, kept in record.items() if kept.lives}
        if missing := [name for name in (_API, _IDENTITY) if name not in running]:
            raise UnreachableError(
                f"Not running in the local deployment: {', '.join(missing)}",
                hint="Start it: aspencli local up",
            )

    def database_url(self, *, admin: bool = False) -> str:
        """Return the address of its database, for the server's superuser if ``admin``.

        Raises:
            UnreachableError: The database is not running.
        """
        cluster = self.deployment.cluster
        if read_postmaster(cluster.data) is None:  # a full status check takes longer
            raise UnreachableError(
                f"The local database is {cluster.status().state.value}.",
                hint="Start it: aspencli local up",
            )
        return cluster.url(user=SUPERUSER if admin else WRITER)

    def owns(self, system: str | None) -> bool:
        """Return True if a system identifier is that of the deployment's own data directory."""
        control = Places(data_dir()).data / "global" / "pg_control"
        try:
            with control.open("rb") as file:
                # The first field of the control file since PostgreSQL 8.1 (catalog/pg_control.h).
                (own,) = struct.unpack("=Q", file.read(8))
        except (OSError, struct.error):  # there is no deployment that could own it
            return False
        return system == str(own)

    def jobs_engine(self) -> LocalEngine:
        """Return the engine of its compute jobs.

        Raises:
            UnreachableError: The database is not running.
        """
        from aspen.workflows.engine.local import LocalEngine

        return LocalEngine(self.database_url(), jobs_folder(self.deployment.state))

    def psql(self) -> Path | None:
        """Return the psql that came with the server's programs, or None if there is none."""
        try:
            program = find_binaries().bindir / "psql"
        except UnreachableError:
            return None
        return program if os.access(program, os.X_OK) else None


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


def service_status(state: DeploymentFiles, supervision: Supervision, name: str) -> PartStatus:
    """Return a service's status, without waiting."""
    record, folder, port = supervision.record(), state.part(name), state.ports().get(name)
    kept = record.get(name, PartRecord())
    process = kept.process if kept.lives else None
    if name not in record:
        phase = Phase.ABSENT
    elif supervision.process or kept.phase is Phase.STOPPED:
        phase = kept.phase
        if phase is Phase.RUNNING and not process:  # the supervisor has not noticed yet
            phase = Phase.RESTARTING
    else:
        phase = Phase.CRASHED  # together with its supervisor
    return PartStatus(
        name=name,
        state=phase,
        pid=process.pid if process else None,
        port=port,
        version=_moto_version() if name == "aws" else __version__,
        data=folder,
        size=size_of(folder),
        uptime=time.time() - kept.since if process and phase is Phase.RUNNING else None,
        program=None,
        url=f"http://{HOST}:{port}" if process else None,
        reason="supervisor exited" if phase is Phase.CRASHED else "",
    )


def _moto_version() -> str | None:
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

    try:
        at = migrate.current(_engine(cluster))
    except OperationalError:  # no such role or database: never prepared
        return False
    return at == migrate.head() or (at is not None and not migrate.has(at))


def is_empty(cluster: Cluster) -> bool:
    """Return True if the database has no groups, and therefore no users or samples."""
    with _engine(cluster).connect() as connection:
        return not connection.scalar(sa.text("SELECT EXISTS (SELECT FROM aspen.groups)"))


def _engine(cluster: Cluster) -> sa.Engine:
    return sa.create_engine(cluster.url(), poolclass=NullPool)  # it keeps no connections

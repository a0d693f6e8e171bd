"""The whole deployment: PostgreSQL, and the services that a supervisor keeps running."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from local import postmaster
from local.aws.objects import OBJECTS, ObjectFolder
from local.parts import PartStatus, PartSteps, Started, Stopped
from local.places import Places
from local.ports import HOST
from local.record import PartRecord, Phase
from local.services import PARTS, POSTGRES, with_needed
from local.state import State
from local.statuses import service_status, with_restarts
from local.supervision import LostError, PortTakenError, Supervision
from local.supervisor.timing import Timing

if TYPE_CHECKING:
    from local.postgres import Cluster
    from local.prepare import Prepared
    from local.seed import RolesResult

_API = "api"
_PATIENCE_S = 5.0  # for PostgreSQL to shut down cleanly
_TRIES = 4  # another program may take a port, or end the supervisor, at the last moment


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
        from local.postgres import Cluster  # loads SQLAlchemy

        return Cluster(self.state.home, settings=self._settings)

    def up(self, names: Iterable[str] = PARTS, progress: PartSteps | None = None) -> Up:
        """Start parts and their dependencies, and wait until they are ready.

        The database is created and migrated if needed. If the API is started and the database has
        no groups, the test data is added. Parts that are already running are left alone. If a
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
        if not (self.state.home.exists()):
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
        from sqlalchemy.engine import URL, make_url

        url = make_url(self.cluster.url())
        plain = URL.create("postgresql", url.username, None, url.host, url.port, url.database)
        return plain.render_as_string()

    def prepare(self, progress: PartSteps | None = None) -> Prepared:
        """Create the database if needed, migrate it, and grant the roles their privileges."""
        from local.prepare import prepare

        tell = progress or (lambda _part, _step: None)
        return prepare(self.cluster, progress=lambda step: tell(POSTGRES, step))

    def publish(self) -> None:
        """Upload stored files that the running S3 lacks, such as those added since it started."""
        kept = self.supervision.record().get("aws")
        if kept and kept.runs:
            from local.aws.content import read_credentials
            from local.aws.publish import publish

            address = f"http://{HOST}:{self.state.ports()['aws']}"
            publish(address, read_credentials(self.state.part("aws")), self.objects.stored())

    def _up(self, names: tuple[str, ...], progress: PartSteps, notes: list[str], made: _Made) -> Up:
        since, before = time.time(), self.supervision.record()
        alone = names == (POSTGRES,)
        with self._undone(alone=alone):
            # The services load while PostgreSQL starts.
            services = [] if alone else self.supervision.start(names, notes)
            from local.contents import is_at_head, is_empty

            server = self.cluster.up(progress=lambda step: progress(POSTGRES, step))
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
        served = postmaster.read(Places(self.state.home).data)
        try:
            yield
        except BaseException as error:
            if not alone and self.supervision.process != supervised:
                self.supervision.stop()
            if not isinstance(error, Exception) and not served:
                # Do not import anything here: a module whose import was interrupted stays
                # half-loaded.
                postmaster.stop(Places(self.state.home).data, patience=_PATIENCE_S)
            raise

    def _stop_services(self) -> dict[str, Stopped]:
        stopped = self.supervision.stop()
        idle = Stopped(was_running=False, how="", seconds=0.0)
        return {name: stopped.get(name, idle) for name in reversed(PARTS) if name != POSTGRES}

    def _fill(self, progress: PartSteps) -> RolesResult | None:
        """Add the test data to an empty database, or the rest of it after an interruption."""
        from local.contents import fill, is_empty

        if not (self.state.filling.exists() or is_empty(self.cluster)):
            return None
        progress(POSTGRES, "adding the test data")
        return fill(self.cluster, self.objects, self.state.filling)

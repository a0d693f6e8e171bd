"""The whole deployment: PostgreSQL, and the services that a supervisor keeps."""

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
_PATIENCE_S = 5.0  # for PostgreSQL to end by itself
_TRIES = 4  # other programs may take a port, or end the supervisor, at the last moment


@dataclass(frozen=True)
class Up:
    """What bringing the deployment up did.

    Attributes:
        started: What starting each part did, by its name.
        prepared: What preparing the database did; None where it was ready.
        filled: The test data that an empty database got; None where it got none.
        empty: The database holds no group.
        seconds: How long all of it took.
    """

    started: dict[str, Started]
    prepared: Prepared | None
    filled: RolesResult | None
    empty: bool
    seconds: float

    @property
    def changed(self) -> bool:
        """Whether anything was started, made, migrated or filled."""
        idle = all(one.already_running for one in self.started.values())
        return bool(self.prepared or self.filled) or not idle


@dataclass
class _Made:
    """What a start has made of the database, in all of its attempts."""

    prepared: Prepared | None = None
    filled: RolesResult | None = None


class Deployment:
    """The deployment below a folder.

    Args:
        home: That folder.
        settings: Settings of PostgreSQL that differ from those for a laptop.
        timing: How patient a new supervisor is.
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
        """Its PostgreSQL."""
        from local.postgres import Cluster  # it needs SQLAlchemy

        return Cluster(self.state.home, settings=self._settings)

    def up(self, names: Iterable[str] = PARTS, progress: PartSteps | None = None) -> Up:
        """Start parts, with those that they need, and wait until they are ready.

        The database is made and migrated where that is wanting. Where the API is started and it
        holds no group, the test data are added. Nothing is done where all is well. Where a service
        cannot be started, none is left running that did not run before; where it is interrupted,
        PostgreSQL neither.

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
                    self.supervision.stop()  # the next one begins anew
                    if attempt == _TRIES:
                        raise
        raise AssertionError  # the loop returns or raises

    def down(self) -> dict[str, Stopped]:
        """Stop every part, PostgreSQL last; what that did, by the part's name."""
        if not (self.state.home.exists()):
            return {name: Stopped(was_running=False, how="", seconds=0.0) for name in PARTS[::-1]}
        with self.state.lock():
            stopped = self._stop_services()
            return {**stopped, POSTGRES: self.cluster.down()}

    def status(self) -> list[PartStatus]:
        """What each part is doing."""
        database = self.cluster.status()
        if database.pid:
            database = replace(database, url=self.database_url())
        services = [
            service_status(self.state, self.supervision, name) for name in PARTS if name != POSTGRES
        ]
        return [with_restarts(one, self.supervision) for one in (database, *services)]

    def reset(self) -> dict[str, bool]:
        """Stop every part and delete its data; whether it had any, by the part's name."""
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
        """Where each service that runs answers on 127.0.0.1."""
        record, ports = self.supervision.record(), self.state.ports()
        return {name: ports[name] for name, kept in record.items() if name in ports and kept.lives}

    def database_url(self) -> str:
        """The address of the database without its password."""
        from sqlalchemy.engine import URL, make_url

        url = make_url(self.cluster.url())
        plain = URL.create("postgresql", url.username, None, url.host, url.port, url.database)
        return plain.render_as_string()

    def prepare(self, progress: PartSteps | None = None) -> Prepared:
        """Make the database where it is missing, migrate it, and give the roles their rights."""
        from local.prepare import prepare

        tell = progress or (lambda _part, _step: None)
        return prepare(self.cluster, progress=lambda step: tell(POSTGRES, step))

    def publish(self) -> None:
        """Have the running S3 hold every kept file, those that were added since it started too."""
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
            # They load while PostgreSQL starts.
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
        """What became of a service, which runs by now."""
        now = self.supervision.record()[name]
        # An unresponsive one that answers again was waited for, not started.
        ran = {Phase.RUNNING, Phase.UNRESPONSIVE}
        already = bool(before and before.process == now.process and before.phase in ran)
        pid = now.process.pid if now.process else 0  # it has just ended again, then
        seconds = 0.0 if already else now.since - since
        return Started(already, self.state.ports()[name], pid, seconds)

    @contextmanager
    def _undone(self, *, alone: bool) -> Iterator[None]:
        """Undo what was started, where it does not succeed."""
        supervised = self.supervision.process
        served = postmaster.read(Places(self.state.home).data)
        try:
            yield
        except BaseException as error:
            if not alone and self.supervision.process != supervised:
                self.supervision.stop()
            if not isinstance(error, Exception) and not served:
                # Without loading anything: what was being loaded when the interrupt came is
                # half there, and stays so.
                postmaster.stop(Places(self.state.home).data, patience=_PATIENCE_S)
            raise

    def _stop_services(self) -> dict[str, Stopped]:
        stopped = self.supervision.stop()
        idle = Stopped(was_running=False, how="", seconds=0.0)
        return {name: stopped.get(name, idle) for name in reversed(PARTS) if name != POSTGRES}

    def _fill(self, progress: PartSteps) -> RolesResult | None:
        """Add the test data to an empty database; where that was interrupted, the rest of them."""
        from local.contents import fill, is_empty

        if not (self.state.filling.exists() or is_empty(self.cluster)):
            return None
        progress(POSTGRES, "adding the test data")
        return fill(self.cluster, self.objects, self.state.filling)

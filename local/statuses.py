"""The status of services, from the record and their processes."""

from __future__ import annotations

import time
from dataclasses import replace

from aspencli import __version__
from local.parts import PartStatus
from local.parts import State as Doing
from local.places import size_of
from local.ports import HOST
from local.record import PartRecord, Phase
from local.state import State
from local.supervision import Supervision

_DOING = {
    Phase.STARTING: Doing.STARTING,
    Phase.RUNNING: Doing.RUNNING,
    Phase.UNRESPONSIVE: Doing.UNRESPONSIVE,
    Phase.RESTARTING: Doing.RESTARTING,
    Phase.STOPPED: Doing.STOPPED,
}


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
        reason="its supervisor ended" if doing is Doing.CRASHED else "",
    )


def _version() -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("moto")
    except PackageNotFoundError:
        return None

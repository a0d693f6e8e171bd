"""Every look at a database in one go, each with a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from sqlalchemy.exc import DBAPIError

from aspencli.errors import CredentialsError
from aspencli.services.diagnostics import checks, health
from aspencli.services.diagnostics.findings import Examined, Verdict
from aspencli.services.diagnostics.looking import patient
from db.database import Database
from db.sessions import ReadSession

_Look = Callable[[ReadSession], Examined]
_ON_SESSIONS: dict[str, _Look] = {
    "connections": health.connections,
    "activity": checks.check_activity,
    "locks": checks.check_locks,
    "outliers": checks.check_outliers,
    "sizes": checks.check_sizes,
    "indexes": checks.check_indexes,
    "bloat": checks.check_bloat,
    "vacuum": health.dead_rows,
    "transaction ids": health.transaction_ids,
    "sequences": health.sequences,
    "replication": health.replication,
}
# What the server says when it did not answer this one question; any other error ends the visit.
_GAVE_UP = {
    "55P03": "a lock was in the way",
    "57014": "it took too long",
    "42501": "this user may not look",
}


def examine(database: Database) -> Iterator[Examined]:
    """Make every check; what one of them meets keeps none of the others from being made."""
    limited = patient(database)
    try:
        yield _guarded("schema", partial(checks.check_schema, limited))
        for name, look in _ON_SESSIONS.items():
            yield _guarded(name, partial(_look, limited, look))
        yield _guarded("settings", partial(checks.check_settings, limited))
    finally:
        limited.dispose()


def _look(database: Database, look: _Look) -> Examined:
    with database.reading() as session:
        return look(session)


def _guarded(name: str, work: Callable[[], Examined]) -> Examined:
    try:
        return work()
    except CredentialsError as error:
        message = f"could not look: {_GAVE_UP['42501']}"
        return Examined(name, Verdict.UNKNOWN, message, error.hint, (error.message,))
    except DBAPIError as error:
        reason = _GAVE_UP.get(getattr(error.orig, "pgcode", None) or "")
        if reason is None:
            raise
        said = str(error.orig).strip().splitlines()[0]
        step = f"Look again, or as another user: aspencli db {name}" if name in _COMMANDS else None
        return Examined(name, Verdict.UNKNOWN, f"could not look: {reason}", step, (said,))


_COMMANDS = frozenset({"activity", "locks", "outliers", "sizes", "indexes", "bloat", "settings"})

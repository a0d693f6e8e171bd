"""All checks of a database in one run, each with a verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from sqlalchemy.exc import DBAPIError

from aspencli.errors import AspenError, CredentialsError
from aspencli.services.diagnostics import checks, health
from aspencli.services.diagnostics.findings import Examined, Verdict
from aspencli.services.diagnostics.looking import patient, quoted
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
_REASONS = {
    "55P03": "a lock was in the way",
    "57014": "it took too long",
    "42501": "this user may not look",
}
_FORBIDDEN = "42501"
_REPORT = "Please report it to the maintainers of aspencli."


def examine(database: Database) -> Iterator[Examined]:
    """Yield the verdict of each check; a failure in one does not stop the others.

    Raises:
        DBAPIError: The database cannot be reached at all.
    """
    limited = patient(database)
    user = database.url.username
    try:
        with limited.reading() as session:
            between = health.pooler(session)
        if between is not None:
            yield between
        yield _guarded("schema", partial(checks.check_schema, limited), user)
        for name, look in _ON_SESSIONS.items():
            yield _guarded(name, partial(_look, limited, look), user)
        yield _guarded("settings", partial(checks.check_settings, limited), user)
    finally:
        limited.dispose()


def _look(database: Database, look: _Look) -> Examined:
    with database.reading() as session:
        return look(session)


def _guarded(name: str, work: Callable[[], Examined], user: str | None) -> Examined:
    """Return the verdict of a check, or ``unknown`` and the reason if it fails."""
    try:
        return work()
    except AspenError as error:
        details = (error.message, *error.details)
        if isinstance(error, CredentialsError):
            return _unknown(name, f"could not look: {_REASONS[_FORBIDDEN]}", error.hint, details)
        return _unknown(name, f"could not look: {error.message}", error.hint, error.details)
    except DBAPIError as error:
        return _refused(name, error, user)
    except Exception as error:  # noqa: BLE001 - one failed check must not hide the others
        message = f"the check failed: {type(error).__name__}: {error}"
        return _unknown(name, message, _REPORT, ())


def _refused(name: str, error: DBAPIError, user: str | None) -> Examined:
    state = getattr(error.orig, "pgcode", None)
    said = (str(error.orig).strip().splitlines() or [""])[0]
    reason = _REASONS.get(state or "", "the server refused the question")
    if state is None:
        reason = "the connection failed"
    if state == _FORBIDDEN:
        step = f"Ask for: GRANT pg_monitor TO {quoted(user) if user else 'this user'}"
    elif name in _COMMANDS:
        step = f"Look again, or as another user: aspencli db {name}"
    else:
        step = "Look again, or as another user."
    return _unknown(name, f"could not look: {reason}", step, (said,))


def _unknown(name: str, message: str, step: str | None, details: Sequence[str]) -> Examined:
    return Examined(name, Verdict.UNKNOWN, message, step, tuple(details))


_COMMANDS = frozenset({"activity", "locks", "outliers", "sizes", "indexes", "bloat", "settings"})

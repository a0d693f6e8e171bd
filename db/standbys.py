"""Detection of writes that reach a standby, whatever language the server's messages are in."""

from __future__ import annotations

from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.exc import DBAPIError

from db.errors import StandbyError

# read_only_sql_transaction; feature_not_supported (SET TRANSACTION READ WRITE); and
# object_not_in_prerequisite_state (LOCK TABLE). On a primary, each of them has other causes.
_REFUSALS = frozenset({"25006", "0A000", "55000"})


def report_standby(engine: Engine) -> None:
    """Make an engine raise `StandbyError` for statements refused because of a standby."""
    event.listen(engine, "handle_error", _examine)


def _examine(failure: ExceptionContext) -> None:
    error = failure.original_exception
    if getattr(error, "pgcode", None) not in _REFUSALS or failure.connection is None:
        return
    driver: Any = failure.connection.connection.driver_connection
    if _is_standby(driver, failure.engine):
        info = driver.info
        raise StandbyError(f"{info.host or 'local socket'}:{info.port}") from error


def _is_standby(driver: Any, engine: Engine | None) -> bool:
    reported = driver.get_parameter_status("in_hot_standby")
    if reported is not None or engine is None:
        return bool(reported == "on")
    # Before PostgreSQL 14 only a query can tell, and this transaction has failed.
    try:
        with engine.connect() as connection:
            return bool(connection.exec_driver_sql("SELECT pg_is_in_recovery()").scalar())
    except DBAPIError:
        return False  # the original error is the one to report

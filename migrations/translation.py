"""Translation of errors of Alembic and PostgreSQL into messages for operators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from db.errors import StandbyError
from migrations.errors import MigrationError, MigrationLockError, MigrationPermissionError
from migrations.guard import MigrationLimits
from migrations.journal import Journal

_EXISTS_ALREADY = frozenset({"42P06", "42P07"})  # duplicate_schema, duplicate_table


@contextmanager
def told_in_words(limits: MigrationLimits, journal: Journal | None = None) -> Iterator[None]:
    """Turn the failures of a migration into a `MigrationError`.

    Args:
        limits: The time limits of the migration.
        journal: The record of the run, if it changes something.

    A failure to connect, or a lost connection, passes through unchanged.
    """
    try:
        yield
    except CommandError as error:
        raise MigrationError(str(error)) from error
    except DBAPIError as error:
        code = getattr(error.orig, "pgcode", None)
        if code is None:
            raise
        left = (journal or Journal()).words
        if "CONCURRENTLY" in (error.statement or "").upper():
            left += " An index that was built concurrently may be left, marked INVALID: drop it."
        raise _translated(code, str(error.orig).strip(), limits, left) from error
    except Exception as error:
        if journal is None or not _is_of_a_revision(error):
            raise
        words = str(error).partition("\n")[0]
        raise MigrationError(
            f"The revision's code failed: {type(error).__name__}: {words}", hint=journal.words
        ) from error


def _is_of_a_revision(error: Exception) -> bool:
    """Return True if the code of a revision raised the error."""
    if isinstance(error, (MigrationError, SQLAlchemyError, StandbyError)):
        return False
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name in {"upgrade", "downgrade"} and (
            "down_revision" in trace.tb_frame.f_globals
        ):
            return True
        trace = trace.tb_next
    return False


def _translated(code: str, text: str, limits: MigrationLimits, left: str) -> MigrationError:
    first_line = text.splitlines()[0]
    match code:
        case "42501":  # insufficient_privilege
            return MigrationPermissionError(
                f"this role may not do that: {first_line}",
                hint="Migrate as the owner of schema aspen, who may create in schema public too.",
            )
        case "25006":  # read_only_sql_transaction
            return MigrationPermissionError(
                "the session is read-only", hint="Migrate through a session that may write."
            )
        case "55P03":  # lock_not_available
            return MigrationLockError(
                f"a table was in use for longer than {limits.lock_ms / 1000:g} s: {first_line}",
                hint=f"{left} Try again when the table is quieter.",
            )
        case "57014":  # query_canceled
            return MigrationError(
                f"a statement ran for longer than {limits.statement_ms / 1000:g} s, or was "
                f"cancelled: {first_line}",
                hint=f"{left} Allow more time, and try again.",
            )
        case code if code in _EXISTS_ALREADY:
            return MigrationError(
                f"the database has already what the revision makes: {first_line}",
                hint="No revision is recorded for what is there. Compare it with the models, and "
                "record one in public.alembic_version when they agree.",
            )
        case _:
            return MigrationError(
                f"the database refused: {first_line} (SQLSTATE {code})",
                hint=left,
            )

"""Work for ``db profile``: SQL, Python, or a request to the service, run in this process."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aspencli.context import AppContext
from aspencli.errors import BadInputError, RefusedError
from db.connecting import Guard

if TYPE_CHECKING:
    from aspencli.services.profiling import Bench
    from db.database import Database

# SQLSTATEs and classes: connection, sign-in, resources, read-only, locks, privileges, timeouts.
_NOT_THE_STATEMENT = ("08", "28", "53", "57", "40", "25006", "55P03", "42501")
_ACTIVE_TRANSACTION = "25001"
_IN_ONE_TRANSACTION = (
    "All statements run in one transaction here. Run this one in psql: aspencli db psql"
)


@dataclass(frozen=True)
class Work:
    """The work to profile; exactly one kind is given."""

    script: Path | None
    arguments: list[str]
    sql: str | None
    code: str | None
    request: str | None
    user: str | None
    body: Path | None
    write: bool
    commit: bool

    def check(self) -> None:
        """Check that the options select exactly one thing to run.

        Raises:
            BadInputError: If there is nothing or too much to run, or options conflict.
        """
        given = [self.sql is not None, self.code is not None, self.request is not None]
        if sum(given) > 1 or not (any(given) or self.script):
            raise BadInputError(
                "one thing to profile is needed",
                hint='Give a script, a .sql file, -c CODE, --sql "..." or --request "GET /...".',
            )
        if (self.user or self.body) and self.request is None:
            raise BadInputError("--as and --body belong to --request")
        if self.commit and not self.write:
            raise BadInputError("--commit needs --write")

    @property
    def name(self) -> str:
        """Return a description of the work."""
        return self.request or self.sql or self.code or str(self.script)


def bench_for(work: Work, *, parameters: bool) -> Bench:
    """Return a bench for recording, with parameters of the slowest statements if requested."""
    from aspencli.services.profiling import Bench

    return Bench(parameters=parameters, rehearse=work.write and not work.commit)


def run(context: AppContext, work: Work, bench: Bench) -> int:
    """Run the work under a recorder, and return its exit code.

    Raises:
        KeyboardInterrupt: If interrupted; the bench then holds what ran until then.
    """
    guard = Guard.REHEARSAL if bench.rehearse else Guard.NONE if work.write else Guard.READING
    database = context.database(writable=work.write, guard=guard)
    if work.request is not None:
        return _ask(context, work, bench)
    if work.sql is not None:
        return _execute_sql(context, work.sql, database, bench, "--sql")
    if work.code is None and work.script is not None and work.script.suffix == ".sql":
        from aspencli.services.profiling import read_file

        return _execute_sql(context, read_file(work.script), database, bench, str(work.script))
    # Only the report goes to stdout, not the output of the code.
    with redirect_stdout(sys.stderr):
        return _execute(context, work, bench, database)


def _execute_sql(
    context: AppContext, text: str, database: Database, bench: Bench, source: str
) -> int:
    from sqlalchemy.exc import DBAPIError

    from aspencli.services.profiling import run_sql
    from aspencli.shell.failures import brief
    from aspencli.shell.interrupts import interruptible

    try:
        with interruptible():
            run_sql(text, database, bench, source)
    except DBAPIError as error:
        state = getattr(error.orig, "pgcode", None)
        if state is None or state.startswith(_NOT_THE_STATEMENT):
            raise  # handled in the same way by every command
        told = brief(error, how_to_write="", is_own=lambda name: name == source)
        assert told is not None  # noqa: S101 - it is the driver's error
        hint = _IN_ONE_TRANSACTION if state == _ACTIVE_TRANSACTION else told.hint
        context.out.error(told.message, hint=hint, details=told.details)
        return 1
    return 0


def _ask(context: AppContext, work: Work, bench: Bench) -> int:
    from aspencli.clients.service import ask_here
    from aspencli.services.profiling import read_file, split_request

    method, path = split_request(work.request or "", write=work.write)
    _require_direct(context)
    bench.rehearse = not work.commit  # the service can write during a GET as well
    body = read_file(work.body).encode() if work.body else None
    answered = ask_here(
        context.database_url(), method, path, user=work.user, body=body, around=bench.around
    )
    said = f"{method} {path}: {answered.status}, {len(answered.body):,} bytes"
    if answered.status < 400:  # noqa: PLR2004 - HTTP status codes
        context.out.info(said)
        return 0
    context.out.error(said, hint=None if work.user else "Say who asks: --as EMAIL")
    return 1


def _require_direct(context: AppContext) -> None:
    """Check that there is no connection pooler.

    Raises:
        RefusedError: If there is one.
    """
    with context.database().reading() as session:
        driver: Any = session.connection().connection.driver_connection
        if driver.pooled:
            raise RefusedError(
                "A request cannot be profiled through a connection pooler: the service prepares "
                "its statements once per session, and gives its settings when it connects.",
                hint="Set database_url to the server itself. Scripts and SQL can be profiled here.",
            )


def _execute(context: AppContext, work: Work, bench: Bench, database: Database) -> int:
    from aspencli.shell.console import ConsoleRequest
    from aspencli.shell.script import execute

    words = [str(work.script), *work.arguments] if work.script else work.arguments
    return execute(
        ConsoleRequest(
            open_database=lambda: database,
            address=context.database_url(),
            target_label=context.target.title,
            safety=context.target.safety,
            confirm_write=lambda: False,
            writing=work.write,
            code=work.code,
            script=None if work.code is not None else work.script,
            arguments=words if work.code is not None else words[1:],
            connect=False,
            debug=bool(context.options["debug"]),
            messages=context.out,
            around=bench.around,
            ended=bench.stop,
        )
    )

"""``aspencli db profile``: the queries that code runs, their source lines, and their cost.

The work to profile is SQL, Python code, or a request to the service, run in this process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspen.database.settings import Guard
from aspencli.cli.app import expanded
from aspencli.cli.changes.session import WriteSession
from aspencli.cli.context import AppContext, current
from aspencli.cli.output.formats import prints
from aspencli.cli.output.profile import (
    CHANGES,
    COLUMNS,
    ReportOptions,
    earlier,
    limits_of,
    page_file,
    read_file,
    tell,
)
from aspencli.cli.params import ReasonOption
from aspencli.errors import INTERRUPTED, AspenError, BadInputError, RefusedError

if TYPE_CHECKING:
    from aspen.api.in_process import InProcessResponse
    from aspen.database.engine import Database
    from aspen.database.profiling.queries import Query
    from aspen.database.profiling.recorder import Recorder


# SQLSTATEs and classes: connection, sign-in, resources, read-only, locks, privileges, timeouts.
_NOT_THE_STATEMENT = ("08", "28", "53", "57", "40", "25006", "55P03", "42501")
_ACTIVE_TRANSACTION = "25001"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
_READING = frozenset({"GET", "HEAD"})
_ENDING = frozenset({"BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "PREPARE"})
_IN_ONE_TRANSACTION = (
    "db profile runs everything in one transaction. Run this statement in psql: aspencli db psql"
)


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work to profile; exactly one kind is given."""

    script: Annotated[
        Path | None,
        typer.Argument(metavar="[SCRIPT", help="A Python script or an SQL file (.sql)."),
    ] = None
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARGS...]", help="Passed to the script in sys.argv."),
    ] = None
    sql: Annotated[str | None, typer.Option("--sql", metavar="SQL", help="Run this SQL.")] = None
    code: Annotated[
        str | None,
        typer.Option(
            "--command", "-c", metavar="CODE", help="Run this Python code, as in the console."
        ),
    ] = None
    request: Annotated[
        str | None,
        typer.Option(
            "--request", metavar="'GET /v2/...'", help="Run this request in this process."
        ),
    ] = None
    user: Annotated[
        str | None,
        typer.Option("--as", metavar="USER", help="Run the request as this user (e-mail or ID)."),
    ] = None
    body: Annotated[Path | None, typer.Option(help="JSON file to send as the request body.")] = None
    write: Annotated[
        bool, typer.Option("--write", help="Allow writes; they are rolled back at the end.")
    ] = False
    commit: Annotated[
        bool,
        typer.Option("--commit", help="With --write: commit instead of rolling back. Asks first."),
    ] = False

    def check(self) -> None:
        """Check that the options select exactly one thing to run.

        Raises:
            BadInputError: Nothing to run, more than one thing to run, or conflicting options.
        """
        given = [self.sql is not None, self.code is not None, self.request is not None]
        if sum(given) > 1 or not (any(given) or self.script):
            raise BadInputError(
                "Give exactly one thing to profile",
                hint='Use a script, a .sql file, -c CODE, --sql "...", or --request "GET /...".',
            )
        if (self.user or self.body) and self.request is None:
            raise BadInputError("--as and --body require --request")
        if self.commit and not self.write:
            raise BadInputError("--commit requires --write")

    @property
    def name(self) -> str:
        """Return a description of the work."""
        return self.request or self.sql or self.code or str(self.script)


@dataclass(frozen=True, kw_only=True)
class ReportArguments:
    """The options for the report, as they were given."""

    explain: Annotated[
        bool, typer.Option("--explain", help="Show query plans; runs SELECTs again.")
    ] = False
    analyze: Annotated[
        bool, typer.Option("--analyze", help="With --explain: run SELECTs again on production too.")
    ] = False
    top: Annotated[int, typer.Option(min=1, help="Number of statements to show.")] = 20
    min_ms: Annotated[
        float,
        typer.Option(min=0, metavar="MS", help="Only statements with at least this total time."),
    ] = 0.0
    params: Annotated[
        bool,
        typer.Option(
            "--params", help="Show parameters of the slowest run; may contain personal data."
        ),
    ] = False
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write an HTML report.")
    ] = None
    compare: Annotated[
        Path | None,
        typer.Option(metavar="BEFORE.json", help="Compare with an earlier JSON profile."),
    ] = None
    budget: Annotated[
        str | None,
        typer.Option(metavar="LIMITS", help='Fail if exceeded: "queries<=12,total<=200ms,n+1=0".'),
    ] = None

    def checked(self) -> ReportOptions:
        """Return the options of the report.

        Raises:
            BadInputError: A file or a limit is not valid.
        """
        return ReportOptions(
            top=self.top,
            min_ms=self.min_ms,
            parameters=self.params,
            plans=self.explain or self.analyze,
            analyze=self.analyze,
            before=earlier(self.compare),
            page=page_file(self.html),
            limits=limits_of(self.budget),
        )


@expanded
@prints(COLUMNS, CHANGES, document="aspen.database.profiling.report:ProfileDocument")
def profile(
    ctx: typer.Context, *, work: Work, reason: ReasonOption = None, report: ReportArguments
) -> None:
    """Run code, SQL, or a request, and show its queries: source lines, counts, and times.

    Read-only unless --write is given; writes are rolled back at the end unless --commit is given
    too. The code's own output goes to stderr. Ctrl-C stops it and shows what ran so far. The exit
    code is 1 if the code fails or exceeds the budget.

    On shared and production targets, --write is recorded in the history with a reason and the
    statements.
    """
    context = current(ctx)
    work.check()
    wanted = report.checked()
    if work.write:
        context.recognize()
    with WriteSession(context, "db profile", reason, commits=work.commit) as session:
        # A rolled-back run still holds locks, and a request may do more than write to the database.
        if work.commit or (work.write and session.is_recorded):
            session.allow("profile code that writes")
        bench = Bench(
            parameters=wanted.parameters or wanted.plans,
            rehearse=work.write and not work.commit,
            heard=session.heard if session.is_open else None,
        )
        status = _run_or_tell(context, work, bench, wanted)
        session.ended(status)
    if status == INTERRUPTED:
        wanted = wanted.after_interrupt()
    tell(context, bench.recorder, work.name, wanted)
    if status:
        raise typer.Exit(status)


def _run_or_tell(context: AppContext, work: Work, bench: Bench, wanted: ReportOptions) -> int:
    """Run the work, and return its exit code; if it is interrupted, report what ran until then."""
    try:
        return run(context, work, bench)
    except KeyboardInterrupt:
        if bench.recorder is not None:
            tell(context, bench.recorder, work.name, wanted.after_interrupt())
        raise


@dataclass
class Bench:
    """The setup that work is profiled with; a rehearsal rolls back whatever the work commits."""

    parameters: bool
    rehearse: bool
    heard: Callable[[str, bool], None] | None = None  # called with each statement, and if it failed
    recorder: Recorder | None = None  # until the work has started

    @contextmanager
    def around(self, engine: Any) -> Iterator[None]:
        """Record the statements of an engine during a ``with`` block."""
        from aspen.database.profiling.recorder import Recorder, rehearsed

        with ExitStack() as opened:
            if self.rehearse:
                opened.enter_context(rehearsed(engine))
            recorder = Recorder(engine, parameters=self.parameters)
            if self.heard is not None:
                recorder.add = _added(recorder, self.heard)
            self.recorder = opened.enter_context(recorder)
            yield

    def stop(self) -> None:
        """Stop recording; the rehearsal continues to the end of its block."""
        if self.recorder is not None:
            self.recorder.stop()


def _added(recorder: Recorder, heard: Callable[[str, bool], None]) -> Callable[[Query], None]:
    """Return a function that adds a query to a recorder, and to the record of the session."""
    add = recorder.add

    def added(query: Query) -> None:
        heard(query.statement, bool(query.error))
        add(query)

    return added


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
        return _execute_sql(context, read_file(work.script), database, bench, str(work.script))
    # Only the report goes to stdout, not the output of the code.
    with redirect_stdout(sys.stderr):
        return _execute(context, work, bench, database)


def _execute_sql(
    context: AppContext, text: str, database: Database, bench: Bench, source: str
) -> int:
    from sqlalchemy.exc import DBAPIError

    from aspencli.cli.console.workspace import interruptible
    from aspencli.cli.failures import brief

    try:
        with interruptible():
            _run_sql(text, database, bench, source)
    except DBAPIError as error:
        state = getattr(error.orig, "pgcode", None)
        if state is None or state.startswith(_NOT_THE_STATEMENT):
            raise  # handled in the same way by every command
        failure = brief(error, how_to_write="", is_own=lambda name: name == source)
        assert failure is not None  # noqa: S101 - it is the driver's error
        hint = _IN_ONE_TRANSACTION if state == _ACTIVE_TRANSACTION else failure.hint
        context.out.fail(failure.message, hint=hint, details=failure.details)
        return 1
    return 0


def _run_sql(text: str, database: Database, bench: Bench, source: str) -> None:
    """Execute statements one by one in one transaction, and fetch their rows.

    Raises:
        BadInputError: There is no statement, or one that cannot run here.
        DBAPIError: The server rejected a statement.
    """
    from aspen.database.profiling.queries import split_statements

    parts = split_statements(text)
    if not parts:
        raise BadInputError("No SQL statement was given.", hint='For example: --sql "SELECT 1"')
    for line, statement in parts:
        _check_statement(line, statement)
    with bench.around(database.engine), database.engine.begin() as connection:
        plainly = connection.execution_options(no_parameters=True)

        def execute(statement: str) -> None:
            result = plainly.exec_driver_sql(statement)
            if result.returns_rows:
                result.fetchall()

        for line, statement in parts:
            # Compiled as Python at the same line number, so that the report can name that line.
            call = compile("\n" * (line - 1) + "execute(statement)", source, "exec")
            exec(call, {"execute": execute, "statement": statement})  # noqa: S102 - our own code


def _check_statement(line: int, statement: str) -> None:
    from aspen.database.profiling.queries import fingerprint

    words = fingerprint(statement).upper().split()
    shown = f"{statement.partition(chr(10))[0][:60]!r} (line {line})"
    if statement.startswith("\\"):
        raise BadInputError(
            f"{shown} is a psql command, not SQL.",
            hint="Remove it, or run the file in psql: aspencli db psql -- -f FILE",
        )
    if words[0] in _ENDING:
        raise BadInputError(
            f"{shown} would end the transaction that all statements run in.",
            hint="Remove it. To commit at the end, pass --write --commit.",
        )
    if words[0] == "COPY" and not {"STDIN", "STDOUT"}.isdisjoint(words):
        raise BadInputError(
            f"{shown} transfers data through the client, which cannot be profiled.",
            hint="Profile the SELECT or INSERT instead, or run it in psql: aspencli db psql",
        )


def _ask(context: AppContext, work: Work, bench: Bench) -> int:
    method, path = _split_request(work.request or "", write=work.write)
    _require_direct(context)
    bench.rehearse = not work.commit  # the service can write during a GET as well
    body = read_file(work.body).encode() if work.body else None
    answered = _answer(_reachable(context), bench, method, path, work.user, body)
    said = f"{method} {path}: {answered.status}, {len(answered.body):,} bytes"
    if answered.status < 400:  # noqa: PLR2004 - HTTP status codes
        context.out.info(said)
        return 0
    context.out.fail(said, hint=None if work.user else "Choose the user to run it as: --as EMAIL")
    return 1


def _reachable(context: AppContext) -> str:
    """Return the address of the database, with the way to it."""
    from sqlalchemy.engine import make_url

    url = make_url(context.database_url())
    if context.route is not None and (place := context.route.libpq.get("hostaddr")):
        url = url.set(port=context.route.libpq["port"]).update_query_dict({"hostaddr": place})
    return url.render_as_string(hide_password=False)


def _answer(
    dsn: str, bench: Bench, method: str, path: str, user: str | None, body: bytes | None
) -> InProcessResponse:
    """Answer a request with the service's own code in this process, without a port."""
    try:
        from aspen.api.in_process import Asked, answer, settings_for
        from aspen.api.settings import SettingsError
    except ImportError as error:
        raise AspenError(
            f"The service is not installed: {error}", hint="Install aspencli[local]."
        ) from error
    try:
        settings = settings_for(dsn)
    except SettingsError as error:
        raise BadInputError(
            f"The service cannot start: {error}", hint="Fix or unset it in the environment."
        ) from error
    return answer(settings, Asked(method, path, user, body), bench.around)


def _split_request(text: str, *, write: bool) -> tuple[str, str]:
    """Return the method, which may write only if requested, and the path of a request."""
    method, _, path = text.strip().partition(" ")
    method, path = method.upper(), path.strip()
    if method not in _METHODS or not path.startswith("/"):
        raise BadInputError(
            f"Invalid request: {text!r}",
            hint='Use the form "GET /v2/orgs/1/pathogens/SC2/samples/".',
        )
    if method not in _READING and not write:
        raise RefusedError(
            f"{method} requests write, and profiling is read-only by default.",
            hint="Pass --write. Changes are rolled back unless you also pass --commit.",
        )
    return method, path


def _require_direct(context: AppContext) -> None:
    """Check that there is no connection pooler."""
    with context.database().reading() as session:
        driver: Any = session.connection().connection.driver_connection
        if driver.pooled:
            raise RefusedError(
                "A request cannot be profiled through a connection pooler: the service prepares "
                "its statements once per session, and sends its settings when it connects.",
                hint="Point database_url at the server itself, or profile a script or SQL instead.",
            )


def _execute(context: AppContext, work: Work, bench: Bench, database: Database) -> int:
    from aspencli.cli.console.run import ConsoleRequest, execute

    given = work.arguments or []
    words = [str(work.script), *given] if work.script else given
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

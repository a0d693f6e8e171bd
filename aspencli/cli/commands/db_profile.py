"""``aspencli db profile``: the queries that code runs, their source lines, and their cost.

Work for ``db profile``: SQL, Python, or a request to the service, run in this process.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspen.database.policy import Guard
from aspencli.cli.app import examples
from aspencli.cli.context import AppContext, current
from aspencli.cli.output.profile import Wanted, earlier, limits_of, page_file, tell
from aspencli.errors import INTERRUPTED, BadInputError, RefusedError
from aspencli.targets import Safety

if TYPE_CHECKING:
    from aspen.database.engine import Database
    from aspencli.diagnostics.profile import Bench


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
    from aspencli.diagnostics.profile import Bench

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
        from aspencli.diagnostics.profile import read_file

        return _execute_sql(context, read_file(work.script), database, bench, str(work.script))
    # Only the report goes to stdout, not the output of the code.
    with redirect_stdout(sys.stderr):
        return _execute(context, work, bench, database)


def _execute_sql(
    context: AppContext, text: str, database: Database, bench: Bench, source: str
) -> int:
    from sqlalchemy.exc import DBAPIError

    from aspencli.cli.console.failures import brief, interruptible
    from aspencli.diagnostics.profile import run_sql

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
    from aspen.local.in_process import ask_here
    from aspencli.diagnostics.profile import read_file, split_request

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
    from aspencli.cli.console.run import ConsoleRequest
    from aspencli.cli.console.script import execute

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


_HANDED_ON = {"allow_interspersed_args": False}


def profile(
    ctx: typer.Context,
    script: Annotated[
        Path | None,
        typer.Argument(metavar="[SCRIPT", help="A Python script, or a file of SQL (.sql)."),
    ] = None,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARGS...]", help="What it finds in sys.argv.")
    ] = None,
    sql: Annotated[str | None, typer.Option("--sql", metavar="SQL", help="Run this SQL.")] = None,
    code: Annotated[
        str | None,
        typer.Option("--command", "-c", metavar="CODE", help="Run this Python, as the console."),
    ] = None,
    request: Annotated[
        str | None,
        typer.Option("--request", metavar="'GET /v2/...'", help="Answer this request in here."),
    ] = None,
    user: Annotated[
        str | None, typer.Option("--as", metavar="USER", help="Who asks: e-mail or id.")
    ] = None,
    body: Annotated[Path | None, typer.Option(help="A file of JSON that is sent.")] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Allow writing; all is rolled back at the end.")
    ] = False,
    commit: Annotated[
        bool, typer.Option("--commit", help="With --write: keep what was written. Asks first.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show plans; SELECTs run again for it.")
    ] = False,
    analyze: Annotated[
        bool, typer.Option("--analyze", help="Run SELECTs again for it on production too.")
    ] = False,
    top: Annotated[int, typer.Option(min=1, help="So many statements.")] = 20,
    min_ms: Annotated[
        float, typer.Option(min=0, metavar="MS", help="Only those that took so long together.")
    ] = 0.0,
    params: Annotated[
        bool, typer.Option("--params", help="Show parameters of the slowest; may be personal data.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page for a browser too.")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(metavar="BEFORE.json", help="Tell what got better and worse.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="LIMITS", help='Fail where broken: "queries<=12,total<=200ms,n+1=0".'),
    ] = None,
) -> None:
    """Run something, and show which queries it made, from which line, and what they cost.

    It is read-only unless --write is given; and then everything is rolled back at the end, unless
    --commit is given too. What the code prints goes to stderr. Ctrl-C ends it, and shows what ran
    until then. A broken budget, or work that fails, ends with exit code 1.
    """
    context = current(ctx)
    work = Work(script, arguments or [], sql, code, request, user, body, write=write, commit=commit)
    work.check()
    wanted = Wanted(
        top=top,
        min_ms=min_ms,
        parameters=params,
        plans=explain or analyze,
        analyze=analyze,
        before=earlier(compare),
        page=page_file(html),
        limits=limits_of(budget),
    )
    if write:
        context.recognize()
    # A rolled-back run still holds locks, and a request may do more than write to the database.
    if commit or (write and context.target.safety is not Safety.LOCAL):
        context.authorise("profile something that writes", dry_run=False)
    bench = bench_for(work, parameters=params or wanted.plans)
    try:
        status = run(context, work, bench)
    except KeyboardInterrupt:
        if bench.recorder is not None:
            tell(context, bench, work.name, wanted.after_interrupt())
        raise
    tell(context, bench, work.name, wanted if status != INTERRUPTED else wanted.after_interrupt())
    if status:
        raise typer.Exit(status)


def register(app: typer.Typer) -> None:
    """Add the command to its group."""
    app.command(
        epilog=examples(
            'aspencli db profile --sql "SELECT count(*) FROM samples" --explain',
            'aspencli db profile -c "[s.lineages for s in session.scalars(select(Sample))]"',
            'aspencli db profile --request "GET /v2/users/me" --as admin@example.org',
        ),
        context_settings=_HANDED_ON,
    )(profile)

"""``aspencli db profile``: the queries that code runs, their source lines, and their cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aspencli.cli import examples
from aspencli.commands.profile_report import Wanted, earlier, limits_of, page_file, tell
from aspencli.commands.profile_work import Work, bench_for, run
from aspencli.context import current
from aspencli.errors import INTERRUPTED
from aspencli.targets import Safety

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

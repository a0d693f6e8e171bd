"""``aspencli db profile``: which queries something makes, from which line, and what they cost."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspencli.cli import examples
from aspencli.context import AppContext, current
from aspencli.errors import AspenError, BadInputError
from aspencli.targets import Safety

if TYPE_CHECKING:
    from aspencli.services.profiling import Bench
    from db.database import Database
    from db.profiling.budgets import Limit
    from db.profiling.summary import Profile

_HANDED_ON = {"allow_interspersed_args": False}


@dataclass(frozen=True)
class _Work:
    """What is to be profiled; exactly one of it is given."""

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
        """Make sure that it can be told what to run.

        Raises:
            BadInputError: It is nothing, or several things, or options contradict.
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
        """It in words."""
        return self.request or self.sql or self.code or str(self.script)


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
    --commit is given too. What the code prints goes to stderr. A broken budget, or work that
    fails, ends with exit code 1.
    """
    context = current(ctx)
    work = _Work(
        script, arguments or [], sql, code, request, user, body, write=write, commit=commit
    )
    work.check()
    limits = _budget(budget)
    before = _document(compare) if compare else None
    # A rehearsal holds locks while it lasts, and a request may do more than write to the database.
    if commit or (write and context.target.safety is not Safety.LOCAL):
        context.authorise("profile something that writes", dry_run=False)
    bench, status = _run(context, work, parameters=params or explain or analyze)
    found = _summary(bench)
    if explain or analyze:
        _explain(context, found, count=min(top, 5), forced=analyze)
    if html:
        _write_page(context, work, found, html, parameters=params)
    _report(context, work, found, top=top, min_ms=min_ms, parameters=params, before=before)
    _check(limits, found)
    if status:
        raise typer.Exit(status)


def _budget(text: str | None) -> list[Limit]:
    if text is None:
        return []
    from db.profiling.budgets import parse_budget

    try:
        return parse_budget(text)
    except ValueError as error:
        raise BadInputError(f"--budget: {error}") from error


def _document(path: Path) -> dict[str, Any]:
    from aspencli.services.profiling import read_file

    try:
        found = json.loads(read_file(path))
    except json.JSONDecodeError as error:
        raise BadInputError(f"{path} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadInputError(f"{path} is no profile", hint="Make one with --output json.")
    return found


def _run(context: AppContext, work: _Work, *, parameters: bool) -> tuple[Bench, int]:
    from aspencli.services.profiling import Bench, read_file, run_sql

    bench = Bench(parameters=parameters, rehearse=work.write and not work.commit)
    database = context.database(writable=work.write)
    status = 0
    if work.request is not None:
        status = _ask(context, work, bench)
    elif work.sql is not None:
        run_sql(work.sql, database, bench)
    elif work.code is None and work.script is not None and work.script.suffix == ".sql":
        run_sql(read_file(work.script), database, bench, str(work.script))
    else:
        # Results are the report; what the code prints is not.
        with redirect_stdout(sys.stderr):
            status = _execute(context, work, bench, database)
    return bench, status


def _ask(context: AppContext, work: _Work, bench: Bench) -> int:
    from aspencli.clients.service import ask_here
    from aspencli.services.profiling import read_file, split_request

    method, path = split_request(work.request or "", write=work.write)
    bench.rehearse = not work.commit  # the service writes where a GET does too
    body = read_file(work.body).encode() if work.body else None
    answered = ask_here(
        context.database_url(), method, path, user=work.user, body=body, around=bench.around
    )
    said = f"{method} {path}: {answered.status}, {len(answered.body):,} bytes"
    if answered.status < 400:  # noqa: PLR2004 - HTTP's
        context.out.info(said)
        return 0
    context.out.error(said, hint=None if work.user else "Say who asks: --as EMAIL")
    return 1


def _execute(context: AppContext, work: _Work, bench: Bench, database: Database) -> int:
    from aspencli.shell.console import ConsoleRequest
    from aspencli.shell.script import execute

    words = [str(work.script), *work.arguments] if work.script else work.arguments
    return execute(
        ConsoleRequest(
            open_database=lambda: database,
            address=context.database_url(),
            target_label=context.target.label,
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


def _summary(bench: Bench) -> Profile:
    from db.profiling.summary import summarise

    if bench.recorder is None:
        raise AspenError("nothing was run")
    return summarise(bench.recorder)


def _explain(context: AppContext, found: Profile, *, count: int, forced: bool) -> None:
    from db.profiling.plans import explain_slowest

    analyze = forced or context.target.safety is not Safety.PRODUCTION
    for one, why in explain_slowest(found, context.database(), count=count, analyze=analyze):
        context.out.warn(f"no plan of {one.key.fingerprint[:60]}: {why}")


def _report(
    context: AppContext,
    work: _Work,
    found: Profile,
    *,
    top: int,
    min_ms: float,
    parameters: bool,
    before: dict[str, Any] | None,
) -> None:
    from aspencli.commands.profile_views import show, show_changes
    from db.profiling.documents import as_document, compare

    document = as_document(found, work.name, parameters=parameters)
    if before is not None:
        try:
            changes = compare(before, document)
        except (ValueError, KeyError, TypeError) as error:
            raise BadInputError(f"--compare: {error}", hint="Make it with -o json.") from error
        return show_changes(context.out, changes)
    if context.out.chosen_form in {"json", "jsonl"}:
        indent = 2 if context.out.chosen_form == "json" else None
        return context.out.text(json.dumps(document, indent=indent, ensure_ascii=False))
    chosen = [one for one in found.statements if one.total_ms + one.fetch_ms >= min_ms]
    return show(context.out, found, chosen[:top], parameters=parameters)


def _write_page(
    context: AppContext, work: _Work, found: Profile, path: Path, *, parameters: bool
) -> None:
    from db.profiling.documents import as_document
    from db.profiling.page import as_page

    page = as_page(found, as_document(found, work.name, parameters=parameters))
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise AspenError(f"the page cannot be written to {path}: {error.strerror}") from error
    context.out.info(f"the page is in {path}")


def _check(limits: list[Limit], found: Profile) -> None:
    from db.profiling.budgets import broken

    if problems := broken(limits, found):
        raise AspenError("the budget is broken: " + "; ".join(problems))


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

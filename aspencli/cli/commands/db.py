"""``aspencli db``: the console, psql, and the status of a database.

The other commands of the group, such as those for the schema, are in modules of their own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from aspencli.cli import params
from aspencli.cli.app import examples, group
from aspencli.cli.changes.session import WriteSession
from aspencli.cli.context import AppContext, current
from aspencli.cli.output.formats import Column, prints
from aspencli.errors import BadInputError, CredentialsError, RefusedError, UnreachableError
from aspencli.signals import become
from aspencli.text import size_text

if TYPE_CHECKING:
    from aspencli.admin.psql import Address, PsqlCall, SessionFacts, Words
    from aspencli.admin.status import Status


# The first five counts are those of aspencli.admin.status.TABLES.
STATUS_COLUMNS = (
    Column("target", "Target", of=str),
    Column("host", "Host", of=str),
    Column("port", "Port", of=int | None),
    Column("database", "Database", of=str),
    Column("user", "User", of=str),
    Column("server_version", "PostgreSQL", of=str),
    Column("revision", "Revision", whole=True),
    Column("head", "Newest revision", of=str),
    Column("schema", "Schema", of=str),
    Column("size", "Size", of=int),
    Column("samples", "Samples", of=int | None),
    Column("users", "Users", of=int | None),
    Column("groups", "Groups", of=int | None),
    Column("phylo_runs", "Phylo runs", of=int | None),
    Column("phylo_trees", "Phylo trees", of=int | None),
    Column("estimated", "Estimated counts", of=list[str]),
    Column("connections", "Connections", of=int),
    Column("max_connections", "Max connections", of=int),
    Column("waiting", "Waiting for locks", of=int),
    Column("longest_transaction_s", "Longest transaction (s)", of=float | None),
    Column("longest_transaction", "Longest transaction by"),
    Column("read_only", "Read-only", of=bool),
    Column("replication", "Replication", of=str),
    Column("verdict", "Verdict", of=str),
    Column("pooler", "Pooler", of=bool),
    Column("limits", "Time limits", of=dict[str, dict[str, int]]),
)


WriteOption = Annotated[
    bool, typer.Option("--write", help="Allow writes; asks for confirmation. Default: read-only.")
]


def interact(
    ctx: typer.Context,
    script: Annotated[
        Path | None,
        typer.Argument(metavar="[SCRIPT", help="Run this file instead; - reads standard input."),
    ] = None,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARGS...]", help="Passed to the script in sys.argv."),
    ] = None,
    code: Annotated[
        str | None, typer.Option("--command", "-c", metavar="CODE", help="Run this code and exit.")
    ] = None,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile", help="Print each query and its time, and a summary of each cell."
        ),
    ] = False,
    connect: Annotated[
        bool, typer.Option("--connect/--no-connect", help="Connect immediately.")
    ] = True,
    write: WriteOption = False,
    reason: params.ReasonOption = None,
) -> None:
    """Open a Python console (IPython) on the target's database, with engine and models defined.

    Read-only unless --write is given. For another session: session = engine.make_session(). With a
    script or -c, runs that code and exits with its exit code. On shared and production targets, a
    session that may write is recorded in the history with its reason and its statements.
    """
    from aspencli.cli.console.run import ConsoleRequest, run

    context = current(ctx)
    context.recognize(writable=write)
    words = [str(word) for word in (script, *(arguments or ())) if word is not None]
    with WriteSession(context, "db interact", reason) as session:
        if write:
            session.allow("open a console with write access")
        elif context.target.warning and context.out.interactive:
            context.out.warn(context.target.warning)
        request = ConsoleRequest(
            open_database=lambda: context.database(writable=write),
            address=context.database_url(writable=write),
            target_label=context.target.title,
            safety=context.target.safety,
            confirm_write=lambda: _is_allowed(context, session),
            writing=write,
            code=code,
            script=None if code is not None else script,
            # With -c every word is an argument, as with python -c.
            arguments=words if code is not None else words[1:],
            profile=profile,
            connect=connect,
            debug=bool(context.options["debug"]),
            messages=context.out,
            heard=session.heard if session.is_recorded else None,
            writing_name=lambda: context.policy(writable=True).application_name,
            shared_queries=lambda: context.config.document.get("queries", {}),
        )
        status = run(request)
        session.ended(status)
    if status:
        raise typer.Exit(status)


def _is_allowed(context: AppContext, session: WriteSession) -> bool:
    """Ask for confirmation at the prompt; on a refusal, print a warning and return False."""
    try:
        session.allow("open a session with write access")
    except (RefusedError, CredentialsError, UnreachableError) as error:
        context.out.warn(error.message)
        if error.hint and not isinstance(error, RefusedError):
            context.out.hint(error.hint)
        return False
    return True


def psql(
    ctx: typer.Context,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[-- ARGS]...", help="Passed to psql.")
    ] = None,
    command: Annotated[
        list[str] | None,
        typer.Option("--command", "-c", metavar="SQL", help="Run this SQL and exit; repeatable."),
    ] = None,
    write: WriteOption = False,
    reason: params.ReasonOption = None,
) -> None:
    """Open psql on the target's database, read-only unless --write is given.

    Unqualified names are looked up in schema aspen, then public. The password is passed to psql in
    its environment, never as an argument. On shared and production targets, a session that may
    write is recorded in the history with its reason and its statements.
    """
    from aspencli.admin.psql import (
        Address,
        find_psql,
        psql_call,
        read_words,
        require_kept_session,
    )

    context = current(ctx)
    context.recognize(writable=write)
    given = [word for text in command or () for word in ("-c", text)] + list(arguments or ())
    with WriteSession(context, "db psql", reason) as session:
        if write:
            session.allow("open psql with write access")
        words = read_words(given)
        if write:
            _refuse_elsewhere(words)
        parameters = context.libpq_parameters(context.database_url(writable=write))
        address = Address(parameters, context.policy(writable=write))
        program = find_psql(context.target, lambda: context.laptop.psql())  # noqa: PLW0108 - loads aspen.local only if called
        address, standing = _reach(context, address)
        require_kept_session(standing, words, writable=write)
        _announce(context, address, standing)
        _warn_of_pooler(context, standing)
        if not write:
            _require_kept_role(context, standing, words)
        call = psql_call(
            program,
            address,
            context.target,
            given,
            standing=standing,
            script=not sys.stdin.isatty(),
        )
        if not session.is_open:
            if context.route is not None:
                context.deployed_database.hand_over()
            _become(call)
        from aspencli.admin.psql_log import run_recorded

        sys.stdout.flush()
        sys.stderr.flush()
        heard = partial(session.heard, placeholders=False)
        status = run_recorded(call, heard, words.log)
        session.ended(status)
    if status:
        raise typer.Exit(status)


def _refuse_elsewhere(words: Words) -> None:
    """Refuse options that may select another database."""
    away = [word for word in words.elsewhere if word not in {"-U", "--username"}]
    if away:
        raise RefusedError(
            f"With --write, psql may only connect to the target's database, and "
            f"{' '.join(away)} could select another; nothing was written",
            hint="Choose the target with --env, or add one to the config file.",
        )


def _warn_of_pooler(context: AppContext, standing: SessionFacts) -> None:
    if standing.pooled and not standing.keeps_session:
        context.out.warn(
            "This pooler does not keep session settings: write aspen.samples, not samples. "
            "The server's time limits apply."
        )


def _reach(context: AppContext, address: Address) -> tuple[Address, SessionFacts]:
    """Connect as psql will; if that fails, fail in the same way as all other commands."""
    import psycopg2

    from aspencli.admin.psql import gather_facts

    # Only production is read as another role; elsewhere, operators work as themselves.
    as_reader = context.target.is_production and not address.writable
    try:
        return address, gather_facts(address, as_reader=as_reader)
    except psycopg2.OperationalError as error:
        if (route := context.route) and (reason := route.explain(str(error))):
            raise reason from error
        # Through a tunnel, a password does not fix every failure.
        may_ask = "hostaddr" not in address.parameters or "password" in str(error)
        known = address.parameters.get("password")
        if known or not (context.out.interactive and may_ask):
            with context.database(writable=address.writable).reading() as session:
                session.connection()
            return address, gather_facts(address, as_reader=as_reader)  # it works by now
    from getpass import getpass

    user = address.parameters.get("user", "")
    password = getpass(f"Password for {user or 'the database'}: ")
    address = replace(address, parameters={**address.parameters, "password": password})
    return address, gather_facts(address, as_reader=as_reader)


def _announce(context: AppContext, address: Address, standing: SessionFacts) -> None:
    if not context.out.interactive:
        return
    if context.target.warning:
        context.out.warn(context.target.warning)
    mode = "READ-WRITE" if address.writable else "read-only (use --write to allow writes)"
    if context.target.is_production and not address.writable:
        if standing.is_read_only_by_convention:
            mode = "read-only by convention only (this database user can write)"
        elif standing.reader:
            mode = f"read-only, as role {standing.reader}"
    limit = int(standing.settings["statement_timeout"]) / 1_000
    long = f"statement timeout {limit:.0f} s" if limit else "no statement timeout"
    if standing.pooled:
        mode += ", via a pooler"
        long = long if standing.keeps_session else "the server's time limits apply"
    context.out.info(f"Target: {context.target.title}, {mode}; {long}")


def _require_kept_role(context: AppContext, standing: SessionFacts, words: Words) -> None:
    """Require the target's name on production if SQL could make this session write."""
    from aspencli.admin.psql import could_leave

    if not context.target.is_production or not standing.can_write:
        return
    if standing.is_read_only_by_convention:
        context.authorize(
            "open psql, read-only by convention only (this database user can write, and no "
            "read-only role is available)",
            by_name=True,
            dry_run=False,
        )
        return
    why = f"use {words.elsewhere[0]}" if words.elsewhere else None
    if why is None:
        found = could_leave([*words.commands, *_texts(words)])
        why = f"run SQL that contains {found!r}" if found else None
    if why is not None:
        context.authorize(
            f"{why}, which could leave the read-only role {standing.reader}",
            by_name=True,
            dry_run=False,
        )


def _texts(words: Words) -> Iterator[str]:
    """Yield the SQL that psql will run from files, and from stdin if it is not a terminal."""
    for name in words.files:
        if name != "-":
            try:
                yield Path(name).read_text(errors="replace")
            except OSError as error:
                raise BadInputError(
                    f"Cannot read {name}: {error.strerror}", hint="Check the file name."
                ) from error
    if words.reads_stdin and not sys.stdin.isatty():
        import tempfile

        text = sys.stdin.buffer.read()
        # psql reads the same text again, from an unnamed temporary file.
        with tempfile.TemporaryFile() as kept:
            kept.write(text)
            kept.seek(0)
            os.dup2(kept.fileno(), 0)
        yield text.decode(errors="replace")


def _become(call: PsqlCall) -> NoReturn:
    """Replace this process with psql."""
    environment = dict(call.environment)
    if (startup := call.startup_pipe()) is not None:
        os.set_inheritable(startup, True)
        environment["PSQLRC"] = f"/dev/fd/{startup}"
    become(call.program, call.arguments, environment)


@prints(STATUS_COLUMNS)
def status(ctx: typer.Context) -> None:
    """Show the server, the schema revision, sizes, counts, and connections.

    The last lines give a verdict and the next step. Counts of large tables are the server's
    estimates. The exit code is 0 whenever the database responds.
    """
    from aspencli.admin.status import status as ask

    context = current(ctx)
    found = ask(context.database())
    context.out.record(STATUS_COLUMNS, _row(context, found))
    if found.pooler:
        context.out.info(
            "Connected via a pooler; each transaction sets its own mode and time limits."
        )
    verdict = found.verdict
    say = context.out.done if verdict.word == "ready" else context.out.warn
    say(verdict.message)
    if verdict.step:
        context.out.hint(verdict.step)


def _row(context: AppContext, found: Status) -> dict[str, Any]:
    from aspencli.admin.status import TABLES

    people = context.out.chosen_form == "table"
    counts = {name: found.counts.get(name) for name in TABLES}
    return {
        **vars(found),
        "target": context.target.label,
        "revision": found.state.revision,
        "head": found.state.head,
        "schema": found.state.word,
        "size": size_text(found.size) if people else found.size,
        **{name: count if people else count and count.rows for name, count in counts.items()},
        "estimated": [name for name, count in counts.items() if count and count.estimated],
        "verdict": found.verdict.word,
        "limits": _limits(found) if people else found.limits,
    }


def _limits(found: Status) -> str:
    """Return the time limits as text, with both values where the server's differs from ours."""
    return "; ".join(
        f"{name}: {_seconds(limit['used'])}"
        + (
            f" (server {_seconds(limit['server'])}, aspencli {_seconds(limit['ours'])})"
            if limit["server"] != limit["ours"]
            else ""
        )
        for name, limit in found.limits.items()
    )


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1_000:g} s" if milliseconds else "none"


app = group("Console, psql, schema migrations, and database health.")


def _add(
    panel: str, command: Callable[..., None], *lines: str, name: str | None = None, **settings: bool
) -> None:
    """Add a command with its examples to a panel of the help."""
    register = app.command(
        name, rich_help_panel=panel, epilog=examples(*lines), context_settings=settings
    )
    register(command)


_add(
    "Console",
    interact,
    "aspencli db interact --profile",
    'aspencli db interact -c "print(session.query(User).count())"',
    "aspencli --env staging db interact report.py 2023-01",
    allow_interspersed_args=False,  # arguments after the first belong to the script
)
_add(
    "Console",
    psql,
    'aspencli db psql -c "select * from users"',
    "aspencli db psql -- --csv -f report.sql",
    'aspencli --env staging db psql --write --reason "fix a typo in a name"',
    allow_interspersed_args=False,  # same, to psql
)
_add("Health", status, "aspencli db status", "aspencli --env prod db status -o json")


# What psql, the console, and the status need not wait for, in the order of the help.


@app.later("access")
def _add_access() -> None:
    from aspencli.cli.commands import db_access

    app.add_typer(db_access.app, name="access", rich_help_panel="Schema")


@app.later("tunnel")
def _add_tunnel() -> None:
    from aspencli.cli.commands import db_tunnel

    _add(
        "Console",
        db_tunnel.tunnel,
        "aspencli --env staging db tunnel",
        "aspencli --env staging db tunnel -- pg_dump -t aspen.pathogens",
        allow_interspersed_args=False,
    )


@app.later(
    *("upgrade", "downgrade", "current", "history", "check", "revision"),
    *("setup", "create", "drop"),
)
def _add_schema() -> None:
    from aspencli.cli.commands import db_schema

    add = partial(_add, "Schema")
    add(db_schema.upgrade, "aspencli db upgrade", "aspencli --env staging db upgrade --dry-run")
    add(
        db_schema.downgrade,
        "aspencli db downgrade -1",
        ignore_unknown_options=True,  # makes -1 an argument instead of an unknown option
    )
    add(db_schema.show_current, "aspencli db current", name="current")
    add(db_schema.history, "aspencli db history")
    add(db_schema.check, "aspencli db check")
    add(db_schema.revision, 'aspencli db revision -m "add samples.collection_site"')
    add(
        db_schema.setup,
        "aspencli db setup",
        "aspencli --local db setup --load-data s3://mybucket/dumps/friday",
    )
    add(db_schema.create, "aspencli db create")
    add(db_schema.drop, "aspencli db drop", "aspencli --env staging db drop --confirm staging")


@app.later("dump", "restore", "copy", "dumps")
def _add_copies() -> None:
    from aspencli.cli.commands import db_copies

    _add(
        "Copies",
        db_copies.dump,
        "aspencli --env prod db dump ./prod-dump",
        "aspencli --env prod db dump s3://mybucket/dumps/friday --groups RCPHL --genomes drop",
    )
    _add(
        "Copies",
        db_copies.restore,
        "aspencli --env rdev --stack mystack db restore ./prod-dump",
        "aspencli --local db restore old-service.sql.gz",
    )
    _add(
        "Copies",
        db_copies.copy,
        "aspencli db copy --from prod --to rdev/mystack --scrub",
        "aspencli db copy --from staging --to local --as me@example.org --dry-run",
    )
    app.add_typer(db_copies.dumps_app, name="dumps", rich_help_panel="Copies")


@app.later()
def _add_diagnostics() -> None:
    from aspencli.cli.commands import db_diagnostics

    db_diagnostics.register(app, "Sessions")
    _add(
        "Sessions",
        db_diagnostics.cancel,
        "aspencli db cancel 4711",
        "aspencli --env prod db cancel 4711 --confirm prod",
    )
    _add(
        "Sessions",
        db_diagnostics.terminate,
        "aspencli db terminate 4711",
        "aspencli --env prod db terminate 4711 4712 --confirm prod",
    )
    db_diagnostics.register(app, "Health")


@app.later("profile")
def _add_profile() -> None:
    from aspencli.cli.commands import db_profile

    _add(
        "Health",
        db_profile.profile,
        'aspencli db profile --sql "SELECT count(*) FROM samples" --explain',
        'aspencli db profile -c "[s.lineages for s in session.scalars(select(Sample))]"',
        'aspencli db profile --request "GET /v2/users/me" --as admin@example.org',
        allow_interspersed_args=False,
    )


@app.later("doctor")
def _add_doctor() -> None:
    from aspencli.cli.commands import db_diagnostics

    _add(
        "Health",
        db_diagnostics.doctor,
        "aspencli db doctor",
        "aspencli --env prod db doctor --strict -o json",
    )

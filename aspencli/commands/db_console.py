"""``aspencli db interact`` and ``aspencli db psql``: interactive access to the database."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aspencli.cli import examples
from aspencli.context import AppContext, current
from aspencli.errors import BadInputError, RefusedError

if TYPE_CHECKING:
    from aspencli.services.psql import Address, PsqlCall, Standing, Words

WriteOption = Annotated[
    bool, typer.Option("--write", help="Allow writing; asks first. Otherwise it is read-only.")
]
# Arguments after the first belong to the script, or to psql.
_HANDED_ON = {"allow_interspersed_args": False}


def interact(
    ctx: typer.Context,
    script: Annotated[
        Path | None,
        typer.Argument(metavar="[SCRIPT", help="Run this file instead; - is standard input."),
    ] = None,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARGS...]", help="What it finds in sys.argv.")
    ] = None,
    code: Annotated[
        str | None, typer.Option("--command", "-c", metavar="CODE", help="Run this and exit.")
    ] = None,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Print each query with its time, and what a cell cost."),
    ] = False,
    connect: Annotated[
        bool, typer.Option("--connect/--no-connect", help="Whether to connect at once.")
    ] = True,
    write: WriteOption = False,
) -> None:
    """Open a Python console (IPython) on the target's database, with engine and models at hand.

    It is read-only unless --write is given: session = engine.make_session(). With a script or -c
    it runs that, and ends with its exit code.
    """
    from aspencli.shell.console import ConsoleRequest, run

    context = current(ctx)
    context.recognize()
    words = [str(word) for word in (script, *(arguments or ())) if word is not None]
    if write:
        context.authorise("open a writing console", dry_run=False)
    elif context.target.warning and context.out.interactive:
        context.out.warn(context.target.warning)
    request = ConsoleRequest(
        open_database=lambda: context.database(writable=write),
        address=context.database_url(),
        target_label=context.target.title,
        safety=context.target.safety,
        confirm_write=lambda: _is_allowed(context),
        writing=write,
        code=code,
        script=None if code is not None else script,
        # With -c every word is an argument, as with python -c.
        arguments=words if code is not None else words[1:],
        profile=profile,
        connect=connect,
        debug=bool(context.options["debug"]),
        messages=context.out,
    )
    status = run(request)
    if status:
        raise typer.Exit(status)


def _is_allowed(context: AppContext) -> bool:
    """Ask for confirmation at the prompt; on a refusal, print a warning and return False."""
    try:
        context.authorise("open a writing session", dry_run=False)
    except RefusedError as error:
        context.out.warn(error.message)
        return False
    return True


def psql(
    ctx: typer.Context,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[-- ARGS]...", help="Handed on to psql.")
    ] = None,
    command: Annotated[
        list[str] | None,
        typer.Option("--command", "-c", metavar="SQL", help="Run this and exit; may be repeated."),
    ] = None,
    write: WriteOption = False,
) -> None:
    """Open psql on the target's database, read-only unless --write is given.

    Unqualified names are looked up in schema aspen, then public. The password reaches psql through
    its environment, never its arguments.
    """
    from aspencli.services.psql import (
        Address,
        find_psql,
        psql_call,
        read_address,
        read_words,
        require_kept_session,
    )

    context = current(ctx)
    context.recognize()
    if write:
        context.authorise("open psql for writing", dry_run=False)
    given = [word for text in command or () for word in ("-c", text)] + list(arguments or ())
    words = read_words(given)
    away = [word for word in words.elsewhere if word not in {"-U", "--username"}]
    if write and away:
        raise RefusedError(
            f"With --write, psql connects to the target's database only, and {' '.join(away)} may "
            "lead elsewhere; nothing was written",
            hint="Choose the target with --env, or add one to the config file.",
        )
    address = Address(read_address(context.database_url()), context.policy(writable=write))
    program = find_psql(context.target, context.laptop.psql)
    address, standing = _reach(context, address)
    require_kept_session(standing, words, writable=write)
    _announce(context, address, standing)
    if standing.pooled and not standing.keeps_session:
        context.out.warn(
            "No schema is chosen behind this pooler: write aspen.samples, not samples. "
            "The time limits are those of the server."
        )
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
    _become(call)


def _reach(context: AppContext, address: Address) -> tuple[Address, Standing]:
    """Connect as psql will; if that fails, fail in the same way as all other commands."""
    import psycopg2

    from aspencli.services.psql import look

    # Only production is read as another role; elsewhere, operators work as themselves.
    as_reader = context.target.is_production and not address.writable
    try:
        return address, look(address, as_reader=as_reader)
    except psycopg2.OperationalError:
        if address.parameters.get("password") or not context.out.interactive:
            with context.database(writable=address.writable).reading() as session:
                session.connection()
            raise
    from getpass import getpass

    user = address.parameters.get("user", "")
    password = getpass(f"Password for {user or 'the database'}: ")
    address = replace(address, parameters={**address.parameters, "password": password})
    return address, look(address, as_reader=as_reader)


def _announce(context: AppContext, address: Address, standing: Standing) -> None:
    if not context.out.interactive:
        return
    if context.target.warning:
        context.out.warn(context.target.warning)
    mode = "WRITING" if address.writable else "read-only (--write to change that)"
    if context.target.is_production and not address.writable:
        if standing.is_read_only_by_convention:
            mode = "read-only by convention only: this database user can write"
        elif standing.reader:
            mode = f"read-only, as role {standing.reader}"
    limit = int(standing.settings["statement_timeout"]) / 1_000
    long = f"a statement may take {limit:.0f} s" if limit else "no statement timeout"
    if standing.pooled:
        mode += ", through a pooler"
        long = long if standing.keeps_session else "the server's time limits hold"
    context.out.info(f"{context.target.title}, {mode}; {long}")


def _require_kept_role(context: AppContext, standing: Standing, words: Words) -> None:
    """Ask for the target's name on production if SQL could make this session write.

    Raises:
        RefusedError: If it could, and the name was not given.
    """
    from aspencli.services.psql import could_leave

    if not context.target.is_production or not standing.can_write:
        return
    if standing.is_read_only_by_convention:
        context.authorise(
            "open psql, read-only by convention only (this database user can write, and there is "
            "no role to take on that cannot)",
            by_name=True,
            dry_run=False,
        )
        return
    why = f"use {words.elsewhere[0]}" if words.elsewhere else None
    if why is None:
        found = could_leave([*words.commands, *_texts(words)])
        why = f"run SQL with {found!r} in it" if found else None
    if why is not None:
        context.authorise(
            f"{why}, which could end the role {standing.reader} that cannot write",
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
                    f"Cannot read {name}: {error.strerror}", hint="Check its name."
                ) from error
    if words.reads_stdin and not sys.stdin.isatty():
        text = sys.stdin.buffer.read()
        # psql reads the same text again, from an unnamed temporary file.
        with tempfile.TemporaryFile() as kept:
            kept.write(text)
            kept.seek(0)
            os.dup2(kept.fileno(), 0)
        yield text.decode(errors="replace")


def _become(call: PsqlCall) -> None:
    """Replace this process with psql, so that signals and the terminal are its own."""
    sys.stdout.flush()
    sys.stderr.flush()
    environment = dict(call.environment)
    if call.startup is not None:
        reading, writing = os.pipe()
        os.write(writing, call.startup.encode())
        os.close(writing)
        os.set_inheritable(reading, True)
        environment["PSQLRC"] = f"/dev/fd/{reading}"
    # Python ignores SIGPIPE, and ignored signals stay ignored across exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execve(call.program, call.arguments, environment)  # noqa: S606 - no shell is wanted


def register(app: typer.Typer) -> None:
    """Add the commands to their group."""
    app.command(
        epilog=examples(
            "aspencli db interact --profile",
            'aspencli db interact -c "print(session.query(User).count())"',
            "aspencli --env staging db interact report.py 2023-01",
        ),
        context_settings=_HANDED_ON,
    )(interact)
    app.command(
        epilog=examples(
            'aspencli db psql -c "select * from users"',
            "aspencli db psql -- --csv -f report.sql",
            "aspencli --env staging db psql --write",
        ),
        context_settings=_HANDED_ON,
    )(psql)

"""``aspencli db interact`` and ``aspencli db psql``: looking into the database by hand."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aspencli.cli import examples
from aspencli.context import AppContext, current
from aspencli.errors import RefusedError
from db.connecting import Limits

if TYPE_CHECKING:
    from aspencli.services.psql import Address, PsqlCall

WriteOption = Annotated[
    bool, typer.Option("--write", help="Allow writing; asks first. Otherwise it is read-only.")
]
# What comes after the first argument belongs to the script, or to psql.
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
    words = [str(word) for word in (script, *(arguments or ())) if word is not None]
    if write:
        context.authorise("open a writing console", dry_run=False)
    request = ConsoleRequest(
        open_database=lambda: context.database(writable=write),
        address=context.database_url(),
        target_label=context.target.label,
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
    """Ask at the prompt; a refusal is told there, and ends nothing."""
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
    from aspencli.services.psql import Address, find_psql, psql_call, read_address

    context = current(ctx)
    if write:
        context.authorise("open psql for writing", dry_run=False)
    parameters = read_address(context.database_url())
    address = Address(parameters, context.application_name, writable=write)
    program = find_psql(context.target, context.laptop.psql)
    _reach(context, address)
    _announce(context, address)
    words = [word for text in command or () for word in ("-c", text)] + list(arguments or ())
    _become(psql_call(program, address, context.target, words, script=not sys.stdin.isatty()))


def _reach(context: AppContext, address: Address) -> None:
    """Fail as every other command does where the database cannot be reached.

    Without a password in the address it is psql that asks for one.
    """
    if not address.parameters.get("password") or address.answers:
        return
    with context.database(writable=address.writable).reading() as session:
        session.connection()


def _announce(context: AppContext, address: Address) -> None:
    if context.out.interactive:
        mode = "WRITING" if address.writable else "read-only (--write to change that)"
        limit = Limits().statement_ms / 1_000
        context.out.info(f"{context.target.label}, {mode}; a statement may take {limit:.0f} s")


def _become(call: PsqlCall) -> None:
    """Let psql take the place of this process: signals and the terminal are its own."""
    sys.stdout.flush()
    sys.stderr.flush()
    # Python ignores SIGPIPE, and what is ignored stays ignored in the program that follows.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execve(call.program, call.arguments, dict(call.environment))  # noqa: S606 - no shell is wanted


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

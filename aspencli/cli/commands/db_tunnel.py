"""``aspencli db tunnel``: keep the way to a database open for other programs."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from aspencli import files
from aspencli.cli import params
from aspencli.cli.changes.session import WriteSession
from aspencli.cli.context import AppContext, current
from aspencli.errors import BadInputError
from aspencli.machine import command_of
from aspencli.signals import become, exit_code_of, left_to_child

_SERVICE = "aspen"
_LOOK_S = 1.0
# What other programs need to connect; libpq's keyword, and its environment variable.
_PARAMETERS = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "options": "PGOPTIONS",
    "application_name": "PGAPPNAME",
}


def tunnel(
    ctx: typer.Context,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- COMMAND]...", help="Run this in it, then close it."),
    ] = None,
    write: Annotated[
        bool,
        typer.Option("--write", help="Sign in as a user who can write; asks for confirmation."),
    ] = False,
    reason: params.ReasonOption = None,
) -> None:
    """Keep the way to the target's database open, for pgAdmin, DBeaver, or a notebook.

    Prints how to connect. The password is in a file that only you can read, which is deleted at the
    end. With a command, runs it with the PG* variables set, and exits with its exit code.

    On shared and production targets, a tunnel with write access is recorded in the history with its
    reason, but without the statements that other programs run through it.
    """
    context = current(ctx)
    context.recognize(writable=write)
    with WriteSession(context, "db tunnel", reason, hears=False) as session:
        if write:
            session.allow("open a tunnel with write access")
        parameters = _opened(context, write=write)
        status = 0
        if command:
            status = _run(context, command, parameters, session)
        else:
            session.began()
            _keep_open(context, parameters)
    if status:
        raise typer.Exit(status)


def _opened(context: AppContext, *, write: bool) -> dict[str, str]:
    """Connect once, ask if the session could write although it should not, and say how to connect.

    Raises:
        RefusedError: It was declined.
    """
    from aspen.database import roles

    with context.database(writable=write).connected() as connection:
        driver: Any = connection.connection.driver_connection
        is_asked = context.target.is_production and not write
        may_write = is_asked and roles.rights(driver).can_write
    if may_write:
        context.authorize(
            "open a tunnel that is read-only by convention only (this database user can write)",
            by_name=True,
            dry_run=False,
        )
    return _parameters(context, write=write, checks_client=driver.checks_client)


def _parameters(context: AppContext, *, write: bool, checks_client: bool) -> dict[str, str]:
    from aspen.database.settings import CHECK_MS, CLIENT_CHECK, READ_ONLY

    found = context.libpq_parameters(context.database_url(writable=write))
    options = [found.get("options", "")]
    if not write:
        options.append(f"-c {READ_ONLY}=on")
    if checks_client:  # so that a session ends soon after the program that opened it
        options.append(f"-c {CLIENT_CHECK}={CHECK_MS}")
    found["options"] = " ".join(filter(None, options))
    # The name leads from the server's log to the run in the history.
    found["application_name"] = context.policy(writable=write).application_name
    return {name: found[name] for name in _PARAMETERS if found.get(name)}


def _run(
    context: AppContext, command: list[str], parameters: Mapping[str, str], session: WriteSession
) -> int:
    """Run a command in the tunnel, which closes when that ends, and return its exit code."""
    program = shutil.which(command[0])
    if program is None:
        raise BadInputError(f"Command not found: {command[0]}", hint="Check its spelling and PATH.")
    variables = {_PARAMETERS[name]: value for name, value in parameters.items()}
    environment = {**os.environ, **variables}
    if not session.is_open:
        if not context.is_on_laptop:
            context.deployed_database.hand_over()
        become(program, command, environment)
    session.began()
    with left_to_child():
        process = subprocess.Popen(command, executable=program, env=environment)  # noqa: S603 - the operator's own
        status = exit_code_of(process)
    session.ended(status)
    return status


def _keep_open(context: AppContext, parameters: Mapping[str, str]) -> None:
    host, port = parameters.get("hostaddr", parameters.get("host")), parameters.get("port", "5432")
    with _service_file(parameters) as path:
        context.out.info(
            f"Target: {context.target.title}, open at {host}:{port}. Ctrl-C closes it."
        )
        context.out.info("Connect with psql, or any program that uses libpq:")
        variables = f"PGSERVICEFILE={shlex.quote(str(path))} PGSERVICE={_SERVICE}"
        context.out.text(variables)
        context.out.info(
            f"Or enter host {host}, port {port}, database {parameters.get('dbname')}, user "
            f"{parameters.get('user')}, and the password in that file."
        )
        with contextlib.suppress(KeyboardInterrupt):
            while True:  # a signal that comes just before signal.pause would be missed
                time.sleep(_LOOK_S)
    context.out.info("Closed.")


@contextlib.contextmanager
def _service_file(parameters: Mapping[str, str]) -> Iterator[Path]:
    """Write the connection's service file for the time of a block (libpq, "Service File")."""
    folder = files.state_dir() / "tunnels"
    files.make_folder(folder)
    for left in folder.glob("*.conf"):  # by processes that were killed
        if not command_of(int(left.stem)):
            left.unlink(missing_ok=True)
    path = folder / f"{os.getpid()}.conf"
    lines = (f"{name}={value}" for name, value in parameters.items() if "\n" not in value)
    files.write_private(path, "\n".join((f"[{_SERVICE}]", *lines, "")))
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)

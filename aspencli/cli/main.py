"""The root command, the entry point of a run, and the conversion of errors into exit codes."""

from __future__ import annotations

import datetime as dt
import errno
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from typer._click.exceptions import (
    ClickException,
    NoArgsIsHelpError,
    NoSuchOption,
    UsageError,
)
from typer.core import TyperGroup
from typer.exceptions import Abort
from typer.main import get_command

from aspen.database import settings
from aspencli import __version__, files, paths
from aspencli.cli.app import (
    DOCS,
    AspenTyper,
    Entry,
    RootGroup,
    complete_command,
    examples,
    find_command,
    version_line,
)
from aspencli.cli.context import AppContext
from aspencli.errors import INTERRUPTED, AspenError, RefusedError
from aspencli.signals import interrupt_code, obey_sigterm

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
# Lines in which PostgreSQL repeats the statement with its values, or a row.
_VALUES = re.compile(r"^(LINE \d+:|DETAIL:).*$", re.MULTILINE)
_EXTRA_ARGUMENTS = re.compile(r"Got unexpected extra argument\(s\) \((.*)\)", re.DOTALL)
_UNPRINTABLE = _NO_ROOM | {errno.EBADF}
ISSUES = "Please report it, with that file, to the maintainers of aspencli."
ENTRIES = (
    Entry(
        "samples",
        "aspencli.cli.commands.samples",
        "List, create, update, delete, and download samples.",
        ("sample",),
    ),
    Entry(
        "users",
        "aspencli.cli.commands.users",
        "List, show, create, and import users, and manage your own account.",
        ("user", "userinfo"),
    ),
    Entry(
        "groups",
        "aspencli.cli.commands.groups",
        "List, show, create, and import groups, and invite people to them.",
        ("group",),
    ),
    Entry(
        "phylo-runs",
        "aspencli.cli.commands.phylo_runs",
        "List, start, rename, and delete runs that build phylogenetic trees.",
    ),
    Entry("phylo-trees", "aspencli.cli.commands.phylo_trees", "Download phylogenetic trees."),
    Entry(
        "qc-mutations",
        "aspencli.cli.commands.reference:qc_mutations_app",
        "Download quality control results and mutations of samples.",
    ),
    Entry(
        "usher",
        "aspencli.cli.commands.phylo_trees:usher_app",
        "Place samples on UShER trees.",
    ),
    Entry(
        "locations",
        "aspencli.cli.commands.reference:locations_app",
        "List and search locations of samples and trees.",
        ("location",),
    ),
    Entry(
        "pathogens",
        "aspencli.cli.commands.reference:pathogens_app",
        "List pathogens.",
    ),
    Entry(
        "lineages",
        "aspencli.cli.commands.reference:lineages_app",
        "List the lineages of a pathogen.",
    ),
    Entry(
        "auspice", "aspencli.cli.commands.phylo_trees:auspice_app", "Create links to view trees."
    ),
    Entry(
        "history",
        "aspencli.cli.commands.history",
        "Show runs made from this machine, and remove old ones.",
    ),
    Entry(
        "db",
        "aspencli.cli.commands.db",
        "Console, psql, schema migrations, and database health.",
    ),
    Entry("local", "aspencli.cli.commands.local", "Run a full deployment on this machine."),
    Entry("auth", "aspencli.cli.commands.auth", "Sign in to a target, and show who is signed in."),
    Entry("config", "aspencli.cli.commands.config", "Show settings and where they come from."),
)


class Root(RootGroup):
    """The root group of aspencli."""

    entries = ENTRIES


_ABOUT = "Administer CZ GEN EPI (Aspen): its database and its API, on the target you choose."
_EXAMPLES = examples(
    "aspencli --env staging auth login",
    "aspencli samples list --group CZI --collected-after 2023-01-01",
    "aspencli --env staging samples update-public-ids --group-id 1 -f ids.csv --dry-run",
    "aspencli --env prod db psql -c 'SELECT count(*) FROM samples'",
    "aspencli local up",
)

app: typer.Typer = AspenTyper(
    cls=Root,
    help=_ABOUT,
    epilog=(
        f"{_EXAMPLES}\n\nHelp on a command: aspencli help COMMAND, or aspencli COMMAND --help\n\n"
        f"Documentation: {DOCS}"
    ),
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root() -> None:
    """Administer CZ GEN EPI (Aspen): its database and its API, on the target you choose."""


@app.command("help", epilog=examples("aspencli help", "aspencli help samples list"))
def show_help(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[COMMAND]...",
            help="A command, such as samples list. Default: all of them.",
            autocompletion=complete_command,
        ),
    ] = None,
) -> None:
    """Show the help of a command, as --help does."""
    found = find_command(ctx.find_root(), words or ())
    typer.echo(found.get_help())


@app.command("version", epilog=examples("aspencli version"))
def show_version() -> None:
    """Show the version, as --version does."""
    typer.echo(version_line())


def command() -> TyperGroup:
    """Return the whole command line as one command object."""
    found = get_command(app)  # not get_group, which has no shell completion
    assert isinstance(found, TyperGroup)  # noqa: S101 - its callback makes it a group
    return found


def run(args: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    context = AppContext()
    obey_sigterm()
    # Only the target's address may determine where connections go.
    settings.forget(settings.MISLEADING)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # Characters that the locale cannot encode are escaped instead of ending the run.
            stream.reconfigure(errors="backslashreplace")

    def invoke() -> Any:
        return command().main(
            args=list(sys.argv[1:] if args is None else args),
            prog_name="aspencli",
            standalone_mode=False,
            obj=context,
        )

    with context:
        return finish(context, invoke)


@dataclass(frozen=True)
class Failure:
    """The outcome of a failed run."""

    code: int
    message: str
    hint: str | None = None
    details: tuple[str, ...] = ()


def finish(context: AppContext, invoke: Callable[[], Any]) -> int:
    """Run the command, report any error, and return the exit code."""
    try:
        code = invoke()
    except NoArgsIsHelpError as error:
        _show_help(context, error)
        return UsageError.exit_code
    except (KeyboardInterrupt, Abort):
        code = INTERRUPTED
    except (BrokenPipeError, SystemExit) as error:
        if not _is_closed_pipe(error):
            raise
        _silence_stdout()
        return 0
    except Exception as error:  # noqa: BLE001 - every error ends here
        code = _report(context, error)
    if code == INTERRUPTED:
        context.messages.error("Interrupted. Nothing was changed beyond what is reported above.")
        return interrupt_code()
    return _flush(context, code if isinstance(code, int) else 0)


def _show_help(context: AppContext, error: NoArgsIsHelpError) -> None:
    from aspencli.cli.help import help_page

    err = context.messages.err
    err.write(help_page(error.ctx.command, error.ctx, err))
    err.flush()


def _flush(context: AppContext, code: int) -> int:
    """Flush the results, and return the exit code.

    After a write to the target, the exit code reflects the write even if printing fails.
    """
    lost = context.messages.lost
    try:
        sys.stdout.flush()
    except OSError as error:
        _silence_stdout()
        if not isinstance(error, BrokenPipeError) and not code:
            return _report(context, error)
    if lost is not None:
        done = "See the exit code for the outcome" if code else "The command itself succeeded"
        context.messages.warn(f"The result could not be printed: {lost.strerror}. {done}.")
    return code


def _report(context: AppContext, error: Exception) -> int:
    if context.options["debug"]:
        traceback.print_exception(error)
    if isinstance(error, OSError) and error.errno in _UNPRINTABLE and not error.filename:
        _silence_stdout()
    failure = explain(error)
    context.messages.error(failure.message, hint=failure.hint, details=failure.details)
    return failure.code


def explain(error: Exception) -> Failure:
    """Return the explanation of an error for the operator."""
    if isinstance(error, AspenError):
        return Failure(error.exit_code, error.message, error.hint, error.details)
    if isinstance(error, ClickException):
        return _usage(error)
    found = _of_database(error)
    if found is not None:
        return found
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        what = error.filename or "the results"
        return Failure(1, f"{what}: {error.strerror}", "Free up space, then run the command again.")
    return _file_failure(error) or _bug(error)


def _file_failure(error: Exception) -> Failure | None:
    if not isinstance(error, OSError):
        return None
    if error.errno == errno.EBADF and not error.filename:
        return Failure(
            1,
            "Cannot write the results: standard output is closed.",
            "Redirect it to a file or to /dev/null, then run the command again.",
        )
    if error.filename:
        return Failure(
            1, f"{error.filename}: {error.strerror}", "Fix this, then run the command again."
        )
    return None


def _of_database(error: Exception) -> Failure | None:
    if "aspen.database.errors" in sys.modules:  # starting psql does not import SQLAlchemy
        from aspen.database.errors import NotAllowedError

        if isinstance(error, NotAllowedError):
            return Failure(RefusedError.exit_code, error.message, error.hint)
    if "sqlalchemy" not in sys.modules:  # then it cannot be one of its errors
        return None
    from aspencli.cli.database_failures import explain_database

    found = explain_database(error)
    return None if found is None else Failure(*found)


def _usage(error: ClickException) -> Failure:
    ctx = error.ctx if isinstance(error, UsageError) else None
    hint = f"See: {ctx.command_path} --help" if ctx else "See: aspencli --help"
    return Failure(error.exit_code, _usage_message(error), hint)


def _usage_message(error: ClickException) -> str:
    """Return Click's message, with its suggestions worded as those of commands are."""
    if isinstance(error, NoSuchOption) and error.possibilities:
        similar = sorted(error.possibilities)
        choice = similar[0] if len(similar) == 1 else f"one of {', '.join(similar)}"
        return f"{error.message}. Did you mean {choice}?"
    if extra := _EXTRA_ARGUMENTS.fullmatch(error.message):
        return f"Unexpected argument{'s' if ' ' in extra[1] else ''}: {extra[1]}"
    return error.format_message()


def _bug(error: Exception) -> Failure:
    try:
        hint = f"The details are in {_crash_file(error)}. {ISSUES}"
    except (OSError, RefusedError):
        hint = f"Run the command again with --debug for details. {ISSUES}"
    words = str(error).partition("\n")[0]
    return Failure(1, f"Bug in aspencli: {type(error).__name__}: {words}", hint)


def _crash_file(error: Exception) -> Path:
    folder = paths.state_dir() / "crashes"
    files.make_folder(folder)
    path = folder / f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-{os.getpid()}.txt"
    lines = traceback.format_exception(error)  # frames and messages; no variables, no arguments
    text = _VALUES.sub(r"\1 (omitted: may contain data)", "".join(lines))
    files.write_whole(path, f"aspencli {__version__}, Python {sys.version}\n\n{text}")
    return path


def _is_closed_pipe(error: BaseException) -> bool:
    # Typer turns a broken pipe into its own exit.
    return isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError)


def _silence_stdout() -> None:
    # Buffered output cannot be written, and the flush at exit must not report that as an error.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

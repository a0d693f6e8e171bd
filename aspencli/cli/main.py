"""The root command, and the entry point of a run, which turns errors into exit codes."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import cache
from io import TextIOWrapper
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer
from typer._click.exceptions import NoArgsIsHelpError, UsageError
from typer.core import TyperGroup
from typer.exceptions import Abort
from typer.main import get_command

from aspen.database import settings
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
from aspencli.cli.context import AppContext, current
from aspencli.cli.help import help_page
from aspencli.cli.output.formats import prints
from aspencli.errors import INTERRUPTED, AspenError
from aspencli.machine import clear_environment
from aspencli.signals import TerminatedError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Handle

    from aspencli.cli.failures import Failure

ENTRIES = (
    Entry("samples", "List, create, update, delete, and download samples.", aliases=("sample",)),
    Entry(
        "users",
        "List, show, create, change, and delete users, and manage your own account.",
        aliases=("user", "userinfo"),
    ),
    Entry(
        "groups",
        "List, show, create, change, and delete groups, and invite people to them.",
        aliases=("group",),
    ),
    Entry("identity", "Compare and sync people and groups with the identity provider."),
    Entry(
        "phylo-runs",
        "List, start, rename, and delete runs that build phylogenetic trees.",
        "phylo:runs_app",
    ),
    Entry("phylo-trees", "Download and open phylogenetic trees.", "phylo:trees_app"),
    Entry("files", "List, show, download, and check the files of jobs in the target's bucket."),
    Entry(
        "jobs",
        "Follow compute jobs, find out why they failed, and start or stop them.",
        aliases=("job",),
    ),
    Entry(
        "qc-mutations",
        "Download quality control results and mutations of samples.",
        "reference:qc_mutations_app",
    ),
    Entry("usher", "Place samples on UShER trees.", "phylo:usher_app"),
    Entry(
        "locations",
        "List and search locations of samples and trees.",
        "reference:locations_app",
        ("location",),
    ),
    Entry("pathogens", "List pathogens.", "reference:pathogens_app"),
    Entry("lineages", "List the lineages of a pathogen.", "reference:lineages_app"),
    Entry("auspice", "Create links to view trees.", "phylo:auspice_app"),
    Entry(
        "history",
        "Show runs made from this machine or by everyone, verify them, and remove old ones.",
    ),
    Entry("db", "Console, psql, schema migrations, and database health."),
    Entry("target", "List targets, and check each part of the way to one.", aliases=("targets",)),
    Entry(
        "stacks",
        "List the stacks of remote development environments.",
        "target:stacks_app",
        ("stack",),
    ),
    Entry("local", "Run a full deployment on this machine."),
    Entry("auth", "Sign in to a target, and show who is signed in."),
    Entry("config", "Show settings and where they come from, and change the config file."),
)


class ShellName(StrEnum):
    """The shells that completion is available for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


class Root(RootGroup):
    """The root group of aspencli."""

    entries = ENTRIES


_TERMINATED = 143  # the exit code after SIGTERM (128 + 15), as shells expect
_was_terminated = False  # kept because the command framework turns exceptions into exit codes
_INTERRUPTED = "Interrupted. Nothing was changed beyond what is reported above."
_EXAMPLES = examples(
    "aspencli --env staging auth login",
    "aspencli samples list --group CZI --collected-after 2023-01-01",
    "aspencli --env staging samples update-public-ids --group-id 1 -f ids.csv --dry-run",
    "aspencli --env prod db psql -c 'SELECT count(*) FROM samples'",
    "aspencli local up",
)

app: typer.Typer = AspenTyper(
    cls=Root,
    epilog=(
        f"{_EXAMPLES}\n\nHelp on a command: aspencli help COMMAND, or aspencli COMMAND --help\n\n"
        f"Documentation: {DOCS}"
    ),
    no_args_is_help=True,
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


@app.command(
    "schema",
    epilog=examples(
        "aspencli schema", "aspencli schema samples list", "aspencli schema users --columns command"
    ),
)
@prints("aspencli.cli.schemas:COLUMNS")
def show_schema(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[COMMAND]...",
            help="A command, such as samples list. Default: list those with JSON output.",
            autocompletion=complete_command,
        ),
    ] = None,
) -> None:
    """Print the JSON Schema (draft 2020-12) of a command's JSON output.

    Without a command, or with a group, list the commands that have JSON output, and their columns.
    With --output jsonl, each line is one item of the array; with --columns, items have only those
    fields.
    """
    from aspencli.cli import schemas

    context = current(ctx)
    found = find_command(ctx.find_root(), words or ())
    if hasattr(found.command, "list_commands"):
        rows = schemas.listed(found, words or (), people=context.out.chosen_form == "table")
        return context.out.rows(schemas.COLUMNS, rows, empty="No command has JSON output.")
    results = schemas.required_results(found.command, found.command_path)
    return context.out.document(schemas.schema_of(results, found.command_path))


@app.command(
    "completion",
    epilog=examples("aspencli completion --install", "aspencli completion zsh > _aspencli"),
)
def completion(
    shell: Annotated[
        ShellName | None, typer.Argument(help="The shell. Default: the one that you use.")
    ] = None,
    install: Annotated[
        bool, typer.Option("--install", help="Install the script, and load it in new shells.")
    ] = False,
) -> None:
    """Print the script that completes commands, options, and names with TAB, or install it."""
    from aspencli.cli.completion import scripts

    name = shell.value if shell else scripts.current_shell()
    if not install:
        typer.echo(scripts.SCRIPTS[name].rstrip("\n"))
        return
    path = scripts.install(name)
    typer.echo(f"Installed completion for {name} in {path}. Open a new shell to use it.", err=True)


@app.command("doctor", epilog=examples("aspencli doctor", "aspencli --env staging doctor -o json"))
@prints("aspencli.cli.doctor:COLUMNS")
def doctor(
    ctx: typer.Context,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 for warnings, too.")
    ] = False,
) -> None:
    """Check this installation, this machine, and whether the targets can be reached.

    One line for each check, with the next step. Nothing is written; no sign-in, secret, or tunnel
    is used. The exit code is 1 if a check failed. For all parts of the way to one target, use
    `target check`; for the health of a database, `db doctor`.
    """
    from aspencli.cli.doctor import show_checks

    if show_checks(ctx.find_root().obj, strict=strict):
        raise typer.Exit(1)


@app.command(
    "mcp",
    epilog=examples("aspencli mcp", "aspencli --env staging mcp", "aspencli mcp --allow prod"),
)
def serve_assistants(
    ctx: typer.Context,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Production target that may be read too; repeatable. "
            "Also: mcp_allow in the config file.",
        ),
    ] = None,
    show_personal_data: Annotated[
        bool,
        typer.Option(
            "--show-personal-data",
            help="Do not replace e-mail addresses, people's names, and private identifiers.",
        ),
    ] = False,
) -> None:
    """Let an AI assistant read: a Model Context Protocol server on stdin and stdout.

    Its tools are the commands that list and show, diagnostics, and the profile of one SQL statement
    that reads. It cannot write. Local and shared targets can be read, and production only with
    --allow. Each call is recorded in the history.

    The assistant's program starts this command; see the guide to assistants for its settings.
    """
    from aspencli.cli.assistant.command import serve_assistants as serve

    serve(current(ctx), allow or (), shows_personal_data=show_personal_data)


@app.command("version", epilog=examples("aspencli version"))
def show_version() -> None:
    """Show the version, as --version does."""
    typer.echo(version_line())


@cache
def command() -> TyperGroup:
    """Return the whole command line as one command object."""
    found = get_command(app)  # not get_group, which has no shell completion
    assert isinstance(found, TyperGroup)  # noqa: S101 - its callback makes it a group
    return found


def run(args: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    context = AppContext()
    context.argv = tuple(sys.argv[1:] if args is None else args)
    obey_sigterm()
    # Only the target's address may determine where connections go.
    clear_environment(settings.MISLEADING)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # Characters that the locale cannot encode are escaped instead of ending the run.
            stream.reconfigure(errors="backslashreplace")

    def invoke() -> Any:
        return command().main(
            args=list(context.argv),
            prog_name="aspencli",
            standalone_mode=False,
            obj=context,
            color=_forced_color(),
        )

    with context:
        return finish(context, invoke)


def obey_sigterm() -> None:
    """Make SIGTERM unwind the program like Ctrl-C, so that transactions are rolled back."""
    global _was_terminated  # noqa: PLW0603 - signals are process-wide
    _was_terminated = False
    scheduled: list[Handle] = []

    def stop(_number: int, _frame: FrameType | None) -> None:
        global _was_terminated  # noqa: PLW0603 - same
        _was_terminated = True
        loop = _running_loop()
        if loop is not None and not scheduled:
            scheduled.append(loop.call_soon_threadsafe(_raise_terminated))
            return
        while scheduled:  # a second signal takes effect at once, instead of the first
            scheduled.pop().cancel()
        raise TerminatedError

    signal.signal(signal.SIGTERM, stop)


def _running_loop() -> AbstractEventLoop | None:
    """Return the running event loop of this thread, or None.

    When a signal handler raised an exception while the loop was calling a compiled protocol, such
    as asyncpg's, the process ended with signal 11. Raised from a callback, the exception leaves
    the loop between two such calls.
    """
    asyncio = sys.modules.get("asyncio")  # not imported here, to keep startup fast
    running = getattr(asyncio, "get_running_loop", None)  # missing while asyncio is being imported
    if running is None:
        return None
    try:
        return cast("AbstractEventLoop", running())
    except RuntimeError:
        return None


def _raise_terminated() -> NoReturn:
    raise TerminatedError


def _forced_color() -> bool | None:
    """Return True if help keeps its color in a pipe, or None to let Typer decide."""
    if not os.environ.get("FORCE_COLOR"):
        return None
    from aspencli.cli.output.console import has_color

    return has_color(sys.stdout) or None


def finish(context: AppContext, invoke: Callable[[], Any]) -> int:
    """Run the command, report any error, and return the exit code."""
    failure: Failure | None = None
    try:
        code = invoke()
    except NoArgsIsHelpError as error:
        code, failure = UsageError.exit_code, _show_help(context, error)
    except (KeyboardInterrupt, Abort):
        code = INTERRUPTED
    except (BrokenPipeError, SystemExit) as error:
        if not _is_closed_pipe(error):
            raise
        _silence_stdout()
        return 0
    except Exception as error:  # noqa: BLE001 - every error ends here
        failure = _explained(context, error)
        code = failure.code
    if meter := context.messages.meter:
        context.messages.detail(meter.summary())
    if code == INTERRUPTED:
        from aspencli.cli.failures import Failure

        return _end(context, Failure(interrupt_code(), _INTERRUPTED))
    return _flush(context, code if isinstance(code, int) else 0, failure)


def interrupt_code() -> int:
    """Return the exit code of an interrupted run: 130, or 143 after SIGTERM."""
    return _TERMINATED if _was_terminated else INTERRUPTED


def _show_help(context: AppContext, error: NoArgsIsHelpError) -> Failure | None:
    """Show the help of a group without a command; return the error for programs instead."""
    if context.wants_json:
        from aspencli.cli.failures import Failure

        hint = f"See: {error.ctx.command_path} --help"
        return Failure(UsageError.exit_code, "Missing command.", hint)
    err = context.messages.err
    err.write(help_page(error.ctx.command, error.ctx, err))
    err.flush()
    return None


def _flush(context: AppContext, code: int, failure: Failure | None) -> int:
    """Flush the results, report how the run ended, and return the exit code.

    After a write to the target, the exit code reflects the write even if printing fails.
    """
    out = context.messages
    try:
        sys.stdout.flush()
    except OSError as error:
        _silence_stdout()
        if not isinstance(error, BrokenPipeError) and not code:
            failure = _explained(context, error)
            code = failure.code
    if failure is not None and not context.wants_json:  # the warning below follows it
        _end(context, failure)
        failure = None
    if out.lost is not None:
        done = "See the exit code for the outcome" if code else "The command itself succeeded"
        out.warn(f"The result could not be printed: {out.lost.strerror}. {done}.")
    if failure is None and code and context.wants_json:
        failure = _ending(context, code)
    return code if failure is None else _end(context, failure)


def _ending(context: AppContext, code: int) -> Failure:
    """Return the explanation of an exit code that no error set."""
    from aspencli.cli.failures import Failure

    out = context.messages
    said = out.ending or (out.said if context.has_results else None)
    if said is None:
        return Failure(code, f"The command ended with exit code {code}.", kind=AspenError.kind)
    return Failure(code, said.message, said.hint, said.details)


def _explained(context: AppContext, error: Exception) -> Failure:
    if context.options["debug"]:
        traceback.print_exception(error)
    from aspencli.cli.failures import explain, is_of_output

    if is_of_output(error):
        _silence_stdout()
    return explain(error)


def _end(context: AppContext, failure: Failure) -> int:
    """Report the error that ended the run, and return its exit code."""
    out = context.messages
    if context.wants_json:
        out.err.write(failure.as_json() + "\n")
        out.err.flush()
    else:
        out.error(failure.message, hint=failure.hint, details=failure.details)
    return failure.code


def _is_closed_pipe(error: BaseException) -> bool:
    # Typer turns a broken pipe into its own exit.
    return isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError)


def _silence_stdout() -> None:
    # Buffered output cannot be written, and the flush at exit must not report that as an error.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

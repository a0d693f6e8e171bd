"""Conversion of errors into messages and exit codes."""

from __future__ import annotations

import datetime as dt
import errno
import os
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer._click.exceptions import ClickException, NoArgsIsHelpError, UsageError
from typer.exceptions import Abort

from aspencli import __version__, files, paths
from aspencli.errors import INTERRUPTED, AspenError, RefusedError
from aspencli.signals import interrupt_code

if TYPE_CHECKING:
    from aspencli.cli.context import AppContext

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
# Lines in which PostgreSQL repeats the statement with its values, or a row.
_VALUES = re.compile(r"^(LINE \d+:|DETAIL:).*$", re.MULTILINE)
_UNPRINTABLE = _NO_ROOM | {errno.EBADF}
ISSUES = "Please report it, with that file, to the maintainers of aspencli."


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
    return Failure(error.exit_code, error.format_message(), hint)


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

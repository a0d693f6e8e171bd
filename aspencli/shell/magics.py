"""The console's own magics: ``%profile`` and ``%write``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from IPython.core.error import UsageError

from aspencli.output.console import Output
from aspencli.shell.banner import mode
from aspencli.shell.console import ConsoleRequest

if TYPE_CHECKING:
    from aspencli.shell.workspace import Workspace


def profile(workspace: Workspace, request: ConsoleRequest, line: str, tables: Output) -> None:
    """Turn query profiling on or off, or report on it: ``%profile on|off|report``.

    Args:
        workspace: Workspace to profile.
        request: Console request.
        line: Text after the magic's name.
        tables: Destination of a report.

    Raises:
        UsageError: If the argument is none of these words.
    """
    match line.strip():
        case "on" | "off" as word:
            workspace.profile(on=word == "on")
        case "report":
            workspace.profiling.report(tables)
            return
        case "":
            """Only print the current state."""
        case _:
            raise UsageError("%profile on, %profile off, or %profile report")
    request.messages.info(f"profiling is {'on' if workspace.profiling.on else 'off'}")


def write(workspace: Workspace, request: ConsoleRequest, line: str) -> None:
    """Let sessions write, after confirmation: ``%write``; read only again: ``%write off``."""
    match line.strip():
        case "" | "on":
            writable = True
        case "off":
            writable = False
        case _:
            raise UsageError("%write, or %write off")
    if writable is workspace.writing:
        request.messages.info(f"the console is {mode(writing=writable)} already")
    elif not writable or request.confirm_write():
        workspace.switch(writable=writable)
        request.messages.info(
            f"{mode(writing=writable)} now on {request.target_label}: engine, db and session are "
            "new; sessions that you made before stay as they are"
            + ("; end with session.commit()" if writable else "")
        )
    else:
        request.messages.info("not confirmed; the console stays read-only")

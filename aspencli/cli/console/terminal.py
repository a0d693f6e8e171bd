"""The console on a terminal, from the banner to the exit."""

# IPython is only partly typed:
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import os
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from traitlets.config import Config

from aspencli.cli.console.app import HOW_TO_WRITE, ConsoleApp, Loading, history_file
from aspencli.cli.console.run import ConsoleRequest

if TYPE_CHECKING:
    from aspencli.cli.console.workspace import Workspace

_LAST_WAIT_S = 2.0


def interact(request: ConsoleRequest) -> int:
    """Show the prompt until the operator leaves, and return the exit code.

    Raises:
        sqlalchemy.exc.OperationalError: If the database is unreachable (only with ``connect``).
    """
    loading = Loading(lambda: _load(request))
    app = ConsoleApp.instance(request=request, loading=loading, config=_config(request))
    app.initialize([])
    loading.future.add_done_callback(lambda future: _leave_on_failure(app, future))
    try:
        app.start()
    finally:
        workspace = loading.finish(_LAST_WAIT_S)
        if workspace is not None:
            _close(request, workspace)
    return 0


def _load(request: ConsoleRequest) -> Workspace:
    from sqlalchemy.orm import configure_mappers

    from aspencli.cli.console.workspace import Workspace  # SQLAlchemy and the models: 0.3 s

    workspace = Workspace(request, HOW_TO_WRITE)
    if request.connect:
        try:
            workspace.connect()
        except BaseException:
            workspace.close()
            raise
    configure_mappers()  # otherwise the first query waits for it: 70 ms
    return workspace


def _close(request: ConsoleRequest, workspace: Workspace) -> None:
    with workspace:
        if workspace.unsaved():
            request.messages.warn("Uncommitted changes were not saved.")


def _leave_on_failure(app: ConsoleApp, future: Future[Workspace]) -> None:
    """End the prompt when loading has failed; called in the loading thread."""
    error = future.exception()
    session = app.shell.pt_app if app.shell is not None else None
    if error is None or session is None or session.app.loop is None:
        return
    prompt = session.app

    def leave() -> None:
        # If a cell was entered in the meantime, it raises the same error.
        if prompt.future is not None and not prompt.future.done():
            prompt.exit(exception=error)

    prompt.loop.call_soon_threadsafe(leave)


def _config(request: ConsoleRequest) -> Config:
    """Return the IPython settings that override the operator's profile."""
    settings: dict[str, dict[str, Any]] = {
        "HistoryManager": {"hist_file": _history(request)},
        "TerminalInteractiveShell": {
            "enable_tip": False,
            "term_title_format": f"aspencli: {request.target_label}",
        },
    }
    if os.environ.get("NO_COLOR"):
        settings["InteractiveShell"] = {"colors": "nocolor"}
    return Config(settings)


def _history(request: ConsoleRequest) -> str:
    try:
        return str(history_file(request.target_label))
    except OSError as error:
        request.messages.warn(f"The history cannot be saved: {error}")
        return ":memory:"

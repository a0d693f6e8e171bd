"""The IPython shell of the console, and the application that starts it.

The operator's IPython profile applies (editing mode, colors, extensions, startup files); only
the prompt, the banner, and the history are the console's own.
"""

# IPython is only partly typed:
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import gc
import sys
from concurrent.futures import wait
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from IPython.core.magic import no_var_expand
from IPython.terminal.interactiveshell import TerminalInteractiveShell
from IPython.terminal.ipapp import TerminalIPythonApp

from aspencli.output.console import Output
from aspencli.shell import magics
from aspencli.shell.banner import banner
from aspencli.shell.console import ConsoleRequest
from aspencli.shell.history import ConsoleHistory
from aspencli.shell.loading import Loading
from aspencli.shell.prompts import CompleterWhenReady, ConsolePrompts, LexerWhenTyped, styles

if TYPE_CHECKING:
    from aspencli.shell.failures import Brief
    from aspencli.shell.workspace import Workspace

HOW_TO_WRITE = "Type %write to be asked for it."


class ConsoleShell(TerminalInteractiveShell):
    """The IPython shell, with names that are loaded after the prompt appears."""

    def __init__(self, *args: Any, **kwargs: Any):
        app: ConsoleApp = kwargs["parent"]
        self._request = app.request
        self._loading = app.loading
        self._named = False
        self._collector_paused = True  # set by `aspencli.shell.console.run`
        super().__init__(*args, **kwargs)
        self.magics_manager.register_function(self._profile, magic_name="profile")
        self.magics_manager.register_function(self._write, magic_name="write")
        for name, magic in (("sql", self._sql), ("explain", self._explain)):
            self.magics_manager.register_function(magic, "line_cell", name)

    # Methods that IPython calls during startup

    def init_history(self) -> None:
        """Keep the history in the console's own file."""
        self.history_manager = ConsoleHistory(shell=self, parent=self)
        self.configurables.append(self.history_manager)  # type: ignore[arg-type] # as IPython does

    def init_user_ns(self) -> None:
        """Fill the namespace, at startup and after ``%reset``."""
        super().init_user_ns()
        self._named = False

    def init_prompt_toolkit_cli(self) -> None:
        """Set up the prompt; loading begins once it is rendered."""
        self.highlighting_style_overrides = {
            **self.highlighting_style_overrides,
            **styles(self._request.safety),
        }
        self.prompts = ConsolePrompts(self, self._request.target_label, self._is_writing)
        super().init_prompt_toolkit_cli()
        if self.pt_app is not None and self.pt_app.completer is not None:
            self.pt_app.completer = CompleterWhenReady(self.pt_app.completer, self._settle)
            self.pt_app.app.after_render += lambda _app: self._begin_loading()

    def _extra_prompt_options(self) -> dict[str, Any]:
        options: dict[str, Any] = super()._extra_prompt_options()
        options["lexer"] = LexerWhenTyped(options["lexer"])
        return options

    # Methods that IPython calls at the prompt

    def prompt_for_code(self) -> str:
        """Read a cell; a loading failure ends the wait for input."""
        if self.pt_app is None:
            self._begin_loading()
        return str(super().prompt_for_code())

    def run_cell(self, raw_cell: str, *args: Any, **kwargs: Any) -> Any:
        """Run a cell once the names are loaded, and roll back transactions that failed in it."""
        workspace = self._ready()
        with workspace.profiling.cell():
            result = super().run_cell(raw_cell, *args, **kwargs)
            if workspace.roll_back_failed():
                self._request.messages.warn(
                    "rolled back: the statement failed, and with it its transaction"
                )
        return result

    def showtraceback(self, *args: Any, **kwargs: Any) -> None:
        """Show a database error in a few lines; ``%tb`` shows the full traceback."""
        error = sys.exc_info()[1]  # None when %tb is run, long after the error
        told = None if error is None or self._request.debug else self._brief(error)
        if told is None:
            super().showtraceback(*args, **kwargs)
            return
        self._get_exc_info()  # stores it for %tb and %debug
        self._request.messages.error(told.message, hint=told.hint, details=told.details)

    def _format_exception_for_storage(
        self, exception: BaseException, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Store the short message of a database error instead of its traceback.

        IPython colors the full traceback only for ``%notebook``, which takes up to a second.
        """
        told = None if self._request.debug else self._brief(exception)
        if told is None:
            kept: dict[str, Any] = super()._format_exception_for_storage(exception, *args, **kwargs)
            return kept
        lines = [told.message, *told.details]
        return {"ename": type(exception).__name__, "evalue": told.message, "traceback": lines}

    # Names

    def _begin_loading(self) -> None:
        self._loading.start()
        if self._collector_paused:
            gc.enable()
            self._collector_paused = False

    def _ready(self) -> Workspace:
        """Wait until the names are loaded.

        Raises:
            Exception: If loading failed; it ends the console.
        """
        workspace = self._loading.result()
        self._give_names(workspace)
        return workspace

    def _settle(self) -> None:
        """Wait as `_ready` does, but leave a failure to callers that can end the console."""
        self._loading.start()
        wait([self._loading.future])
        workspace = self._loading.loaded()
        if workspace is not None:
            self._give_names(workspace)

    def _give_names(self, workspace: Workspace) -> None:
        # Done here and not in the loading thread, because this thread iterates over the namespace.
        if not self._named:
            self.push(workspace.names(), interactive=False)
            self._named = True

    def _is_writing(self) -> bool:
        workspace = self._loading.loaded()
        return self._request.writing if workspace is None else workspace.writing

    def _brief(self, error: BaseException) -> Brief | None:
        from aspencli.shell.failures import brief  # imports SQLAlchemy, loaded by now

        return brief(
            error,
            how_to_write=HOW_TO_WRITE,
            is_own=lambda name: name.startswith("<ipython-input-"),
        )

    # Magics

    def _profile(self, line: str) -> None:
        """Print each query and its time: ``%profile on|off``; all of them: ``%profile report``."""
        magics.profile(self._ready(), self._request, line, self._tables())

    def _write(self, line: str) -> None:
        """Let sessions write, after asking: ``%write``; only read again: ``%write off``."""
        workspace = self._ready()
        magics.write(workspace, self._request, line)
        self.push(workspace.database_names(), interactive=False)

    @no_var_expand
    def _sql(self, line: str, cell: str | None = None) -> None:
        """Run SQL, or a statement of SQLAlchemy: ``%sql SELECT ...``, ``%sql select(User)``."""
        from aspencli.shell.statements import run_sql

        session = self._ready().session
        run_sql(session, f"{line}\n{cell or ''}", self.user_ns, self._tables())

    @no_var_expand
    def _explain(self, line: str, cell: str | None = None) -> None:
        """Show a statement's plan: ``%explain SELECT ...``; ``%explain analyze ...`` runs it."""
        from aspencli.shell.statements import explain

        session = self._ready().session
        explain(session, f"{line}\n{cell or ''}", self.user_ns, self._tables())

    def _tables(self) -> Output:
        """Return the output for results of magics: tables, even if --output differs."""
        return replace(self._request.messages, form="table")


class ConsoleApp(TerminalIPythonApp):
    """The IPython application with the console's shell.

    Args:
        request: Console request.
        loading: Background task that loads the names.
    """

    def __init__(self, request: ConsoleRequest, loading: Loading[Workspace], **kwargs: Any):
        self.request = request
        self.loading = loading
        super().__init__(interactive_shell_class=ConsoleShell, **kwargs)

    def init_banner(self) -> None:
        """Show the banner, whatever the profile says; on stderr, because it is not a result."""
        request = self.request
        for line in banner(
            request.target_label, request.safety, request.address, writing=request.writing
        ):
            request.messages.info(line)

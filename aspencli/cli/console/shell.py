"""The console at a prompt: an IPython shell with its own prompt, banner, history, and magics.

In all else the operator's IPython profile applies: editing mode, colors, extensions, and startup
files. Slow imports and the connection load in a thread while the prompt is already shown.
"""

# IPython is only partly typed:
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import ast
import gc
import os
import re
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from IPython.core.error import UsageError
from IPython.core.history import HistoryManager
from IPython.core.magic import no_var_expand
from IPython.terminal.interactiveshell import TerminalInteractiveShell
from IPython.terminal.ipapp import TerminalIPythonApp
from IPython.terminal.prompts import Prompts
from prompt_toolkit.completion import Completer, DynamicCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.lexers import Lexer
from pygments.token import Token, _TokenType
from traitlets.config import Config

from aspencli import files
from aspencli.cli.console.completion import NameCache, SqlCompleter, SqlLexer, prepare
from aspencli.cli.console.run import ConsoleRequest
from aspencli.cli.output.console import Output
from aspencli.config import Safety

if TYPE_CHECKING:
    from aspencli.cli.console.completion import Names
    from aspencli.cli.console.queries import NamedQueries
    from aspencli.cli.console.statements import SqlRunner
    from aspencli.cli.console.workspace import Workspace
    from aspencli.cli.failures import Failure


HOW_TO_WRITE = "Type %write to allow writes."
_DANGER = {
    Safety.LOCAL: "local",
    Safety.SHARED: "shared",
    Safety.PRODUCTION: "PRODUCTION",
}
_COLORS = {
    # In the color cube, for the reasons given at `SHADES` of messages.
    Safety.LOCAL: "#008700",
    Safety.SHARED: "#af8700",
    Safety.PRODUCTION: "#ff0000",
}
_GUIDE = (
    # At most 79 columns each.
    "  Defined: engine (or db), session, sa, select, and models: User, Sample, ...",
    "  Try: session.scalars(select(Sample).limit(3)).all(); %tb: last traceback",
    "  %sql SELECT ...: run SQL; %explain: its plan; %watch 2: repeat it",
    "  %save NAME SELECT ...: save a query; %run NAME: run it; %run: list them",
    "  %profile on|off|report: time queries; %write [off]: allow writes or not",
)
_TARGET = Token.Prompt.Target
_WRITING = Token.Prompt.Writing
_LEFT_OUT = "# omitted from the history: contained a secret"
_LAST_WAIT_S = 2.0
# A password in a URL, a string assigned to a secret-like name, or SQL that sets a password. False
# positives are preferred to misses.
_SECRET = re.compile(
    r"""://[^\s/:@'"]*:[^\s/@'"]+@"""
    r"""|(?:pass(?:word|wd)?|pwd|secret\w*|token|api_?key)['"]?\s*[=:,(]\s*[rbf]?['"]"""
    r"""|\b(?:ALTER|CREATE)\s+(?:USER|ROLE)\b.*\bPASSWORD\b""",
    re.IGNORECASE | re.DOTALL,
)


def interact(request: ConsoleRequest) -> int:
    """Show the prompt until the operator leaves, and return the exit code.

    Raises:
        sqlalchemy.exc.OperationalError: If the database is unreachable (only with ``connect``).
    """
    loading = Loading(lambda: _load(request))
    app = ConsoleApp.instance(request=request, loading=loading, config=_config(request))
    app.initialize([])
    loading.add_done_callback(lambda future: _leave_on_failure(app, future))
    loading.add_done_callback(lambda _future: prepare())  # in the loading thread
    try:
        app.start()
    finally:
        workspace = loading.finish(_LAST_WAIT_S)
        if workspace is not None:
            with workspace:
                if workspace.transactions.unsaved():
                    request.messages.warn("Uncommitted changes were not saved.")
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
        "HistoryManager": {"hist_file": _history_file(request)},
        "TerminalInteractiveShell": {
            "enable_tip": False,
            "term_title_format": f"aspencli: {request.target_label}",
        },
    }
    if os.environ.get("NO_COLOR"):
        settings["InteractiveShell"] = {"colors": "nocolor"}
    return Config(settings)


def _history_file(request: ConsoleRequest) -> str:
    """Return the history file of the target, creating it readable by this user only.

    Each target has its own, so that the arrow keys never bring up a line from another target.
    """
    folder = files.state_dir() / "console"
    path = folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '-', request.target_label)}.sqlite"
    try:
        files.make_folder(folder)
        os.close(files.open_own(path))
    except OSError as error:
        request.messages.warn(f"The history cannot be saved: {error}")
        return ":memory:"
    return str(path)


class ConsoleApp(TerminalIPythonApp):
    """The IPython application with the console's shell."""

    def __init__(self, request: ConsoleRequest, loading: Loading, **kwargs: Any):
        self.request = request
        self.loading = loading
        super().__init__(interactive_shell_class=ConsoleShell, **kwargs)

    def parse_command_line(self, argv: list[str] | None = None) -> None:
        """Parse nothing: building a parser for IPython's options takes 10 ms."""

    def init_banner(self) -> None:
        """Show the banner, whatever the profile says; on stderr, because it is not a result."""
        request, mode = self.request, _mode(writing=self.request.writing)
        lead = f"Aspen console on {request.target_label} ({_DANGER[request.safety]}): {mode}"
        for line in (lead, f"  {_place(request.address)}", *_GUIDE):
            request.messages.info(line)


class ConsoleShell(TerminalInteractiveShell):
    """The IPython shell, with names that are loaded after the prompt appears."""

    def __init__(self, *args: Any, **kwargs: Any):
        app: ConsoleApp = kwargs["parent"]
        self._request = app.request
        self._loading = app.loading
        self._named = False
        self._names = NameCache(self._read_names)
        self._bare_lines: frozenset[int] = frozenset()
        self._collector_paused = True  # set by `aspencli.cli.console.run.run`
        super().__init__(*args, **kwargs)
        self.magics_manager.register_function(self._profile, magic_name="profile")
        self.magics_manager.register_function(self._write, magic_name="write")
        for name in ("save", "run"):
            own = self.find_line_magic(name)
            self.magics_manager.register_function(own, magic_name=f"aspencli_ipython_{name}")
        self.magics_manager.register_function(self._save, magic_name="save")
        self.magics_manager.register_function(self._run, magic_name="run")
        for name, magic in (
            ("sql", self._sql),
            ("explain", self._explain),
            ("watch", self._watch),
        ):
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
        color = _COLORS[self._request.safety]
        self.highlighting_style_overrides = {
            **self.highlighting_style_overrides,
            _TARGET: f"{color} bold",
            _WRITING: f"{color} bold reverse",
        }
        self.prompts = ConsolePrompts(self, self._request.target_label, self._is_writing)
        super().init_prompt_toolkit_cli()
        if self.pt_app is not None and self.pt_app.completer is not None:
            completer = SqlCompleter(self.pt_app.completer, self._names)
            self.pt_app.completer = self._when_ready(completer)
            self.pt_app.app.after_render += lambda _app: self._begin_loading()

    def _extra_prompt_options(self) -> dict[str, Any]:
        options: dict[str, Any] = super()._extra_prompt_options()
        options["lexer"] = LexerWhenTyped(SqlLexer(options["lexer"], self._prefetch_names))
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
        self._bare_lines = _bare_lines(self, raw_cell)
        with workspace.profiling.cell():
            result = super().run_cell(raw_cell, *args, **kwargs)
            if outcome := workspace.transactions.roll_back_failed():
                self._request.messages.warn(outcome)
        return result

    def showtraceback(self, *args: Any, **kwargs: Any) -> None:
        """Show a database error in a few lines; ``%tb`` shows the full traceback."""
        failure = self._brief(sys.exc_info()[1])  # None when %tb is run, long after the error
        if failure is None:
            super().showtraceback(*args, **kwargs)
            return
        self._get_exc_info()  # stores it for %tb and %debug
        self._request.messages.error(failure.message, hint=failure.hint, details=failure.details)

    def _format_exception_for_storage(
        self, exception: BaseException, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Store the short message of a database error instead of its traceback.

        IPython colors the full traceback only for ``%notebook``, which takes up to a second.
        """
        failure = self._brief(exception)
        if failure is None:
            kept: dict[str, Any] = super()._format_exception_for_storage(exception, *args, **kwargs)
            return kept
        lines = [failure.message, *failure.details]
        return {"ename": type(exception).__name__, "evalue": failure.message, "traceback": lines}

    def _brief(self, error: BaseException | None) -> Failure | None:
        if error is None or self._request.debug:
            return None
        from aspencli.cli.failures import brief  # imports SQLAlchemy, loaded by now

        return brief(
            error,
            how_to_write=HOW_TO_WRITE,
            is_own=lambda name: name.startswith("<ipython-input-"),
        )

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
        self._loading.start()
        workspace = self._loading.result()  # Ctrl-C ends the wait
        self._give_names(workspace)
        return workspace

    def _when_ready(self, completer: Completer) -> Completer:
        """Return a completer that waits as `_ready` does, but leaves a failure to the next cell."""

        def ready() -> Completer:
            self._loading.start()
            wait([self._loading])
            workspace = self._loading.loaded()
            if workspace is not None:
                self._give_names(workspace)
            return completer

        return DynamicCompleter(ready)

    def _give_names(self, workspace: Workspace) -> None:
        # Done here and not in the loading thread, because this thread iterates over the namespace.
        if not self._named:
            self.push(workspace.names(), interactive=False)
            self._named = True

    def _read_names(self) -> Names:
        return self._loading.result().read_names()

    def _prefetch_names(self) -> None:
        if self._loading.loaded() is not None:
            self._names.begin()

    def _is_writing(self) -> bool:
        workspace = self._loading.loaded()
        return self._request.writing if workspace is None else workspace.writing

    # Magics

    def _profile(self, line: str) -> None:
        """Print each query and its time: ``%profile on|off``; summarize: ``%profile report``."""
        workspace = self._ready()
        match line.strip():
            case "on" | "off" as word:
                workspace.profile(on=word == "on")
            case "report":
                return workspace.profiling.report(self._tables())
            case "":
                """Only print the current state."""
            case _:
                raise UsageError("Use %profile on, %profile off, or %profile report.")
        return self._request.messages.info(
            f"Profiling is {'on' if workspace.profiling.on else 'off'}."
        )

    def _write(self, line: str) -> None:
        """Allow writes, after confirmation: ``%write``; read-only again: ``%write off``."""
        workspace, request = self._ready(), self._request
        match line.strip():
            case "" | "on":
                writable = True
            case "off":
                writable = False
            case _:
                raise UsageError("Use %write, or %write off.")
        if writable is workspace.writing:
            request.messages.info(f"The console is already {_mode(writing=writable)}.")
        elif not writable or request.confirm_write():
            workspace.switch(writable=writable)
            request.messages.info(
                f"Now {_mode(writing=writable)} on {request.target_label}: engine, db, and session "
                "are new; sessions that you opened earlier are unchanged."
                + (" Save changes with session.commit()." if writable else "")
            )
        else:
            request.messages.info("Not confirmed; the console is still read-only.")
        self.push(workspace.database_names(), interactive=False)

    @no_var_expand
    def _sql(self, line: str, cell: str | None = None) -> Any:
        """Run SQL, or a SQLAlchemy statement: ``%sql SELECT ...``.

        ``rows = %sql SELECT ...`` returns the rows instead of showing them.

        Options: ``--expanded``, ``--json``, ``--csv FILE``, ``--all``, ``--pager``.
        """
        text = f"{line}\n{cell or ''}"
        runner = self._runner()
        # The magic itself cannot tell whether its value is used.
        if cell is None and not self._is_bare():
            return runner.fetch(text)
        return runner.show(text)

    @no_var_expand
    def _explain(self, line: str, cell: str | None = None) -> None:
        """Show a statement's plan: ``%explain SELECT ...``; ``%explain analyze ...`` runs it."""
        from aspencli.cli.console.statements import explain

        session = self._ready().session
        explain(session, f"{line}\n{cell or ''}", self.user_ns, self._tables())

    @no_var_expand
    def _watch(self, line: str, cell: str | None = None) -> None:
        """Run a statement again and again until Ctrl-C: ``%watch SECONDS SELECT ...``."""
        from aspencli.cli.console.statements import watch

        workspace = self._ready()
        text = f"{line}\n{cell or ''}"
        watch(text, workspace.new_session, self.user_ns, self._tables())

    @no_var_expand
    def _save(self, line: str) -> None:
        """Save a query: ``%save NAME SELECT ...``; with file names, IPython's own ``%save``."""
        name, _, sql = line.strip().partition(" ")
        if not re.match(r"\s*(?:[A-Za-z(]|--)", sql):  # IPython takes numbers of lines
            self.find_line_magic("aspencli_ipython_save")(line)
            return
        replaced = self._queries().save(name, sql.strip())
        self._request.messages.done(
            f"{'Replaced' if replaced else 'Saved'} the query {name}. Run it with: %run {name}"
        )

    def _run(self, line: str) -> Any:
        """Run a saved query: ``%run NAME``; with a file name, IPython's own ``%run``."""
        queries = self._queries()
        name = line.strip()
        if not name:
            return self._list_queries()
        if name not in queries.all():
            if re.fullmatch(r"[\w-]+", name) and not os.path.exists(name):  # noqa: PTH110 - a name as typed
                queries.get(name)  # raises an error that lists the saved ones
            return self.find_line_magic("aspencli_ipython_run")(line)
        runner = self._runner()
        return (
            runner.show(queries.get(name)) if self._is_bare() else runner.fetch(queries.get(name))
        )

    def _list_queries(self) -> None:
        from aspencli.cli.output.formats import Column

        rows = [{"name": name, "sql": sql} for name, sql in sorted(self._queries().all().items())]
        columns = (Column("name", "Name", whole=True), Column("sql", "Statement", sql=True))
        self._tables().rows(columns, rows, empty="No query is saved: %save NAME SQL")

    def _queries(self) -> NamedQueries:
        from aspencli.cli.console.queries import NamedQueries

        return NamedQueries(self._request.shared_queries())

    def _runner(self) -> SqlRunner:
        from aspencli.cli.console.statements import SqlRunner

        workspace = self._ready()
        return SqlRunner(workspace.session, self.user_ns, self._tables(), self._names.forget)

    def _is_bare(self) -> bool:
        """Return True if the magic stands alone, so that nothing uses its value."""
        frame = sys._getframe(1)  # noqa: SLF001 - the documented way to a caller's frame
        found: FrameType | None = frame
        while found is not None and not found.f_code.co_filename.startswith("<ipython-input-"):
            found = found.f_back
        return found is None or found.f_lineno in self._bare_lines

    def _tables(self) -> Output:
        """Return the output for results of magics: tables, even if --output differs."""
        return replace(self._request.messages, form="table")


def _bare_lines(shell: ConsoleShell, cell: str) -> frozenset[int]:
    """Return the lines of a cell on which a magic stands alone, as IPython translates it."""
    if "%" not in cell:
        return frozenset()
    try:
        tree = ast.parse(shell.transform_cell(cell))
    except (SyntaxError, ValueError):
        return frozenset()
    return frozenset(
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute)
        and node.value.func.attr in {"run_line_magic", "run_cell_magic"}
    )


def _mode(*, writing: bool) -> str:
    return "READ-WRITE" if writing else "read-only"


def _place(address: str) -> str:
    """Return the database, server, and user of an address, without its password.

    (SQLAlchemy could parse the address, but is not loaded yet.)
    """
    parts = urlsplit(address)
    query = parse_qs(parts.query)
    server = parts.netloc.rpartition("@")[2] or query.get("host", ["this machine"])[0]
    user = unquote(parts.username or query.get("user", ["(default user)"])[0])
    return f"database {unquote(parts.path.lstrip('/'))} on {unquote(server)} as {user}"


class ConsolePrompts(Prompts):
    """The prompts ``local In [1]:``, and ``local WRITE In [1]:`` where sessions may write."""

    def __init__(self, shell: Any, label: str, writing: Callable[[], bool]):
        super().__init__(shell)
        self._label = label
        self._writing = writing

    def in_prompt_tokens(self) -> list[tuple[_TokenType, str]]:
        """Return the tokens shown before the input."""
        lead = [(_TARGET, self._label), (Token.Prompt, " ")]
        if self._writing():
            lead += [(_WRITING, "WRITE"), (Token.Prompt, " ")]
        return [*lead, *super().in_prompt_tokens()]


class LexerWhenTyped(Lexer):
    """A lexer that is not used until there is text to color.

    Its first use loads modules, which would delay the first prompt by 30 ms.
    """

    def __init__(self, lexer: Lexer):
        self._lexer = lexer

    def lex_document(self, document: Document) -> Callable[[int], StyleAndTextTuples]:
        """Return a function from a line number to the styled text of that line."""
        return self._lexer.lex_document(document) if document.text else lambda _line: []


class ConsoleHistory(HistoryManager):
    """IPython's history, without cells that contain secrets."""

    def store_inputs(self, line_num: int, source: str, source_raw: str | None = None) -> None:
        """Store a cell, or a placeholder if it contains a secret."""
        if _SECRET.search(source_raw or source):
            source = source_raw = _LEFT_OUT
        super().store_inputs(line_num, source, source_raw)


class Loading(Future["Workspace"]):
    """A task in a separate thread, started on request and awaited when its result is needed."""

    def __init__(self, work: Callable[[], Workspace]):
        super().__init__()
        self._work = work
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the task unless it has been started."""
        if self._thread is None:
            # A daemon thread, so that an unresponsive server cannot delay the exit.
            self._thread = threading.Thread(target=self._load, name="loading", daemon=True)
            self._thread.start()

    def loaded(self) -> Workspace | None:
        """Return the result if it is available already, else None."""
        return self.result() if self.done() and self.exception() is None else None

    def finish(self, timeout: float) -> Workspace | None:
        """Return the result if the task was started and ends within the timeout, in seconds."""
        if self._thread is not None:
            self._thread.join(timeout)
        return self.loaded()

    def _load(self) -> None:
        try:
            result = self._work()
        except BaseException as error:  # noqa: BLE001 - raised again where the result is needed
            self.set_exception(error)
        else:
            self.set_result(result)

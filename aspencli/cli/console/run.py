"""The console request, and code that runs without a prompt: ``-c CODE``, a file, or standard input.

Nothing heavy is imported here, so that the prompt appears before SQLAlchemy is loaded.
"""

from __future__ import annotations

import ast
import gc
import linecache
import sys
import tokenize
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import TYPE_CHECKING

from aspencli.cli.output.console import Ending, Output
from aspencli.config import Safety
from aspencli.errors import BadInputError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sqlalchemy.engine import Engine

    from aspen.database.engine import Database

STDIN = "-"


@dataclass(frozen=True)
class ConsoleRequest:
    """One use of the console."""

    # At a prompt it is called in a background thread while the operator starts to type, so it must
    # not ask anything.
    open_database: Callable[[], Database]
    address: str = field(repr=False)  # for the banner, which never shows the password in it
    target_label: str  # for people: local, rdev/mystack, prod
    safety: Safety  # sets the color of the prompt
    confirm_write: Callable[[], bool]  # asks whether %write may open a writable session
    writing: bool = False  # open_database creates a writable one; the banner needs it earlier
    code: str | None = None  # to run instead of showing a prompt
    script: Path | None = None  # to run instead; - is standard input
    arguments: Sequence[str] = ()  # sys.argv[1:] of the code or script
    profile: bool = False
    connect: bool = True  # immediately, so that a wrong password is reported early
    debug: bool = False
    how_to_write: str = "Run it again with --write."  # for a script that may not write, but tries
    messages: Output = field(default_factory=Output)
    # Entered with the console's engine at startup, exited at the end.
    around: Callable[[Engine], AbstractContextManager[None]] | None = None
    ended: Callable[[], None] = lambda: None  # called when the code or script has ended
    # Called with each statement once writing is allowed, and True if it failed; None if they are
    # not recorded.
    heard: Callable[[str, bool], None] | None = None
    # Returns the named queries of the config file; called when they are first used.
    shared_queries: Callable[[], Mapping[str, str]] = dict
    # Returns the name of writing sessions in the server's activity views; None for the database's.
    writing_name: Callable[[], str] | None = None

    @property
    def interactive(self) -> bool:
        """Return True if there is a prompt: no code was given and stdin is a terminal."""
        return self.code is None and self.script is None and sys.stdin.isatty()


def run(request: ConsoleRequest) -> int:
    """Show the prompt or run the code, and return the exit code.

    Code and scripts exit with 0, with 1 if they raised, with the code of an `AspenError` or of
    ``sys.exit``, or with 130 if interrupted. Leaving the prompt exits with 0.

    Raises:
        sqlalchemy.exc.OperationalError: If the database is unreachable (only with ``connect``).
    """
    if not request.interactive:
        return execute(request)
    # Off until the prompt is shown: garbage collection takes a tenth of the startup time.
    gc.disable()
    try:
        from aspencli.cli.console.shell import interact

        return interact(request)
    finally:
        gc.enable()


@dataclass(frozen=True)
class ScriptSource:
    """Code to run, and the name and place Python reports for it."""

    text: str
    filename: str  # in tracebacks
    argv0: str  # sys.argv[0] during the run
    folder: str = ""  # the first to import modules from
    shows_last: bool = False  # print the value of a final expression


def execute(request: ConsoleRequest) -> int:
    """Run the code of the request and return the exit code.

    Raises:
        BadInputError: If the script cannot be read.
        sqlalchemy.exc.OperationalError: If the database is unreachable (only with ``connect``).
    """
    from aspencli.cli.console.workspace import Workspace

    source = _source(request)
    with Workspace(request, request.how_to_write) as workspace:
        if request.connect:
            workspace.connect()
        with _as_main(source, request.arguments) as main:
            main.__dict__.update(workspace.names())
            with workspace.profiling.cell():
                code = _outcome(request, source, main)
        request.ended()
        if workspace.transactions.unsaved():
            request.messages.warn(
                "Uncommitted changes were not saved; to keep them, end with session.commit()."
            )
    return code


def _source(request: ConsoleRequest) -> ScriptSource:
    if request.code is not None:
        return ScriptSource(request.code, "<code>", "-c", shows_last=True)
    if request.script is None or str(request.script) == STDIN:
        return ScriptSource(sys.stdin.read(), "<stdin>", STDIN)
    path = request.script
    try:
        with tokenize.open(path) as file:  # uses the encoding declared in the file
            text = file.read()
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise BadInputError(
            f"Cannot read the script {path}: {error}", hint="Check its name and encoding."
        ) from error
    return ScriptSource(text, str(path), str(path), str(path.resolve().parent))


def _outcome(request: ConsoleRequest, source: ScriptSource, main: ModuleType) -> int:
    try:
        _run(source, main)
        sys.stdout.flush()
    except SystemExit as leaving:
        return _exit_code(leaving)
    except BrokenPipeError:
        raise  # the reader of the results is gone; the command's entry point handles it
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the operator's code can raise anything
        return _report(request, source, error)
    return 0


def _run(source: ScriptSource, main: ModuleType) -> None:
    lines = source.text.splitlines(keepends=True)
    # Lets tracebacks show lines of code that is not in a file.
    linecache.cache[source.filename] = (len(source.text), None, lines, source.filename)
    tree = ast.parse(source.text, source.filename)
    shown = tree.body[-1] if source.shows_last and tree.body else None
    if isinstance(shown, ast.Expr):
        tree.body.pop()
    exec(_compiled(tree, source), main.__dict__)  # noqa: S102 - the operator's own code
    if not isinstance(shown, ast.Expr):
        return
    value = eval(_compiled(ast.Expression(shown.value), source), main.__dict__)  # noqa: S307 - same
    if value is not None:
        sys.stdout.write(f"{value!r}\n")


def _compiled(tree: ast.Module | ast.Expression, source: ScriptSource) -> CodeType:
    mode = "eval" if isinstance(tree, ast.Expression) else "exec"
    return compile(tree, source.filename, mode, dont_inherit=True)


def _exit_code(leaving: SystemExit) -> int:
    if leaving.code is None or isinstance(leaving.code, int):
        return leaving.code or 0
    sys.stderr.write(f"{leaving.code}\n")  # as Python does
    return 1


def _report(request: ConsoleRequest, source: ScriptSource, error: BaseException) -> int:
    from aspencli.cli.failures import brief

    failure = brief(
        error, how_to_write=request.how_to_write, is_own=lambda name: name == source.filename
    )
    if request.debug or failure is None:
        trace = _from_own_code(error.__traceback__, source)
        traceback.print_exception(type(error), error, trace)
    if failure is None:
        request.messages.ending = Ending(f"{type(error).__name__}: {error}")
        return 1
    request.messages.fail(failure.message, hint=failure.hint, details=failure.details)
    return failure.code


def _from_own_code(trace: TracebackType | None, source: ScriptSource) -> TracebackType | None:
    """Return the traceback without the frames that lead to the operator's code."""
    while trace is not None and trace.tb_frame.f_code.co_filename != source.filename:
        trace = trace.tb_next
    return trace


@contextmanager
def _as_main(source: ScriptSource, arguments: Sequence[str]) -> Iterator[ModuleType]:
    """Install a module as ``__main__``, as Python does for a program that it runs.

    Dataclasses, mapped classes, and pickles look up their names there.
    """
    main = ModuleType("__main__")
    if Path(source.filename).is_file():
        main.__file__ = source.filename
    before = sys.modules["__main__"], sys.argv, sys.path[:]
    sys.modules["__main__"] = main
    sys.argv = [source.argv0, *arguments]
    sys.path.insert(0, source.folder)
    try:
        yield main
    finally:
        sys.modules["__main__"], sys.argv, sys.path[:] = before

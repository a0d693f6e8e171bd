"""Execution of code without a prompt: ``-c CODE``, a file, or standard input."""

from __future__ import annotations

import ast
import linecache
import sys
import tokenize
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType, TracebackType

from aspen.database.errors import NotAllowedError
from aspencli.cli.console.failures import brief
from aspencli.cli.console.run import ConsoleRequest
from aspencli.cli.console.workspace import Workspace
from aspencli.errors import INTERRUPTED, AspenError, BadInputError, RefusedError

STDIN = "-"


@dataclass(frozen=True)
class Source:
    """Code to run, and the name and place Python reports for it.

    Attributes:
        text: Source text.
        filename: File name in tracebacks.
        argv0: Value of ``sys.argv[0]`` during the run.
        folder: First folder to import modules from.
        shows_last: Whether to print the value of a final expression.
    """

    text: str
    filename: str
    argv0: str
    folder: str = ""
    shows_last: bool = False


def execute(request: ConsoleRequest) -> int:
    """Run the code of the request and return the exit code.

    Raises:
        BadInputError: If the script cannot be read.
        sqlalchemy.exc.OperationalError: If the database is unreachable (only with ``connect``).
    """
    source = _source(request)
    with Workspace(request, request.how_to_write) as workspace:
        if request.connect:
            workspace.connect()
        with _as_main(source, request.arguments) as main:
            main.__dict__.update(workspace.names())
            with workspace.profiling.cell():
                code = _outcome(request, source, main)
        request.ended()
        if workspace.unsaved():
            request.messages.warn(
                "Uncommitted changes were not saved; to keep them, end with session.commit()."
            )
    return code


def _source(request: ConsoleRequest) -> Source:
    if request.code is not None:
        return Source(request.code, "<code>", "-c", shows_last=True)
    if request.script is None or str(request.script) == STDIN:
        return Source(sys.stdin.read(), "<stdin>", STDIN)
    path = request.script
    try:
        with tokenize.open(path) as file:  # uses the encoding declared in the file
            text = file.read()
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise BadInputError(
            f"Cannot read the script {path}: {error}", hint="Check its name and encoding."
        ) from error
    return Source(text, str(path), str(path), str(path.resolve().parent))


def _outcome(request: ConsoleRequest, source: Source, main: ModuleType) -> int:
    try:
        _run(source, main)
        sys.stdout.flush()
    except SystemExit as leaving:
        return _exit_code(leaving)
    except BrokenPipeError:
        raise  # the reader of the results is gone; the command's entry point handles it
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the operator's code can raise anything
        _tell(request, source, error)
        if isinstance(error, KeyboardInterrupt):
            return INTERRUPTED
        if isinstance(error, NotAllowedError):
            return RefusedError.exit_code
        return error.exit_code if isinstance(error, AspenError) else 1
    return 0


def _run(source: Source, main: ModuleType) -> None:
    lines = source.text.splitlines(keepends=True)
    # Lets tracebacks show lines of code that is not in a file.
    linecache.cache[source.filename] = (len(source.text), None, lines, source.filename)
    tree = ast.parse(source.text, source.filename)
    last = tree.body[-1] if source.shows_last and tree.body else None
    if not isinstance(last, ast.Expr):
        exec(_compiled(tree, source), main.__dict__)  # noqa: S102 - the operator's own code
        return
    tree.body.pop()
    exec(_compiled(tree, source), main.__dict__)  # noqa: S102 - the operator's own code
    value = eval(_compiled(ast.Expression(last.value), source), main.__dict__)  # noqa: S307 - same
    if value is not None:
        sys.stdout.write(f"{value!r}\n")


def _compiled(tree: ast.Module | ast.Expression, source: Source) -> CodeType:
    mode = "eval" if isinstance(tree, ast.Expression) else "exec"
    return compile(tree, source.filename, mode, dont_inherit=True)


def _exit_code(leaving: SystemExit) -> int:
    if leaving.code is None or isinstance(leaving.code, int):
        return leaving.code or 0
    sys.stderr.write(f"{leaving.code}\n")  # as Python does
    return 1


def _tell(request: ConsoleRequest, source: Source, error: BaseException) -> None:
    told = brief(
        error, how_to_write=request.how_to_write, is_own=lambda name: name == source.filename
    )
    if request.debug or told is None:
        trace = _from_own_code(error.__traceback__, source)
        traceback.print_exception(type(error), error, trace)
    if told is not None:
        request.messages.error(told.message, hint=told.hint, details=told.details)


def _from_own_code(trace: TracebackType | None, source: Source) -> TracebackType | None:
    """Return the traceback without the frames that lead to the operator's code."""
    while trace is not None and trace.tb_frame.f_code.co_filename != source.filename:
        trace = trace.tb_next
    return trace


@contextmanager
def _as_main(source: Source, arguments: Sequence[str]) -> Iterator[ModuleType]:
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

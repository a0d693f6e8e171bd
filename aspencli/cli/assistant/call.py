"""The process of one tool call: it runs the command, and prints its outcome as one JSON object.

A process of its own keeps the protocol's stream clean, and can be stopped whatever it does. The
request is on standard input and not among the arguments, which other users of this machine can
read. The server holds the other end of standard input: when that closes, the call is over.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aspencli.cli.output.console import Output
from aspencli.errors import INTERRUPTED, AspenError

if TYPE_CHECKING:
    from aspencli.cli.assistant.context import AssistantContext

_MOST_BYTES = 1 << 20  # of a request
_MOST_CHARACTERS = 20_000_000  # of the output of a command
_MEMORY = 2 << 30  # bytes; the rows of a statement are held in memory
_GRACE_S = 3.0
_NO_MEMORY = "out of memory"  # as libpq says it


class _Bounded(io.StringIO):
    """The standard output of a command, up to a size."""

    def write(self, text: str) -> int:
        if self.tell() + len(text) > _MOST_CHARACTERS:
            raise AspenError(
                f"The result has more than {_MOST_CHARACTERS:,} characters.",
                hint="Narrow the request.",
            )
        return super().write(text)


@dataclass
class Collected(Output):
    """An output that keeps messages instead of printing them."""

    notes: list[dict[str, Any]] = field(default_factory=list)

    def info(self, message: str) -> None:
        """Keep information."""
        self._keep("info", message)

    def done(self, message: str) -> None:
        """Keep a report of success."""
        self._keep("done", message)

    def warn(self, message: str) -> None:
        """Keep a warning."""
        self._keep("warn", message)

    def hint(self, message: str) -> None:
        """Keep a suggestion."""
        self._keep("hint", message)

    def error(self, message: str, *, hint: str | None = None, details: Iterable[str] = ()) -> None:
        """Keep what failed and why, and what to do next."""
        self._keep("error", message, hint=hint, details=list(details))

    def _keep(self, kind: str, text: str, **more: Any) -> None:
        self.notes.append({"kind": kind, "text": text, **more})


def run_call(request: Mapping[str, Any]) -> dict[str, Any]:
    """Run the command of a request, and return its outcome."""
    from aspen.database import settings
    from aspencli.cli.assistant.context import AssistantContext
    from aspencli.machine import clear_environment

    clear_environment(settings.MISLEADING)
    stdout = _Bounded()
    sys.stdout = stdout
    out = Collected("json", no_input=True, stdout=stdout)
    context = AssistantContext(request["allowed"])
    context.argv = tuple(request["words"])
    vars(context)["out"] = out
    with context:
        code = _exit_code(context, request, out)
    return {
        "code": code if isinstance(code, int) else 0,
        "output": stdout.getvalue(),
        "notes": out.notes,
    }


def _exit_code(context: AssistantContext, request: Mapping[str, Any], out: Collected) -> Any:
    """Run the command, and return its exit code; an error becomes part of the output."""
    from typer.exceptions import Abort

    from aspencli.cli.failures import explain
    from aspencli.cli.main import command

    try:
        if (sql := request.get("sql")) is not None:
            _check(context, request, sql)
        return command().main(
            args=list(context.argv), prog_name="aspencli", standalone_mode=False, obj=context
        )
    except (KeyboardInterrupt, Abort, SystemExit):
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - every error is part of the outcome
        failure = explain(_as_too_large(error))
        out.error(failure.message, hint=failure.hint, details=failure.details)
        return failure.code


def _as_too_large(error: Exception) -> Exception:
    """Return a plain error if the memory was not enough, otherwise the error itself."""
    if not isinstance(error, MemoryError) and _NO_MEMORY not in str(error):
        return error
    return AspenError(
        f"The result does not fit into the {_MEMORY >> 30} GB that a call may use.",
        hint="Count or aggregate in the statement, or add a LIMIT.",
    )


def _check(context: Any, request: Mapping[str, Any], sql: str) -> None:
    from aspencli.cli.assistant.statements import require_reading

    context.choose_target(request["target"])
    require_reading(context.database(), sql)


def main() -> int:
    """Read the request, run it, and print its outcome."""
    from aspencli.cli.main import obey_sigterm

    obey_sigterm()
    _limit_memory()
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    wire = os.fdopen(os.dup(0), "rb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    line = b""
    while not line.endswith(b"\n"):
        read = wire.read(1 << 16)
        if not read or len(line) > _MOST_BYTES:
            return INTERRUPTED
        line += read
    is_over = threading.Event()
    threading.Thread(target=_watch, args=(wire, is_over), daemon=True).start()
    outcome = run_call(json.loads(line))
    is_over.set()
    json.dump(outcome, results)
    results.flush()
    return 0


def _watch(wire: io.FileIO, is_over: threading.Event) -> None:
    """End the process when the server closes its end, or is gone."""
    while wire.read(1 << 10):
        pass
    if is_over.is_set():
        return
    os.kill(os.getpid(), signal.SIGTERM)  # cancels a statement, and closes tunnels
    time.sleep(_GRACE_S)
    os._exit(INTERRUPTED)


def _limit_memory() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux" and not 0 <= soft <= _MEMORY:
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, hard))


if __name__ == "__main__":
    sys.exit(main())

"""Run psql as a child process, and report the statements in the log that its option -L writes.

The log has the results of queries, too, which may be personal data. So it is a pipe, of which only
the statements are kept.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import IO

from aspencli import files
from aspencli.admin.psql import PsqlCall
from aspencli.signals import exit_code_of, left_to_child

# The lines around a statement (psql's common.c), the first of which psql translates. Since version
# 16 they are comments.
_BEGIN = re.compile(rb"/?\*{4,} [^*]+ \*{4,}/?\n")
_END = re.compile(rb"/?\*{20,}/?\n")
_LINE = 65_536  # bytes to read at once; a result can be a single long line
_LONGEST = 100_000  # bytes of a statement
_LAST_WAIT_S = 2.0  # for a program that psql started, and which has the log open


def run_recorded(call: PsqlCall, heard: Callable[[str], None], log: str | None) -> int:
    """Run psql to its end, and return its exit code.

    Args:
        call: The command.
        heard: Called with each statement, in another thread.
        log: The log file that the operator has asked for, if any, which is written as usual.

    Raises:
        OSError: psql cannot be started, or the log file cannot be written.
    """
    with ExitStack() as exits:
        copy = exits.enter_context(_opened(log)) if log else None
        reading, writing = os.pipe()
        kept = [writing]
        environment = dict(call.environment)
        if (startup := call.startup_pipe()) is not None:
            kept.append(startup)
            environment["PSQLRC"] = f"/dev/fd/{startup}"
        source = exits.enter_context(os.fdopen(reading, "rb"))
        reader = threading.Thread(target=_read, args=(source, heard, copy), daemon=True)
        exits.enter_context(left_to_child())
        try:
            process = subprocess.Popen(  # noqa: S603 - psql
                _logged(call.arguments, f"/dev/fd/{writing}"),
                executable=call.program,
                env=environment,
                pass_fds=kept,
            )
        finally:
            for descriptor in kept:
                os.close(descriptor)
        reader.start()
        try:
            return exit_code_of(process)
        finally:
            reader.join(_LAST_WAIT_S)


def _logged(arguments: tuple[str, ...], log: str) -> list[str]:
    """Return psql's arguments with a log file, which replaces one that they name."""
    words = list(arguments)
    end = words.index("--") if "--" in words else len(words)
    return [*words[:end], "-L", log, *words[end:]]


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    """Open the operator's own log file to append to it."""
    descriptor = files.open_own(files.expand(path), flags=os.O_WRONLY | os.O_APPEND)
    with os.fdopen(descriptor, "ab") as file:
        yield file


def _read(source: IO[bytes], heard: Callable[[str], None], copy: IO[bytes] | None) -> None:
    for statement in statements(_copied(source, copy)):
        with suppress(Exception):  # psql must not wait for a reader that has failed
            heard(statement)


def _copied(source: IO[bytes], copy: IO[bytes] | None) -> Iterator[bytes]:
    """Yield lines, long ones in parts."""
    while line := source.readline(_LINE):
        if copy is not None:
            with suppress(OSError):
                copy.write(line)
                copy.flush()
        yield line


def statements(lines: Iterator[bytes]) -> Iterator[str]:
    """Yield the statements in a log of psql's."""
    text: list[bytes] | None = None
    size = 0
    for line in lines:
        if text is None:
            text, size = ([], 0) if _BEGIN.fullmatch(line) else (None, 0)
        elif _END.fullmatch(line):
            yield b"".join(text).decode(errors="replace").strip()
            text = None
        elif size < _LONGEST:
            text.append(line)
            size += len(line)

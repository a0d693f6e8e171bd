"""``--watch``: show a result again and again, in place on a terminal, until Ctrl-C."""

from __future__ import annotations

import io
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from aspencli.cli.app import WATCH
from aspencli.signals import TerminatedError

if TYPE_CHECKING:
    from aspencli.cli.output.console import Output

USUAL_S = "2"
"""The seconds of ``--watch`` without a number."""
_SHORTEST_S = 0.5
# The other screen of the terminal, without a cursor and without wrapping lines; and back.
_BEGIN, _END = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J", "\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME, _LINE_END, _REST = "\x1b[H", "\x1b[K\n", "\x1b[J"
_UNREACHABLE = 5  # the exit code of a target that cannot be reached

WatchOption = Annotated[
    float | None,
    typer.Option(
        WATCH,
        metavar="[SECONDS]",
        min=_SHORTEST_S,
        help=f"Refresh until Ctrl-C, every {USUAL_S} seconds or as often as given.",
    ),
]


def with_seconds(args: Sequence[str], known: dict[str, bool]) -> list[str]:
    """Return a command's arguments with the usual seconds after a ``--watch`` without a number."""
    found = list(args)
    end = found.index("--") if "--" in found else len(found)
    if known.get(WATCH) and WATCH in found[:end]:
        after = found.index(WATCH) + 1
        if after >= end or not _is_number(found[after]):
            found.insert(after, USUAL_S)
    return found


def _is_number(text: str) -> bool:
    return text.lstrip("-").replace(".", "", 1).isdigit()


def shown(
    out: Output, seconds: float | None, show: Callable[[Output], None], *, title: str
) -> None:
    """Show a result once, or every few seconds until Ctrl-C.

    A terminal is redrawn in place, and its screen restored at the end. Otherwise each result
    follows the one before it. If the target cannot be reached, a message says so until it can be
    reached again; before the first result, that is an error.

    Args:
        out: The output of the command.
        seconds: The pause, or None to show the result once.
        show: Shows the result on an output.
        title: What is shown, for the line at the top of the screen.
    """
    if seconds is None:
        return show(out)
    is_screen = out.out.isatty() and os.environ.get("TERM") != "dumb"
    shower = _on_screen if is_screen else _one_after_the_other
    try:
        shower(out, seconds, show, title)
    except TerminatedError:
        raise
    except KeyboardInterrupt:  # the normal end
        out.info("Stopped.")
    return None


def _one_after_the_other(
    out: Output, seconds: float, show: Callable[[Output], None], _title: str
) -> None:
    is_first = True
    while True:
        if not is_first and out.chosen_form == "table":
            out.text("")
        try:
            show(out)
        except Exception as error:
            if is_first or not (lost := _lost(error)):
                raise
            out.warn(f"{lost} Trying again every {seconds:g} s.")
        is_first = False
        time.sleep(seconds)


def _on_screen(out: Output, seconds: float, show: Callable[[Output], None], title: str) -> None:
    last = _drawn(out, show)  # an error before the first result is shown as by any command
    message = ""
    with _other_screen(out.out):
        while True:
            head = f"{title}, every {seconds:g} s, at {time.strftime('%H:%M:%S')}; Ctrl-C to stop"
            _draw(out.out, [head, *([message] if message else []), "", *last])
            time.sleep(seconds)
            try:
                last, message = _drawn(out, show), ""
            except Exception as error:
                if not (lost := _lost(error)):
                    raise
                at = message.partition("Lost at ")[2][: len("00:00:00")] or time.strftime(
                    "%H:%M:%S"
                )
                words = f"{lost} Lost at {at}; trying again. What follows is from before."
                message = out.styled("warn", words)


def _lost(error: Exception) -> str:
    """Return why a target cannot be reached, or an empty text for any other error."""
    from aspencli.cli.failures import explain

    failure = explain(error)
    return f"{failure.message.rstrip('.')}." if failure.code == _UNREACHABLE else ""


class _Page(io.StringIO):
    """Text on its way to the terminal: it is as wide and as colorful as there."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        """Return True: it is shown on one."""
        return True

    def fileno(self) -> int:
        """Return the descriptor of the terminal, for its size."""
        return sys.stdout.fileno()


def _drawn(out: Output, show: Callable[[Output], None]) -> list[str]:
    page = _Page()
    show(replace(out, stdout=page, stderr=page))
    return page.getvalue().splitlines()


def _draw(stream: TextIO, lines: list[str]) -> None:
    height = shutil.get_terminal_size().lines
    if len(lines) >= height:
        left = len(lines) - height + 2
        lines = [*lines[: height - 2], f"... {left} more lines; the terminal is too small for them"]
    stream.write(_HOME + "".join(line + _LINE_END for line in lines) + _REST)
    stream.flush()


@contextmanager
def _other_screen(stream: TextIO) -> Iterator[None]:
    stream.write(_BEGIN)
    try:
        yield
    finally:
        stream.write(_END)
        stream.flush()

"""Messages, questions, progress and tables: what a person reads."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Protocol, TextIO, cast

from aspencli.errors import RefusedError
from aspencli.output.rendering import Column, Row, record_field, write_rows
from aspencli.output.text import visible

if TYPE_CHECKING:
    from rich.console import Console

    from aspencli.output.layout import Layout

_PART = 1_000  # rows of a table that are laid out at once
_HEIGHT = 24  # lines; no table depends on it
_NARROW = 100  # columns; below it a table leaves its secondary columns out
_TRIES = 3  # answers to one question
_SETTLE_S = 0.1  # without input before a question; nobody reads and answers one faster
_PASTE_GAP_S = 0.05  # between the lines of a paste; pexpect and people leave more
_PIECES = 100  # of a paste; a key that is held down must not keep a question from appearing
_STYLES = {"error": "31;1", "warn": "33", "done": "32", "hint": "36", "dim": "2", "strong": "1"}


class Tick(Protocol):
    """What is called while something long goes on."""

    def __call__(self, done: int, /) -> None:
        """Say how much is done by now."""


class _Guarded:
    """A stream whose failures are told to somebody, and which goes on.

    Args:
        stream: The stream.
        fail: Is told each failure, and raises it where that shall end the command.
    """

    def __init__(self, stream: TextIO, fail: Callable[[OSError], None]):
        self._stream = stream
        self._fail = fail

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Write what is still in the buffer."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._fail(error)
        # What is in the buffer would fail again at each flush, and at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


@dataclass
class Output:
    """The two streams, and how they may be used.

    Attributes:
        form: ``table``, ``json``, ``jsonl``, ``csv`` or ``tsv``; None means a table on a terminal
            and ``tsv`` elsewhere.
        no_input: Whether a question is refused instead of asked.
        stdout: Where results go.
        stderr: Where everything else goes.
        lost: Why a result of a command that writes could not be printed; None where it was.
    """

    form: str | None = None
    no_input: bool = False
    stdout: TextIO | None = None
    stderr: TextIO | None = None
    is_asking: bool = field(default=False, init=False)  # a question has no answer yet
    lost: OSError | None = field(default=None, init=False)
    _finishes: bool = field(default=False, init=False, repr=False)

    @property
    def out(self) -> TextIO:
        """Where results go."""
        return cast("TextIO", _Guarded(self.stdout or sys.stdout, self._lose))

    @property
    def err(self) -> TextIO:
        """Where everything else goes. A message that cannot be shown changes no outcome."""
        return cast("TextIO", _Guarded(self.stderr or sys.stderr, lambda _error: None))

    def finish_anyway(self) -> None:
        """From now on, let no result that cannot be printed end the command.

        A write may be under way: the command has to be finished, and its exit code has to tell what
        was written. `lost` then says why the result is missing.
        """
        self._finishes = True

    def _lose(self, error: OSError) -> None:
        if not self._finishes:
            raise error
        self.lost = self.lost or error

    @property
    def chosen_form(self) -> str:
        """The format of results."""
        return self.form or ("table" if self.out.isatty() else "tsv")

    @property
    def interactive(self) -> bool:
        """Whether somebody is there to answer a question."""
        stdin = sys.stdin  # None where the process was started without one
        return not self.no_input and stdin is not None and stdin.isatty() and self.err.isatty()

    # Results

    def rows(self, columns: Sequence[Column], rows: Iterable[Row], *, empty: str = "") -> None:
        """Show rows on stdout; ``empty`` is said on stderr when there is none."""
        rows = iter(rows)
        first = list(islice(rows, 1))  # before a heading is written: a query may fail here
        if self.chosen_form == "table":
            if first:
                self._table(columns, chain(first, rows))
        else:
            write_rows(self.out, self.chosen_form, columns, chain(first, rows))
        self.out.flush()
        if not first and empty:
            self.info(empty)

    def records(self, columns: Sequence[Column], rows: Sequence[Row]) -> None:
        """Show several things: in a table one below the other, else as rows."""
        if self.chosen_form != "table":
            return self.rows(columns, rows)
        for number, row in enumerate(rows):
            if number:
                self.text("")
            self.record(columns, row)
        return None

    def record(self, columns: Sequence[Column], row: Row) -> None:
        """Show one thing: its fields below each other in a table, else as one row."""
        if self.chosen_form != "table":
            return self.rows(columns, [row])
        from rich.table import Table  # only where a table is drawn

        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for column in columns:
            table.add_row(column.title, record_field(row[column.key]))
        self._console(self.out).print(table)
        return self.out.flush()

    def text(self, text: str) -> None:
        """Show text on stdout as it is."""
        self.out.write(text if text.endswith("\n") else text + "\n")
        self.out.flush()

    @property
    def width(self) -> int:
        """How many characters a line of the results may have."""
        return _width(self.out)

    def styled(self, style: str, text: str) -> str:
        """Text of our own for stdout, in a colour where it takes one."""
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self.colour(self.out) else text

    # Messages

    def info(self, message: str) -> None:
        """Say what is going on."""
        self._say("", message)

    def done(self, message: str) -> None:
        """Say what has been achieved."""
        self._say(self._styled("done", "✓ ", ""), message)

    def warn(self, message: str) -> None:
        """Say what the operator should know before relying on the result."""
        self._say(self._styled("warn", "Warning: "), message)

    def hint(self, message: str) -> None:
        """Say what to do next."""
        self._say(self._styled("hint", "→ ", "  "), message)

    def error(self, message: str, *, hint: str | None = None, details: Iterable[str] = ()) -> None:
        """Say what failed and why, and what to do next."""
        self._say(self._styled("error", "Error: "), message)
        for line in details:
            self._say("  ", line)
        if hint:
            self.hint(hint)

    def preview(self, columns: Sequence[Column], rows: Iterable[Row], *, limit: int = 10) -> None:
        """Show the first rows on stderr, before a question."""
        shown = list(islice(rows, limit))
        if shown and self.err.isatty():
            self._console(self.err).print(self._layout(columns, self.err).part(shown))
        elif shown:
            write_rows(self.err, "tsv", columns, shown)

    # Questions

    def ask(self, question: str) -> str:
        """Return the operator's answer exactly as typed, without the line break.

        Only one line that is typed after the question has appeared counts. Whatever was typed or
        pasted before is discarded, and several lines that arrive at once are a paste: they answer
        neither this question nor the next.

        Raises:
            RefusedError: There is no terminal, or every answer was a paste of several lines.
        """
        if not self.interactive:
            raise RefusedError(
                f"Confirmation required, but this is not a terminal: {question}",
                hint="Run it on a terminal.",
            )
        for _ in range(_TRIES):
            if discard_typed(sys.stdin.fileno()):
                self.info("Discarded what was typed before the question.")
            self.err.write(self._styled("strong", visible(question)) + " ")
            self.err.flush()
            self.is_asking = True
            answer = read_line(sys.stdin.fileno())
            self.is_asking = False
            if answer is None:
                self.err.write("\n")
                return ""
            if not discard_typed(sys.stdin.fileno(), _PASTE_GAP_S):
                return answer
            self.warn("Several lines arrived at once and were discarded: type only the answer.")
        raise RefusedError("not confirmed; nothing was written")

    def confirm(self, question: str) -> bool:
        """Return True if the operator says yes; anything else is a no."""
        return self.ask(f"{question} [y/N]").strip().lower() in {"y", "yes"}

    # Progress

    @contextmanager
    def progress(self, label: str, total: int | None = None) -> Iterator[Tick]:
        """A progress bar on stderr for what takes longer than a second; silent off a terminal."""
        if not self.err.isatty():
            yield lambda _done: None
            return
        from aspencli.output.progress import Bar

        with Bar(self._console(self.err), label, total) as bar:
            yield bar.update

    @contextmanager
    def transfer(self, label: str) -> Iterator[Callable[[int, int | None], None]]:
        """The same for a download; told the bytes that came, and how many there are in all."""
        if not self.err.isatty():
            yield lambda _done, _total: None
            return
        from aspencli.output.progress import Bar

        with Bar(self._console(self.err), label, None, in_bytes=True) as bar:
            yield bar.update_both

    # How

    def colour(self, stream: TextIO) -> bool:
        """Whether a stream takes colours (NO_COLOR and TERM=dumb say no)."""
        return (
            stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        )

    def _styled(self, style: str, text: str, otherwise: str | None = None) -> str:
        if self.colour(self.err):
            return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"
        return text if otherwise is None or _encodes(self.err, text) else otherwise

    def _say(self, lead: str, message: str) -> None:
        # The lead is ours and may hold colours; the message may hold text from data.
        # A server indents its second line with a tab, which `visible` would spell out.
        lines = "\n".join(visible(line.expandtabs(4)) for line in message.split("\n"))
        self.err.write(_encodable(self.err, lead + lines) + "\n")
        self.err.flush()

    def _table(self, columns: Sequence[Column], rows: Iterator[Row]) -> None:
        layout, console = self._layout(columns, self.out), self._console(self.out)
        while part := list(islice(rows, _PART)):  # they may be more than the memory holds
            console.print(layout.part(part))

    def _layout(self, columns: Sequence[Column], stream: TextIO) -> Layout:
        from aspencli.output.layout import Layout

        width = _width(stream)
        shown = [c for c in columns if not (c.secondary and width < _NARROW)]
        return Layout(shown, width)

    def _console(self, stream: TextIO) -> Console:
        from rich.console import Console

        return Console(
            file=stream,
            width=_width(stream),
            height=_HEIGHT,  # or else the width does not count where TERM is dumb
            # Not no_color, which leaves bold type in.
            color_system="auto" if self.colour(stream) else None,
            highlight=False,
            markup=False,
            emoji=False,
        )


def discard_typed(descriptor: int, quiet_s: float = _SETTLE_S) -> bool:
    """Discard what is typed or pasted on a terminal until it has been quiet for a moment.

    The terminal driver hands out one line at a time and keeps the rest, so nothing of it is in a
    buffer of this process as long as answers are read with `read_line`.

    Args:
        descriptor: The terminal.
        quiet_s: How many seconds without a new line end the wait. A paste arrives in pieces: over
            SSH some milliseconds apart.

    Returns:
        True if a whole line was discarded; half a line is discarded as well.
    """
    import select
    import termios

    found = False
    for _ in range(_PIECES):
        waiting = bool(select.select([descriptor], [], [], 0)[0])
        termios.tcflush(descriptor, termios.TCIFLUSH)
        if not waiting and not select.select([descriptor], [], [], quiet_s)[0]:
            termios.tcflush(descriptor, termios.TCIFLUSH)
            break
        found = True
    return found


def read_line(descriptor: int) -> str | None:
    """Return the next line of a terminal without its line break; None if it ends before one."""
    line = b""
    while not line.endswith((b"\n", b"\r")):
        read = os.read(descriptor, 1)
        if not read:
            return None  # Ctrl-D: half an answer is none
        line += read
    return line[:-1].decode("utf-8", "backslashreplace")


def _width(stream: TextIO) -> int:
    return shutil.get_terminal_size((120, _HEIGHT)).columns if stream.isatty() else 120


def _encodes(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _encodable(stream: TextIO, text: str) -> str:
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)

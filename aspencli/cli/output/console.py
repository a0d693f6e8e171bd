"""Results, messages, previews, questions, and progress bars.

Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO, cast

from aspencli.cli.output.formats import Column, NamedRow, Row, with_blanks, write_rows
from aspencli.errors import BadInputError, RefusedError
from aspencli.text import json_document, visible

if TYPE_CHECKING:
    from rich.console import Console

    from aspencli.cli.meter import Meter
    from aspencli.cli.output.filters import Filter
    from aspencli.cli.output.table import TableLayout


_PART = 1_000  # rows of a table that are laid out at a time
_PATIENCE_S = 1.0  # before a progress bar appears
_PIPED = 120  # columns of a table that is not written to a terminal
_STANDARD = 80  # columns of a terminal that does not report its size
# Rich shows them in yellow, green, and cyan, which cannot be read on white.
_PROGRESS_TEXTS = (
    "progress.data.speed",
    "progress.download",
    "progress.elapsed",
    "progress.filesize",
    "progress.percentage",
    "progress.remaining",
    "progress.spinner",
)
_TRIES = 3  # attempts at one question
_SETTLE_S = 0.1  # quiet time before a question; no one reads and answers one faster
_PASTE_GAP_S = 0.05  # between the lines of a paste; pexpect and people leave longer gaps
_PIECES = 100  # of a paste; a key that is held down must not block a question forever
# Entries of the color cube, which terminals do not redefine. Each has a contrast of at least 3
# on white, on black, and on the backgrounds of GNOME Terminal and Solarized. Of the 16 basic
# colors, yellow has 1.7 on white in xterm; dim text has 2.2 in Solarized.
SHADES = {"error": 196, "warn": 136, "done": 28, "hint": 31}
_BOLD = frozenset({"error", "strong"})
_EXTENDED = ("256color", "kitty")  # in TERM; the same as Rich looks for


def has_shades() -> bool:
    """Return True if the terminal has 256 colors, as far as its variables show.

    Where color is forced, it is shown later: by a log viewer, or by less.
    """
    if is_color_forced():
        return True
    term = os.environ.get("TERM", "")
    return bool(os.environ.get("COLORTERM")) or any(name in term for name in _EXTENDED)


def escape(style: str) -> str:
    """Return the escape sequence that starts a style; bold alone on a terminal of 16 colors."""
    if style in SHADES and has_shades():
        return f"\x1b[{'1;' * (style in _BOLD)}38;5;{SHADES[style]}m"
    return "\x1b[1m"


def rich_style(style: str) -> str:
    """Return the name by which Rich knows a style."""
    if style in SHADES and has_shades():
        return f"{'bold ' * (style in _BOLD)}color({SHADES[style]})"
    return "bold"


def has_color(stream: TextIO) -> bool:
    """Return True if a stream gets color: NO_COLOR turns it off, and FORCE_COLOR on."""
    if os.environ.get("NO_COLOR"):
        return False
    return is_color_forced() or (stream.isatty() and os.environ.get("TERM") != "dumb")


def is_color_forced() -> bool:
    """Return True if color is wanted even where it is not supported (https://force-color.org)."""
    return os.environ.get("FORCE_COLOR", "") not in {"", "0"}


def styled(stream: TextIO, style: str, text: str) -> str:
    """Return trusted text in a style if the stream supports color."""
    return f"{escape(style)}{text}\x1b[0m" if has_color(stream) else text


def rich_console(stream: TextIO, *, piped: int = _PIPED) -> Console:
    """Return a Rich console for a stream; see `width_of`."""
    from rich.console import Console
    from rich.theme import Theme

    return Console(
        file=stream,
        width=width_of(stream, piped=piped),
        height=24,  # otherwise Rich ignores the width where TERM is dumb
        force_terminal=stream.isatty() or has_color(stream),
        # Not no_color, which keeps bold text.
        color_system=_color_system(stream),
        highlight=False,
        markup=False,
        emoji=False,
        theme=Theme(dict.fromkeys(_PROGRESS_TEXTS, "none")),
    )


def _color_system(stream: TextIO) -> Literal["auto", "256"] | None:
    if not has_color(stream):
        return None
    # Rich would look at TERM, which says nothing about a stream that is not a terminal.
    return "256" if is_color_forced() else "auto"


Tick = Callable[[int], None]
"""A callback of a long operation, which reports how much is done so far."""


class _Update(Protocol):
    """The function that updates a progress bar, with the seconds left if they are known."""

    def __call__(self, done: int, total: int | None, seconds: float | None = None) -> None: ...


class _Guarded:
    """A stream that reports write failures to a callback, which may raise them, and continues."""

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
        # Buffered text would fail again at each flush and at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


@dataclass(frozen=True)
class Ending:
    """The last words of a run, and the next step."""

    message: str
    hint: str | None = None
    details: tuple[str, ...] = ()


@dataclass
class Output:
    """The two output streams and the settings for using them."""

    form: str | None = None  # one of OUTPUT_FORMATS; None: a table on a terminal, otherwise tsv
    no_input: bool = False  # refuse questions instead of asking them
    stdout: TextIO | None = None
    stderr: TextIO | None = None
    # The only columns to show, in this order; none for those that the command chooses.
    columns: Sequence[Column] = ()
    filter: Filter | None = None  # replaces the format
    json_errors: bool = False  # the error that ends the run is JSON
    quiet: bool = False  # show only results, warnings, errors, and questions
    meter: Meter | None = None  # counts for ``--verbose``
    is_asking: bool = field(default=False, init=False)  # a question is waiting for its answer
    # The error that prevented a writing command from printing its result.
    lost: OSError | None = field(default=None, init=False)
    # The error that ends the run, for programs: it is printed at the very end, with the exit code.
    ending: Ending | None = field(default=None, init=False)
    # The last message, for commands that end with an exit code because of their result.
    said: Ending | None = field(default=None, init=False)
    _finishes: bool = field(default=False, init=False, repr=False)
    _noted: set[tuple[str, ...]] = field(default_factory=set, init=False, repr=False)

    @property
    def out(self) -> TextIO:
        """Return the stream for results."""
        return cast("TextIO", _Guarded(self.stdout or sys.stdout, self._lose))

    @property
    def err(self) -> TextIO:
        """Return the stream for everything else. Failures to write to it are ignored."""
        return cast("TextIO", _Guarded(self.stderr or sys.stderr, lambda _error: None))

    def finish_anyway(self) -> None:
        """Keep running even if results can no longer be printed.

        A write may be in progress: the command must finish, and its exit code must reflect what was
        written. `lost` then holds the reason why the result is missing.
        """
        self._finishes = True

    def _lose(self, error: OSError) -> None:
        if not self._finishes:
            raise error
        self.lost = self.lost or error

    @property
    def chosen_form(self) -> str:
        """Return the format of results."""
        return self.form or ("table" if self.out.isatty() else "tsv")

    @property
    def has_layout(self) -> bool:
        """Return True if a command may lay out its results for people as it likes."""
        return self.chosen_form == "table" and not self.columns

    @property
    def interactive(self) -> bool:
        """Return True if there is a terminal to answer questions on."""
        stdin = sys.stdin  # None if the process was started without one
        return not self.no_input and stdin is not None and stdin.isatty() and self.err.isatty()

    # Results

    def rows(
        self, columns: Sequence[Column], rows: Iterable[Row | NamedRow], *, empty: str = ""
    ) -> None:
        """Show rows on stdout; if there are none, print ``empty`` on stderr."""
        columns, rows = self._chosen(columns, rows)
        rows = iter(rows)
        first = list(islice(rows, 1))  # before the heading is written: a query may fail here
        if self.filter:
            self._filtered(self.filter, columns, chain(first, rows))
        elif self.chosen_form == "table":
            if first:
                self._table(columns, chain(first, rows))
        else:
            write_rows(self.out, self.chosen_form, columns, chain(first, rows))
        self.out.flush()
        if not first and empty:
            self.info(empty)

    def record(self, columns: Sequence[Column], row: Row) -> None:
        """Show one item: in table format with one field per line, else as one row."""
        self.records(columns, [row])

    def records(self, columns: Sequence[Column], rows: Sequence[Row]) -> None:
        """Show several items: in table format one below the other, else as rows."""
        if self.chosen_form != "table":
            return self.rows(columns, rows)
        from aspencli.cli.output.table import record_lines  # imports Rich

        columns, shown = self._chosen(columns, rows)
        bold = partial(styled, self.out, "strong")
        self._write(self.out, record_lines(_current(columns), shown, self.width, bold))
        return self.out.flush()

    def _filtered(
        self, wanted: Filter, columns: Sequence[Column], rows: Iterable[Row | NamedRow]
    ) -> None:
        if not self._finishes:
            for line in wanted.rows(columns, rows):
                self.out.write(line + "\n")
            return
        rows = list(rows)  # of a write, whose result must not be lost
        try:
            lines = list(wanted.rows(columns, rows))
        except BadInputError as error:
            self.warn(f"{error.message} The whole result follows.")
            write_rows(self.out, "json", columns, rows)
        else:
            self._write(self.out, lines)

    def _chosen(
        self, columns: Sequence[Column], rows: Iterable[Row | NamedRow]
    ) -> tuple[Sequence[Column], Iterable[Row | NamedRow]]:
        if not self.columns:
            return columns, rows
        from aspencli.cli.output.choosing import chosen

        return chosen(self.columns, columns, rows)

    def document(self, value: Any) -> None:
        """Print one JSON value, on one line as JSON Lines."""
        if self.filter:
            return self._write(self.out, self.filter.document(value))
        indent = None if self.chosen_form == "jsonl" else 2
        return self.text(
            json_document(value, indent=indent, ascii_only=not _encodes(self.out, "é"))
        )

    def text(self, text: str) -> None:
        """Print text on stdout unchanged."""
        self.out.write(text if text.endswith("\n") else text + "\n")
        self.out.flush()

    @property
    def width(self) -> int:
        """Return the maximum width of a line of results, in characters."""
        return width_of(self.out)

    def styled(self, style: str, text: str) -> str:
        """Return trusted text for stdout, in color where supported."""
        return styled(self.out, style, text)

    # Messages

    def dry_run(self, plan: str = "") -> None:
        """End a dry run; the plan is a verb phrase, or empty if the rows say all of it."""
        if plan:
            self.info(f"Would {plan}.")
        self.info("Dry run: nothing was written.")

    def nothing(self, why: str = "") -> None:
        """Report success without a write, because there is nothing to change."""
        self.done(f"Nothing to change: {why}." if why else "Nothing to change.")

    def info(self, message: str) -> None:
        """Report progress or other information."""
        self.said = Ending(message)
        if not self.quiet:
            self._say("", message)

    def detail(self, message: str) -> None:
        """Report what is being done, with ``--verbose`` only."""
        if self.meter:
            self._say("", message)

    def done(self, message: str) -> None:
        """Report success."""
        if not self.quiet:
            self._say(self._lead("done", "✓ ", ""), message)

    def warn(self, message: str) -> None:
        """Warn about something to know before relying on the result."""
        self.said = Ending(message)
        self._say(self._lead("warn", "Warning: "), message)

    def hint(self, message: str) -> None:
        """Suggest what to do next."""
        if self.said is not None and self.said.hint is None:
            self.said = replace(self.said, hint=message)
        if not self.quiet:
            self._next(message)

    def _next(self, message: str) -> None:
        self._say(self._lead("hint", "→ ", "  "), message)

    def error(self, message: str, *, hint: str | None = None, details: Iterable[str] = ()) -> None:
        """Report what failed and why, and what to do next."""
        self._say(self._lead("error", "Error: "), message)
        for line in details:
            self._say("  ", line)
        if hint:
            self._next(hint)

    def fail(self, message: str, *, hint: str | None = None, details: Iterable[str] = ()) -> None:
        """Report the error that ends the run; for programs, when it ends."""
        if self.json_errors:
            self.ending = Ending(message, hint, tuple(details))
        else:
            self.error(message, hint=hint, details=details)

    def preview(self, columns: Sequence[Column], rows: Iterable[Row], *, limit: int = 10) -> None:
        """Show the first rows on stderr, before a question."""
        if self.quiet and not self.interactive:
            return  # no question follows
        shown = list(islice(rows, limit))
        if shown and self.err.isatty():
            layout = self._layout(columns, self.err)
            self._write(self.err, layout.part(shown))
            self._note_left_out(layout, self.err)
        elif shown:
            filled = [with_blanks(columns, row) for row in shown]
            write_rows(self.err, "tsv", _current(columns), filled)

    # Questions

    def ask(self, question: str) -> str:
        """Return the operator's answer exactly as typed, without the line break.

        Only a single line typed after the question has appeared counts. Anything typed or pasted
        before it is discarded, and several lines that arrive at once are treated as a paste: they
        answer neither this question nor the next.

        Raises:
            RefusedError: If there is no terminal, or every answer was a paste of several lines.
        """
        if not self.interactive:
            raise RefusedError(
                f"Confirmation required, but this is not a terminal: {question}",
                hint="Run the command in a terminal.",
            )
        for _ in range(_TRIES):
            if discard_typed(sys.stdin.fileno()):
                self.info("Discarded input typed before the question.")
            self.err.write(self._lead("strong", visible(question)) + " ")
            self.err.flush()
            self.is_asking = True
            answer = read_line(sys.stdin.fileno())
            self.is_asking = False
            if answer is None:
                self.err.write("\n")
                return ""
            if not discard_typed(sys.stdin.fileno(), _PASTE_GAP_S):
                return answer
            self.warn("Several lines arrived at once and were discarded; type only the answer.")
        raise RefusedError("Not confirmed; nothing was written")

    def confirm(self, question: str) -> bool:
        """Return True if the operator answers yes; anything else means no."""
        return self.ask(f"{question} [y/N]").strip().lower() in {"y", "yes"}

    # Progress

    @contextmanager
    def progress(self, label: str, total: int | None = None) -> Iterator[Tick]:
        """Show a progress bar on stderr after a second; show nothing if it is not a terminal."""
        with self._bar(label, total) as update:
            yield lambda done: update(done, total)

    @contextmanager
    def estimated(self, label: str, total: int) -> Iterator[Callable[[int, float | None], None]]:
        """Show a progress bar; the callback takes what is done, and the seconds left if known."""
        with self._bar(label, total) as update:
            yield lambda done, seconds: update(done, total, seconds)

    @contextmanager
    def transfer(self, label: str) -> Iterator[Callable[[int, int | None], None]]:
        """Show a progress bar for a download; the callback takes bytes received and total."""
        with self._bar(label, None, in_bytes=True) as update:
            yield update

    @contextmanager
    def _bar(self, label: str, total: int | None, *, in_bytes: bool = False) -> Iterator[_Update]:
        if self.quiet or not self.err.isatty():
            yield lambda _done, _total, _seconds=None: None
            return
        from aspencli.cli.output.progress import progress_bar  # imports Rich

        bar = progress_bar(self.err, in_bytes=in_bytes)
        task = bar.add_task(label, total=total, seconds=None)
        # A timer rather than a check in each update, because one long statement sends no updates.
        timer = threading.Timer(_PATIENCE_S, bar.start)
        timer.daemon = True
        timer.start()
        try:
            yield lambda done, whole, seconds=None: bar.update(
                task, completed=done, total=whole, seconds=seconds
            )
        finally:
            timer.cancel()
            timer.join()
            bar.stop()

    # Helpers

    def _lead(self, style: str, text: str, otherwise: str | None = None) -> str:
        """Return what precedes a message, or a replacement that its stream can encode."""
        if otherwise is None or has_color(self.err) or _encodes(self.err, text):
            return styled(self.err, style, text)
        return otherwise

    def _say(self, lead: str, message: str) -> None:
        # The lead is trusted and may contain colors; the message may contain text from data.
        # A server indents its second line with a tab, which `visible` would escape.
        lines = "\n".join(visible(line.expandtabs(4)) for line in message.split("\n"))
        self.err.write(_encodable(self.err, lead + lines) + "\n")
        self.err.flush()

    def _table(self, columns: Sequence[Column], rows: Iterator[Row | NamedRow]) -> None:
        layout = self._layout(columns, self.out)
        while part := list(islice(rows, _PART)):  # there may be more rows than fit in memory
            self._write(self.out, layout.part(part))
        self.out.flush()  # before the note, which is on another stream
        self._note_left_out(layout, self.out)

    def _layout(self, columns: Sequence[Column], stream: TextIO) -> TableLayout:
        from aspencli.cli.output.table import TableLayout  # imports Rich

        ellipsis = "…" if _encodes(stream, "…") else "..."
        return TableLayout(
            _current(columns), width_of(stream), partial(styled, stream, "strong"), ellipsis
        )

    def _note_left_out(self, layout: TableLayout, stream: TextIO) -> None:
        titles = tuple(column.title for column in layout.left_out)
        if titles and titles not in self._noted:  # once, where a command shows several tables
            self._noted.add(titles)
            way_out = "Use a wider terminal, or -o json." if stream.isatty() else "Use -o json."
            self.info(
                f"Columns hidden to fit {layout.width} characters: {', '.join(titles)}. {way_out}"
            )

    @staticmethod
    def _write(stream: TextIO, lines: Iterable[str]) -> None:
        stream.write(_encodable(stream, "\n".join([*lines, ""])))


def _current(columns: Sequence[Column]) -> list[Column]:
    """Return the columns that people read."""
    return [column for column in columns if not column.retired]


def discard_typed(descriptor: int, quiet_s: float = _SETTLE_S) -> bool:
    """Discard terminal input until there has been none for a moment.

    The terminal driver returns one line at a time and keeps the rest, so none of it is buffered in
    this process as long as answers are read with `read_line`.

    ``quiet_s`` seconds without a new line end the wait. A paste arrives in pieces, some
    milliseconds apart over SSH.

    Returns:
        True if a whole line was discarded; a partial line is discarded as well.
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
    """Return the next line from a terminal without its line break, or None at end of input."""
    line = b""
    while not line.endswith((b"\n", b"\r")):
        read = os.read(descriptor, 1)
        if not read:
            return None  # Ctrl-D: an incomplete answer does not count
        line += read
    return line[:-1].decode("utf-8", "backslashreplace")


def width_of(stream: TextIO, *, piped: int = _PIPED) -> int:
    """Return the width of the terminal that a stream writes to, in characters.

    The other streams may be other terminals, files, or pipes. As in most programs, the variable
    COLUMNS takes precedence over the terminal. A stream that is not one has the width ``piped``.
    """
    if not stream.isatty():
        return piped
    if given := given_width():
        return given
    try:
        found = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):  # no descriptor, or one that knows no size
        found = 0
    return found or _STANDARD


def given_width() -> int:
    """Return the width in the variable COLUMNS; 0 if it is not set, or not a number."""
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isascii() and columns.isdigit() else 0


def _encodes(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _encodable(stream: TextIO, text: str) -> str:
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


class Found(Protocol):
    """A query result, in an order that can be resumed after an ID."""

    def rows(self, limit: int | None) -> Generator[Any, None, None]:
        """Yield the rows, as named tuples; all of them if there is no limit."""

    def count(self) -> int:
        """Return the total number of rows."""


def show_page(
    out: Output,
    columns: Sequence[Column],
    found: Found,
    limit: int | None,
    *,
    noun: str,
    as_row: Callable[[Row], Row] | None = None,
    seen: Callable[[Iterable[Any]], Iterator[Any]] = iter,
) -> None:
    """Show the first rows as they arrive; if there are more, say on stderr how to see them.

    The first column is the ID. ``noun`` is the plural, and ``as_row`` converts the fields of each
    row before it is shown. ``seen`` yields the rows, and may note them.
    """
    last: Any = None

    def shown() -> Iterator[Row | NamedRow]:
        nonlocal last
        for last in seen(islice(rows, limit)):
            yield as_row(last._asdict()) if as_row else last

    # One extra, to see if there are more.
    with closing(found.rows(None if limit is None else limit + 1)) as rows:
        out.rows(columns, shown(), empty=f"No {noun} found.")
        has_more = limit is not None and next(rows, None) is not None
    if limit is not None and has_more:
        out.info(f"{limit:,} of {found.count():,} {noun} shown")
        out.hint(f"Show all with --all, or the next page with --after {last.id}.")


class _Relay(logging.Handler):
    """A log handler that writes to the operator's output."""

    def __init__(self, out: Output):
        super().__init__(logging.INFO)
        self._out = out

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record: a warning as a warning, anything else as information."""
        show = self._out.warn if record.levelno >= logging.WARNING else self._out.info
        show(record.getMessage())


@contextmanager
def relayed(logger: logging.Logger, out: Output) -> Iterator[None]:
    """Show the messages of a logger within a ``with`` block."""
    relay = _Relay(out)
    logger.addHandler(relay)
    try:
        yield
    finally:
        logger.removeHandler(relay)

"""What ``--profile`` and ``%profile`` show: each query, a summary of each cell, and a report."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from sqlalchemy.engine import Connection

from aspencli.output.console import Output
from aspencli.output.text import visible
from db.profiling import disable_profiling, enable_profiling, sqltime

if TYPE_CHECKING:
    from db.profiling.summary import Profile
    from db.profiling.tallies import Everything, Tally

_CELL = re.compile(r"<ipython-input-(\d+)-\w+>")


class ConsoleProfiling:
    """Off it costs nothing: no listener, no recorder, and no module that is loaded for it.

    The lines of ``sqltime`` come from its own hooks, which tell of a statement when it begins, and
    of one in a transaction that is open already; the figures come from recorders, which see the
    fetching of rows as well.

    Args:
        messages: Where summaries go.
    """

    def __init__(self, messages: Output):
        self._messages = messages
        self._everything: Everything | None = None
        self._in_cell = False
        self.on = False

    def switch_on(self, connections: Iterable[Connection]) -> None:
        """Show each query from now on.

        Args:
            connections: Those that are in use; further ones are found by themselves.
        """
        if self.on:
            return
        from db.profiling.tallies import Everything

        # All engines: in a console every query is the operator's own.
        enable_profiling()
        if self._is_heard and self._messages.colour(self._messages.err):
            _highlight()
        self._everything = self._everything or Everything()
        self._everything.start()
        for connection in connections:
            self._everything.watch(connection)
        self.on = True

    def switch_off(self) -> None:
        """Show no more; what was recorded stays, for a report."""
        if self.on and self._everything is not None:
            disable_profiling()
            if self._in_cell:
                self._everything.since()
            self._everything.stop()
            self.on = False

    @contextmanager
    def cell(self) -> Iterator[None]:
        """Summarise the queries of a ``with`` block below it, where there were any."""
        if self._in_cell:  # %rerun runs cells in a cell
            yield
            return
        if self.on and self._everything is not None:
            self._everything.mark()
        self._in_cell = True
        try:
            yield
        finally:
            self._in_cell = False
            if self.on and self._everything is not None:
                self._summarise(self._everything.since())

    def report(self, out: Output) -> None:
        """Show what was recorded of the whole session, as ``db profile`` does."""
        if self._everything is None:
            return self._messages.info("nothing was recorded yet; %profile on begins")
        from aspencli.commands.profile_views import show

        tally = self._everything.tally
        tally.log.fold(everything=True)
        profile = _profile(tally)
        return show(out, profile, profile.statements, parameters=False)

    @property
    def _is_heard(self) -> bool:
        # The process may have been started without a standard error.
        return bool(self._messages.stderr or sys.stderr)

    def _summarise(self, tally: Tally) -> None:
        if not len(tally.log) or not self._is_heard:
            return
        # What it tells of was done, and does not fail because nobody can read of it.
        with suppress(OSError):
            self._tell(tally)

    def _tell(self, tally: Tally) -> None:
        from aspencli.commands.profile_views import short_place, totals_text

        profile = _profile(tally)
        self._messages.info(totals_text(profile))
        for one in profile.n_plus_one:
            for flag in (flag for flag in one.flags if flag.name == "n+1"):
                self._messages.warn(f"n+1: {visible(flag.text)} ({short_place(one, whole=False)})")
                self._messages.hint(visible(flag.cure))


def _profile(tally: Tally) -> Profile:
    from db.profiling.summary import summarise

    profile = summarise(tally)
    for one in profile.statements:
        one.key = one.key._replace(file=_CELL.sub(r"In [\1]", one.key.file))
    return profile


def _highlight() -> None:
    """Colour what the profiler shows by itself; a handler of the application stays as it is."""
    from aspencli.shell.highlighting import HighlightingFormatter

    for handler in sqltime.logger.handlers:
        if isinstance(handler, sqltime.CurrentStderrHandler):
            handler.setFormatter(HighlightingFormatter())

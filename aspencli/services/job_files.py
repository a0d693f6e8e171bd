"""The files of a bulk run, none of which may overwrite another."""

from __future__ import annotations

import datetime as dt
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from aspencli import homes
from aspencli.errors import BadInputError
from aspencli.services.fingerprint import Fingerprint
from aspencli.services.opening import STDIN
from aspencli.services.report import ReportFile, ReportForm

if TYPE_CHECKING:
    from aspencli.services.rejects import RejectsFile


class JobFiles:
    """The input and output files of one bulk run.

    Args:
        stack: The exit stack that closes them.
        source: The input file, or ``-``.
        form: The columns of a report.
        report: The path of the report; None for no report.
        undo: The path of the undo file; None for the default.
        rejects: The path of the rejects file; None for no such file.

    Raises:
        BadInputError: A file would overwrite another one, or the undo file already exists.
    """

    def __init__(
        self,
        stack: ExitStack,
        source: str,
        form: ReportForm,
        report: Path | None,
        undo: Path | None,
        rejects: Path | None = None,
    ):
        self._stack = stack
        self._form = form
        self.from_stdin = source == STDIN
        self.fingerprint = Fingerprint(source)
        self.undo = homes.expand(undo) if undo else None
        self._check(None if self.from_stdin else Path(source), report, rejects)
        self.report = stack.enter_context(ReportFile(report, form)) if report else None
        self.rejects = self._open_rejects(rejects) if rejects else None

    def _check(self, source: Path | None, report: Path | None, rejects: Path | None) -> None:
        if self.undo and (self.undo.exists() or self.undo.is_symlink()):
            raise BadInputError(
                f"the undo file {self.undo} exists already", hint="Name a file that does not."
            )
        taken = [homes.expand(path).resolve() for path in (source, self.undo) if path]
        for kind, path in (("report", report), ("rejects file", rejects)):
            place = homes.expand(path).resolve() if path else None
            if place in taken:
                raise BadInputError(
                    f"the {kind} {path} would take the place of another file of this run",
                    hint=f"Name another file with --{kind.split()[0]}.",
                )
            taken += [place] if place else []

    def _open_rejects(self, path: Path) -> RejectsFile:
        from aspencli.services.rejects import RejectsFile

        return self._stack.enter_context(RejectsFile(path))

    def overflow(self) -> ReportFile:
        """Open a report for a list that is too long for the screen."""
        return self._stack.enter_context(ReportFile(spare_path(), self._form))


def spare_path() -> Path:
    """Return the default path for a list that is too long for the screen."""
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S%fZ")
    return homes.state_dir() / "reports" / f"{stamp}.csv"

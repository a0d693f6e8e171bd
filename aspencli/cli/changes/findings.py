"""Problems found in a bulk run: the first on the screen, the rest in files."""

from __future__ import annotations

from contextlib import closing
from itertools import islice
from pathlib import Path

from aspencli.changes import apply
from aspencli.changes.apply import Faults, PlanStore
from aspencli.changes.report import JobFiles, spare_path
from aspencli.cli.changes.views import View, problem_line, write_moved
from aspencli.cli.output.console import Output
from aspencli.text import counted

SHOWN = 200  # rows shown on the screen


class Findings:
    """A reporter of the problems found in a file.

    Args:
        out: Output to use.
        store: Store that holds the plan.
        files: Files for what does not fit on the screen.
        view: Presentation of this kind of run.
        faults: Invalid lines of the file itself.
    """

    def __init__(self, out: Output, store: PlanStore, files: JobFiles, view: View, faults: Faults):
        self._out = out
        self._view = view
        self._store = store
        self._files = files
        self._faults = faults

    def name_problems(self, count: int) -> None:
        """List the lines that cause the file to be rejected."""
        with closing(apply.all_problems(self._store, self._faults)) as problems:
            for problem in islice(problems, SHOWN):
                self._out.info(problem_line(problem))
        self.report("skipped")
        if count > SHOWN:
            self._out.info(f"... and {count - SHOWN:,} more. Full list: {self._all_named()}")

    def put_aside_rejects(self) -> None:
        """Write the invalid rows to the rejects file, if requested; it may have no rows."""
        if not self._files.rejects:
            return
        with closing(apply.all_problems(self._store, self._faults)) as problems:
            done = self._files.rejects.write(problems)
        self._out.info(f"{counted(done.rows, 'invalid row')} written to {done.path}.")
        if done.others:
            lines = counted(done.others, "invalid line")
            self._out.info(f"Not in that file, because they are not rows: {lines}.")

    def name_left_out(self, count: int) -> None:
        """List the skipped rows."""
        with closing(self._store.left_out()) as problems:
            for problem in islice(problems, SHOWN):
                self._out.warn(f"Skipped {problem_line(problem)}")
        if count > SHOWN:
            self._out.warn(f"{count - SHOWN:,} more skipped. Full list: {self._all_named()}")

    def show_forced(self, count: int) -> None:
        """Show the rows that were changed since and are reverted anyway."""
        if not count:
            return
        what = self._view.count(count)
        self._out.warn(f"Because of --force, this also reverts {what} changed since that run.")
        with closing(self._store.moved()) as rows:
            shown = list(islice(rows, SHOWN + 1))
        self._out.preview(
            self._view.moved_columns, map(self._view.moved_row, shown[:SHOWN]), limit=SHOWN
        )
        if len(shown) > SHOWN:
            with closing(self._store.moved()) as rows:
                path = write_moved(spare_path(), self._view, rows)
            more = f"{count - SHOWN:,} more" if count > SHOWN else "More columns"
            self._out.warn(f"{more} changed since that run. Full list: {path}")

    def _all_named(self) -> Path:
        """Write all problems to a report, and return its path."""
        report = self._files.overflow()
        report.write(self._store.outcomes(), self._faults, "skipped", bad_only=True)
        return report.publish()

    def report(self, changed: str) -> None:
        """Write the report, if requested, and print its path.

        Args:
            changed: Outcome to record for rows that were, or were to be, changed.
        """
        self.prepare_report(changed)
        self.publish_report()

    def prepare_report(self, changed: str) -> None:
        """Write the report under a temporary name; see `report`."""
        if self._files.report:
            self._files.report.write(self._store.outcomes(), self._faults, changed)

    def publish_report(self) -> None:
        """Move the report to its final name, and print its path."""
        if self._files.report:
            self._out.info(f"Report: {self._files.report.publish()}")

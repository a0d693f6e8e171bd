"""A progress bar that appears only when the work takes longer than a second."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

_PATIENCE = 1.0  # seconds before the bar appears


class Bar:
    """One progress bar, drawn after a second and removed at the end.

    Args:
        console: Console to draw on.
        label: Description of the work.
        total: Amount of work; None if unknown, or not known yet.
        in_bytes: Whether the amount is in bytes.
    """

    def __init__(self, console: Console, label: str, total: int | None, *, in_bytes: bool = False):
        count: ProgressColumn = DownloadColumn() if in_bytes else MofNCompleteColumn()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            count,
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task(label, total=total)
        # A timer rather than a check in update(), because one long statement sends no updates.
        self._timer = threading.Timer(_PATIENCE, self._progress.start)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        self._timer.join()
        self._progress.stop()

    def update(self, done: int) -> None:
        """Show how much is done so far."""
        self._progress.update(self._task, completed=done)

    def update_both(self, done: int, total: int | None) -> None:
        """Show how much is done so far, and the total."""
        self._progress.update(self._task, completed=done, total=total)

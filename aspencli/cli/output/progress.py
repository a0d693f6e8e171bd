"""The layout of progress bars; it imports Rich, so only a bar that is shown loads it."""

from __future__ import annotations

from typing import TextIO

from rich import progress
from rich.table import Column
from rich.text import Text

from aspencli.cli.output.console import rich_console, width_of
from aspencli.text import duration_text

_SETTLED_S = 3.0  # before the speed says how long the rest takes
_WIDE, _BAR, _NARROW_BAR = 100, 40, 14  # columns of a terminal, and of the bar
_NUMBERS = 37  # columns of two numbers, the time that is left, the spinner, and the gaps
_LEAST_LABEL = 8
_MINUTE_S = 60
_STEP_S = 5  # the estimate is rounded up to this, so that it does not flicker


class _Time(progress.ProgressColumn):
    """The time since the start or, once it can be estimated, the time that is left."""

    def render(self, task: progress.Task) -> Text:
        """Return the text for a task."""
        left = seconds_left(task)
        if left is None:
            elapsed = task.finished_time if task.finished else task.elapsed
            minutes, seconds = divmod(int(elapsed or 0), _MINUTE_S)
            return Text(f"{minutes // _MINUTE_S}:{minutes % _MINUTE_S:02}:{seconds:02}")
        return Text(f"{duration_text(left)} left")


class _Count(progress.MofNCompleteColumn):
    """A count of the work that is done, and of all work if that is known."""

    def render(self, task: progress.Task) -> Text:
        """Return the text for a task."""
        if task.total is not None:
            return super().render(task)
        return Text(f"{int(task.completed):,}" if task.completed else "", "progress.download")


class _Bytes(progress.DownloadColumn):
    """The same in bytes."""

    def render(self, task: progress.Task) -> Text:
        """Return the text for a task."""
        text = super().render(task)
        return text if task.total is not None else Text(text.plain.replace("/?", ""), text.style)


def seconds_left(task: progress.Task) -> float | None:
    """Return the seconds that a task will still take, or None if that is not known yet.

    The caller may have said so. Otherwise the speed of the last half minute counts, or if there was
    no update in it, that since the start.
    """
    left = task.fields.get("seconds")
    if left is None:
        elapsed = task.elapsed or 0.0
        if task.finished or not task.total or not task.completed or elapsed < _SETTLED_S:
            return None
        left = task.time_remaining
        if left is None:
            left = elapsed * (task.total - task.completed) / task.completed
    if left < 1:
        return None
    return -(-left // _STEP_S) * _STEP_S if left > _STEP_S * 2 else float(round(left))


def progress_bar(stream: TextIO, *, in_bytes: bool) -> progress.Progress:
    """Return a progress bar that fits on one line of the terminal."""
    width = width_of(stream)
    bar = _BAR if width >= _WIDE else _NARROW_BAR
    label = max(width - bar - _NUMBERS, _LEAST_LABEL)
    numbers = _Bytes if in_bytes else _Count
    return progress.Progress(
        progress.SpinnerColumn(),
        progress.TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(max_width=label, no_wrap=True, overflow="ellipsis"),
        ),
        progress.BarColumn(bar),
        numbers(table_column=Column(no_wrap=True)),
        _Time(table_column=Column(no_wrap=True)),
        console=rich_console(stream),
        transient=True,
    )

"""Progress bars: the time that is left, on one line of any terminal."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest
from rich.progress import Task, TaskID

from aspencli.cli.output.console import Output
from aspencli.cli.output.progress import progress_bar, seconds_left
from tests.cli.output.test_console import Captured, Terminal


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def _task(clock: Clock, *, total: float | None = 100, **fields: Any) -> Task:
    task = Task(
        id=TaskID(0),
        description="Writing",
        total=total,
        completed=0,
        _get_time=clock,
        fields={"seconds": None, **fields},
        _lock=threading.RLock(),
    )
    task.start_time = clock.now
    return task


@pytest.mark.parametrize(
    ("elapsed", "completed", "left"),
    [
        (2.9, 10, None),  # too early to tell
        (10.0, 0, None),
        (10.0, 10, 90.0),
        (10.0, 33, 25.0),  # 20.3 s
        (10.0, 80, 2.0),
        (3_600.0, 50, 3_600.0),
        (10.0, 100, None),
    ],
)
def test_time_left_follows_from_speed(elapsed: float, completed: float, left: float | None) -> None:
    clock = Clock()
    task = _task(clock)
    clock.now, task.completed = elapsed, completed
    if completed == task.total:
        task.finished_time = elapsed
    assert seconds_left(task) == left


def test_time_left_is_unknown_without_total() -> None:
    clock = Clock()
    task = _task(clock, total=None)
    clock.now, task.completed = 60.0, 1_000
    assert seconds_left(task) is None


@pytest.mark.parametrize(
    ("said", "left"), [(200.0, 200.0), (203.0, 205.0), (7.4, 7.0), (0.5, None)]
)
def test_command_knows_time_left_better(said: float, left: float | None) -> None:
    assert seconds_left(_task(Clock(), seconds=said)) == left


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("in_bytes", [False, True])
def test_bar_with_time_left_fits_on_one_line(
    width: int, in_bytes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    bar = progress_bar(stream, in_bytes=in_bytes)
    label = "Reading the audit trail of staging"
    bar.add_task(label, total=2_000_000, completed=1_234_567, seconds=11_111.0)
    bar.console.print(bar.get_renderable())
    (line,) = stream.getvalue().splitlines()
    assert len(line.rstrip()) <= width
    assert line.rstrip().endswith("3 h 05 min left")
    assert ("1234567/2000000" in line) != in_bytes
    assert label[:5] in line


@pytest.mark.parametrize(
    ("in_bytes", "done", "shown"),
    [(False, 0, ""), (False, 12_345, "12,345"), (True, 2_500_000, "2.5 MB")],
)
def test_bar_of_unknown_total_shows_only_what_is_done(
    in_bytes: bool, done: int, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    bar = progress_bar(stream, in_bytes=in_bytes)
    bar.add_task("Checking", total=None, completed=done)
    bar.console.print(bar.get_renderable())
    assert "?" not in stream.getvalue()
    assert shown in stream.getvalue()


def test_bar_on_terminal_shows_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("aspencli.cli.output.console._PATIENCE_S", 0.0)
    each = Captured(terminal=True)
    with each.output.estimated("Onboarding", 10) as update:
        update(3, 42.0)
        while "45 s left" not in each.err:
            update(3, 42.0)
    assert "3/10" in each.err


@pytest.mark.parametrize("quiet", [False, True])
def test_bar_is_off_without_terminal_and_if_quiet(quiet: bool) -> None:
    stream = Terminal() if quiet else io.StringIO()
    output = Output(stderr=stream, quiet=quiet)
    with output.progress("Writing", 10) as tick:
        tick(5)
    assert stream.getvalue() == ""

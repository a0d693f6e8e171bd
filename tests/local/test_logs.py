"""The server's messages, across a change of log files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from aspen.local import logs


def test_log_follow_continues_in_next_log_file(tmp_path: Path) -> None:
    _current(tmp_path, "monday")
    (tmp_path / "monday").write_text("old\nlast\n")
    ended = False
    messages = follow(tmp_path, 1, until=lambda: ended)
    assert next(messages) == "last"
    _append(tmp_path / "monday", "before midnight\nhalf a li")
    assert next(messages) == "before midnight"
    _append(tmp_path / "monday", "ne\n")
    (tmp_path / "tuesday").write_text("after midnight\n")
    _current(tmp_path, "tuesday")
    ended_after = [next(messages), next(messages)]
    assert ended_after == ["half a line", "after midnight"]
    ended = True
    assert list(messages) == []


def test_log_follow_reads_truncated_file_from_start(tmp_path: Path) -> None:
    _current(tmp_path, "monday")
    (tmp_path / "monday").write_text("of last week, and long\n")
    messages = follow(tmp_path, 0, until=lambda: False)
    (tmp_path / "monday").write_text("new\n")
    assert next(messages) == "new"


def test_log_tail_uses_startup_log_until_current_log_exists(tmp_path: Path) -> None:
    assert logs.tail(logs.current_log(tmp_path), 10) == []
    (tmp_path / logs.STARTUP_LOG).write_text("one\ntwo\n")
    assert logs.tail(logs.current_log(tmp_path), 1) == ["two"]


def follow(data: Path, lines: int, *, until: Callable[[], bool]) -> Iterator[str]:
    """Return the last messages of one server, then new ones."""
    found = logs.follow_all({"": lambda: logs.current_log(data)}, lines, until=until, pause=0)
    return (line for _, line in found)


def _current(folder: Path, name: str) -> None:
    (folder / "current_logfiles").write_text(f"stderr {name}\n")


def _append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)

"""The messages of the parts, of one or of all together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from aspencli.errors import NotFoundError
from local import logs, postmaster
from local.places import Places
from local.services import PARTS, POSTGRES, SUPERVISOR
from local.state import State
from local.supervision import Supervision

SOURCES = (*PARTS, SUPERVISOR)
"""Whose messages are kept: every part's, and the supervisor's own."""


def messages(
    state: State, names: Sequence[str], lines: int, *, follow: bool = False
) -> Iterator[tuple[str, str]]:
    """The last messages, by their times, each with the name of who wrote it.

    Args:
        state: The deployment's files.
        names: Whose messages; everybody's when there are none.
        lines: How many of the last ones.
        follow: Whether to go on with new ones as they come, until nothing runs any more.

    Raises:
        NotFoundError: There are none.
    """
    finders = {name: _finder(state, name) for name in names or SOURCES}
    if not any(find().exists() for find in finders.values()):
        whose = f"{' and '.join(names)} was" if names else "the local deployment was"
        raise NotFoundError(
            f"there are no messages: {whose} never started", hint="Start it: aspencli local up"
        )
    if follow:
        return logs.follow_all(finders, lines, until=partial(_nothing_runs, state))
    tails = {name: logs.tail(find(), lines) for name, find in finders.items()}
    return iter(logs.merged(tails)[-lines:] if lines else [])


def _finder(state: State, name: str) -> Callable[[], Path]:
    if name == POSTGRES:
        return lambda: logs.current_log(Places(state.home).data)
    return lambda: state.log(name)


def _nothing_runs(state: State) -> bool:
    running = postmaster.read(Places(state.home).data)
    return running is None and Supervision(state).process is None

"""The log messages of one part, or of all parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from aspen.local import logs
from aspen.local.postgres import process
from aspen.local.postgres.paths import Places
from aspen.local.services import PARTS, POSTGRES, SUPERVISOR
from aspen.local.state import State
from aspen.local.supervisor.client import Supervision
from aspencli.errors import NotFoundError

SOURCES = (*PARTS, SUPERVISOR)
"""The sources of messages: every part, and the supervisor."""


def messages(
    state: State, names: Sequence[str], lines: int, *, follow: bool = False
) -> Iterator[tuple[str, str]]:
    """Return the last messages in time order, each with the name of its source.

    Args:
        state: The deployment's files.
        names: The sources; all of them if empty.
        lines: The number of last messages.
        follow: True to continue with new messages until nothing is running.

    Raises:
        NotFoundError: There are no messages.
    """
    finders = {name: _finder(state, name) for name in names or SOURCES}
    if not any(find().exists() for find in finders.values()):
        whose = ", ".join(names) or "the local deployment"
        raise NotFoundError(
            f"No log messages yet; never started: {whose}", hint="Start it: aspencli local up"
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
    running = process.read(Places(state.home).data)
    return running is None and Supervision(state).process is None

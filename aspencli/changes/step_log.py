"""The log of a run in steps that no transaction joins: each is on disk before and after it.

It has one JSON object per line: ``begin`` before a step, and ``done``, ``failed``, ``reverted``, or
``kept`` after it. A step that only has ``begin`` may have been carried out. The history names the
file (`aspencli.changes.journal.Recording.stepping`). It contains no secrets.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, Self

from aspencli import files
from aspencli.errors import AspenError
from aspencli.files import write_failure

VERSION = 1


class StepState(StrEnum):
    """The state of a step."""

    BEGIN = "begin"
    """It is about to be carried out, or was, if nothing follows."""
    DONE = "done"
    FAILED = "failed"
    """It was not carried out, or it is unknown if it was."""
    REVERTED = "reverted"
    KEPT = "kept"
    """It could not be reverted, or somebody has used its result."""


@dataclass
class LoggedStep:
    """A step as its log shows it.

    Attributes:
        item: The item that it belongs to, such as a person's e-mail address and group.
        facts: Further facts, such as the ID of what it created.
    """

    item: str
    step: str
    state: StepState
    facts: dict[str, Any] = field(default_factory=dict)


def folder() -> Path:
    """Return the folder for this operator's logs."""
    return files.state_dir() / "steps"


class StepLog:
    """An open log, for use in a ``with`` block.

    Args:
        path: Its path.
        file: The open file.
        warn: Called with a message if a state after a step cannot be written.
    """

    def __init__(self, path: Path, file: IO[bytes], warn: Callable[[str], None]):
        self.path = path
        self.begun = False
        self._file, self._warn = file, warn

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()

    def begin(self, item: str, step: str, **facts: object) -> None:
        """Record that a step is about to be carried out.

        Raises:
            AspenError: It cannot be written; the step must not be carried out.
        """
        try:
            self._append(item, step, StepState.BEGIN, facts)
        except OSError as error:
            raise AspenError(
                f"Cannot write the log {self.path}: {write_failure(self.path, error)}",
                hint="Free disk space, then run the command again.",
            ) from error
        self.begun = True

    def end(self, item: str, step: str, state: StepState, **facts: object) -> None:
        """Record what became of a step; only warn if that fails."""
        try:
            self._append(item, step, state, facts)
        except OSError as error:
            self._warn(
                f"Cannot write the log {self.path}: {write_failure(self.path, error)}. "
                f"It does not show that {step} of {item} is {state}."
            )

    def note(self, **facts: object) -> None:
        """Add facts about the whole run."""
        with contextlib.suppress(OSError):
            self._write({"at": _now(), **facts})

    def _append(self, item: str, step: str, state: StepState, facts: dict[str, object]) -> None:
        self._write({"at": _now(), "item": item, "step": step, "state": state.value, **facts})

    def _write(self, line: dict[str, object]) -> None:
        self._file.write(json.dumps(line).encode("ascii") + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def create(run: str, warn: Callable[[str], None]) -> StepLog:
    """Create the log of a run, and return once it is safely on disk.

    Raises:
        AspenError: It cannot be written; nothing was changed.
    """
    path = folder() / f"{run}.jsonl"
    try:
        files.make_folder(path.parent)
        file = os.fdopen(files.create(path, flags=os.O_RDWR | os.O_APPEND), "ab")
        try:
            file.write(json.dumps({"v": VERSION, "run": run}).encode("ascii") + b"\n")
            file.flush()
            os.fsync(file.fileno())
            files.sync_folder(path.parent)
        except BaseException:
            file.close()
            path.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise AspenError(
            f"Cannot write the log {path}: {write_failure(path, error)}; nothing was changed.",
            hint="Free disk space or fix the permissions, or set ASPEN_HOME to another directory.",
        ) from error
    return StepLog(path, file, warn)


def read(path: Path) -> list[LoggedStep]:
    """Return the steps of a run in the order in which they began; empty without a log."""
    found: dict[tuple[str, str], LoggedStep] = {}
    with contextlib.suppress(OSError), path.open("rb") as file:
        for line in file:
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                fields = json.loads(line)
                key = fields.pop("item"), fields.pop("step")
                state = StepState(fields.pop("state"))
                fields.pop("at", None)
                there = found.setdefault(key, LoggedStep(*key, state))
                there.state = state
                there.facts |= fields
    return list(found.values())


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat()

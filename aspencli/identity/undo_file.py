"""Undo files with steps, and records of deletions, which have the same format.

The first line of a file says where and when the change was made; each further line is a step. All
are JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from aspencli import files
from aspencli.changes.runs import Place
from aspencli.changes.undo import STEPS_MARK
from aspencli.errors import BadInputError
from aspencli.identity.steps import Kind, Step

_VERSION = 1
_DAMAGED = "Find an intact copy and use that."


@dataclass(frozen=True)
class StepsOrigin:
    """The origin of an undo file with steps: where and when they were taken."""

    target: str
    of: str  # ``users`` or ``groups``: the command group that undoes them
    made: str  # ISO 8601, UTC
    steps: int  # to detect an incomplete file
    run: str
    place: Place

    group_id = None
    suffix = ".jsonl"

    def line(self) -> str:
        """Return the first line of the file."""
        fields = json.dumps({"version": _VERSION, **asdict(self)})
        return f"{STEPS_MARK}, {fields[1:]}\n"


def write_steps(steps: Iterable[Step], file: IO[bytes]) -> None:
    """Write the lines after the first."""
    for step in steps:
        file.write(json.dumps(step.to_json()).encode("ascii") + b"\n")


def read_steps(path: str) -> tuple[StepsOrigin, list[Step]]:
    """Return the origin and the steps of an undo file.

    Raises:
        BadInputError: The file is damaged, or was written by a newer version.
    """
    lines = files.expand(path).read_text("utf-8").splitlines(keepends=True)
    try:
        head = json.loads(lines[0])
        version = head.pop("version")
        del head["format"]
        if version != _VERSION:
            raise BadInputError(
                f"{path} was written by a newer version of aspencli.", hint="Update aspencli."
            )
        origin = StepsOrigin(**{**head, "place": Place(**head["place"])})
        steps = [Step.from_json(json.loads(line)) for line in lines[1:]]
    except (ValueError, TypeError, KeyError, IndexError):
        raise BadInputError(f"The undo file {path} is damaged.", hint=_DAMAGED) from None
    if len(steps) != origin.steps or not lines[-1].endswith("\n"):
        raise BadInputError(
            f"The undo file {path} is damaged: it has {len(steps):,} of {origin.steps:,} steps.",
            hint=_DAMAGED,
        )
    return origin, steps


@dataclass(frozen=True)
class Record:
    """The record of a deletion: what was deleted at the provider last, and for what."""

    names: frozenset[str]  # what the deleted row could be named by, in lowercase
    last: str  # the ID of the account or the organization


def record_of(path: Path) -> Record | None:
    """Return the record of a deletion, or None if the file is something else or is gone."""
    try:
        _origin, steps = read_steps(str(path))
    except (OSError, BadInputError):
        return None
    last = [step for step in steps if step.is_final and step.kind is not Kind.INVITATION]
    rows = [step.before for step in steps if isinstance(step.before, Mapping)]
    if not last or not rows:
        return None
    keys = ("id", "name", "prefix", "email", "auth0_user_id", "auth0_org_id")
    names = {str(row[key]).lower() for row in rows for key in keys if key in row}
    return Record(frozenset(names), str(last[0].key[0]))

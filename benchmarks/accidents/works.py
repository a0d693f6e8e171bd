"""The work that a failure hits: a command with its files, and the data before and after it."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tests.cli.commands.bulk_lab import GENOMES
from tests.cli.commands.mapping_lab import Lab

SIZE = 1_500  # samples per group; most of them are renamed
_PEOPLE, _GROUPS = 400, 120
_SAMPLES = """
SELECT s.id, s.private_identifier, s.public_identifier, s.collection_date::text,
       g.sequencing_date::text, s.private
  FROM aspen.samples s
  LEFT JOIN aspen.uploaded_pathogen_genomes u ON u.sample_id = s.id
  LEFT JOIN aspen.pathogen_genomes g ON g.entity_id = u.pathogen_genome_id
 WHERE s.submitting_group_id = :group ORDER BY s.id
"""
_HEADER = "private_identifier", "public_identifier", "collection_date", "sequencing_date", "private"
_MAKE_USERS = """
WITH made AS (
    INSERT INTO aspen.users (name, email, auth0_user_id, system_admin, agreed_to_tos, analytics_id)
    SELECT 'User ' || n, :mark || n || '@lab.example.org', 'auth0|' || :mark || n, false, false,
           :mark || n
      FROM generate_series(0, :size - 1) n RETURNING id
)
INSERT INTO aspen.user_roles (user_id, group_id, role_id)
SELECT made.id, :group, r.id FROM made, aspen.roles r WHERE r.name = 'member'
"""
_USERS = """
SELECT u.auth0_user_id, u.email, u.name, u.system_admin,
       coalesce(string_agg(ur.group_id || ' ' || r.name, ', ' ORDER BY ur.group_id, r.name), '')
  FROM aspen.users u
  LEFT JOIN aspen.user_roles ur ON ur.user_id = u.id
  LEFT JOIN aspen.roles r ON r.id = ur.role_id
 WHERE starts_with(u.auth0_user_id, 'auth0|' || :mark) GROUP BY u.id
"""
_MAKE_GROUPS = """
INSERT INTO aspen.groups (name, prefix, default_tree_location_id, auth0_org_id)
SELECT :mark || 'name ' || n, :mark || n, 900, 'org_' || :mark || n
  FROM generate_series(0, :size - 1) n
"""
_GROUP_ROWS = """
SELECT prefix, name, address, auth0_org_id FROM aspen.groups WHERE starts_with(prefix, :mark)
"""

Key = int | str
State = Mapping[Key, tuple[Any, ...]]
"""The data, by key."""


@dataclass(frozen=True)
class Work:
    """One run of a command.

    Attributes:
        command: Its arguments, without the options that the trial adds.
        other: The same command with the rows of the file in the opposite order.
        look: Returns the current data.
        before: The data before the run.
        after: The data after the run.
        values: The number of rows in its report; None if not checked.
        group: The group whose samples it changes; 0 if it changes no samples.
    """

    command: list[str]
    other: list[str]
    look: Callable[[], State]
    before: State
    after: State
    values: int | None
    group: int = 0


def names() -> dict[str, str]:
    """Return the initial names of a group's samples."""
    return {f"L{n}": f"P{n}" for n in range(SIZE)}


def mapping() -> dict[str, str]:
    """Return a mapping with a swap, a cycle, a long chain, plain renames, and unchanged rows."""
    chosen = {"L0": "P1", "L1": "P0", "L2": "P3", "L3": "P4", "L4": "P2"}
    chosen |= {f"L{n}": f"P{n + 1}" for n in range(10, 200)} | {"L200": "end of the chain"}
    chosen |= {f"L{n}": f"a new name, {n}" for n in range(300, SIZE)}
    return chosen | {f"L{n}": f"P{n}" for n in range(250, 260)}


class Works:
    """A factory of work, each piece with data of its own.

    Args:
        lab: The database.
        folder: The folder for the files.
    """

    def __init__(self, lab: Lab, folder: Path):
        self._lab = lab
        self._folder = folder
        self._made = 0
        self._makers = {
            "renames": self._renames,
            "columns": self._columns,
            "users": self._users,
            "groups": self._groups,
        }

    def make(self, what: str) -> Work:
        """Return work of one kind: ``renames``, ``columns``, ``users``, or ``groups``."""
        self._made += 1
        return self._makers[what]()

    def samples(self, group: int) -> State:
        """Return every sample of a group: its ID, and the columns that a bulk update may change."""
        return self._rows(_SAMPLES, group=group)

    def _renames(self) -> Work:
        group, chosen = self._group(), mapping()
        before = self.samples(group)
        after = {key: (row[0], chosen.get(*row[:2]), *row[2:]) for key, row in before.items()}
        files = self._files(_HEADER[:2], list(chosen.items()))
        words = ["samples", "update-public-ids", "--group-id", str(group), "-f"]
        first, other = ([*words, str(file)] for file in files)
        return Work(first, other, lambda: self.samples(group), before, after, len(chosen), group)

    def _columns(self) -> Work:
        group = self._group()
        before = self.samples(group)
        after = {number: _changed(int(number), row) for number, row in before.items()}
        rows = [(number, *map(_cell, row)) for number, row in after.items()]
        files = self._files(("id", *_HEADER), rows)
        words = ["samples", "bulk-update", "--key", "id", "--group-id", str(group), "--from"]
        first, other = ([*words, str(file)] for file in files)
        values = len(rows) * len(_HEADER)
        return Work(first, other, lambda: self.samples(group), before, after, values, group)

    def _users(self) -> Work:
        """Return work that swaps addresses, adds users, and grants, changes, and revokes roles."""
        mark, group, other = f"u{self._made}-", self._lab.group({}), self._lab.group({})
        self._lab.execute(_MAKE_USERS, mark=mark, size=_PEOPLE, group=group)
        before = self._rows(_USERS, mark=mark)
        after, rows = dict(before), []
        for number in range(_PEOPLE + 50):
            account = f"auth0|{mark}{number}"
            place = {0: 1, 1: 0}.get(number, number)
            email, name = f"{mark}{place}@lab.example.org", f"User {number}, renamed"
            role = ("admin", "viewer", "\\N")[number % 3] if number < _PEOPLE else "member"
            roles = "" if role == "\\N" else f"{group} {role}"
            rows.append((account, email, name, "no", group, role))
            if number % 7 == 0:
                rows.append((account, "", "", "", other, "viewer"))
                roles = ", ".join(filter(None, [roles, f"{other} viewer"]))
            after[account] = (email, name, False, roles)
        header = ("auth0_user_id", "email", "name", "system_admin", "group", "role")
        words = ["users", "import", "--key", "auth0_user_id"]
        return self._import(words, header, rows, lambda: self._rows(_USERS, mark=mark), after)

    def _groups(self) -> Work:
        """Return work that swaps the names of some groups and adds new ones."""
        mark = f"g{self._made}-"
        self._lab.execute(_MAKE_GROUPS, mark=mark, size=_GROUPS)
        after: dict[Key, tuple[Any, ...]] = {}
        for number in range(_GROUPS + 30):
            place = {0: 1, 1: 0}.get(number, number)
            after[f"{mark}{number}"] = (
                f"{mark}name {place}",
                f"{number} Main Street",
                f"org_{mark}{number}",
            )
        rows = [(prefix, *values, 900) for prefix, values in after.items()]
        header = ("prefix", "name", "address", "auth0_org_id", "default_tree_location")
        words = ["groups", "import"]
        return self._import(words, header, rows, lambda: self._rows(_GROUP_ROWS, mark=mark), after)

    def _import(
        self,
        words: list[str],
        header: Sequence[str],
        rows: Sequence[Sequence[object]],
        look: Callable[[], State],
        after: State,
    ) -> Work:
        first, other = ([*words, str(file)] for file in self._files(header, rows))
        said = [n for n, column in enumerate(header) if n and column != "group"]
        before = look()
        # The report has a line for the key of each row that is created.
        values = sum(row[n] != "" for row in rows for n in said) + len(after) - len(before)
        return Work(first, other, look, before, after, values)

    def _group(self) -> int:
        group = self._lab.group(names())
        self._lab.execute(GENOMES, group=group)
        return group

    def _rows(self, query: str, **values: object) -> State:
        with self._lab.engine.connect() as connection:
            rows = connection.execute(sa.text(query), values)
            return {key: (*others,) for key, *others in rows}

    def _files(self, header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[Path]:
        """Write the rows to one file and, in the opposite order, to another."""
        paths = []
        for name, ordered in (("", rows), ("-reversed", rows[::-1])):
            path = self._folder / f"{self._made}{name}.csv"
            with path.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(header)
                writer.writerows(ordered)
            paths.append(path)
        return paths


def _changed(number: int, sample: Sequence[Any]) -> tuple[Any, ...]:
    """Return a sample after the bulk update, which also swaps and moves private identifiers."""
    private, public, _collected, sequenced, hidden = sample
    place = int(private.removeprefix("L"))
    others = {0: "L1", 1: "L0"} | {n: f"L{n + 1}" for n in range(10, 60)} | {60: "the last"}
    return (
        others.get(place, private),
        mapping().get(private, public),
        f"2024-01-{1 + number % 28:02}",
        sequenced if place % 2 else None,
        bool(place % 3) and hidden,
    )


def _cell(value: object) -> object:
    return "\\N" if value is None else value

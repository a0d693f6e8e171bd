"""Files of users and groups, and the database after they were imported."""

from __future__ import annotations

import csv
import io
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from aspen.database.engine import Database
from tests import zygote
from tests.cli.commands.ending import Ended
from tests.conftest import cli_environment

Cli = Callable[..., Ended]
Tables = dict[str, list[tuple[Any, ...]]]

H = "email,name,auth0_user_id,system_admin,gisaid_submitter_id,group,role\n"
ADA = "ada@lab.example.org,Ada,auth0|ada,yes,AdaG,1,admin\n"
BOB = "bob@lab.example.org,Bob,auth0|bob,,,BDPH,member\n"
MIXED = (
    H
    + ADA
    + BOB
    + (
        "ada@lab.example.org,,,,,2,viewer\n"
        "member@example.org,Morgan M.,,,M1,1,\n"
        "multi@example.org,,,,,1,\\N\n"
        "multi@example.org,,,,,2,viewer\n"
        "nogroup@example.org,,,true,,Valley State University Virology,MEMBER\n"
        "viewer@example.org,Vic Viewer,,no,,1,viewer\n"
    )
)
NEW_USER = (
    "INSERT INTO aspen.users (name, email, auth0_user_id, system_admin, agreed_to_tos, "
    "analytics_id) VALUES ('A', '{email}', 'auth0|2', false, false, 'a2')"
)

USERS = (
    "SELECT email, name, auth0_user_id, system_admin, gisaid_submitter_id FROM aspen.users "
    "ORDER BY id"
)
ROLES = (
    "SELECT u.email, g.prefix, r.name FROM aspen.user_roles ur JOIN aspen.users u "
    "ON u.id = ur.user_id JOIN aspen.groups g ON g.id = ur.group_id JOIN aspen.roles r "
    "ON r.id = ur.role_id ORDER BY u.id, g.id, r.id"
)


def table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file that the program wrote."""
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig"))))


@dataclass(frozen=True)
class Accounts:
    """A seeded database, and a folder for files.

    Attributes:
        database: The database.
        folder: The folder for the files.
        cli: Runs a command in this process.
    """

    database: Database
    folder: Path
    cli: Cli

    def write(self, text: str, name: str = "file.csv") -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def users(self, text: str, *options: str) -> Ended:
        """Import users."""
        return self.cli("users", "import", str(self.write(text)), *(options or ("--yes",)))

    def groups(self, text: str, *options: str) -> Ended:
        """Import groups."""
        return self.cli("groups", "import", str(self.write(text)), *(options or ("--yes",)))

    def undo(self, noun: str, *options: str, which: int = -1) -> Ended:
        """Undo a run, given the index of its undo file."""
        file = self.undo_files[which]
        return self.cli(noun, "undo", str(file), *(options or ("--yes",)))

    @property
    def undo_files(self) -> list[Path]:
        return sorted((Path(os.environ["ASPEN_HOME"]) / "state" / "undo").glob("*"))

    def rows(self, query: str, **values: object) -> list[tuple[Any, ...]]:
        with self.database.reading() as session:
            return [tuple(row) for row in session.execute(sa.text(query), values)]

    def user(self, email: str) -> tuple[Any, ...] | None:
        """Return name, Auth0 ID, administrator flag, and GISAID ID; None without such a user."""
        found = [row[1:] for row in self.rows(USERS) if row[0] == email]
        return found[0] if found else None

    def roles(self, email: str) -> dict[str, str]:
        """Return the role of a user in each group, by the group's prefix."""
        return {prefix: role for who, prefix, role in self.rows(ROLES) if who == email}

    def execute(self, statement: str, **values: object) -> None:
        """Run a statement, as a concurrent user would."""
        with self.database.begin() as session:
            session.execute(sa.text(statement), values)

    @property
    def tables(self) -> Tables:
        """Return every table that an import might write, with all columns."""
        queries = {
            name: f"SELECT * FROM aspen.{name} ORDER BY {order}"
            for name, order in (("users", "1"), ("groups", "1"), ("user_roles", "1, 2, 3"))
        }
        return {name: self.rows(query) for name, query in queries.items()}

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Start a command in a separate process."""
        return zygote.start(
            words,
            env={**os.environ, **cli_environment(self.database)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

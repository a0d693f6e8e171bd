"""People at an identity provider and in a database, and commands that work on both."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pexpect
import sqlalchemy as sa

from aspen.database.engine import Database
from aspencli.changes import step_log
from aspencli.changes.step_log import LoggedStep
from tests import zygote
from tests.cli.commands.ending import Ended
from tests.local.auth0.lab import CLIENT, MANAGEMENT, MANAGEMENT_SECRET, Identity

GROUP = "Redwood County Public Health Laboratory"
_USERS = """
SELECT u.email, u.name, u.auth0_user_id, u.system_admin,
       coalesce(json_object_agg(g.auth0_org_id, r.name) FILTER (WHERE g.id IS NOT NULL), '{}')
  FROM aspen.users u LEFT JOIN aspen.user_roles ur ON ur.user_id = u.id
  LEFT JOIN aspen.groups g ON g.id = ur.group_id LEFT JOIN aspen.roles r ON r.id = ur.role_id
 WHERE u.email = ANY(:emails) GROUP BY u.id ORDER BY u.id
"""


@dataclass(frozen=True)
class Account:
    """An account at the provider, with its roles by organization."""

    id: str
    name: str
    roles: dict[str, list[str]]
    blocked: bool = False


@dataclass(frozen=True)
class User:
    """A user in the database, with the roles by organization."""

    name: str
    auth0_user_id: str
    system_admin: bool
    roles: dict[str, str]


@dataclass
class PeopleLab:
    """Both sides, and a runner for commands.

    Attributes:
        database: The database.
        identity: The provider.
        folder: A folder for files.
        address: The address of the Management API, which may be a detour.
    """

    database: Database
    identity: Identity
    folder: Path
    call: Callable[[Mapping[str, str], tuple[str, ...], str | None], Ended]
    address: str = ""
    extra: dict[str, str] = field(default_factory=dict)

    def __call__(
        self, *arguments: str, env: Mapping[str, str] | None = None, stdin: str | None = None
    ) -> Ended:
        """Run a command in this process."""
        return self.call({**self.environment, **(env or {})}, arguments, stdin)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "ASPEN_DATABASE_URL_LOCAL": self.database.url.render_as_string(hide_password=False),
            "AUTH0_MANAGEMENT_DOMAIN": self.address or self.identity.issuer,
            "AUTH0_MANAGEMENT_CLIENT_ID": MANAGEMENT,
            "AUTH0_MANAGEMENT_CLIENT_SECRET": MANAGEMENT_SECRET,
            "ASPEN_AUTH_CLIENT_ID_LOCAL": CLIENT,
            **self.extra,
        }

    def start(self, *arguments: str, home: Path | None = None) -> subprocess.Popen[str]:
        """Start a command in a process of its own."""
        moved = {"ASPEN_HOME": str(home)} if home else {}
        return zygote.start(
            arguments,
            env={**os.environ, **self.environment, **moved},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, home: Path | None = None) -> Ended:
        """Run a command in a process of its own."""
        process = self.start(*arguments, home=home)
        out, err = process.communicate(timeout=600)
        return Ended(process.returncode, out, err)

    def at_terminal(self, *arguments: str, answers: Iterable[str] = ()) -> str:
        """Run a command on a terminal, answer its questions, and return what it shows."""
        child = zygote.at_terminal(
            arguments,
            env={**os.environ, **self.environment, "TERM": "dumb"},
            encoding="utf-8",
            timeout=60,
            dimensions=(50, 300),
        )
        seen = ""
        for answer in answers:
            child.expect(r"\[y/N\]")
            seen += child.before + child.after
            child.sendline(answer)
        child.expect(pexpect.EOF)
        child.close()
        return seen + str(child.before)

    def address_of(self, name: str = "new") -> str:
        """Return an e-mail address that no other test uses."""
        return f"{name}.{uuid4().hex[:8]}@example.org"

    def write(self, *rows: str, name: str = "people.csv") -> str:
        """Write a file of people, and return its path."""
        path = self.folder / name
        path.write_text("\n".join(("email,name,group,role", *rows, "")))
        return str(path)

    def onboard(self, email: str, *words: str, **options: str) -> Ended:
        """Onboard one person in this process."""
        chosen = {"name": "Nadia New", "group": "1", **options}
        given = [word for name, value in chosen.items() for word in (f"--{name}", value)]
        return self("users", "onboard", email, *given, "--yes", "-o", "json", *words)

    # Both sides

    def account(self, email: str) -> Account | None:
        """Return the only account with an address, or None."""
        with self.identity.management() as api:
            found = api.get("users-by-email", params={"email": email}).json()
            if not found:
                return None
            (one,) = found
            path = f"users/{quote(one['user_id'], safe='')}/organizations"
            roles = {}
            for place in api.get(path).json():
                member = quote(one["user_id"], safe="")
                there = api.get(f"organizations/{place['id']}/members/{member}/roles").json()
                roles[place["id"]] = sorted(role["name"] for role in there)
        return Account(one["user_id"], one["name"], roles, one.get("blocked", False))

    def create_account(self, email: str, name: str = "Ada Account", **fields: Any) -> str:
        """Create an account, and return its ID."""
        connection = "Username-Password-Authentication"
        body = {"email": email, "name": name, "connection": connection, "password": "-"}
        with self.identity.management() as api:
            made = api.post("users", json={**body, "email_verified": True, **fields})
        return str(made.raise_for_status().json()["user_id"])

    def join(self, account: str, organization: str, *roles: str) -> None:
        """Make an account a member of an organization with roles."""
        path = f"organizations/{organization}/members"
        with self.identity.management() as api:
            api.post(path, json={"members": [account]}).raise_for_status()
            known = {one["name"]: one["id"] for one in api.get("roles").json()}
            if roles:
                body = {"roles": [known[role] for role in roles]}
                api.post(f"{path}/{quote(account, safe='')}/roles", json=body).raise_for_status()

    def user(self, email: str) -> User | None:
        """Return the only user with an address, or None."""
        found = self.users([email])
        return found.get(email)

    def users(self, emails: Iterable[str]) -> dict[str, User]:
        """Return the users with some addresses."""
        with self.database.reading() as session:
            rows = session.execute(sa.text(_USERS), {"emails": list(emails)}).all()
        assert len({row[0] for row in rows}) == len(rows)
        return {email: User(*row) for email, *row in rows}

    def invited(self, organization: str) -> list[str]:
        """Return the addresses of all invitations to an organization."""
        found: list[str] = []
        with self.identity.management() as api:
            while True:
                query = {"per_page": 100, "page": len(found) // 100}
                path = f"organizations/{organization}/invitations"
                some = api.get(path, params=query).raise_for_status().json()
                found += [one["invitee"]["email"] for one in some]
                if len(some) < 100:
                    return found

    def execute(self, statement: str, **values: object) -> None:
        """Run a statement, as a concurrent user would."""
        with self.database.begin() as session:
            session.execute(sa.text(statement), values)

    def last_run(self) -> dict[str, Any]:
        """Return the newest run in the history."""
        (newest, *_) = self("history", "list", "-o", "json").json
        return dict(newest)

    def steps(self) -> list[LoggedStep]:
        """Return the steps in the log of the newest run."""
        return step_log.read(step_log.folder() / f"{self.last_run()['run']}.jsonl")


def texts_below(folder: Path) -> str:
    """Return everything that is stored in the files below a folder."""
    return "\n".join(
        path.read_bytes().decode("utf-8", "replace") for path in folder.rglob("*") if path.is_file()
    )

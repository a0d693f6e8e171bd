"""Users and groups on both sides: a seeded database, and the identity provider beside it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from aspen.local.auth0.store import ProviderStore, seed
from tests.api.conftest import managed_by
from tests.cli.commands.accounts_lab import Accounts
from tests.cli.commands.ending import Ended
from tests.local.auth0.lab import CLIENT, ORGANIZATIONS, PRINCIPALS, Identity
from tests.remote.naughty import Reply, Seen, Wire, reply, reset

RCPHL, BDPH, VSUV = ORGANIZATIONS


def restore(identity: Identity) -> None:
    """Give a provider the accounts, organizations, and members of the test principals again."""
    with ProviderStore(identity.folder).writing() as db:
        for table in ("invitations", "organizations", "users"):
            db.execute(f"DELETE FROM {table}")
    seed(identity.folder, PRINCIPALS)


def credentials(identity: Identity, address: str | None = None) -> dict[str, str]:
    """Return variables with the credentials for a provider, perhaps at another address."""
    found = {**managed_by(identity), "AUTH0_CLIENT_ID": CLIENT}
    return {**found, "AUTH0_MANAGEMENT_DOMAIN": address} if address else found


@dataclass(frozen=True)
class Both:
    """Both sides, and commands on them.

    Attributes:
        accounts: The database's side.
        identity: The provider's side.
    """

    accounts: Accounts
    identity: Identity

    def __call__(self, *words: str) -> Ended:
        return self.accounts.cli(*words)

    def ok(self, *words: str) -> Ended:
        """Run a command that has to succeed, without a question."""
        ended = self(*words, "--yes", "-o", "json")
        assert ended.code == 0, ended.err
        return ended

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Start a command in a separate process."""
        return self.accounts.begin(*words, "--yes")

    def account(self, name: str) -> dict[str, Any] | None:
        """Return the account of a principal at the provider, or None."""
        with self.identity.management() as provider:
            answer = provider.get(f"users/auth0|{name}")
        return answer.json() if answer.is_success else None

    def sign_in_name(self, name: str) -> tuple[str, str, bool]:
        """Return name, e-mail address, and its verification at the provider."""
        found = self.account(name)
        assert found is not None
        return found["name"], found["email"], found["email_verified"]

    def members(self, organization: str) -> dict[str, list[str]]:
        """Return the roles of each member of an organization, by the account's last part."""
        query: dict[str, str | int] = {"fields": "user_id,roles", "per_page": 100}
        with self.identity.management() as provider:
            found = provider.get(f"organizations/{organization}/members", params=query).json()
        return {
            one["user_id"].removeprefix("auth0|"): sorted(role["name"] for role in one["roles"])
            for one in found
        }

    def organization(self, organization: str) -> dict[str, Any] | None:
        with self.identity.management() as provider:
            answer = provider.get(f"organizations/{organization}")
        return answer.json() if answer.is_success else None

    def invite(self, organization: str, email: str) -> None:
        body = {"inviter": {"name": "I"}, "invitee": {"email": email}, "client_id": CLIENT}
        with self.identity.management() as provider:
            provider.post(f"organizations/{organization}/invitations", json=body).raise_for_status()

    def invited(self, organization: str) -> list[str]:
        with self.identity.management() as provider:
            found = provider.get(f"organizations/{organization}/invitations").json()
        return sorted(one["invitee"]["email"] for one in found)

    def last_run(self) -> dict[str, Any]:
        """Return the newest run in the history."""
        (run, *_) = self("history", "list", "-o", "json").json
        return dict(run)

    @property
    def state(self) -> object:
        """Return everything that the commands could change on both sides."""
        with ProviderStore(self.identity.folder).reading() as db:
            queries = (
                "SELECT user_id, email, name, email_verified FROM users ORDER BY 1",
                "SELECT id, name, display_name FROM organizations ORDER BY 1",
                "SELECT * FROM members ORDER BY 1, 2",
                "SELECT * FROM member_roles ORDER BY 1, 2, 3",
                "SELECT id, invitee_email FROM invitations ORDER BY 1",
            )
            provided = [[tuple(row) for row in db.execute(query)] for query in queries]
        return self.accounts.tables, provided

    @property
    def kept_files(self) -> list[str]:
        """Return the names of the folders with undo files and records, one for each file."""
        state = Path(os.environ["ASPEN_HOME"]) / "state"
        return sorted(path.parent.name for path in state.glob("*/*.jsonl") if _is_kept(path))


def _is_kept(path: Path) -> bool:
    return path.parent.name in {"undo", "deleted"}


Fault = Callable[["ProviderRelay", Seen], Reply | None]


@dataclass
class ProviderRelay:
    """A route to a provider on which some requests fail.

    Attributes:
        identity: The provider.
        address: The address of the server that uses this route, once it is known.
        passed: The requests that the provider received, besides those for tokens.
    """

    identity: Identity
    address: str = ""
    passed: list[str] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)
    _faults: list[tuple[re.Pattern[str], Fault, int]] = field(default_factory=list)

    def fail(self, pattern: str, fault: Fault, times: int = 1) -> None:
        """Make requests such as ``PATCH users`` fail as often as said."""
        self._faults.append((re.compile(pattern), fault, times))

    def heal(self) -> None:
        """Let every request pass from now on."""
        self._faults.clear()

    def __call__(self, seen: Seen) -> Reply:
        what = f"{seen.method} {seen.target.removeprefix('/api/v2/')}"
        for number, (pattern, fault, times) in enumerate(self._faults):
            if times and pattern.match(what):
                self._faults[number] = (pattern, fault, times - 1)
                found = fault(self, seen)
                if found is not None:
                    return found
        return self.deliver(seen)

    def deliver(self, seen: Seen) -> Reply:
        """Pass a request on, and return the provider's answer."""
        issuer = self.identity.issuer
        body = seen.body.replace(f"{self.address}/".encode(), issuer.encode())
        kept = {"authorization", "content-type", "accept"}
        headers = {name: value for name, value in seen.headers.items() if name in kept}
        answer = httpx.request(
            seen.method,
            issuer.rstrip("/") + seen.target,
            headers=headers,
            content=body,
            timeout=60,
            trust_env=False,
        )
        if "/oauth/" not in seen.target:
            self.passed.append(f"{seen.method} {seen.target.removeprefix('/api/v2/')}")
        kind = answer.headers.get("content-type", "")
        return reply(answer.status_code, answer.content, kind=kind)


def broken(_relay: ProviderRelay, _seen: Seen) -> Reply:
    """Answer 500 without effect."""
    return reply(500, json.dumps({"message": "broken"}), kind="application/json")


def refused(_relay: ProviderRelay, _seen: Seen) -> Reply:
    """Answer 403 without effect."""
    body = {"statusCode": 403, "message": "Insufficient scope, expected any of: update:users"}
    return reply(403, json.dumps(body), kind="application/json")


def throttled(_relay: ProviderRelay, _seen: Seen) -> Reply:
    """Answer that there were too many requests."""
    return reply(429, "{}", {"Retry-After": "0"}, kind="application/json")


def lost(_relay: ProviderRelay, _seen: Seen) -> Reply:
    """Lose the request."""
    return reset


def unanswered(relay: ProviderRelay, seen: Seen) -> Reply:
    """Carry out the request, and lose the answer."""
    relay.deliver(seen)
    return reset


def held(relay: ProviderRelay, seen: Seen) -> Reply:
    """Carry out the request, and never answer."""
    relay.deliver(seen)

    def write(wire: Wire) -> None:
        relay.arrived.set()
        with suppress(OSError):
            wire.wait(120)
        wire.close()

    return write


def after(then: Callable[[], None]) -> Fault:
    """Return a fault that runs something once the provider has carried out the request."""

    def fault(relay: ProviderRelay, seen: Seen) -> Reply:
        answer = relay.deliver(seen)
        then()
        return answer

    return fault

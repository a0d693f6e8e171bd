"""Seeding: any number of times, before the start and while the provider runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from aspen.local.auth0.store import AddedAccounts, Client, Grant, Member, Role, Seed, User, seed
from aspencli.errors import ConflictError
from tests.local.auth0.lab import (
    MANAGEMENT,
    ORGANIZATIONS,
    PRINCIPALS,
    Identity,
    running_identity,
)

NOTHING = AddedAccounts(clients=0, users=0, organizations=0, roles=0, members=0)


def test_repeated_seed_changes_nothing(tmp_path: Path) -> None:
    first = seed(tmp_path, PRINCIPALS)
    assert first == AddedAccounts(clients=2, users=11, organizations=3, roles=3, members=10)
    assert seed(tmp_path, PRINCIPALS) == NOTHING


def test_seed_keeps_changes_to_users(identity: Identity) -> None:
    with identity.management() as api:
        api.patch("users/auth0|member", json={"name": "Morgan"}).raise_for_status()
        assert seed(identity.folder, PRINCIPALS) == NOTHING
        assert api.get("users/auth0|member").json()["name"] == "Morgan"


def test_seed_updates_existing_clients(tmp_path: Path) -> None:
    with running_identity(tmp_path / "state") as identity:
        identity.management().close()
        clients = [replace(PRINCIPALS.clients[1], secret="a new secret")]
        assert seed(identity.folder, Seed(clients=clients)) == NOTHING
        sent = {
            "grant_type": Grant.CLIENT_CREDENTIALS,
            "client_id": MANAGEMENT,
            "audience": f"{identity.issuer}api/v2/",
        }
        assert identity.token(**sent, client_secret="a new secret").status_code == 200
        assert identity.token(**sent, client_secret="a made-up secret").status_code == 401


def test_seed_conflict_changes_nothing(tmp_path: Path) -> None:
    seed(tmp_path, PRINCIPALS)
    wanted = Seed(
        users=[
            User("auth0|one", "one@example.org", "One"),
            User("auth0|two", "MEMBER@example.org", "Two"),
        ]
    )
    with pytest.raises(ConflictError, match="email"):
        seed(tmp_path, wanted)
    one = Seed(users=[wanted.users[0]])
    assert seed(tmp_path, one).users == 1


@pytest.mark.parametrize(
    "wanted",
    [
        Seed(members=[Member("org_none", "auth0|member")]),
        Seed(members=[Member(ORGANIZATIONS[0], "auth0|nobody")]),
        Seed(members=[Member(ORGANIZATIONS[2], "auth0|nogroup", ["emperor"])]),
        Seed(roles=[Role("second", id="same"), Role("third", id="same")]),
    ],
)
def test_inconsistent_seed_is_refused(tmp_path: Path, wanted: Seed) -> None:
    seed(tmp_path, PRINCIPALS)
    with pytest.raises(ConflictError):
        seed(tmp_path, wanted)


def test_client_secret_is_not_shown_or_stored_in_plain_text(tmp_path: Path) -> None:
    client = Client("c", "C", (Grant.CLIENT_CREDENTIALS,), secret="not to be seen")
    assert "not to be seen" not in repr(client)
    seed(tmp_path, Seed(clients=[client]))
    for file in tmp_path.iterdir():
        assert b"not to be seen" not in file.read_bytes()

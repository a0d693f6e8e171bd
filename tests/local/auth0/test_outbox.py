"""The e-mails that the provider sends, and the outbox that they stay in."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest

from aspen.local.auth0 import STATE_FILE, outbox
from aspen.local.auth0.outbox import Message, Outbox, in_words, send
from aspen.local.auth0.store import ProviderStore
from aspencli.errors import BadInputError, NotFoundError
from tests.local.auth0.lab import CLIENT, ORGANIZATIONS, Identity


def invite(identity: Identity, email: str, **fields: Any) -> httpx.Response:
    body = {"inviter": {"name": "Gale"}, "invitee": {"email": email}, "client_id": CLIENT}
    with identity.management() as api:
        path = f"organizations/{ORGANIZATIONS[0]}/invitations"
        return api.post(path, json={**body, **fields})


def mail_to(identity: Identity, email: str) -> list[Message]:
    return Outbox(identity.folder).messages(email)


@pytest.mark.parametrize("fields", [{}, {"send_invitation_email": True}], ids=["default", "true"])
def test_invitation_is_mailed_with_its_link(identity: Identity, fields: dict[str, Any]) -> None:
    made = invite(identity, "invited@example.org", **fields).json()
    message = mail_to(identity, "invited@example.org")[0]
    assert message.subject == "Invitation to join Redwood County Public Health Laboratory"
    assert message.link == made["invitation_url"]
    assert f"\n{message.link}\n" in message.text
    assert "Gale invited you to join Redwood County" in message.text


def test_invitation_is_not_mailed_if_request_says_so(identity: Identity) -> None:
    assert invite(identity, "quiet@example.org", send_invitation_email=False).is_success
    assert mail_to(identity, "quiet@example.org") == []


def test_refused_invitation_is_not_mailed(identity: Identity) -> None:
    assert invite(identity, "refused@example.org", roles=["rol_none"]).status_code == 404
    assert mail_to(identity, "refused@example.org") == []


def test_mail_names_time_when_invitation_expires(identity: Identity) -> None:
    invite(identity, "late@example.org", ttl_sec=3600)
    (message,) = mail_to(identity, "late@example.org")
    assert f"until {in_words(message.sent_at + 3600)}" in message.text
    assert in_words(1_804_239_000) == "March 5, 2027, 09:30 UTC"


def test_outbox_lists_newest_first_and_finds_by_address_and_id(tmp_path: Path) -> None:
    with ProviderStore(tmp_path).writing() as db:
        for number in range(3):
            send(db, f"Guest{number % 2}@example.org", f"Mail {number}", "Text", link="http://x")
    found = Outbox(tmp_path).messages()
    assert [message.subject for message in found] == ["Mail 2", "Mail 1", "Mail 0"]
    assert Outbox(tmp_path).messages("guest0@EXAMPLE.org") == [found[0], found[2]]
    assert Outbox(tmp_path).message(found[1].id) == found[1]
    with pytest.raises(NotFoundError, match="No message has the ID 99"):
        Outbox(tmp_path).message(99)


def test_outbox_drops_oldest_messages_and_never_reuses_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_MOST", 2)
    store = ProviderStore(tmp_path)
    for number in range(5):
        with store.writing() as db:
            send(db, "guest@example.org", f"Mail {number}", "Text", link="http://x")
    kept = Outbox(tmp_path).messages()
    assert [(message.id, message.subject) for message in kept] == [(5, "Mail 4"), (4, "Mail 3")]
    with store.writing() as db:
        db.execute("DELETE FROM mail")
        send(db, "guest@example.org", "Mail 5", "Text", link="http://x")
    assert [message.id for message in Outbox(tmp_path).messages()] == [6]


def test_outbox_is_kept_when_provider_restarts(identity: Identity) -> None:
    invite(identity, "kept@example.org")
    before = mail_to(identity, "kept@example.org")
    identity.stop()
    assert mail_to(identity, "kept@example.org") == before
    identity.start()
    assert mail_to(identity, "kept@example.org") == before != []


def test_outbox_of_provider_that_never_started_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="never started"):
        Outbox(tmp_path / "none").messages()
    assert not (tmp_path / "none").exists()


def test_outbox_in_state_of_older_version_is_empty(tmp_path: Path) -> None:
    with ProviderStore(tmp_path).writing() as db:
        db.execute("DROP TABLE mail")
    assert Outbox(tmp_path).messages() == []


def test_outbox_in_damaged_state_is_reported(tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).write_text("this is no database, and long enough to tell so")
    with pytest.raises(BadInputError, match="Cannot read the identity provider's data"):
        Outbox(tmp_path).messages()


def test_mail_is_readable_by_owner_only(tmp_path: Path) -> None:
    with ProviderStore(tmp_path).writing() as db:
        send(db, "guest@example.org", "Mail", "Text", link="http://x")
    Outbox(tmp_path).messages()
    assert {file.stat().st_mode & 0o077 for file in tmp_path.iterdir()} == {0}
    assert tmp_path.stat().st_mode & 0o077 == 0


def test_mail_of_failed_transaction_is_not_sent(tmp_path: Path) -> None:
    def fail(db: sqlite3.Connection) -> None:
        send(db, "guest@example.org", "Mail", "Text", link="http://x")
        raise KeyError

    store = ProviderStore(tmp_path)
    with pytest.raises(KeyError), store.writing() as db:
        fail(db)
    assert Outbox(tmp_path).messages() == []

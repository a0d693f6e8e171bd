"""Sessions whose renewal does not go as planned."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from aspencli.auth.accounts import locked
from aspencli.auth.session import NotYet, Session, SignInTarget, StoredSignIn
from aspencli.auth.store import KeyringBox, Store
from aspencli.errors import AspenError, ConflictError, CredentialsError, UnreachableError

PLACE = SignInTarget("mylab", "https://api.example.org", "https://login.example.org", "client")


def _sign_in(
    token: str = "first", *, lasts: float = 30, refresh: str | None = "r1"
) -> StoredSignIn:
    now = time.time()
    return StoredSignIn(
        token, refresh, "auth0|x", now - 3600, now + lasts, "Ada", "ada@example.org"
    )


@dataclass
class Provider:
    """A provider that answers a renewal as given."""

    answer: StoredSignIn | NotYet | AspenError
    asked: list[StoredSignIn] = field(default_factory=list)

    def refresh(self, before: StoredSignIn) -> StoredSignIn | NotYet:
        self.asked.append(before)
        if isinstance(self.answer, AspenError):
            raise self.answer
        return self.answer

    def refusal(self, error: str, description: str) -> CredentialsError:
        return CredentialsError(f"refused: {error}: {description}")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "sign-ins", PLACE, KeyringBox())


def _session(store: Store, provider: Provider) -> Session:
    return Session(PLACE, store, lambda: provider, use_old=False)


def test_renewed_sign_in_is_saved_and_used(store: Store) -> None:
    store.save(_sign_in(), "file")
    renewed = _sign_in("second", lasts=3600, refresh="r2")
    session = _session(store, Provider(renewed))
    assert session.token() == "second"
    assert store.load() == renewed


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (NotYet("status 500", passing=True), UnreachableError, "is having problems .status 500."),
        (NotYet("unauthorized_client", "no"), CredentialsError, "refused: unauthorized_client"),
        (UnreachableError("no way"), UnreachableError, "no way"),
    ],
)
def test_failed_renewal_keeps_sign_in(
    store: Store, answer: NotYet | AspenError, kind: type[AspenError], words: str
) -> None:
    store.save(before := _sign_in(), "file")
    with pytest.raises(kind, match=words):
        _session(store, Provider(answer)).token()
    assert store.load() == before


def test_invalid_refresh_token_is_tried_once(store: Store) -> None:
    store.save(_sign_in(), "file")
    provider = Provider(NotYet("invalid_grant"))
    with pytest.raises(CredentialsError, match="has expired or was revoked"):
        _session(store, provider).token()
    with pytest.raises(CredentialsError, match="Your sign-in to mylab expired at"):
        _session(store, provider).token()
    assert len(provider.asked) == 1


def test_rejected_token_is_renewed_before_its_expiry(store: Store) -> None:
    store.save(_sign_in(lasts=3600), "file")
    session = _session(store, Provider(_sign_in("second", lasts=3600)))
    assert session.renew("first") == "second"


def test_token_renewed_by_another_process_is_used(store: Store) -> None:
    store.save(_sign_in("theirs", lasts=3600), "file")
    provider = Provider(_sign_in("another", lasts=3600))
    assert _session(store, provider).renew("mine") == "theirs"
    assert provider.asked == []


def _signed_in_again(store: Store, tmp_path: Path, found: StoredSignIn) -> None:
    """Sign in to the same account, as another process would."""
    other = Store(tmp_path / "sign-ins", PLACE, KeyringBox(), store.account)
    with other.lock():
        other.replace(found, "file", force=True, name="mine")


def test_new_sign_in_of_same_user_is_used_by_running_command(store: Store, tmp_path: Path) -> None:
    store.save(_sign_in(lasts=3600), "file")
    session = _session(store, Provider(NotYet("invalid_grant")))
    assert session.token() == "first"
    _signed_in_again(store, tmp_path, _sign_in("second", lasts=3600, refresh="r2"))
    # It has a new key and a new name, so the account is gone for a command that knew the old one.
    assert session.token() == "first"
    named = Store(tmp_path / "sign-ins", PLACE, KeyringBox(), store.find("mine"))
    session = _session(named, Provider(NotYet("invalid_grant")))
    assert session.token() == "second"
    _signed_in_again(named, tmp_path, _sign_in("third", lasts=3600, refresh="r3"))
    assert session.renew("second") == "third"


def test_command_stops_if_its_account_becomes_another_users(store: Store, tmp_path: Path) -> None:
    store.replace(_sign_in(lasts=3600), "file", name="mine")
    session = _session(store, Provider(_sign_in("renewed", lasts=3600)))
    assert session.token() == "first"
    theirs = replace(_sign_in("theirs", lasts=3600), subject="auth0|y", name="Bob", email="b@x.org")
    _signed_in_again(store, tmp_path, theirs)
    with pytest.raises(CredentialsError, match=r"\(account mine\) was replaced while .* of Bob"):
        session.renew("first")


def test_rejected_token_that_is_new_is_not_renewed(store: Store) -> None:
    store.save(replace(_sign_in(lasts=3600), issued_at=time.time()), "file")
    provider = Provider(_sign_in("another", lasts=3600))
    assert _session(store, provider).renew("first") is None
    assert provider.asked == []


def test_rejected_token_without_refresh_token_is_not_renewed(store: Store) -> None:
    assert _session(store, Provider(_sign_in())).renew("x") is None
    store.save(_sign_in(lasts=3600, refresh=None), "file")
    assert _session(store, Provider(_sign_in())).renew("first") is None


def test_renewal_lock_held_too_long_is_reported_with_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aspencli.auth.accounts._LOCK_S", 0.2)
    with (
        locked(tmp_path / "x"),
        pytest.raises(ConflictError, match="renewing or changing the sign-in") as caught,
        locked(tmp_path / "x"),
    ):
        pass
    assert str(tmp_path / "x.lock") in str(caught.value.hint)


@pytest.mark.parametrize("text", ["", "no JSON", "[]"])
def test_unreadable_sign_in_file_suggests_logout_forget(store: Store, text: str) -> None:
    store.save(_sign_in(), "file")
    path = Path(str(store.where).removeprefix("file "))
    path.write_text(text)
    with pytest.raises(CredentialsError, match="Could not read") as caught:
        store.load()
    assert "auth logout --forget" in str(caught.value.hint)


@pytest.mark.parametrize("text", ["{}", '{"place": {}}'])
def test_sign_in_saved_in_unknown_format_is_ignored(store: Store, text: str) -> None:
    store.save(_sign_in(), "file")
    Path(str(store.where).removeprefix("file ")).write_text(text)
    assert store.load() is None


def test_repr_of_sign_in_shows_no_token() -> None:
    assert "first" not in repr(_sign_in())
    assert "r1" not in repr(_sign_in())

"""Sign-ins after changes on both sides; each makes roles equal to those at the provider."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from tests.api.conftest import ApiFactory, told_of
from tests.api.test_signin import signed_in
from tests.cli.commands.both_lab import Both

SignIn = Callable[[str], int]


@pytest.fixture
def sign_in(both: Both, make_api: ApiFactory) -> SignIn:
    """Return a function that signs a person in, and returns the status of ``users/me``."""
    service = make_api(both.accounts.database, **told_of(both.identity))

    def call(email: str) -> int:
        with httpx.Client(base_url=service.url, timeout=30, trust_env=False) as browser:
            signed_in(browser, email)
            return browser.get("/v2/users/me").status_code

    return call


@pytest.mark.parametrize(
    ("words", "email", "roles"),
    [
        (
            ("roles", "add", "11", "--group", "VSUV", "--role", "viewer"),
            "nogroup@example.org",
            {"VSUV": "viewer"},
        ),
        (
            ("roles", "add", "3", "--group", "RCPHL", "--role", "admin", "--replace"),
            "member@example.org",
            {"RCPHL": "admin"},
        ),
        (
            ("roles", "remove", "10", "--group", "BDPH"),
            "multi@example.org",
            {"RCPHL": "member"},
        ),
        (("update", "10", "--email", "mo@example.org"), "mo@example.org", None),
    ],
    ids=["add", "replace", "remove", "update"],
)
def test_sign_in_keeps_what_was_changed(
    words: tuple[str, ...],
    email: str,
    roles: dict[str, str] | None,
    both: Both,
    sign_in: SignIn,
) -> None:
    both.ok("users", *words)
    expected = both.accounts.roles(email) if roles is None else roles
    assert sign_in(email) == 200
    assert both.accounts.roles(email) == expected
    again = both.ok("users", *words)
    assert "Nothing to change" in again.err


def test_sign_in_does_not_bring_members_of_an_archived_group_back(
    both: Both, sign_in: SignIn
) -> None:
    both.ok("groups", "archive", "BDPH")
    assert sign_in("multi@example.org") == 200
    assert sign_in("g2member@example.org") == 200
    assert both.accounts.roles("multi@example.org") == {"RCPHL": "member"}
    assert both.accounts.roles("g2member@example.org") == {}


def test_deleted_user_cannot_sign_in(both: Both, sign_in: SignIn) -> None:
    both.ok("users", "delete", "multi@example.org")
    assert sign_in("multi@example.org") == 401
    assert both.accounts.user("multi@example.org") is None
    both.ok("users", "undo", both.last_run()["run"])
    assert sign_in("multi@example.org") == 200
    assert both.accounts.roles("multi@example.org") == {"RCPHL": "member", "BDPH": "admin"}

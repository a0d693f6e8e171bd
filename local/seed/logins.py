"""How the test users and groups are called by the identity provider."""

from __future__ import annotations


def auth0_user_id(login: str) -> str:
    """The id of a user, which the service knows them by."""
    return f"auth0|{login}"


def email(login: str) -> str:
    """The address that a user signs in with."""
    return f"{login}@example.org"


def organization_name(prefix: str) -> str:
    """The name of a group's organization, as the service makes it for a new group."""
    return f"group-{prefix.lower()}"

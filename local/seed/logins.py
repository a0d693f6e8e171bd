"""The identity provider's names for the test users and groups."""

from __future__ import annotations


def auth0_user_id(login: str) -> str:
    """Return the ID by which the service knows a user."""
    return f"auth0|{login}"


def email(login: str) -> str:
    """Return the e-mail address that a user signs in with."""
    return f"{login}@example.org"


def organization_name(prefix: str) -> str:
    """Return the name of a group's organization, in the service's format for new groups."""
    return f"group-{prefix.lower()}"

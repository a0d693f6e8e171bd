"""Columns and formatting of users."""

from __future__ import annotations

from aspencli.output.rendering import Column, Row

LIST_COLUMNS = (
    Column("id", "Id", right=True, whole=True),
    Column("name", "Name"),
    Column("email", "E-mail", whole=True),
    Column("auth0_user_id", "Auth0 id", secondary=True),
    Column("system_admin", "System admin", secondary=True),
    Column("groups", "Groups and roles"),
)


def for_reading(user: Row) -> Row:
    """Return the user with groups and roles as text, for a table."""
    groups = (f"{group['name']} ({', '.join(group['roles'])})" for group in user["groups"])
    return {**user, "groups": ", ".join(groups)}

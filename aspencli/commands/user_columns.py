"""How users are shown."""

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
    """The user with the groups and roles in words, for a table."""
    groups = (f"{group['name']} ({', '.join(group['roles'])})" for group in user["groups"])
    return {**user, "groups": ", ".join(groups)}

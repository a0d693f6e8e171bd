"""Create a user through the API."""

from __future__ import annotations

from typing import Any, Protocol

from aspencli.errors import (
    AspenError,
    BadInputError,
    CredentialsError,
    NotFoundError,
    UncertainError,
)
from aspencli.remote import scope
from aspencli.remote.scope import Org, find_org
from aspencli.remote.types import Me
from aspencli.remote.types import NewUser as AskedUser
from aspencli.users.models import NewUser

API_ROLE = "member"
"""The role that the API gives every new user."""
_SERVER_ERROR = 500


class Users(scope.Users, Protocol):
    """The part of the API that returns the current user and creates users."""

    def create(self, user: AskedUser) -> Me:
        """Create a user."""


class Source(scope.Directory, Protocol):
    """The part of the API that creating a user needs."""

    @property
    def users(self) -> Users:
        """Return the users endpoints."""


def plan_asked(source: Source, wanted: NewUser) -> Org:
    """Return the group that the user would join.

    Raises:
        BadInputError: The role is not member, the only one that the API can assign.
        NotFoundError: The caller has no role in a group of that name. (IDs are not checked.)
    """
    if wanted.role.lower() != API_ROLE:
        raise BadInputError(
            f"The API can create users only with the role {API_ROLE}, not {wanted.role}.",
            hint="Use the database: --via db.",
        )
    org = find_org(source, wanted.group)
    if org.name is not None:
        return org
    try:
        return Org(org.id, source.groups.get(org.id)["name"])
    except (NotFoundError, CredentialsError):  # A system administrator may not be a member.
        return org


def create_asked(source: Source, wanted: NewUser, org: Org) -> dict[str, Any]:
    """Create the user in the group; return the fields of `aspencli.users.database.UserRow`.

    Raises:
        ConflictError: The e-mail address or Auth0 ID is taken, even if by an identical user.
        UncertainError: No response arrived.
    """
    try:
        made = source.users.create(
            AskedUser(
                name=wanted.name,
                email=wanted.email,
                group_id=org.id,
                auth0_user_id=wanted.auth0_user_id,
                system_admin=wanted.system_admin,
            )
        )
    except UncertainError as error:
        error.hint = (
            "Run the same command again: it creates the user, or reports that it already exists "
            "(exit code 7)."
        )
        raise
    except AspenError as error:
        if error.answer is not None and error.answer.status == _SERVER_ERROR:
            error.hint = (
                "The published version of the service cannot create users. Use the database: "
                "--via db."
            )
        raise
    return described(wanted, made["id"], list(made["groups"]))


def described(wanted: NewUser, id_: int | None, groups: list[Any]) -> dict[str, Any]:
    """Return a new or planned user in the shape that both backends report."""
    return {
        "id": id_,
        "name": wanted.name,
        "email": wanted.email,
        "auth0_user_id": wanted.auth0_user_id,
        "system_admin": wanted.system_admin,
        "groups": groups,
    }

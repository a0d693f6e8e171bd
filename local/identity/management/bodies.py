"""What bodies of requests may hold: nothing unknown, and no value of another type."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s.]+")

Metadata = dict[str, Any]


def _email(value: str) -> str:
    if not _EMAIL.fullmatch(value):
        raise PydanticCustomError(
            "format", "Object didn't pass validation for format email: {value}", {"value": value}
        )
    return value.lower()


Email = Annotated[str, Field(max_length=320), AfterValidator(_email)]


class Body(BaseModel):
    """The body of a request."""

    model_config = ConfigDict(extra="forbid", strict=True)


class UserFields(Body):
    """What can be told of a user at any time."""

    blocked: bool | None = None
    email_verified: bool | None = None
    given_name: Annotated[str, Field(min_length=1, max_length=150)] | None = None
    family_name: Annotated[str, Field(min_length=1, max_length=150)] | None = None
    name: Annotated[str, Field(min_length=1, max_length=300)] | None = None
    nickname: Annotated[str, Field(min_length=1, max_length=300)] | None = None
    picture: str | None = None
    user_metadata: Metadata | None = None
    app_metadata: Metadata | None = None
    verify_email: bool | None = None


class NewUser(UserFields):
    """A user to be made."""

    connection: str
    email: Email
    password: Annotated[str, Field(min_length=1)] = Field(repr=False)
    user_id: Annotated[str, Field(max_length=255)] | None = None
    username: str | None = None


class UserChanges(UserFields):
    """What is to be changed of a user."""

    email: Email | None = None
    password: Annotated[str, Field(min_length=1)] | None = Field(default=None, repr=False)
    connection: str | None = None
    client_id: str | None = None
    username: str | None = None


OrganizationName = Annotated[str, Field(max_length=50, pattern=r"^[a-z0-9][a-z0-9_-]*$")]


class OrganizationFields(Body):
    """What can be told of an organization at any time."""

    display_name: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    branding: Metadata | None = None
    metadata: dict[str, str | None] | None = None


class NewOrganization(OrganizationFields):
    """An organization to be made."""

    name: OrganizationName
    enabled_connections: list[Metadata] | None = None


class OrganizationChanges(OrganizationFields):
    """What is to be changed of an organization."""

    name: OrganizationName | None = None


class Members(Body):
    """Users to become, or to be no longer, members of an organization."""

    members: Annotated[list[str], Field(min_length=1)]


class Roles(Body):
    """Roles to be given to, or taken from, a member."""

    roles: Annotated[list[str], Field(min_length=1, max_length=50)]


class NewRole(Body):
    """A role to be made."""

    name: Annotated[str, Field(min_length=1, max_length=255)]
    description: Annotated[str, Field(min_length=1, max_length=255)] | None = None


class Inviter(Body):
    """Who invites."""

    name: Annotated[str, Field(min_length=1, max_length=300)]


class Invitee(Body):
    """Who is invited."""

    email: Email


class NewInvitation(Body):
    """An invitation to be made."""

    inviter: Inviter
    invitee: Invitee
    client_id: str
    connection_id: str | None = None
    app_metadata: Metadata | None = None
    user_metadata: Metadata | None = None
    ttl_sec: Annotated[int, Field(ge=0, le=2_592_000)] | None = None
    roles: list[str] | None = None
    send_invitation_email: bool | None = None

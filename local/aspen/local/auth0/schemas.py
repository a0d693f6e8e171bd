"""Request bodies, which allow no unknown fields and no values of the wrong type."""

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
    """A request body."""

    model_config = ConfigDict(extra="forbid", strict=True)


class UserFields(Body):
    """The user fields that can be set at any time."""

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
    """A user to create."""

    connection: str
    email: Email
    password: Annotated[str, Field(min_length=1)] = Field(repr=False)
    user_id: Annotated[str, Field(max_length=255)] | None = None
    username: str | None = None


class UserChanges(UserFields):
    """Changes to a user."""

    email: Email | None = None
    password: Annotated[str, Field(min_length=1)] | None = Field(default=None, repr=False)
    connection: str | None = None
    client_id: str | None = None
    username: str | None = None


OrganizationName = Annotated[str, Field(max_length=50, pattern=r"^[a-z0-9][a-z0-9_-]*$")]


class OrganizationFields(Body):
    """The organization fields that can be set at any time."""

    display_name: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    branding: Metadata | None = None
    metadata: dict[str, str | None] | None = None


class NewOrganization(OrganizationFields):
    """An organization to create."""

    name: OrganizationName
    enabled_connections: list[Metadata] | None = None


class OrganizationChanges(OrganizationFields):
    """Changes to an organization."""

    name: OrganizationName | None = None


class Members(Body):
    """Users to add to, or remove from, an organization."""

    members: Annotated[list[str], Field(min_length=1)]


class Roles(Body):
    """Roles to assign to, or remove from, a member."""

    roles: Annotated[list[str], Field(min_length=1, max_length=50)]


class NewRole(Body):
    """A role to create."""

    name: Annotated[str, Field(min_length=1, max_length=255)]
    description: Annotated[str, Field(min_length=1, max_length=255)] | None = None


class Inviter(Body):
    """The person who sends an invitation."""

    name: Annotated[str, Field(min_length=1, max_length=300)]


class Invitee(Body):
    """The person who is invited."""

    email: Email


class NewInvitation(Body):
    """An invitation to create."""

    inviter: Inviter
    invitee: Invitee
    client_id: str
    connection_id: str | None = None
    app_metadata: Metadata | None = None
    user_metadata: Metadata | None = None
    ttl_sec: Annotated[int, Field(ge=0, le=2_592_000)] | None = None
    roles: list[str] | None = None
    send_invitation_email: bool | None = None

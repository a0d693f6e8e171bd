"""Users."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from pydantic import BeforeValidator, Field

from aspen.api.schemas.base import BaseRequest, BaseResponse, Date, RowId


class GroupRoleResponse(BaseResponse):
    """A group and the user's roles in it."""

    id: int
    name: str
    roles: list[str]


class UserMeResponse(BaseResponse):
    """A user and their groups."""

    id: int
    name: str
    agreed_to_tos: bool = False
    acknowledged_policy_version: date | None = None
    # Users who were inserted by hand may have none, but clients require one.
    split_id: Annotated[str, BeforeValidator(lambda value: value or "")]
    analytics_id: str
    gisaid_submitter_id: str | None = None
    groups: list[GroupRoleResponse]


class UserUpdateRequest(BaseRequest):
    """Changes to the current user; omitted and null values stay unchanged."""

    agreed_to_tos: bool | None = None
    acknowledged_policy_version: Date | None = None
    name: str | None = None
    gisaid_submitter_id: str | None = None


class UserPostRequest(BaseRequest):
    """A new user."""

    name: str = Field(min_length=1)
    email: str = Field(pattern=r"^[^@\s]+@[^@\s]+$", examples=["user@example.org"])
    group_id: RowId
    system_admin: bool = False
    auth0_user_id: str = Field(min_length=1)

"""Groups, their members, and invitations to them."""

from __future__ import annotations

from datetime import date

from pydantic import Field

from aspen.api.limits import MAX_EMAILS
from aspen.api.schemas.base import BaseRequest, BaseResponse, RowId, StrictText
from aspen.api.schemas.reference import LocationResponse

_SHORT, _LONG, _PREFIX = 128, 1000, 25


class GroupCreationRequest(BaseRequest):
    """A new group."""

    name: StrictText = Field(min_length=3, max_length=_SHORT)
    submitting_lab: StrictText | None = Field(None, min_length=3, max_length=_SHORT)
    prefix: StrictText = Field(min_length=2, max_length=_PREFIX)
    address: StrictText | None = Field(None, min_length=1, max_length=_LONG)
    division: StrictText | None = Field(None, min_length=1, max_length=_LONG)
    location: StrictText | None = Field(None, min_length=1, max_length=_LONG)
    default_tree_location_id: RowId


class GroupInfoResponse(BaseResponse):
    """A group."""

    id: int
    name: str
    address: str | None = None
    prefix: str
    default_tree_location: LocationResponse
    submitting_lab: str | None = None


class MemberResponse(BaseResponse):
    """A member of a group with their strongest role."""

    id: int
    name: str
    agreed_to_tos: bool = False
    acknowledged_policy_version: date | None = None
    email: str
    role: str


class GroupMembersResponse(BaseResponse):
    """The members of a group."""

    members: list[MemberResponse]


class Inviter(BaseResponse):
    """The user who sends an invitation."""

    name: str


class Invitee(BaseResponse):
    """The person who is invited."""

    email: str


class InvitationResponse(BaseResponse):
    """An invitation, as stored by the identity provider."""

    id: str
    created_at: str
    expires_at: str
    inviter: Inviter
    invitee: Invitee


class InvitationsResponse(BaseResponse):
    """The invitations to a group, expired ones included."""

    invitations: list[InvitationResponse]


class GroupInvitationsRequest(BaseRequest):
    """The addresses to invite, and their role."""

    role: str
    emails: list[str] = Field(max_length=MAX_EMAILS)


class GroupInvitationResponse(BaseResponse):
    """The outcome of one invitation."""

    email: str
    success: bool
    error: str | None = None
    """The identity provider's error message."""


class GroupInvitationsResponse(BaseResponse):
    """The outcome of each invitation."""

    invitations: list[GroupInvitationResponse]

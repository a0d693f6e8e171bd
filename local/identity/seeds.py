"""The words for what a provider knows: clients, users, organizations, roles, members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Grant(StrEnum):
    """The ways to a token that a client may be allowed."""

    AUTHORIZATION_CODE = "authorization_code"
    CLIENT_CREDENTIALS = "client_credentials"
    DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
    REFRESH_TOKEN = "refresh_token"  # noqa: S105 - the name of a grant


ALL_MANAGEMENT_SCOPES = tuple(
    f"{verb}:{noun}"
    for noun, verbs in {
        "users": ("read", "create", "update", "delete"),
        "users_app_metadata": ("read", "create", "update", "delete"),
        "roles": ("read", "create", "update", "delete"),
        "connections": ("read",),
        "organizations": ("read", "create", "update", "delete"),
        "organization_members": ("read", "create", "delete"),
        "organization_member_roles": ("read", "create", "delete"),
        "organization_invitations": ("read", "create", "delete"),
        "signing_keys": ("read", "create", "update"),
    }.items()
    for verb in verbs
)
"""Everything that can be done at the Management API."""


@dataclass(frozen=True)
class Client:
    """A program that asks for tokens.

    Attributes:
        client_id: What it calls itself, the ``aud`` of its id_tokens.
        name: What its users know it as.
        grants: What it may ask for.
        public: Whether it may do without a secret, as a command line must; its authorization
            codes then need PKCE.
        secret: Its secret, kept as a hash only; None where it has none.
        callbacks: The addresses that an authorization code may be sent to. One of
            ``http://127.0.0.1`` or ``http://localhost`` without a port allows every port.
        logout_urls: The addresses that signing out may lead to, by the same rule.
        audiences: The further APIs that its users' access tokens may be for.
        login_uri: Where its sign-in begins, for the links of invitations.
        management_scopes: What it may do at the Management API, such as ``read:users``.
    """

    client_id: str
    name: str
    grants: Sequence[Grant]
    public: bool = False
    secret: str | None = field(default=None, repr=False)
    callbacks: Sequence[str] = ()
    logout_urls: Sequence[str] = ()
    audiences: Sequence[str] = ()
    login_uri: str = ""
    management_scopes: Sequence[str] = ()


@dataclass(frozen=True)
class User:
    """Somebody who may sign in.

    Attributes:
        user_id: Such as ``auth0|member``.
        email: What they sign in with; unique, whatever the case.
        name: Their full name.
        email_verified: Whether the address is known to be theirs.
    """

    user_id: str
    email: str
    name: str
    email_verified: bool = True


@dataclass(frozen=True)
class Organization:
    """What the service knows as a group.

    Attributes:
        id: Such as ``org_`` and 16 letters and digits: the group's ``auth0_org_id``.
        name: Its unique name, in lower case.
        display_name: What people know it as.
    """

    id: str
    name: str
    display_name: str


@dataclass(frozen=True)
class Role:
    """A role that members of organizations can have.

    Attributes:
        name: Such as ``admin``.
        description: For people.
        id: Given by the provider when left out.
    """

    name: str
    description: str = ""
    id: str | None = None


@dataclass(frozen=True)
class Member:
    """A user's belonging to an organization.

    Attributes:
        organization_id: Which organization.
        user_id: Which user.
        roles: The names of the roles there.
    """

    organization_id: str
    user_id: str
    roles: Sequence[str] = ()


@dataclass(frozen=True)
class Seed:
    """What is to be there."""

    clients: Sequence[Client] = ()
    users: Sequence[User] = ()
    organizations: Sequence[Organization] = ()
    roles: Sequence[Role] = ()
    members: Sequence[Member] = ()

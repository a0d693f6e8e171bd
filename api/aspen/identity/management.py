"""The client of the identity provider's Management API (Auth0 or an emulator)."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import secrets
import ssl
import string
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from aspen.identity.names import CONNECTION, OWN_ACCOUNT, organization_name
from aspen.identity.pace import Pace
from aspen.identity.requests import (
    TIMEOUT_S,
    Credentials,
    ManagementCredentialsError,
    ManagementError,
    ManagementRequests,
    ManagementUnavailableError,
    Patience,
)

__all__ = [
    "CONNECTION",
    "Account",
    "Credentials",
    "Invitation",
    "Management",
    "ManagementCredentialsError",
    "ManagementError",
    "ManagementUnavailableError",
    "Member",
    "Organization",
    "Pace",
    "Patience",
    "connected",
    "organization_name",
    "provider_url",
]

TICKET_SECONDS = 5 * 24 * 3600
"""The lifetime of a link to set a password."""
_FORBIDDEN = 403
_UNTOLD = frozenset({_FORBIDDEN, 404})  # to questions that a plan or a missing scope rules out
_PASSWORD_LENGTH = 22
_PASSWORD_LETTERS = (string.ascii_lowercase, string.ascii_uppercase, string.digits, "!#%+-_")
_SEARCHED = 50  # accounts per search; with more, the address may be refused on the way
_QUERY_LENGTH = 2_000  # of a search, for the same reason
# What an `Account` is made of.
_ACCOUNT_FIELDS = "user_id,email,name,email_verified,blocked,last_login,logins_count"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Account:
    """An account at the provider.

    Attributes:
        id: Such as ``auth0|5f7c8ec7a0``; accounts of other connections begin otherwise.
        email: The address, in lowercase.
        is_verified: True if the owner of the address proved it, or an administrator did.
        has_signed_in: True if it was ever used.
    """

    id: str
    email: str
    name: str
    is_verified: bool
    is_blocked: bool
    has_signed_in: bool


@dataclass(frozen=True)
class Member:
    """A member of an organization, with the names of their roles there."""

    id: str  # of the account
    email: str
    name: str
    roles: tuple[str, ...]


@dataclass(frozen=True)
class Organization:
    """An organization, which the service calls a group."""

    id: str
    name: str
    display_name: str
    metadata: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True)
class Invitation:
    """An invitation to an organization, by its ID."""

    id: str
    organization: str
    email: str  # in lowercase
    expires_at: dt.datetime


def provider_url(domain: str) -> str:
    """Return the address of the provider at a domain; empty for an empty one."""
    if not domain:
        return ""
    return (domain if "://" in domain else f"https://{domain}").rstrip("/")


@asynccontextmanager
async def connected(
    credentials: Credentials,
    patience: Patience,
    pace: Pace,
    *,
    verify: ssl.SSLContext | bool,
    proxy: str | None,
) -> AsyncIterator[Management]:
    """Yield a client with connections of its own, which are closed at the end.

    No proxy or certificate is taken from the environment.

    Raises:
        ValueError: The address of the proxy is not valid.
    """
    async with httpx.AsyncClient(
        timeout=TIMEOUT_S, verify=verify, proxy=proxy, trust_env=False
    ) as http:
        yield Management(credentials, http, patience, pace)


class Management(ManagementRequests):
    """The client of one process for the Management API.

    A request that may have been carried out is repeated only if that is safe. What cannot be
    repeated raises a `ManagementUnavailableError` that says so.
    """

    # Organizations

    async def create_organization(
        self, name: str, display_name: str, mark: Mapping[str, str] | None = None
    ) -> str:
        """Create an organization for the provider's own accounts, and return its ID.

        Its metadata is a mark that identifies it if the response is lost, or if the request is
        sent again with the same mark. Without one, it is unique.
        """
        mark = dict(mark) if mark else {"request": secrets.token_hex(16)}
        enabled = [
            {"connection_id": connection, "assign_membership_on_login": False}
            for connection in await self._own_connections()
        ]
        body = {"name": name, "display_name": display_name, "enabled_connections": enabled}
        try:
            made = await self._call("POST", "organizations", json={**body, "metadata": mark})
        except (ManagementError, ManagementUnavailableError) as error:
            if isinstance(error, ManagementError) and not error.taken:
                raise
            made = await self._organization("name", name)
            if made is None or made.get("metadata") != mark:
                raise
        return str(made["id"])

    async def delete_organization(self, organization: str) -> None:
        """Delete an organization; do nothing if it does not exist."""
        await self._gone("organizations", organization)

    async def organizations(self) -> list[Organization]:
        """Return all organizations."""
        return [_organization_of(one) async for one in self._checkpoints("organizations")]

    async def organization(self, organization: str) -> Organization | None:
        """Return the organization with an ID, or None."""
        found = await self._organization(organization)
        return _organization_of(found) if found else None

    async def organization_named(self, name: str) -> Organization | None:
        """Return the organization with a name, such as ``group-czi``, or None."""
        found = await self._organization("name", name)
        return _organization_of(found) if found else None

    async def update_organization(self, organization: str, **changes: str) -> None:
        """Change the ``name`` or the ``display_name`` of an organization."""
        await self._call("PATCH", "organizations", organization, json=changes)

    async def organizations_of(self, account: str) -> list[str]:
        """Return the IDs of the organizations that an account is a member of."""
        found = self._pages("users", account, "organizations")
        return [str(organization["id"]) async for organization in found]

    # Roles and members

    async def role_ids(self) -> dict[str, str]:
        """Return the ID of each role by its name."""
        return {str(role["name"]): str(role["id"]) async for role in self._pages("roles")}

    async def members(self, organization: str) -> list[Member]:
        """Return the members of an organization with their roles, 100 per request."""
        fields = {"fields": "user_id,email,name,roles", "include_fields": "true"}
        found = self._checkpoints("organizations", organization, "members", **fields)
        return [
            Member(
                id=str(one["user_id"]),
                email=str(one.get("email", "")).lower(),
                name=str(one.get("name", "")),
                roles=tuple(sorted(str(role["name"]) for role in one.get("roles") or ())),
            )
            async for one in found
        ]

    async def has_members(self, organization: str) -> bool:
        """Return True if an organization has any members."""
        first = {"page": "0", "per_page": "1"}
        return bool(await self._call("GET", "organizations", organization, "members", params=first))

    async def member_roles(self, organization: str, account: str) -> list[str]:
        """Return the names of a member's roles in an organization."""
        found = self._pages("organizations", organization, "members", account, "roles")
        return [str(role["name"]) async for role in found]

    async def add_member(self, organization: str, account: str, roles: Sequence[str]) -> None:
        """Add an account to an organization with roles given by ID; repeating this is safe."""
        await self.add_members(organization, [account])
        await self.add_roles(organization, account, roles)

    async def add_members(self, organization: str, accounts: Sequence[str]) -> None:
        """Add accounts to an organization, without roles; repeating this is safe."""
        members = ("organizations", organization, "members")
        await self._call("POST", *members, json={"members": list(accounts)}, repeatable=True)

    async def remove_members(self, organization: str, accounts: Sequence[str]) -> None:
        """Remove accounts from an organization; those that are not members are ignored."""
        members = ("organizations", organization, "members")
        await self._gone(*members, json={"members": list(accounts)})

    async def remove_member(self, organization: str, account: str) -> None:
        """Remove an account from an organization; do nothing if it is not a member."""
        await self.remove_members(organization, [account])

    async def add_roles(self, organization: str, account: str, roles: Sequence[str]) -> None:
        """Give a member roles by ID; repeating this is safe."""
        if roles:
            members = ("organizations", organization, "members", account, "roles")
            await self._call("POST", *members, json={"roles": list(roles)}, repeatable=True)

    async def remove_roles(self, organization: str, account: str, roles: Sequence[str]) -> None:
        """Take roles given by ID from a member."""
        if roles:
            members = ("organizations", organization, "members", account, "roles")
            await self._call("DELETE", *members, json={"roles": list(roles)})

    # Invitations

    async def invitations(self, organization: str) -> list[dict[str, Any]]:
        """Return the newest 1,000 invitations to an organization, including expired ones."""
        found = self._pages("organizations", organization, "invitations")
        return [invitation async for invitation in found]

    async def invited(self, organization: str) -> list[Invitation]:
        """Return what matters of the newest 1,000 invitations, including expired ones."""
        return [
            Invitation(
                str(one["id"]),
                organization,
                str(one["invitee"].get("email", "")).lower(),
                dt.datetime.fromisoformat(str(one["expires_at"])),
            )
            for one in await self.invitations(organization)
        ]

    async def has_invitation(self, organization: str, invitation: str) -> bool:
        """Return True if an invitation exists; the service deletes it when it is accepted."""
        try:
            await self._call("GET", "organizations", organization, "invitations", invitation)
        except ManagementError as error:
            if not error.absent:
                raise
            return False
        return True

    async def invite(self, organization: str, email: str, inviter: str, role: str) -> str:
        """E-mail an invitation to an organization, with a role given by ID; return its ID.

        Unless a response arrives, it is unknown if the e-mail was sent. It is not sent again.
        """
        body = {
            "inviter": {"name": inviter},
            "invitee": {"email": email},
            "client_id": self._credentials.login_client_id,
            "roles": [role],
            "send_invitation_email": True,
        }
        made = await self._call("POST", "organizations", organization, "invitations", json=body)
        return str(made["id"])

    async def delete_invitation(self, organization: str, invitation: str) -> None:
        """Delete an invitation; do nothing if it does not exist."""
        await self._gone("organizations", organization, "invitations", invitation)

    # Accounts

    async def accounts_with_email(self, email: str) -> list[Account]:
        """Return the accounts with an e-mail address as they are at this moment.

        There may be several: one for each connection that the address was used with.
        """
        found = await self._call("GET", "users-by-email", params={"email": email.lower()})
        return [_account_of(one) for one in found]

    async def find_accounts(self, emails: Iterable[str]) -> list[Account]:
        """Return the accounts with any of many e-mail addresses, many per request.

        Auth0 answers this from a search index that can be some seconds old.
        """
        return await self._searched(_queries(emails))

    async def existing_accounts(self, accounts: Iterable[str]) -> list[Account]:
        """Return those of the accounts with these IDs that exist, many per request.

        They are searched for; an account of the last seconds may not be found.
        """
        terms = [f'user_id:"{_escaped(account)}"' for account in sorted(set(accounts))]
        return await self._searched(
            " OR ".join(terms[start : start + _SEARCHED])
            for start in range(0, len(terms), _SEARCHED)
        )

    async def _searched(self, queries: Iterable[str]) -> list[Account]:
        async def search(query: str) -> list[Account]:
            pages = self._pages("users", q=query, fields=_ACCOUNT_FIELDS)
            return [_account_of(one) async for one in pages]

        return [one for some in await asyncio.gather(*map(search, queries)) for one in some]

    async def oldest_accounts(self, since: str = "") -> list[tuple[str, Account]]:
        """Return the first 1,000 accounts that were created at a time or later, with their times.

        The times are as the provider writes them, and the accounts are in their order.
        """
        query = {"q": f"created_at:[{since} TO *]"} if since else {}
        fields = f"{_ACCOUNT_FIELDS},created_at"
        pages = self._pages("users", sort="created_at:1", fields=fields, **query)
        return [(str(one["created_at"]), _account_of(one)) async for one in pages]

    async def account(self, account: str) -> Account | None:
        """Return the account with an ID, or None."""
        try:
            return _account_of(await self._call("GET", "users", account))
        except ManagementError as error:
            if not error.absent:
                raise
            return None

    async def create_account(
        self, email: str, name: str, *, account: str = "", mails: bool = False
    ) -> Account:
        """Create an account whose password is random, so that its owner has to set another.

        Its metadata contains a unique mark that identifies it if the response is lost.

        Args:
            email: The address, which counts as verified unless a message is sent to it.
            name: The name.
            account: The ID; empty for a new one.
            mails: True to e-mail a link that verifies the address.
        """
        mark = {"request": secrets.token_hex(16)}
        body = {
            "connection": CONNECTION,
            "email": email,
            "name": name,
            "password": _new_password(),
            "email_verified": not mails,
            "verify_email": mails,
            "app_metadata": mark,
            "user_metadata": {},
        }
        if account:
            body["user_id"] = account.removeprefix(OWN_ACCOUNT)
        try:
            return _account_of(await self._call("POST", "users", json=body))
        except ManagementUnavailableError as error:
            if not error.is_uncertain:
                raise
            found = await self._call("GET", "users-by-email", params={"email": email.lower()})
            for one in found:
                if one.get("app_metadata") == mark:
                    return _account_of(one)
            raise

    async def update_account(self, account: str, **changes: str | bool) -> None:
        """Change fields of an account, such as ``name``, ``email``, or ``blocked``."""
        await self._call("PATCH", "users", account, json=changes)

    async def rename_user(self, account: str, name: str) -> None:
        """Change the full name of an account."""
        await self.update_account(account, name=name)

    async def block_account(self, account: str, *, blocked: bool = True) -> None:
        """Block an account, so that it cannot sign in or get new tokens; or unblock it."""
        await self.update_account(account, blocked=blocked)

    async def delete_account(self, account: str) -> None:
        """Delete an account with its memberships; do nothing if it does not exist."""
        await self._gone("users", account)

    async def password_ticket(self, account: str, seconds: int = TICKET_SECONDS) -> str:
        """Return a link with which whoever has it can set an account's password once."""
        body: dict[str, Any] = {"user_id": account, "ttl_sec": seconds}
        if self._credentials.login_client_id:
            body["client_id"] = self._credentials.login_client_id  # where the page leads to
        made = await self._call("POST", "tickets", "password-change", json=body, repeatable=True)
        return str(made["ticket"])

    # Sessions and refresh tokens, of which only Auth0's Enterprise plans have lists of their own

    async def has_sessions(self, account: str) -> bool | None:
        """Return True if an account is signed in to the provider in a browser; None if unknown."""
        try:
            found = await self._call("GET", "users", account, "sessions", params={"take": 1})
        except ManagementError as error:
            if error.status not in _UNTOLD:
                raise
            return None
        return bool(found["sessions"])

    async def end_sessions(self, account: str) -> bool:
        """End all sessions of an account in browsers; return False if the plan does not offer it.

        The sessions stay then. Nothing is done for an account that does not exist.
        """
        return await self._offered("DELETE", "users", account, "sessions")

    async def has_refresh_tokens(self, account: str) -> bool | None:
        """Return True if an account has refresh tokens, as programs do; None if unknown."""
        try:
            return await self._has_refresh_tokens(account)
        except ManagementError as error:
            if error.status not in _UNTOLD:
                raise
            return None

    async def _has_refresh_tokens(self, account: str) -> bool:
        try:
            found = await self._call("GET", "users", account, "refresh-tokens", params={"take": 1})
        except ManagementError as error:
            if not error.is_not_in_plan:
                raise
            return bool(await self._refresh_credentials(account))
        return bool(found["tokens"])

    async def revoke_refresh_tokens(self, account: str) -> None:
        """Revoke all refresh tokens of an account, one by one if the plan has no other way."""
        if await self._offered("DELETE", "users", account, "refresh-tokens"):
            return
        for credential in await self._refresh_credentials(account):
            await self._gone("device-credentials", credential)

    async def _refresh_credentials(self, account: str) -> list[str]:
        """Return the IDs of an account's refresh tokens, which every plan tells."""
        return [
            str(one["id"])
            for kind in ("refresh_token", "rotating_refresh_token")
            async for one in self._pages("device-credentials", user_id=account, type=kind)
        ]

    async def _offered(self, method: str, *parts: str) -> bool:
        """Send a request about an account, and return False if the plan does not offer it."""
        try:
            await self._call(method, *parts)
        except ManagementError as error:
            if error.is_not_in_plan:
                return False
            if not error.absent:
                raise
        return True

    async def _organization(self, *parts: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self._call("GET", "organizations", *parts)
        except ManagementError as error:
            if not error.absent:
                raise
            return None
        return found

    async def _own_connections(self) -> list[str]:
        try:
            found = [c async for c in self._pages("connections", strategy="auth0")]
        except ManagementError as error:
            if error.status != _FORBIDDEN:
                raise
            _log.warning("Not allowed to read connections; an administrator has to enable them")
            return []
        return [str(connection["id"]) for connection in found]


def _organization_of(found: dict[str, Any]) -> Organization:
    name = str(found["name"])
    display_name = str(found.get("display_name") or name)
    return Organization(str(found["id"]), name, display_name, found.get("metadata") or {})


def _account_of(found: dict[str, Any]) -> Account:
    email = str(found.get("email", "")).lower()
    return Account(
        id=str(found["user_id"]),
        email=email,
        name=str(found.get("name") or ""),
        is_verified=bool(found.get("email_verified")),
        is_blocked=bool(found.get("blocked")),
        has_signed_in=bool(found.get("last_login") or found.get("logins_count")),
    )


def _queries(emails: Iterable[str]) -> Iterator[str]:
    """Yield searches for e-mail addresses, none of them too long for an address bar."""
    terms: list[str] = []
    for email in dict.fromkeys(email.lower() for email in emails):
        term = f'email:"{_escaped(email)}"'
        if terms and sum(map(len, terms)) + len(term) > _QUERY_LENGTH:
            yield " OR ".join(terms)
            terms = []
        terms.append(term)
    if terms:
        yield " OR ".join(terms)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _new_password() -> str:
    """Return a random password that any password policy accepts; it is stored nowhere."""
    letters = [secrets.choice(kind) for kind in _PASSWORD_LETTERS]
    every = "".join(_PASSWORD_LETTERS)
    letters += [secrets.choice(every) for _ in range(_PASSWORD_LENGTH - len(letters))]
    secrets.SystemRandom().shuffle(letters)
    return "".join(letters)

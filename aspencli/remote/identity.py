"""The identity provider of a target, through its Management API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from typing import TypeVar, cast
from urllib.parse import urlsplit

from aspen.identity.management import (
    Credentials,
    Management,
    ManagementCredentialsError,
    ManagementError,
    ManagementUnavailableError,
    Pace,
    Patience,
    connected,
)
from aspencli.addresses import origin_of, proxy_for
from aspencli.errors import (
    AspenError,
    ConflictError,
    CredentialsError,
    NotFoundError,
    ServiceAnswer,
    UncertainError,
    UnreachableError,
)
from aspencli.remote.http import trusted_by, valid_proxy

T = TypeVar("T")
_WHAT = "the identity provider (AUTH0_MANAGEMENT_DOMAIN)"
PATIENCE = Patience(seconds=60, tries=12, first=10, persists=True)
"""The patience with each request; an operator waits longer than the service does."""
_FORBIDDEN = 403
ONBOARDING_SCOPES = (
    *("read:users", "create:users", "update:users", "delete:users", "create:user_tickets"),
    *("read:connections", "read:roles"),
    *("read:organizations", "create:organizations", "delete:organizations"),
    *(f"{verb}:organization_members" for verb in ("read", "create", "delete")),
    *(f"{verb}:organization_member_roles" for verb in ("read", "create", "delete")),
    *(f"{verb}:organization_invitations" for verb in ("read", "create", "delete")),
)
"""The scopes that creating people and groups needs, and reverting that if a step fails."""
_END = object()


class IdentityProvider:
    """The identity provider of a target.

    Args:
        credentials: The credentials for its Management API, which are complete.

    Raises:
        BadInputError: Its address is not valid, or contains a password.
    """

    def __init__(self, credentials: Credentials):
        self._credentials = credentials
        self._origin = origin_of(credentials.url, _WHAT)
        self.host = urlsplit(credentials.url).netloc

    def _connected(self, patience: Patience) -> AbstractAsyncContextManager[Management]:
        """Return a client to open.

        Raises:
            BadInputError: A proxy or certificate setting cannot be used.
        """
        return connected(
            self._credentials,
            patience,
            Pace(),
            verify=trusted_by(self._origin),
            proxy=proxy_for(self._origin),
        )

    def run(
        self,
        work: Callable[[Management], Awaitable[T]],
        patience: Patience | None = None,
        *,
        is_known: bool = False,
    ) -> T:
        """Run asynchronous work with a client, and return its result.

        Requests are sent as fast as the provider's rate limit allows. Work that runs several at
        the same time can leave it to the client how many of them are in flight. ``is_known`` means
        that the provider has responded to this command before.

        Raises:
            AspenError: The provider refused a request, or did not respond in time.
        """
        patience = patience or PATIENCE
        if is_known:
            patience = replace(patience, first=None)
        try:
            return asyncio.run(self._connect_and_work(work, patience))
        except (ManagementError, ManagementUnavailableError) as error:
            raise self.explained(error) from error

    async def _connect_and_work(
        self, work: Callable[[Management], Awaitable[T]], patience: Patience
    ) -> T:
        async with AsyncExitStack() as exits:
            with valid_proxy():
                management = await exits.enter_async_context(self._connected(patience))
            return await work(management)

    def missing_scopes(self) -> list[str] | None:
        """Return the scopes that onboarding needs and the credentials lack; None if not known.

        Raises:
            AspenError: The provider rejected the credentials, or did not respond in time.
        """
        granted = self.run(lambda management: management.granted_scopes(), Patience())
        return None if granted is None else [one for one in ONBOARDING_SCOPES if one not in granted]

    def stream(self, work: Callable[[Management], AsyncIterator[T]]) -> Iterator[T]:
        """Run asynchronous work with one client, and yield its results as they come.

        Raises:
            AspenError: The provider refused a request, or did not respond in time.
        """
        with asyncio.Runner() as runner:
            exits = AsyncExitStack()
            opening = exits.enter_async_context(self._connected(PATIENCE))
            try:
                with valid_proxy():
                    management = runner.run(opening)
                results = work(management)
                while (found := runner.run(_next(results))) is not _END:
                    yield cast("T", found)
            except (ManagementError, ManagementUnavailableError) as error:
                raise self.explained(error) from error
            finally:
                runner.run(exits.aclose())

    def explained(self, error: ManagementError | ManagementUnavailableError) -> AspenError:
        """Return the error with a message for the operator."""
        if isinstance(error, ManagementCredentialsError):
            return CredentialsError(
                f"The identity provider {self.host} rejected the management credentials: {error}.",
                hint="Check AUTH0_MANAGEMENT_CLIENT_ID and AUTH0_MANAGEMENT_CLIENT_SECRET (their "
                "source: aspencli config show), and that the provider authorizes this client for "
                "its Management API.",
            )
        if isinstance(error, ManagementUnavailableError):
            kind: type[AspenError] = UncertainError if error.is_uncertain else UnreachableError
            return kind(
                f"The identity provider {self.host} did not respond: {error}.",
                hint="Try again in a minute. If it persists, check AUTH0_MANAGEMENT_DOMAIN (its "
                "source: aspencli config show).",
            )
        answer = ServiceAnswer(error.status, error.message)
        message = f"The identity provider {self.host} refused the request: {error.message}"
        if error.status == _FORBIDDEN:
            return CredentialsError(
                message,
                hint="Give the management client the scope that is named above.",
                answer=answer,
            )
        kind = NotFoundError if error.absent else ConflictError if error.taken else AspenError
        return kind(message, answer=answer)


async def _next(results: AsyncIterator[T]) -> T | object:
    return await anext(results, _END)

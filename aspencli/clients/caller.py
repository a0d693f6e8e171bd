"""Requests with retries, and explanations if they are never answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from aspencli.clients.http import Answer, Http, Request
from aspencli.clients.retrying import (
    BUSY,
    Deadline,
    Patience,
    Persistence,
    SetbackError,
    UnsettledError,
    busy,
)
from aspencli.errors import ServiceAnswer, UncertainError, UnreachableError

T = TypeVar("T")
_SAFE = frozenset({"GET", "HEAD"})


class Caller:
    """A client of one server that retries requests if possible.

    Args:
        http: The connection.
        name: The display name of the server.
        hint: What to do if it does not respond.
        tell: Called with a message for each noticeable wait.
        persistence: The retry loop.
    """

    def __init__(
        self,
        http: Http,
        name: str,
        *,
        hint: str,
        tell: Callable[[str], None] = lambda _words: None,
        persistence: Persistence | None = None,
    ):
        self.http = http
        self.name = name
        self._hint = hint
        self._persistence = persistence or Persistence()
        self._persistence.tell = lambda words: tell(f"{name}: {words}")

    def call(
        self,
        asking: Callable[[], Request],
        read: Callable[[Answer], T],
        patience: Patience,
        *,
        safe: bool | None = None,
        settle: Callable[[], T | None] | None = None,
    ) -> T:
        """Send a request, and return what ``read`` makes of the response.

        Args:
            asking: Builds the request; called for each try.
            read: Converts a response, unless it means "try again later", into a result; called
                again if the first response breaks off.
            patience: The timeouts.
            safe: True if the request may be sent twice. Default: only if it just reads.
            settle: See `Persistence.run`.

        Raises:
            UncertainError: A change was sent, and it is not known whether it was made.
            UnreachableError: The server does not respond, or asks to come back later.
        """
        first = asking()
        may_repeat = first.method in _SAFE if safe is None else safe

        def attempt(deadline: Deadline) -> T:
            with self.http.open(asking(), deadline, patience) as answer:
                if answer.status in BUSY:
                    answer.read()  # so that the connection can be reused, and for the log
                    raise busy(answer.status, answer.headers)
                return read(answer)

        try:
            return self._persistence.run(attempt, patience, safe=may_repeat, settle=settle)
        except UnsettledError as error:
            raise self._uncertain(first, error) from error
        except SetbackError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: SetbackError) -> UnreachableError:
        answer = None if error.status is None else ServiceAnswer(error.status)
        if error.wait is not None and error.wait >= 1:
            return UnreachableError(
                f"{self.name} cannot serve this now: {error.reason}",
                hint=f"It asks to wait {error.wait:,.0f} s; then try again.",
                answer=answer,
            )
        if error.status is not None:
            return UnreachableError(
                f"{self.name} cannot serve this now: {error.reason}",
                hint="Try again in a few minutes.",
                answer=answer,
            )
        hint = self._hint
        if "certificate" in error.reason:
            hint = (
                "If your network has its own certificates, name their file with SSL_CERT_FILE; "
                "and check this machine's clock."
            )
        tried = f" (tried {error.tries} times)" if error.tries > 1 else ""
        return UnreachableError(
            f"{self.name} does not answer at {self.http.origin}: {error.reason}{tried}",
            hint=hint,
            details=[f"asked through the proxy {self.http.proxy}"] if self.http.proxy else (),
        )

    def _uncertain(self, request: Request, error: UnsettledError) -> UncertainError:
        return UncertainError(
            f"{self.name} was asked for a change, and its answer was lost ({error}): "
            "it may have been made, or not",
            hint="Look before you do it again.",
            details=[f"{request.method} {request.path}"],
        )

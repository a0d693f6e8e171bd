"""A way to the provider's Management API on which requests can be counted, refused, and lost."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import httpx

from tests.conftest import BRIEFLY_IDLE
from tests.local.auth0.lab import _TLS
from tests.remote.naughty import Naughty, Reply, Seen, hang_up, reply, reply_json

Forward = Callable[[], Reply]
Rule = Callable[[Seen, Forward], Reply | None]
"""Returns the reply to a request, which it may forward; None to leave it to the other rules."""
_PASSED = {"authorization", "content-type", "accept"}
_RETURNED = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "retry-after")


class Detour:
    """A server that passes requests on to a provider, unless a rule says otherwise.

    Args:
        provider: The provider's address.

    Attributes:
        rules: The rules, of which the first that applies decides.
        calls: The method and path of each Management API request, in order.
        mailed: The address and organization of each invitation that the provider sent.
    """

    def __init__(self, provider: str):
        self.rules: list[Rule] = []
        self.calls: list[tuple[str, str]] = []
        self.mailed: list[tuple[str, str]] = []
        self._provider = provider.rstrip("/")
        self._server = Naughty(self._route)
        self._http = httpx.Client(timeout=60, verify=_TLS, limits=BRIEFLY_IDLE, trust_env=False)
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Return its address."""
        return self._server.url

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.__exit__(kind, error, trace)
        self._http.close()

    def fail(
        self,
        method: str,
        path: str,
        *,
        status: int | None = None,
        code: str = "",
        delivered: bool = False,
        times: int = 1_000_000,
    ) -> None:
        """Make some requests fail.

        Args:
            method: The method of these requests.
            path: A pattern for their path.
            status: The status of the reply; None to hang up without one.
            code: Auth0's code of the error; empty for none.
            delivered: True if the provider receives them.
            times: The number of requests that fail.
        """
        left = [times]

        def rule(seen: Seen, forward: Forward) -> Reply | None:
            with self._lock:
                if not left[0] or seen.method != method or not re.search(path, _path(seen)):
                    return None
                left[0] -= 1
            if delivered:
                forward()
            if status is None:
                return hang_up
            headers = {"Retry-After": "1"} if status == 429 else {}
            body = {"statusCode": status, "message": "made to fail"}
            return reply_json({**body, "errorCode": code} if code else body, status, headers)

        self.rules.append(rule)

    def count(self, method: str, path: str) -> int:
        """Return the number of requests with a method and a path that matches a pattern."""
        return sum(one == method and bool(re.search(path, where)) for one, where in self.calls)

    def _route(self, seen: Seen) -> Reply:
        if seen.target.startswith("/api/v2/"):
            with self._lock:
                self.calls.append((seen.method, _path(seen)))
        for rule in list(self.rules):
            answer = rule(seen, lambda: self._forward(seen))
            if answer is not None:
                return answer
        return self._forward(seen)

    def _forward(self, seen: Seen) -> Reply:
        body = seen.body
        if seen.target == "/oauth/token":  # its audience is the address that the client uses
            fields = json.loads(body)
            fields["audience"] = fields["audience"].replace(self.url, self._provider)
            body = json.dumps(fields).encode()
        answer = self._http.request(
            seen.method,
            self._provider + seen.target,
            headers={name: value for name, value in seen.headers.items() if name in _PASSED},
            content=body,
        )
        if seen.method == "POST" and _path(seen).endswith("/invitations") and answer.is_success:
            with self._lock:
                invitee = json.loads(body)["invitee"]["email"]
                self.mailed.append((invitee, _path(seen).split("/")[1]))
        headers = {name: answer.headers[name] for name in _RETURNED if name in answer.headers}
        kind = answer.headers.get("content-type", "text/plain")
        return reply(answer.status_code, answer.content, headers, kind=kind)


def _path(seen: Seen) -> str:
    return seen.target.partition("?")[0].removeprefix("/api/v2/")

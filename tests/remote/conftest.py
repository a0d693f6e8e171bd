"""Fixtures shared by the client tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from aspencli.remote.api import Api, ApiCalls
from aspencli.remote.http import Http, WireLog
from aspencli.remote.retry import Caller, Persistence
from tests.remote.naughty import Naughty, Reply, Route

Serving = Callable[..., Naughty]


@dataclass
class Tokens:
    """A sequence of tokens; each replaces the one that was refused before it."""

    left: list[str] = field(default_factory=lambda: ["first"])
    refused: list[str] = field(default_factory=list)

    def token(self) -> str:
        return self.left[0]

    def renew(self, refused: str) -> str | None:
        self.refused.append(refused)
        self.left.pop(0)
        return self.left[0] if self.left else None

    def advice(self) -> str:
        return "sign in again"


@dataclass
class Client:
    """An API client on a server, with a record of what it said and did."""

    api: Api
    calls: ApiCalls
    server: Naughty
    tokens: Tokens
    told: list[str]
    slept: list[float]
    log: list[str]


@pytest.fixture
def serving() -> Iterator[Serving]:
    """Yield a function that starts servers, and stop them with the test."""
    with ExitStack() as exits:

        def start(*replies: Reply, route: Route | None = None) -> Naughty:
            return exits.enter_context(Naughty(route or list(replies)))

        yield start


@pytest.fixture
def client(serving: Serving) -> Iterator[Callable[..., Client]]:
    """Yield a factory of clients for given replies; they record pauses instead of sleeping."""
    with ExitStack() as exits:

        def make(
            *replies: Reply,
            route: Route | None = None,
            tokens: list[str] | None = None,
            cookie: str | None = None,
        ) -> Client:
            server = serving(*replies, route=route)
            told: list[str] = []
            slept: list[float] = []
            log: list[str] = []
            http = Http(server.url, "the API", log=WireLog(log.append))
            exits.callback(http.close)
            caller = Caller(
                http,
                "the mylab API",
                hint="check it",
                tell=told.append,
                persistence=Persistence(sleep=slept.append),
            )
            source = Tokens(tokens or ["first"])
            calls = ApiCalls(caller, source, cookie)
            return Client(Api(calls), calls, server, source, told, slept, log)

        yield make

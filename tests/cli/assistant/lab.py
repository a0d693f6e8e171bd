"""An assistant: a client of the official SDK, and the server that it starts."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any, TypeVar

import anyio
import psutil
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp_types import CallToolResult, Implementation, TextContent

from tests import zygote

T = TypeVar("T")
NAME = "test-assistant"
_PATIENCE_S = 30.0


class Assistant:
    """An assistant on this machine.

    Args:
        variables: Variables of the server's environment, besides those of the test.
        home: The home folder of the program.
    """

    def __init__(self, variables: Mapping[str, str], home: Path):
        self.env = {**os.environ, **variables}
        self.home = home

    def run(self, talk: Callable[[Client], Awaitable[T]], *arguments: str) -> T:
        """Start the server with arguments, and talk to it.

        The arguments are those of ``aspencli mcp``; global options work as well.
        """

        async def main() -> T:
            server = StdioServerParameters(
                command=sys.executable, args=["-m", "aspencli", "mcp", *arguments], env=self.env
            )
            info = Implementation(name=NAME, version="1.0")
            with (self.home.parent / "server.log").open("a") as log:
                async with Client(stdio_client(server, log), client_info=info) as client:
                    return await talk(client)

        found: T = anyio.run(main)
        return found

    def call(self, name: str, arguments: Mapping[str, Any] | None = None) -> CallToolResult:
        """Start the server, and call one tool."""
        return self.calls([(name, arguments or {})])[0]

    def calls(
        self, wanted: Sequence[tuple[str, Mapping[str, Any]]], *arguments: str
    ) -> list[CallToolResult]:
        """Start the server with arguments, and call tools one after the other."""

        async def talk(client: Client) -> list[CallToolResult]:
            return [await client.call_tool(name, dict(given)) for name, given in wanted]

        return self.run(talk, *arguments)

    def history(self) -> list[dict[str, Any]]:
        """Return the history, newest first, as ``history list`` shows it."""
        done = zygote.run_text(["history", "list", "-o", "json"], env=self.env)
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def shown(self, run: str) -> dict[str, Any]:
        """Return a run as ``history show`` shows it."""
        done = zygote.run_text(["history", "show", run, "-o", "json"], env=self.env)
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found[0]

    @contextmanager
    def server(self, *arguments: str) -> Iterator[Speaker]:
        """Start the server as a process that the test speaks to itself."""
        words = [sys.executable, "-m", "aspencli", *arguments, "mcp"]
        with Popen(words, env=self.env, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
            try:
                speaker = Speaker(process)
                speaker.greet()
                yield speaker
            finally:
                process.kill()


class Speaker:
    """The protocol, line by line."""

    def __init__(self, process: Popen[bytes]):
        self.process = process
        self.lines: list[bytes] = []

    def greet(self) -> None:
        """Initialize the connection."""
        about = {"protocolVersion": "2025-06-18", "capabilities": {}}
        self.ask(0, "initialize", {**about, "clientInfo": {"name": NAME, "version": "1.0"}})
        self.read()
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def ask(self, number: int, method: str, params: Mapping[str, Any]) -> None:
        """Send a request."""
        self.send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def read(self) -> dict[str, Any]:
        """Return the next message; every line of the server has to be one."""
        assert self.process.stdout
        self.lines.append(self.process.stdout.readline())
        found: dict[str, Any] = json.loads(self.lines[-1])
        return found

    def children(self) -> list[psutil.Process]:
        """Return the processes that the server started."""
        found: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        return found


def texts(result: CallToolResult) -> list[str]:
    """Return the texts of a result."""
    return [part.text for part in result.content if isinstance(part, TextContent)]


def rows(result: CallToolResult) -> list[dict[str, Any]]:
    """Return the rows of a result."""
    assert not result.is_error, texts(result)
    found: list[dict[str, Any]] = json.loads(texts(result)[0])
    return found


def said(result: CallToolResult) -> str:
    """Return the error that a tool reports."""
    assert result.is_error, texts(result)
    return "\n".join(texts(result))


def until(condition: Callable[[], Any], within: float = _PATIENCE_S) -> Any:
    """Return what a condition returns as soon as that is true."""
    end = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < end, "this did not become true"
        time.sleep(0.05)
    return found

"""Requests per second with two workers and with one: same service, database, and load."""

from __future__ import annotations

import json
import re
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from statistics import median
from urllib.parse import urlsplit

import psutil

from aspen.local.seed import seed_base, seed_samples
from benchmarks.speed.lab import running
from benchmarks.speed.measuring import Comparison, Sample
from benchmarks.speed.serving import Server, free_port, serving
from tests.api.conftest import Provider, settings_of_tests

_SAMPLES_OF_GROUP, _CLIENTS, _REQUESTS = 100, 8, 400
_GOAL = 1 / 1.6
_PATH = "/v2/orgs/1/pathogens/SC2/samples/"


def measure(rounds: int) -> Iterator[Comparison]:
    """Measure lists and changes with one worker and with two, in turns."""
    with running() as (_folder, cluster, owner), ExitStack() as stack:
        seed_base(owner)
        seed_samples(owner, _SAMPLES_OF_GROUP, group=1)
        provider = Provider()
        stack.callback(provider.close)
        token = provider.token("auth0|gadmin")
        one, two = (
            stack.enter_context(_service(cluster.url(), provider.url, workers)).asked_by(token)
            for workers in (1, 2)
        )
        listed = one.json(_PATH)["samples"][:10]
        body = json.dumps({"samples": [_record(sample) for sample in listed]}).encode()
        for method, sent in (("GET", None), ("PUT", body)):
            yield from _compared(one, two, method, sent, rounds)


def _service(dsn: str, provider: str, workers: int) -> AbstractContextManager[Server]:
    port = free_port()
    settings = settings_of_tests(dsn, provider, f"http://127.0.0.1:{port}")
    command = ["-m", "aspen.api", "--workers", str(workers)]
    return serving(command, port, settings, "/v2/health/ready")


def _compared(
    one: Server, two: Server, method: str, body: bytes | None, rounds: int
) -> Iterator[Comparison]:
    """Yield the comparison by the clock, and that of the busiest worker's CPU time."""
    clock: dict[int, list[float]] = {one.pid: [], two.pid: []}
    busiest: dict[int, list[float]] = {one.pid: [], two.pid: []}
    for number in range(rounds + 1):
        for server in (one, two):
            before = _cpu_seconds(server)
            seconds = _load(server, method, body)
            after = _cpu_seconds(server)
            if number:  # the first round prepares statements and fills caches
                clock[server.pid].append(seconds)
                busiest[server.pid].append(max(after[pid] - before[pid] for pid in after))
    rows = _SAMPLES_OF_GROUP if body is None else 10
    for what, found, goal in (
        ("two workers", clock, None),
        ("two workers, CPU of the busiest", busiest, _GOAL),
    ):
        ours, theirs = (Sample(median(found[server.pid]), 0.0) for server in (two, one))
        task = f"{method} samples, {what}, {_REQUESTS} requests"
        yield Comparison(task, "one worker", ours, theirs, goal, rows=rows, rounds=rounds)


def _cpu_seconds(server: Server) -> dict[int, float]:
    process = psutil.Process(server.pid)
    times = {one.pid: one.cpu_times() for one in (process, *process.children(recursive=True))}
    return {pid: found.user + found.system for pid, found in times.items()}


def _load(server: Server, method: str, body: bytes | None) -> float:
    """Send requests over several connections; return the seconds until the last response."""
    address = urlsplit(server.url)
    headers = {"Host": address.netloc, **server.headers}
    if body is not None:
        headers["Content-Length"] = str(len(body))
    lines = [f"{method} {_PATH} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    request = "\r\n".join([*lines, "", ""]).encode() + (body or b"")
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_connection((address.hostname, address.port)))
            for _ in range(_CLIENTS)
        ]
        began = time.perf_counter()
        _exchange(sockets, request)
        return time.perf_counter() - began


def _exchange(sockets: list[socket.socket], request: bytes) -> None:
    # One thread without a lock to wait for: eight threads cost as much CPU as PostgreSQL.
    waiting = _REQUESTS - len(sockets)
    with selectors.DefaultSelector() as selector:
        for one in sockets:
            one.sendall(request)
            selector.register(one, selectors.EVENT_READ, (one, _Response()))
        while selector.get_map():
            for key, _ in selector.select():
                source, response = key.data
                if not response.feed(source.recv(1 << 20)):
                    continue
                if waiting:
                    waiting -= 1
                    source.sendall(request)
                    selector.modify(source, selectors.EVENT_READ, (source, _Response()))
                else:
                    selector.unregister(source)


class _Response:
    """A response being read, chunked or with its length in the header."""

    def __init__(self) -> None:
        self._head: bytes | None = b""
        self._left: int | None = None
        self._tail = b""

    def feed(self, data: bytes) -> bool:
        """Take more of it; return True once it is complete.

        Raises:
            RuntimeError: The connection was closed, or the status is not 200.
        """
        if not data:
            raise RuntimeError("the service closed the connection")
        if self._head is not None:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return False
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"the service answered {head.splitlines()[0].decode()}")
            length = re.search(rb"content-length: (\d+)", head.lower())
            self._left = int(length[1]) if length else None
            self._head = None
        if self._left is not None:
            self._left -= len(data)
            return self._left <= 0
        self._tail = (self._tail + data)[-7:]
        return self._tail == b"\r\n0\r\n\r\n"


def _record(sample: dict[str, object]) -> dict[str, object]:
    location = sample["collection_location"]
    assert isinstance(location, dict)
    kept = ("id", "collection_date", "private", "private_identifier", "public_identifier")
    return {**{key: sample[key] for key in kept}, "collection_location": location["id"]}

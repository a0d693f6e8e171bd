"""Several processes that serve one deployment: shared state and replacement."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import httpx
import psutil
import pytest

from aspen.api.protocol import SharingEventLoop
from aspen.database.engine import Database
from tests.api.conftest import Provider, settings_of_tests
from tests.conftest import Server

ME, SAMPLES = "/v2/users/me", "/v2/orgs/1/pathogens/SC2/samples/"
PATIENCE_S = 300  # a worker that dies while it is checked counts as hung, for 120 s


@dataclass(frozen=True)
class Workers:
    """A running ``python -m aspen.api --workers 2``."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path
    token: str

    @property
    def pids(self) -> set[int]:
        """Return the PIDs of the workers."""
        found = set()
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):  # it is ending, or already a zombie
                if "spawn_main" in " ".join(child.cmdline()):
                    found.add(child.pid)
        return found


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def serving(environment: Mapping[str, str], log: Path, token: str, port: int) -> Iterator[Workers]:
    command = [sys.executable, "-m", "aspen.api", "--port", str(port), "--workers", "2"]
    with (
        log.open("wb") as output,
        subprocess.Popen(command, env={**os.environ, **environment}, stderr=output) as process,
    ):
        workers = Workers(process, f"http://127.0.0.1:{port}", log, token)
        started = re.compile("Application startup complete|Started server process")
        try:
            until(lambda: process.poll() is not None or len(started.findall(log.read_text())) >= 4)
            yield workers
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def workers(
    postgres: Server,
    _seeded_template: str,
    provider: Provider,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Workers]:
    name = postgres.create(template=_seeded_template)
    database = Database(postgres.url(name))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    dsn = database.url.render_as_string(hide_password=False)
    settings = settings_of_tests(dsn, provider.url, f"http://127.0.0.1:{port}")
    log = tmp_path_factory.mktemp("workers") / "log"
    with serving(settings, log, provider.token("auth0|member"), port) as running:
        yield running
    database.dispose()
    postgres.drop(name)


class Clients:
    """Clients that send requests continuously, on kept and on new connections."""

    def __init__(self, workers: Workers):
        self._workers, self._stop = workers, threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(path, keeps))
            for path in (ME, SAMPLES)
            for keeps in (True, False)
        ]
        self.answered = 0
        self.failures: list[str] = []

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, path: str, keeps: bool) -> None:
        headers = {"Authorization": f"Bearer {self._workers.token}"}
        limits = httpx.Limits(max_keepalive_connections=1 if keeps else 0)
        with httpx.Client(
            base_url=self._workers.url, headers=headers, limits=limits, timeout=60, trust_env=False
        ) as client:
            while not self._stop.is_set():
                try:
                    status = client.get(path).status_code
                except httpx.TransportError as error:
                    self.failures.append(f"{path}, keeps={keeps}: {error!r}")
                else:
                    self.answered += 1
                    if status != 200:
                        self.failures.append(f"{path}, keeps={keeps}: {status}")


def test_rolling_restart_under_load_loses_no_request(workers: Workers) -> None:
    before = workers.pids
    assert len(before) == 2
    with Clients(workers) as clients:
        workers.process.send_signal(signal.SIGHUP)
        until(lambda: len(workers.pids) == 2 and not workers.pids & before)
        answered = clients.answered
        until(lambda: clients.answered > answered + 8)
    assert clients.failures == []


def test_worker_that_dies_is_replaced(workers: Workers) -> None:
    first = min(workers.pids)
    os.kill(first, signal.SIGKILL)
    until(lambda: len(workers.pids) == 2 and first not in workers.pids)
    headers = {"Authorization": f"Bearer {workers.token}"}
    for _ in range(20):  # each on its own connection, to either worker
        assert httpx.get(workers.url + ME, headers=headers, trust_env=False).status_code == 200


def test_pending_sign_in_is_known_to_every_worker(workers: Workers) -> None:
    # The state of a sign-in in progress is in a cookie, not in a process.
    states = set()
    for _ in range(10):
        answer = httpx.get(f"{workers.url}/v2/auth/login", trust_env=False)
        assert answer.status_code == 302
        back = httpx.get(
            f"{workers.url}/v2/auth/callback?state=other&code=x",
            headers={"Cookie": f"session={answer.cookies['session']}"},
            trust_env=False,
        )
        states.add((back.status_code, back.json().get("reason")))
    assert states == {(403, None)}


def test_workers_exit_when_parent_is_killed(workers: Workers) -> None:
    left = workers.pids
    workers.process.kill()
    workers.process.wait(PATIENCE_S)
    until(lambda: not any(psutil.pid_exists(pid) for pid in left))


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5"])
def test_invalid_number_of_workers_is_rejected(given: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "aspen.api", f"--workers={given}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 2
    assert f"must be a whole number, 1 or more: '{given}'" in done.stderr


def test_event_loop_accepts_one_connection_per_iteration() -> None:
    """Waiting connections are left to the other processes, which are woken as well."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        loop = SharingEventLoop()
        accepted = loop.run_until_complete(_accepted_by_turns(loop, listening, clients=8))
        loop.close()
    assert accepted[-1] == 8
    assert max(now - before for before, now in pairwise(accepted)) == 1


async def _accepted_by_turns(
    loop: asyncio.AbstractEventLoop, listening: socket.socket, *, clients: int
) -> list[int]:
    made: list[asyncio.Protocol] = []
    lost: asyncio.Queue[asyncio.Protocol] = asyncio.Queue()

    class Connection(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(self)

        def connection_lost(self, exc: Exception | None) -> None:
            lost.put_nowait(self)

    server = await loop.create_server(Connection, sock=listening, backlog=100)
    waiting = [socket.create_connection(listening.getsockname()) for _ in range(clients)]
    counts = [0]
    for _ in range(100 * clients):
        await asyncio.sleep(0)
        counts.append(len(made))
    for one in waiting:
        one.close()
    server.close()
    for _ in range(clients):
        await lost.get()
    return counts

"""HTTP servers in separate processes, and the cost of their answers."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx

from benchmarks.speed.measuring import Sample

_START_S, _ANSWER_S = 120, 300
_READ = 1 << 20


@dataclass(frozen=True)
class Server:
    """A process that answers HTTP requests.

    Attributes:
        pid: Its PID.
        url: Its address.
        headers: The headers of every request.
    """

    pid: int
    url: str
    headers: Mapping[str, str]

    def asked_by(self, token: str) -> Server:
        """Return the same server, called with a token."""
        return replace(self, headers={"Authorization": f"Bearer {token}"})

    def get(self, path: str) -> tuple[Sample, float]:
        """Read an answer; return its cost, and the seconds until its first byte."""
        return self._asked("GET", path)

    def put(self, path: str, body: bytes) -> Sample:
        """Send a body, read the answer, and return the cost."""
        return self._asked("PUT", path, body)[0]

    def json(self, path: str) -> Any:
        """Return the content of an answer."""
        url = self.url + path
        answer = httpx.get(url, headers=self.headers, timeout=_ANSWER_S, trust_env=False)
        return answer.raise_for_status().json()

    def _asked(self, method: str, path: str, body: bytes | None = None) -> tuple[Sample, float]:
        # The simplest client there is, because it shares the processors with the server.
        address = httpx.URL(self.url)
        self._forget_peak()
        began = time.perf_counter()
        connection = HTTPConnection(address.host, address.port, timeout=_ANSWER_S)
        try:
            connection.request(method, path, body, self.headers)
            answer = connection.getresponse()
            answer.read(1)
            first = time.perf_counter() - began
            while answer.read(_READ):
                pass
            sample = Sample(time.perf_counter() - began, self._peak_mb())
        finally:
            connection.close()
        if answer.status != HTTPStatus.OK:
            raise RuntimeError(f"{method} {path} was answered with {answer.status}")
        return sample, first

    def _forget_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def _peak_mb(self) -> float:
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text())
        return int(found[1]) / 1024 if found else 0.0


@contextmanager
def serving(
    arguments: Sequence[str], port: int, environment: Mapping[str, str], health: str
) -> Iterator[Server]:
    """Run Python with the given arguments; yield once ``health`` answers, and stop it afterward."""
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        [sys.executable, *arguments, "--port", str(port)],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            _wait(lambda: httpx.get(url + health, trust_env=False).is_success, process)
            yield Server(process.pid, url, {})
        finally:
            process.terminate()


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _wait(answers: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            if answers():
                return
        except httpx.TransportError:
            pass  # not up yet
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} does not answer")
        time.sleep(0.05)

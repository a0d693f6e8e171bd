"""``make attacks``: attack the service from this machine, and measure the effect on other users.

Each attack takes a few seconds. All go to a separate service on 127.0.0.1, to which another user
sends requests all the while. ARGS selects attacks; running all of them takes a few minutes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPException
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import quantiles
from urllib.parse import urlsplit

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from aspen.local.seed import seed_base, seed_samples
from benchmarks.speed.lab import running
from benchmarks.speed.serving import Server, free_port, serving
from tests.api.conftest import Provider, settings_of_tests

_SECONDS, _PAUSE_S = 8.0, 0.02
_SAMPLES_OF_GROUP = 10_000
_P95_S, _MEMORY_MB, _RECOVERY_S, _WELL_S = 1.0, 400.0, 5.0, 0.25
_FEW = 5
_SAMPLES, _SEARCH = "/v2/orgs/1/pathogens/SC2/samples/", "/v2/locations/search/"
_ME = "/v2/users/me"
_BLANKS = 1 << 20


@dataclass(frozen=True)
class Place:
    """The information that an attacker has.

    Attributes:
        host: The address.
        port: The port.
        tokens: A token of each user.
        until: The end of the attack, by the monotonic clock.
    """

    host: str
    port: int
    tokens: Mapping[str, str]
    until: float

    @property
    def goes_on(self) -> bool:
        """Return True while the attack lasts."""
        return time.monotonic() < self.until

    def connected(self) -> socket.socket:
        """Return a new connection."""
        return socket.create_connection((self.host, self.port), timeout=5)

    def head(self, method: str, path: str, who: str | None, *lines: str) -> bytes:
        """Return the head of a request."""
        token = [f"Authorization: Bearer {self.tokens[who]}"] if who else []
        return "\r\n".join(
            [f"{method} {path} HTTP/1.1", f"Host: {self.host}", *token, *lines, "", ""]
        ).encode()


Attack = Callable[[Place], None]


def _many(count: int, work: Callable[[Place], None]) -> Attack:
    """Return an attack that does something repeatedly in that many threads."""

    def repeat(place: Place) -> None:
        while place.goes_on:
            with suppress(OSError):
                work(place)

    def attack(place: Place) -> None:
        threads = [
            threading.Thread(target=repeat, args=(place,), daemon=True) for _ in range(count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(place.until + 1 - time.monotonic(), 0))

    return attack


def _ask(
    method: str, path: str, who: str | None, body: bytes = b"", *lines: str, reads: bool = True
) -> Callable[[Place], None]:
    """Return a function that sends a request, and reads its answer or leaves it unread."""

    def ask(place: Place) -> None:
        is_chunked = any(line.startswith("Transfer-Encoding") for line in lines)
        length = [f"Content-Length: {len(body)}"] if body and not is_chunked else []
        with place.connected() as connection:
            connection.settimeout(max(place.until - time.monotonic(), 0.1))
            connection.sendall(place.head(method, path, who, *length, *lines, "Connection: close"))
            for start in range(0, len(body), _BLANKS):
                connection.sendall(body[start : start + _BLANKS])
            while reads and connection.recv(_BLANKS):
                pass
            while not reads and place.goes_on:
                time.sleep(0.1)

    return ask


def _held(count: int, sent: Callable[[Place], bytes], trickle: bytes = b"") -> Attack:
    """Return an attack that holds connections open, with a part of a request on each."""

    def attack(place: Place) -> None:
        with ExitStack() as stack:
            held = []
            for _ in range(count):
                with suppress(OSError):
                    held.append(stack.enter_context(place.connected()))
                    held[-1].sendall(sent(place))
            while place.goes_on:
                time.sleep(0.5)
                for connection in held:
                    with suppress(OSError):
                        connection.sendall(trickle)

    return attack


def _both(*attacks: Attack) -> Attack:
    def attack(place: Place) -> None:
        threads = [threading.Thread(target=one, args=(place,)) for one in attacks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return attack


def _rows(count: int, place: int = 0) -> bytes:
    """Return the body of a request that changes samples."""
    rows = [
        {
            "id": number,
            "collection_location": place,
            "private": False,
            "private_identifier": f"attack-{number}",
            "public_identifier": f"hCoV-19/USA/attack-{number}/2026",
            "collection_date": "2021-01-01",
        }
        for number in range(1, count + 1)
    ]
    return json.dumps({"samples": rows}).encode()


def _names() -> bytes:
    names = [f"hCoV-19/USA/{number}/2021" for number in range(100_000)]
    return json.dumps({"sample_ids": names}).encode()


def _body_head(path: str, who: str | None, *lines: str) -> Callable[[Place], bytes]:
    return lambda place: place.head("POST", path, who, *lines)


def _pipeline(place: Place) -> None:
    with place.connected() as connection:
        connection.sendall(place.head("GET", "/v2/health/", None) * 500)
        while connection.recv(_BLANKS):
            if not place.goes_on:
                break


def _put(who: str | None, body: bytes, *lines: str, reads: bool = True) -> Callable[[Place], None]:
    return _ask("PUT", _SAMPLES, who, body, *lines, reads=reads)


def _search(who: str | None, body: bytes, *lines: str) -> Callable[[Place], None]:
    return _ask("POST", _SEARCH, who, body, *lines)


def _listed(path: str) -> Callable[[Place], bytes]:
    return lambda place: place.head("GET", path, "member")


def _empty(count: int) -> bytes:
    return b'{"samples": [%s{}]}' % (b"{}," * (count - 1))


def _with(more: bytes) -> bytes:
    """Return a body that changes nothing, with extra content in it."""
    return b'{"samples": [], "more": %s}' % more


def _keys(count: int) -> bytes:
    return b"{%s}" % b",".join(b'"%d":0' % number for number in range(count))


def _sequences() -> bytes:
    return json.dumps({"sample_ids": [f"attack-{n}" for n in range(9_999)]}).encode()


def _ids() -> bytes:
    return json.dumps({"ids": [*range(10**6, 10**6 + 100_000)]}).encode()


_CHUNKED = "Transfer-Encoding: chunked"
_FORM = "Content-Type: application/x-www-form-urlencoded"
_WORDS = {"country": "x" * 255, "division": "y" * 255, "location": "z" * 255}
_TINY = b"1\r\n \r\n" * 50_000
_LARGE = b"100000\r\n%s\r\n" % (b" " * _BLANKS)
_HEADERS = tuple(f"X-{number}: {'a' * 50}" for number in range(250))
_HALF = "Content-Length: 1000"

ATTACKS: Mapping[str, Callable[[], Attack]] = {
    "quiet": lambda: _many(0, lambda _place: None),
    "10,000 empty samples": lambda: _many(2, _put("viewer", _empty(10_000))),
    "40,000 empty samples": lambda: _many(2, _put("viewer", _empty(40_000))),
    "60 MB without a token": lambda: _many(3, _put(None, b" " * (60 << 20))),
    "60 MB with a token": lambda: _many(3, _put("viewer", b" " * (60 << 20))),
    "20 MB bodies": lambda: _many(8, _put("member", _with(b'"%s"' % (b"x" * (20 << 20))))),
    "20 MB chunked": lambda: _many(8, _put("viewer", _LARGE * 20 + b"0\r\n\r\n", _CHUNKED)),
    "20 unread lists": lambda: _held(20, _listed(_SAMPLES)),
    "200 unread lists": lambda: _held(200, _listed(_SAMPLES)),
    "20 unread locations": lambda: _held(20, _listed("/v2/locations/")),
    "20 unread answers to changes": lambda: _many(20, _put("member", _rows(2_000), reads=False)),
    "20 unread sequences": lambda: _many(
        20, _ask("POST", "/v2/orgs/1/sequences/", "member", _sequences(), reads=False)
    ),
    "400 half-sent requests": lambda: _both(
        _held(200, lambda place: place.head("GET", _ME, "member")[:-2], b"X-A: b\r\n"),
        _held(200, _body_head(_SEARCH, "member", _HALF), b" "),
    ),
    "1,500 idle connections": lambda: _held(1_500, lambda _place: b""),
    "1,500 half-sent bodies": lambda: _held(1_500, _body_head(_SEARCH, "viewer", _HALF), b" "),
    "half-sent pipelines": lambda: _held(
        200, lambda place: place.head("GET", "/v2/health/", None) + b"GET /v2", b"x"
    ),
    "500 pipelined requests": lambda: _many(4, _pipeline),
    "tiny chunks": lambda: _many(4, _search(None, _TINY, _CHUNKED)),
    "tiny chunks with a token": lambda: _many(4, _search("viewer", _TINY, _CHUNKED)),
    "nested lists": lambda: _many(4, _search("viewer", b"[" * 500_000)),
    "nested objects": lambda: _many(4, _search("viewer", b'{"a":' * 900 + b"1" + b"}" * 900)),
    "half a million values": lambda: _many(4, _put("viewer", _with(b"[%s0]" % (b"{}," * 249_000)))),
    "half a million keys": lambda: _many(4, _put("viewer", _with(_keys(490_000)))),
    "a number of a million digits": lambda: _many(
        4, _search("viewer", b'{"country": %s}' % (b"9" * 1_000_000))
    ),
    "NUL characters": lambda: _many(2, _put("viewer", _with(b"[%s0]" % (b'"\\u0000",' * 490_000)))),
    "16 kB heads": lambda: _many(8, _ask("GET", _ME, None, b"", *_HEADERS)),
    "5,000 parameters": lambda: _many(8, _ask("GET", f"{_ME}?{'&'.join(['a'] * 5_000)}", "viewer")),
    "long paths": lambda: _many(8, _ask("GET", "/v2/" + "a/" * 7_000, None)),
    "forms": lambda: _many(4, _search("viewer", b"a=1&" * 200_000, _FORM)),
    "bogus tokens": lambda: _many(
        8, _ask("GET", _ME, None, b"", "Authorization: Bearer e30.e30.e30")
    ),
    "100,000 names": lambda: _many(4, _ask("POST", f"{_SAMPLES}validate_ids/", "viewer", _names())),
    "100,000 ids to delete": lambda: _many(4, _ask("DELETE", _SAMPLES, "viewer", _ids())),
    "location searches": lambda: _many(16, _search("viewer", json.dumps(_WORDS).encode())),
    "lists": lambda: _many(16, _ask("GET", _SAMPLES, "member")),
    "changes of 10,000 samples": lambda: _many(4, _put("member", _rows(10_000))),
    "changes of 40,000 samples": lambda: _many(4, _put("viewer", _rows(40_000))),
}


@dataclass(frozen=True)
class Outcome:
    """The effects of an attack on other users."""

    name: str
    requests: int
    failed: int
    p95_s: float
    worst_s: float
    peak_mb: float
    recovery_s: float

    @property
    def holds(self) -> bool:
        """Return True if the service withstood the attack."""
        return (
            self.failed == 0
            and self.p95_s < _P95_S
            and self.peak_mb < _MEMORY_MB
            and self.recovery_s < _RECOVERY_S
        )


def _victim(place: Place, stop: threading.Event, path: str = _ME) -> tuple[list[float], int]:
    """Send requests as another user; return the seconds of each, and the number of failures."""
    seconds: list[float] = []
    failed = 0
    while not stop.is_set():
        began = time.perf_counter()
        connection = HTTPConnection(place.host, place.port, timeout=20)
        try:
            headers = {"Authorization": f"Bearer {place.tokens['g2admin']}"}
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            answer.read()
            failed += answer.status != 200
        except (OSError, HTTPException):
            failed += 1
        finally:
            connection.close()
        seconds.append(time.perf_counter() - began)
        time.sleep(_PAUSE_S)
    return seconds, failed


def _attack(name: str, place: Place, seconds: float, begun: Connection) -> None:
    attack = ATTACKS[name]()
    until = time.monotonic() + seconds
    begun.send(until)
    attack(replace(place, until=until))


def _start(name: str, place: Place, seconds: float) -> tuple[BaseProcess, float]:
    """Start the attack; return its process and end time."""
    # A separate process keeps the attacker from slowing down the measurement.
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_attack, args=(name, place, seconds, theirs))
    process.start()
    return process, float(mine.recv())


def measure(name: str, server: Server, tokens: Mapping[str, str], seconds: float) -> Outcome:
    """Attack the service, and measure the effects on other users."""
    address = urlsplit(server.url)
    assert address.hostname
    assert address.port
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")
    place = Place(address.hostname, address.port, tokens, 0.0)
    process, until = _start(name, place, seconds)
    stop = threading.Event()
    threading.Timer(until - time.monotonic(), stop.set).start()
    taken, failed = _victim(place, stop)
    ended = time.monotonic()
    process.kill()
    process.join()
    recovery = _recovered(place, ended)
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{server.pid}/status").read_text())
    peak = int(found[1]) / 1024 if found else 0.0
    p95 = quantiles(taken, n=20)[-1] if len(taken) > 1 else taken[0]
    return Outcome(name, len(taken), failed, p95, max(taken), peak, recovery)


def _recovered(place: Place, since: float) -> float:
    """Wait until a few requests in a row are fast again; return the seconds that took."""
    began = time.monotonic()
    well = 0
    while well < _FEW and time.monotonic() < since + 30:
        before = time.monotonic()
        stop = threading.Event()
        threading.Timer(0.001, stop.set).start()
        _, failed = _victim(place, stop)
        took = time.monotonic() - before - _PAUSE_S
        well = well + 1 if not failed and took < _WELL_S else 0
        if well == 1:
            began = before
    return began - since


@contextmanager
def site() -> Iterator[tuple[Server, Mapping[str, str]]]:
    """Run the service in a process on a database with two large groups; yield it and tokens."""
    with running("aspen-attacks-") as (_folder, cluster, owner), ExitStack() as stack:
        seed_base(owner)
        seed_samples(owner, _SAMPLES_OF_GROUP, group=1)
        with owner.begin() as session:
            session.execute(sa.text("ANALYZE"))
        provider = Provider()
        stack.callback(provider.close)
        port = free_port()
        settings = settings_of_tests(cluster.url(), provider.url, f"http://127.0.0.1:{port}")
        server = stack.enter_context(
            serving(["-m", "aspen.api"], port, settings, "/v2/health/ready")
        )
        people = ("member", "viewer", "g2admin")
        yield server, {who: provider.token(f"auth0|{who}") for who in people}


def main() -> int:
    """Run the attacks; exit with 1 if other users were affected too much."""
    parser = argparse.ArgumentParser(prog="make attacks", description=__doc__)
    parser.add_argument(
        "attacks", nargs="*", choices=[[], *ATTACKS], help="attacks to run (default: all)"
    )
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="duration of each attack")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    chosen = parser.parse_args()
    table = Table(
        "attack", "requests", "failed", "p95 s", "worst s", "peak MB", "recovery s", box=None
    )
    found = []
    with site() as (server, tokens):
        for name in chosen.attacks or ATTACKS:
            one = measure(name, server, tokens, chosen.seconds)
            found.append(one)
            cells = (
                *(name, str(one.requests), str(one.failed)),
                *(f"{one.p95_s:.3f}", f"{one.worst_s:.3f}"),
                *(f"{one.peak_mb:.0f}", f"{one.recovery_s:.1f}"),
            )
            sys.stderr.write(" | ".join(cells) + "\n")
            table.add_row(*cells, style=None if one.holds else "red")
    Console(width=140 if not sys.stdout.isatty() else None).print(table)
    if chosen.json:
        chosen.json.write_text(json.dumps([vars(one) for one in found], indent=2) + "\n")
    return 0 if all(one.holds for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())

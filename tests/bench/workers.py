"""Requests per second with two workers and with one: same service, database, and load."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from db.database import Database
from local.postgres import SUPERUSER, Cluster
from local.prepare import prepare
from local.seed import seed_base, seed_samples
from tests.api.conftest import Provider, settings_of_tests
from tests.bench.measuring import Comparison, Sample, compare
from tests.bench.serving import Server, free_port, serving

_SAMPLES_OF_GROUP, _CLIENTS, _REQUESTS = 100, 8, 400
_GOAL = 1 / 1.6
_PATH = "/v2/orgs/1/pathogens/SC2/samples/"


def measure(rounds: int) -> Iterator[Comparison]:
    """Measure lists and changes with one worker and with two, in turns."""
    with tempfile.TemporaryDirectory(prefix="aspen-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)  # the server's account needs to pass through
        cluster = Cluster(folder)
        stack.callback(cluster.reset)
        cluster.up()
        prepare(cluster)
        owner = Database(cluster.url(user=SUPERUSER), writable=True)
        stack.callback(owner.dispose)
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
            yield _compared(one, two, method, sent, rounds)


def _service(dsn: str, provider: str, workers: int) -> AbstractContextManager[Server]:
    port = free_port()
    settings = settings_of_tests(dsn, provider, f"http://127.0.0.1:{port}")
    command = ["-m", "api", "--workers", str(workers)]
    return serving(command, port, settings, "/v2/health/ready")


def _compared(one: Server, two: Server, method: str, body: bytes | None, rounds: int) -> Comparison:
    found = compare(
        f"{method} samples, two workers, {_REQUESTS} requests",
        lambda: _load(two, method, body),
        "one worker",
        lambda: _load(one, method, body),
        goal=_GOAL,
        rounds=rounds,
    )
    return replace(found, rows=_SAMPLES_OF_GROUP if body is None else 10)


def _load(server: Server, method: str, body: bytes | None) -> Sample:
    """Send all requests from several clients at once, and return the cost."""
    address = urlsplit(server.url)

    def ask() -> None:
        connection = HTTPConnection(str(address.hostname), address.port, timeout=60)
        for _ in range(_REQUESTS // _CLIENTS):
            connection.request(method, _PATH, body, dict(server.headers))
            connection.getresponse().read()
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(_CLIENTS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Sample(time.perf_counter() - began, 0.0)


def _record(sample: dict[str, object]) -> dict[str, object]:
    location = sample["collection_location"]
    assert isinstance(location, dict)
    kept = ("id", "collection_date", "private", "private_identifier", "public_identifier")
    return {**{key: sample[key] for key in kept}, "collection_location": location["id"]}

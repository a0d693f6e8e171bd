"""Commands that read the API's list of samples, compared with curl, which throws it away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from aspen.database.engine import Database
from benchmarks.speed.lab import GROUP, aspencli, fill, running
from benchmarks.speed.measuring import Comparison, Sample, compare, run
from benchmarks.speed.serving import Server, free_port, serving
from tests.api.conftest import CLIENT_ID, Provider, settings_of_tests

SMALL, FULL = 100_000, 1_000_000  # samples in the group
LIST, UPDATE = "samples list --via api --limit 100", "samples update ONE, through the API"
_MEMORY_MB = 120
_GOAL = 3.0
_PATH = f"/v2/orgs/{GROUP}/pathogens/SC2/samples/"


class Bench:
    """A service with a long list, its command line, and curl.

    Args:
        folder: The folder for files.
        server: The service.
        provider: The provider whose tokens it accepts.
        sample: The values of one of the samples.
    """

    def __init__(self, folder: Path, server: Server, provider: Provider, sample: dict[str, Any]):
        self._folder = folder
        self._server = server
        self._provider = provider
        self._sample = sample
        self._runs = 0

    def list(self) -> Sample:
        """List a few samples."""
        return self._ours("list", "--limit", "100")

    def update(self) -> Sample:
        """Update a sample that is named by its identifier."""
        name, date = self._sample["private_identifier"], self._next_day()
        return self._ours("update", name, "--collection-date", date, "--yes")

    def list_by_hand(self) -> Sample:
        """Request the list."""
        return self._curl()

    def update_by_hand(self) -> Sample:
        """Request the list, and then an update of the whole record."""
        listed = self._curl()
        body = self._folder / "body.json"
        record = {**self._sample, "collection_location": 0, "collection_date": self._next_day()}
        body.write_text(json.dumps({"samples": [record]}))
        words = ("-X", "PUT", "-H", "Content-Type: application/json", "--data", f"@{body}")
        written = self._curl(*words)
        return replace(listed, seconds=listed.seconds + written.seconds)

    def _ours(self, *words: str) -> Sample:
        environment = {
            "ASPEN_HOME": str(self._folder / "home"),
            "ASPEN_API": self._server.url,
            "ASPEN_VIA": "api",
            "ASPEN_AUTH_URL_LOCAL": self._provider.url,
            "ASPEN_AUTH_CLIENT_ID_LOCAL": CLIENT_ID,
            "ASPEN_TOKEN": self._token,
            "PYTHONPYCACHEPREFIX": str(self._folder / "bytecode"),
        }
        command = ("samples", *words, "--org", str(GROUP), "--pathogen", "SC2", "-o", "tsv")
        return run([aspencli(), *command], environment)

    def _curl(self, *words: str) -> Sample:
        secret = self._folder / "header"
        secret.write_text(f"Authorization: Bearer {self._token}\n")
        url = self._server.url + _PATH
        return run(["curl", "-sf", "-o", "/dev/null", "-H", f"@{secret}", *words, url])

    @property
    def _token(self) -> str:
        return self._provider.token("auth0|gadmin")

    def _next_day(self) -> str:
        self._runs += 1
        return f"2021-{self._runs // 28 + 1:02}-{self._runs % 28 + 1:02}"


def measure(samples: int, rounds: int) -> Iterator[Comparison]:
    """Measure a short list from a long one, and an update of a single sample."""
    with running() as (folder, cluster, owner), ExitStack() as stack:
        fill(owner, samples)
        provider = Provider()
        stack.callback(provider.close)
        port = free_port()
        settings = settings_of_tests(cluster.url(), provider.url, f"http://127.0.0.1:{port}")
        server = stack.enter_context(serving(["-m", "aspen.api"], port, settings, "/v2/health/"))
        bench = Bench(folder, server, provider, _first(owner))
        bench.list()  # to compile the modules
        for task, ours, beside, theirs in (
            (LIST, bench.list, "curl to /dev/null", bench.list_by_hand),
            (UPDATE, bench.update, "curl: GET to /dev/null, PUT", bench.update_by_hand),
        ):
            found = compare(task, ours, beside, theirs, goal=_GOAL, rounds=rounds)
            yield replace(found, rows=samples, samples=samples, goal_mb=_MEMORY_MB)


def _first(owner: Database) -> dict[str, Any]:
    """Return the values of the only sample with a genome, which updates need."""
    query = sa.text(
        "SELECT id, private, private_identifier, public_identifier FROM aspen.samples"
        " ORDER BY id LIMIT 1"
    )
    with owner.reading() as session:
        return dict(session.execute(query).one()._mapping)

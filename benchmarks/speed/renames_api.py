"""10,000 renames through an API as slow as the live one, compared with a single request.

The gate in front of our service makes changes and the list take as long as measured on the live
service: 50 rows 0.27 s, 250 0.48 s, 500 0.8 s, 10,000 86 to 106 s; a list of 10,000 9.5 s.
"""

from __future__ import annotations

import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from aspen.local.postgres.server import Cluster
from benchmarks.accidents_api.gate import Gate, Rules, as_live, put_records
from benchmarks.accidents_api.site import Site, opened
from benchmarks.speed.measuring import Comparison, Sample, run
from tests.cli.commands.renames_lab import Renames, write_mapping
from tests.conftest import Server

ROWS = 10_000
_LIST_S = 9.5
_GOAL = 0.3  # relative to one request
_MAPPING = "bench"


def measure(rows: int = ROWS) -> Iterator[Comparison]:
    """Measure each once, with and without the list and our own work."""
    with tempfile.TemporaryDirectory(prefix="aspen-bench-api-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # the server's account needs to pass through
        try:
            with opened(folder, Server(folder), rows) as site:
                rules = Rules(cost_s=as_live, list_s=_LIST_S)
                with Gate(site.api.url, rules) as gate:
                    theirs = _in_one_request(site, gate)
                    ours = _by_command(site, gate, rows)
                    yield _told("its requests", "one request", rows, _alone(gate, ours), theirs)
                    whole = replace(theirs, seconds=theirs.seconds + _LIST_S)
                    yield _told("list and all", "list, one request", rows, ours, whole)
        finally:
            Cluster(folder).reset()


def _told(task: str, baseline: str, rows: int, ours: Sample, theirs: Sample) -> Comparison:
    return Comparison(
        f"rename through a slow API: {task}",
        baseline,
        ours,
        theirs,
        goal=_GOAL,
        rows=rows,
        samples=rows,
        rounds=1,
    )


def _alone(gate: Gate, ours: Sample) -> Sample:
    """Return the time from the arrival of the first change to the answer to the last."""
    return replace(ours, seconds=gate.answered[-1] - gate.came[0])


def _in_one_request(site: Site, gate: Gate) -> Sample:
    body = put_records(site.renames, lambda name: f"{name}-one")
    request = urllib.request.Request(
        f"{gate.url}/v2/orgs/1/pathogens/SC2/samples/",
        body,
        {"Authorization": f"Bearer {site.token}", "Content-Type": "application/json"},
        method="PUT",
    )
    began = time.perf_counter()
    with urllib.request.urlopen(request, timeout=600) as answer:
        answer.read()
    return Sample(time.perf_counter() - began, 0)


def _by_command(site: Site, gate: Gate, rows: int) -> Sample:
    renames: Renames = site.renames
    wanted = {key: f"{_MAPPING}-{n:06}" for n, key in enumerate(renames.names())}
    mapping = write_mapping(site.folder / "ids.csv", dict(list(wanted.items())[:rows]))
    words = ["samples", "update-public-ids", "--group-id", "1", "--yes", "-f", str(mapping)]
    for told in (gate.sizes, gate.came, gate.answered):
        told.clear()
    home = site.folder / "home"
    sample = run([sys.executable, "-m", "aspencli", *words], site.environment(gate.url, home))
    sys.stderr.write(f"requests: {len(gate.sizes)}, of {gate.sizes} rows\n")
    return sample

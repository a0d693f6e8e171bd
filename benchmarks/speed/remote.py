"""The first row from a remote deployment beside a hand-written script, and data through a tunnel.

The script does the same with boto3, one ``ssh -W`` and psycopg2. Secret, bastion, and server are on
this machine, so only the work is measured, and no distance. The exception is a short list over a
line with a round-trip time of 80 ms, beside psql running the same SQL.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from psycopg2.extensions import make_dsn
from sqlalchemy import event

from aspen.database.engine import Database
from benchmarks.speed.measuring import Comparison, Sample, compare, run
from tests.deployments.rig import (
    BASTION,
    PASSWORD,
    Deployment,
    configured,
    operator,
    running,
    session_manager,
)

_ROUNDS, _FEW_ROUNDS = 20, 5
_COPIED, _RENAMED = 1_000_000, 100_000
_AWAY_S = 0.08  # round-trip time
_WITH_MASTER_S = 0.7
_BY_HAND = {"direct": "", "ssh": "ssh -W, ", "ssm": "the plugin, "}
_STATEMENT = "SELECT id, slug, name FROM aspen.pathogens ORDER BY id"
_SCRIPT = """
import json, os, socket, subprocess, sys, threading
import boto3, psycopg2

endpoint, ca, statement, way = sys.argv[1:]
session = boto3.Session(profile_name="genepi-dev", region_name="us-west-2")
client = session.client("secretsmanager", endpoint_url=endpoint)
secret = json.loads(client.get_secret_value(SecretId="gestaging/genepi-config")["SecretString"])
host, port = secret["DB_address"].split(":")
through = {}
if way == "ssh":
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        accepted, _ = listener.accept()
        with accepted:
            words = ["ssh", "-W", f"{host}:{port}", secret["bastion_host"]]
            subprocess.Popen(words, stdin=accepted, stdout=accepted, stderr=subprocess.DEVNULL)

    threading.Thread(target=serve, daemon=True).start()
    through = {"hostaddr": "127.0.0.1", "port": listener.getsockname()[1]}
if way == "ssm":
    request = {
        "Target": "ecs:cluster_task_runtime",
        "DocumentName": "AWS-StartPortForwardingSessionToRemoteHost",
        "Parameters": {"host": [host], "portNumber": [port]},
    }
    answer = session.client("ssm", endpoint_url=endpoint).start_session(**request)
    del answer["ResponseMetadata"]
    words = ["session-manager-plugin", "ANSWER", "us-west-2", "StartSession", "genepi-dev"]
    plugin = subprocess.Popen(
        [*words, json.dumps(request), endpoint],
        env={**os.environ, "ANSWER": json.dumps(answer)},
        stdout=subprocess.PIPE,
        text=True,
    )
    port_opened = next(line.split()[1] for line in plugin.stdout if line.startswith("Port "))
    through = {"hostaddr": "127.0.0.1", "port": port_opened}
connection = psycopg2.connect(
    **{"host": host, "port": port, **through},
    dbname="aspen_db",
    user=secret["DB_ro_username"],
    password=secret["DB_ro_password"],
    sslmode="verify-full",
    sslrootcert=ca,
)
connection.set_session(readonly=True)
with connection.cursor() as cursor:
    cursor.execute(statement)
    for row in cursor:
        print(*row, sep=",")
connection.close()
if way == "ssm":
    plugin.terminate()
"""


@dataclass(frozen=True)
class _Bench:
    deployment: Deployment
    script: Path

    def ours(self, where: Deployment) -> Sample:
        return self.run(where, "pathogens", "list", "--via", "db", "-o", "csv")

    def run(self, where: Deployment, *words: str) -> Sample:
        program = str(Path(sys.executable).with_name("aspencli"))
        return run([program, "--env", "staging", *words], where.environment)

    def by_hand(self, way: str, where: Deployment) -> Sample:
        words = [where.aws, str(where.ca), _STATEMENT, way]
        return run([sys.executable, str(self.script), *words], where.environment)

    def compared(self, task: str, way: str, deployment: Deployment) -> Comparison:
        return compare(
            task,
            lambda: self.ours(deployment),
            f"boto3, {_BY_HAND[way]}psycopg2 by hand",
            lambda: self.by_hand(way, deployment),
            goal=1.25,
            rounds=_ROUNDS,
        )


def measure() -> Iterator[Comparison]:
    """Measure the first row: directly, and through ssh, Session Manager, and an open master."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server's account needs to pass through
        with running(folder) as servers:
            deployment = operator(servers, folder)
            script = folder / "by_hand.py"
            script.write_text(_SCRIPT)
            bench = _Bench(deployment, script)
            direct = configured(deployment.aws, deployment.ca).replace(
                "[targets.staging]", '[targets.staging]\nway = "direct"'
            )
            deployment.put_secret("gestaging", DB_address=f"localhost:{deployment.port}")
            yield bench.compared("first row, direct", "direct", deployment.with_config(direct))
            deployment.put_secret("gestaging")
            yield bench.compared("first row, ssh", "ssh", deployment)
            with session_manager(deployment) as (_plugin, managed):
                yield bench.compared("first row, Session Manager (a stand-in)", "ssm", managed)
            control = (f"ControlPath {folder}/%C", "ControlMaster auto", "ControlPersist 600")
            deployment.with_ssh(*control)
            _ssh(deployment, BASTION, "true")
            found = bench.compared("first row, ssh with a control master", "ssh", deployment)
            yield found
            most = Sample(_WITH_MASTER_S, 0)
            yield replace(found, baseline="0.7 s", theirs=most, goal=1.0)
            yield from _data(bench, deployment, deployment.with_config(direct))
            yield _far_away(bench, deployment)
            _ssh(deployment, "-O", "exit", BASTION)


def _data(bench: _Bench, tunnel: Deployment, direct: Deployment) -> Iterator[Comparison]:
    """Measure large amounts of data, through the tunnel and directly."""

    def beside(task: str, rows: int, run: Callable[[Deployment], Sample]) -> Comparison:
        def directly() -> Sample:
            direct.put_secret("gestaging", DB_address=f"localhost:{direct.port}")
            return run(direct)

        def through() -> Sample:
            tunnel.put_secret("gestaging")
            return run(tunnel)

        found = compare(task, through, "directly", directly, goal=1.6, rounds=_FEW_ROUNDS)
        return replace(found, rows=rows)

    copy = f"\\copy (SELECT n, md5(n::text) FROM generate_series(1, {_COPIED}) n) to /dev/null"
    yield beside(
        "\\copy through ssh",
        _COPIED,
        lambda where: bench.run(where, "db", "psql", "-c", copy),
    )
    tunnel.add_samples(_RENAMED)
    files = itertools.cycle(_mappings(bench.script.parent))
    words = ("samples", "update-public-ids", "--via", "db", "--group-id", "1", "--yes", "-f")
    yield beside(
        "rename through ssh",
        _RENAMED,
        lambda where: bench.run(where, *words, str(next(files))),
    )


def _far_away(bench: _Bench, deployment: Deployment) -> Comparison:
    """Measure a short list over a long line, beside psql running the same SQL."""
    with _line(deployment.port) as port:
        names = {"user": "reader", "password": PASSWORD, "dbname": "aspen_db"}
        place = {"host": "localhost", "port": str(port)}
        tls = {"sslmode": "verify-full", "sslrootcert": str(deployment.ca)}
        login = f"reader:{quote(PASSWORD, safe='')}@localhost:{port}/aspen_db"
        address = f"postgresql://{login}?{urlencode(tls)}"
        configured_to = deployment.with_config(f"[targets.staging]\ndatabase_url = '{address}'\n")
        statement = _listing(Database(f"{deployment.superuser}"))
        words = ["psql", "-X", "-At", "-c", statement, make_dsn(**names, **place, **tls)]
        return compare(
            f"samples list --limit 3, {_AWAY_S * 1_000:.0f} ms away",
            lambda: bench.run(configured_to, "samples", "list", "--via", "db", "--limit", "3"),
            "psql with the same SQL",
            lambda: run(words),
            goal=1.2,
            rounds=_ROUNDS,
        )


def _listing(database: Database) -> str:
    """Return the SQL that lists three samples."""
    from aspencli.samples.listing import SampleList
    from aspencli.samples.models import SampleQuery

    statements: list[str] = []
    with database.reading() as session:

        @event.listens_for(session.connection(), "before_cursor_execute")
        def _keep(_connection: object, cursor: Any, statement: str, values: Any, *_: Any) -> None:
            statements.append(cursor.mogrify(statement, values).decode())

        list(SampleList(session, SampleQuery()).rows(4))
    database.dispose()
    return statements[-1]


@contextlib.contextmanager
def _line(server: int) -> Iterator[int]:
    """Yield a port that leads to a server's, where everything arrives half of `_AWAY_S` later."""

    def copy(one: socket.socket, other: socket.socket) -> None:
        sent: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

        def deliver() -> None:
            with contextlib.suppress(OSError):
                while True:
                    due, data = sent.get()
                    time.sleep(max(0.0, due - time.monotonic()))
                    if not data:
                        return other.shutdown(socket.SHUT_WR)
                    other.sendall(data)

        threading.Thread(target=deliver, daemon=True).start()
        data = b"-"
        while data:
            try:
                data = one.recv(1 << 16)
            except OSError:
                data = b""
            sent.put((time.monotonic() + _AWAY_S / 2, data))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = listener.accept()
                behind = socket.create_connection(("127.0.0.1", server))
                for each in (accepted, behind):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for pair in ((accepted, behind), (behind, accepted)):
                    threading.Thread(target=copy, args=pair, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


def _mappings(folder: Path) -> Iterator[Path]:
    """Yield two files; each of them renames all samples that the other one has renamed."""
    for mark in ("one", "two"):
        path = folder / f"{mark}.csv"
        rows = (f"more-{n},{mark}-{n}" for n in range(1, _RENAMED + 1))
        path.write_text("\n".join(("private_identifier,public_identifier", *rows, "")))
        yield path


def _ssh(deployment: Deployment, *words: str) -> None:
    subprocess.run(
        ["ssh", *words],
        env=dict(deployment.environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )

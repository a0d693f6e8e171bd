"""The first row from a remote deployment, compared with a hand-written script.

The script does the same with boto3, one ``ssh -W`` and psycopg2. Secret, bastion, and server are on
this machine, so only the work is measured, and no distance.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.speed.measuring import Comparison, Sample, compare, run
from tests.deployments.rig import BASTION, Deployment, configured, operator, running

_ROUNDS = 20
_STATEMENT = "SELECT count(*) FROM aspen.samples"
_SCRIPT = """
import json, socket, subprocess, sys, threading
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
    print(cursor.fetchone()[0])
connection.close()
"""


@dataclass(frozen=True)
class _Bench:
    deployment: Deployment
    script: Path

    def ours(self, environment: Mapping[str, str]) -> Sample:
        code = f"print(session.scalar(sa.text({_STATEMENT!r})))"
        program = str(Path(sys.executable).with_name("aspencli"))
        return run([program, "--env", "staging", "db", "interact", "-c", code], environment)

    def by_hand(self, way: str) -> Sample:
        words = [self.deployment.aws, str(self.deployment.ca), _STATEMENT, way]
        return run([sys.executable, str(self.script), *words], self.deployment.environment)

    def compared(self, task: str, way: str, deployment: Deployment) -> Comparison:
        return compare(
            task,
            lambda: self.ours(deployment.environment),
            "boto3, ssh -W, psycopg2 by hand",
            lambda: self.by_hand(way),
            goal=1.25,
            rounds=_ROUNDS,
        )


def measure() -> Iterator[Comparison]:
    """Measure the first row: directly, through ssh, and through ssh with an open control master."""
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
            control = (f"ControlPath {folder}/%C", "ControlMaster auto", "ControlPersist 600")
            deployment.with_ssh(*control)
            _ssh(deployment, BASTION, "true")
            yield bench.compared("first row, ssh with a control master", "ssh", deployment)
            _ssh(deployment, "-O", "exit", BASTION)


def _ssh(deployment: Deployment, *words: str) -> None:
    subprocess.run(
        ["ssh", *words],
        env=dict(deployment.environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )

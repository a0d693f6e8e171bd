"""Each part of the way to a database, broken in each way that operators meet.

Every command ends in time with one message that names the part, says what to do, and shows no
secret.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.deployments.rig import BASTION, PASSWORD, SERVER, Authority, Bastion, configured

if TYPE_CHECKING:
    from tests.conftest import Server
    from tests.deployments.rig import Deployment

_SECONDS = 12  # the longest that a command may take to say what is wrong
_SLOW_MACHINE_S = 30  # that it may need besides, if other tests use all cores


@dataclass
class Rig:
    """A deployment to break, and what has to be undone at the end."""

    deployment: Deployment
    exits: ExitStack
    plain: Server

    def secret(self, **changes: str | None) -> None:
        """Change values of the secret."""
        self.deployment.put_secret("gestaging", **changes)

    def setting(self, **values: str) -> None:
        """Add settings of the target."""
        lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
        head = "[targets.staging]\n"
        text = configured(self.deployment.aws, self.deployment.ca).replace(head, head + lines)
        self.deployment = self.deployment.with_config(text)

    def only(self, **values: str) -> None:
        """Make these the only settings of the target."""
        lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
        self.deployment = self.deployment.with_config(f"[targets.staging]\n{lines}")

    def variables(self, **values: str) -> None:
        """Set environment variables."""
        environment = {**self.deployment.environment, **values}
        self.deployment = replace(self.deployment, environment=environment)

    def profile(self, text: str) -> None:
        """Replace the operator's AWS configuration."""
        Path(self.deployment.environment["AWS_CONFIG_FILE"]).write_text(text)
        Path(self.deployment.environment["AWS_SHARED_CREDENTIALS_FILE"]).write_text("")

    def silent(self) -> int:
        """Return the port of a server that accepts connections and never says anything."""
        listener = self.exits.enter_context(socket.create_server(("127.0.0.1", 0)))
        return int(listener.getsockname()[1])

    def answering(self, status: int, code: str) -> str:
        """Return the address of an AWS that answers every request with an error."""

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                body = json.dumps({"__type": code, "message": f"{code} it is"}).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.1")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.exits.callback(server.server_close)
        self.exits.callback(server.shutdown)
        return f"http://127.0.0.1:{server.server_address[1]}"

    def ssh(self, *options: str) -> None:
        """Add options to the operator's ssh configuration; they win over the usual ones."""
        self.deployment.bastion.client(*options)
        self.exits.callback(self.deployment.bastion.client)

    def file(self, name: str, text: str = "") -> Path:
        """Return a new file."""
        path = self.deployment.folder / name
        path.write_text(text)
        path.chmod(0o600)
        return path

    def other_bastion(self, *options: str) -> None:
        """Go through another daemon, with its own options."""
        folder = self.deployment.bastion.folder.parent / f"bastion-{len(options)}-{os.getpid()}"
        bastion = self.exits.enter_context(Bastion(folder, options))
        environment = dict(self.deployment.environment)
        environment["PATH"] = f"{bastion.client()}:{os.environ['PATH']}"
        self.deployment = replace(self.deployment, environment=environment, bastion=bastion)


@pytest.fixture
def rig(deployment: Deployment, postgres: Server) -> Iterator[Rig]:
    with ExitStack() as exits:
        yield Rig(deployment, exits, postgres)


Break = Callable[[Rig], Any]
_SSO = """[profile genepi-dev]
region = us-west-2
sso_session = x
sso_account_id = 123456789012
sso_role_name = operator
[sso-session x]
sso_start_url = https://x.awsapps.example.org/start
sso_region = us-west-2
"""


def _process(command: str) -> str:
    return f"[profile genepi-dev]\nregion = us-west-2\ncredential_process = {command}\n"


def _without_ssh(rig: Rig) -> None:
    folder = rig.deployment.folder / "programs"
    folder.mkdir()
    for name in ("sh", "psql", "env"):
        found = shutil.which(name)
        if found:
            (folder / name).symlink_to(found)
    rig.variables(PATH=str(folder))


def _without_bastion(rig: Rig) -> None:
    rig.secret(bastion_host=None)
    rig.setting(way="ssh")


def _changed_key(rig: Rig) -> None:
    other = (rig.deployment.bastion.folder / "operator.pub").read_text().split()[:2]
    known = rig.file("known", f"{BASTION} {' '.join(other)}\n")
    rig.ssh(f"UserKnownHostsFile {known}")


def _reload(deployment: Deployment) -> None:
    """Make the server read its files again, and wait until it has."""
    (before,) = deployment.sql("SELECT pg_conf_load_time()")
    deployment.sql("SELECT pg_reload_conf()")
    while deployment.sql("SELECT pg_conf_load_time()") == [before]:
        time.sleep(0.05)


def _expired(rig: Rig) -> None:
    authority = Authority(rig.deployment.ca.parent)
    current = rig.deployment.ca.parent / f"{SERVER}-30.crt"
    rig.exits.callback(_reload, rig.deployment)  # after everything else
    for path in (current, current.with_suffix(".key"), rig.deployment.ca):
        before, owner = path.read_bytes(), path.stat()

        def restore(path: Path = path, before: bytes = before, owner: Any = owner) -> None:
            path.write_bytes(before)
            os.chown(path, owner.st_uid, owner.st_gid)

        rig.exits.callback(restore)
    certificate, key = authority.issue(SERVER, days=-1)
    shutil.copyfile(certificate, current)
    current.with_suffix(".key").write_bytes(key.read_bytes())
    _reload(rig.deployment)


def _other_authority(rig: Rig) -> None:
    folder = rig.deployment.folder / "other"
    folder.mkdir()
    rig.only(aws_endpoint_url=rig.deployment.aws, ca_file=str(Authority(folder).file))


def _without_tls(rig: Rig) -> None:
    url = rig.plain.url("postgres").replace("+psycopg2", "")
    port = url.rpartition(":")[2].partition("/")[0]
    rig.secret(DB_address=f"{SERVER}:{port}")


def _aws(status: int, code: str) -> Break:
    def broken(rig: Rig) -> None:
        rig.only(aws_endpoint_url=rig.answering(status, code), ca_file=str(rig.deployment.ca))

    return broken


_DIRECT = "postgresql://reader@localhost:{port}/aspen_db"

CASES: dict[str, tuple[Break, int, str]] = {
    "no profile": (lambda rig: rig.profile(""), 4, "AWS profile genepi-dev for staging"),
    "signed out of SSO": (lambda rig: rig.profile(_SSO), 4, "has expired or is missing"),
    "credential program fails": (
        lambda rig: rig.profile(_process("/bin/false")),
        4,
        "has expired or is missing",
    ),
    "credential program waits": (
        lambda rig: rig.profile(_process("/bin/sleep 100")),
        4,
        "did not arrive within 10 s",
    ),
    "no credentials": (
        lambda rig: rig.profile("[profile genepi-dev]\nregion = us-west-2\n"),
        4,
        "has no AWS credentials",
    ),
    "invalid AWS configuration": (lambda rig: rig.profile("[profile"), 2, "AWS configuration"),
    "AWS refuses connections": (
        lambda rig: rig.only(aws_endpoint_url="http://127.0.0.1:9", ca_file=str(rig.deployment.ca)),
        5,
        "AWS does not answer",
    ),
    "AWS is silent": (
        lambda rig: rig.only(aws_endpoint_url=f"http://127.0.0.1:{rig.silent()}"),
        5,
        "AWS does not answer",
    ),
    "invalid AWS address": (lambda rig: rig.only(aws_endpoint_url="nowhere"), 2, "nowhere"),
    "denied": (_aws(400, "AccessDeniedException"), 4, "AWS denied it to profile genepi-dev"),
    "throttled": (_aws(400, "ThrottlingException"), 5, "AWS is limiting requests"),
    "expired token": (_aws(400, "ExpiredTokenException"), 4, "has expired or is missing"),
    "unknown key": (_aws(400, "UnrecognizedClientException"), 4, "does not accept the credentials"),
    "AWS is broken": (_aws(500, "InternalServiceError"), 5, "or is overloaded"),
    "unknown AWS error": (_aws(400, "DecryptionFailure"), 2, "DecryptionFailure"),
    "no such secret": (
        lambda rig: rig.setting(secret_name="gestaging/other"),
        6,
        "it does not exist in region us-west-2",
    ),
    "secret is no JSON": (
        lambda rig: rig.deployment.put_text("gestaging/genepi-config", f"{{{PASSWORD}"),
        2,
        "is not a JSON object",
    ),
    "secret is a list": (
        lambda rig: rig.deployment.put_text("gestaging/genepi-config", json.dumps([PASSWORD])),
        2,
        "is not a JSON object",
    ),
    "no address in secret": (
        lambda rig: rig.secret(DB_address=None),
        2,
        "has no value for DB_address",
    ),
    "empty address in secret": (
        lambda rig: rig.secret(DB_address=""),
        2,
        "has no value for DB_address",
    ),
    "several servers in secret": (
        lambda rig: rig.secret(DB_address="one,two"),
        2,
        "does not name one server",
    ),
    "option as a bastion": (
        lambda rig: rig.secret(bastion_host="-oProxyCommand=touch x"),
        2,
        "is not the name of a bastion",
    ),
    "no login in secret": (
        lambda rig: rig.secret(DB_ro_username=None, DB_rw_username=None, DB_admin_username=None),
        2,
        "has no value for DB_admin_username",
    ),
    "no bastion in secret": (
        _without_bastion,
        2,
        "has no value for bastion_host",
    ),
    "ssh is not installed": (_without_ssh, 5, "ssh was not found"),
    "unknown host key": (
        lambda rig: rig.ssh(f"UserKnownHostsFile {rig.file('known')}"),
        4,
        "is not known, so ssh refused",
    ),
    "changed host key": (_changed_key, 4, "has changed, so ssh refused"),
    "wrong key": (
        lambda rig: rig.ssh("PubkeyAuthentication no"),
        4,
        "did not accept your ssh key",
    ),
    "silent bastion": (lambda rig: rig.ssh(f"Port {rig.silent()}"), 5, "did not answer"),
    "bastion refuses connections": (lambda rig: rig.ssh("Port 9"), 5, "cannot be reached"),
    "unknown bastion": (
        lambda rig: rig.ssh("HostName nowhere.invalid"),
        5,
        "could not be resolved",
    ),
    "forwarding is prohibited": (
        lambda rig: rig.other_bastion("AllowTcpForwarding no"),
        4,
        "does not allow forwarding",
    ),
    "ssh configuration is broken": (
        lambda rig: rig.ssh("NoSuchOption yes"),
        5,
        "ssh could not connect",
    ),
    "server refuses connections": (
        lambda rig: rig.secret(DB_address=f"{SERVER}:9"),
        5,
        "could not reach the database server db.aspen.test:9",
    ),
    "unknown server": (
        lambda rig: rig.secret(DB_address="nowhere.invalid"),
        5,
        "could not reach the database server nowhere.invalid:5432",
    ),
    "silent server": (
        lambda rig: rig.secret(DB_address=f"{SERVER}:{rig.silent()}"),
        5,
        "The database server db.aspen.test:",
    ),
    "certificate for another name": (
        lambda rig: rig.secret(DB_address=f"127.0.0.1:{rig.deployment.port}"),
        5,
        "was rejected: IP address mismatch",
    ),
    "unknown authority": (_other_authority, 5, "was rejected: certificate signature failure"),
    "expired certificate": (_expired, 5, "was rejected: certificate has expired"),
    "server without TLS": (_without_tls, 2, "server does not support SSL"),
    "server requires TLS": (
        lambda rig: rig.only(
            database_url=_DIRECT.format(port=rig.deployment.port) + "?sslmode=disable"
        ),
        4,
        "does not accept unencrypted connections",
    ),
    "no file of certificates": (
        lambda rig: rig.only(aws_endpoint_url=rig.deployment.aws, ca_file="/nowhere.pem"),
        2,
        "/nowhere.pem",
    ),
    "wrong password": (lambda rig: rig.secret(DB_ro_password="wrong"), 4, "password"),
    "unknown user": (lambda rig: rig.secret(DB_ro_username="no_such_user"), 4, ""),
    "unknown database": (
        lambda rig: rig.setting(database_name="nothing"),
        6,
        "does not exist",
    ),
    "unknown way": (lambda rig: rig.setting(way="balloon"), 2, "Invalid way"),
    "no command": (lambda rig: rig.setting(way="command"), 2, "needs tunnel_command"),
    "command is not installed": (
        lambda rig: rig.setting(way="command", tunnel_command="no-such-program {host}"),
        5,
        "no-such-program",
    ),
    "command is invalid": (
        lambda rig: rig.setting(way="command", tunnel_command="sh -c {hots}"),
        2,
        "Invalid tunnel_command",
    ),
    "command ends": (
        lambda rig: rig.setting(way="command", tunnel_command="sh -c 'echo no luck >&2; exit 3'"),
        5,
        "ended with exit code 3",
    ),
    "command does not listen": (
        lambda rig: rig.setting(way="command", tunnel_command="sleep 100"),
        5,
        "did not open a port",
    ),
    "no plugin": (
        lambda rig: rig.setting(way="ssm", ssm_target="i-1"),
        5,
        "session-manager-plugin was not found",
    ),
    "no SSM target": (lambda rig: rig.setting(way="ssm"), 2, "needs ssm_target"),
}


# psql connects in its own way, but only from there on.
_OF_PSQL = (
    *("no profile", "ssh is not installed", "unknown host key", "forwarding is prohibited"),
    *("server refuses connections", "silent server", "certificate for another name"),
    *("server without TLS", "server requires TLS", "wrong password", "unknown database"),
)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *((name, ("status",)) for name in CASES),
        *((name, ("psql", "-c", "SELECT 1")) for name in _OF_PSQL),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_broken_part_is_named_in_time_without_secrets(
    rig: Rig, name: str, words: tuple[str, ...]
) -> None:
    broken, code, message = CASES[name]
    broken(rig)
    began = time.monotonic()
    done = rig.deployment.run("--env", "staging", "db", *words)
    seconds = time.monotonic() - began
    assert (done.code, message in done.err) == (code, True), done.err
    assert "→" in done.err, done.err
    assert "Bug in aspencli" not in done.err
    assert "Traceback" not in done.err
    for secret in (PASSWORD, PASSWORD[:8]):
        assert secret not in done.out + done.err
    assert seconds < _SECONDS + _SLOW_MACHINE_S
    # pytest -rP shows this table.
    sys.stdout.write(f"LEG {name} | {done.code} | {seconds:.1f} | {done.err.splitlines()[0]}\n")

"""A remote deployment on this machine: AWS, a bastion, and a PostgreSQL server with TLS.

Moto answers for AWS, OpenSSH's sshd is the bastion, and PostgreSQL has a certificate from its
own CA. Only names differ from a real deployment: the bastion is reached through the operator's ssh
configuration, as with a real one.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import boto3
import psycopg2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from aspen.local.postgres.server import SUPERUSER, Cluster
from aspen.local.processes import server_account
from tests import zygote
from tests.conftest import CliResult, migrate, seed
from tests.moto import running_moto

BASTION = "bastion.aspen.test"
BUCKET = "genepi-db-data"
PROFILES = ("genepi-dev", "genepi-prod")
SERVER = "db.aspen.test"  # only the bastion can resolve it, so there is no direct way
# A password with every character that an address, a shell, or SQL could trip over.
PASSWORD = "p@ss:w/rd%41'?#\\ \"$(x)\nend"
_MORE_SAMPLES = """
INSERT INTO aspen.samples (submitting_group_id, private_identifier, public_identifier, pathogen_id,
    uploaded_by_id, location_id, collection_date, original_submission, private, authors,
    sample_collected_by, organism)
SELECT submitting_group_id, 'more-' || n, 'before-' || n, pathogen_id, uploaded_by_id, location_id,
    collection_date, original_submission, false, authors, sample_collected_by,
    organism
FROM generate_series(1, {count}) n,
    (SELECT * FROM aspen.samples WHERE submitting_group_id = 1 ORDER BY id LIMIT 1) s
"""
_DEBIAN = Path("/usr/lib/postgresql")
_PATIENCE_S = 20.0
# The operator's ssh. The bastion is on this machine and so resolves the same names; this stands for
# its own view of the network.
_SSH = """#!/bin/sh
for word do
    shift
    case $word in {server}:*) word=localhost:${{word#*:}} ;; esac
    set -- "$@" "$word"
done
exec {real} -F {configuration} "$@"
"""


@dataclass(frozen=True)
class Authority:
    """A certificate authority, and the certificates that it issues."""

    folder: Path
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    @cached_property
    def file(self) -> Path:
        """Return the file with the authority's own certificate."""
        path = self.folder / "ca.crt"
        name = _name("aspen test authority")
        path.write_bytes(
            _pem(self._built(name, name, self.key.public_key(), 30, is_authority=True))
        )
        return path

    def issue(self, host: str, *, days: int = 30) -> tuple[Path, Path]:
        """Return the files of a certificate and its key; with negative ``days`` it has expired."""
        _ = self.file
        key = _new_key()
        certificate = self.folder / f"{host}-{days}.crt"
        issuer = _name("aspen test authority")
        certificate.write_bytes(_pem(self._built(_name(host), issuer, key.public_key(), days)))
        private = certificate.with_suffix(".key")
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        account = server_account(self.folder)
        if account.switched:  # the server reads it as another account
            os.chown(private, account.uid, account.gid)
        private.chmod(0o600)
        return certificate, private

    def _built(
        self,
        subject: x509.Name,
        issuer: x509.Name,
        key: Any,
        days: int,
        *,
        is_authority: bool = False,
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        host = str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=60))
            .not_valid_after(now + dt.timedelta(days=days))
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        )
        if not is_authority:
            # The second name is for tests without a bastion.
            names = x509.SubjectAlternativeName([x509.DNSName(host), x509.DNSName("localhost")])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self.key, hashes.SHA256())


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def find_bindir() -> Path | None:
    """Return the folder of a PostgreSQL with TLS, which the bundled one lacks, or None."""
    found = sorted(_DEBIAN.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@dataclass
class Bastion:
    """OpenSSH's sshd on this machine, as the current user."""

    folder: Path
    options: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("host", "operator"):
            if not (self.folder / name).exists():
                _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name))
        shutil.copy(self.folder / "operator.pub", self.folder / "authorized_keys")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the daemon."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # root's sshd needs it
        (self.folder / "sshd_config").write_text(
            "\n".join(
                (
                    *self.options,
                    f"Port {self.port}",
                    "ListenAddress 127.0.0.1",
                    f"HostKey {self.folder / 'host'}",
                    f"AuthorizedKeysFile {self.folder / 'authorized_keys'}",
                    f"PidFile {self.folder / 'sshd.pid'}",
                    "StrictModes no",
                    "UsePAM no",
                    "PasswordAuthentication no",
                    "KbdInteractiveAuthentication no",
                    "MaxStartups 200",
                    "MaxSessions 200",
                    "PermitRootLogin prohibit-password",
                    "",
                )
            )
        )
        sshd = find_sshd()
        assert sshd is not None
        with (self.folder / "log").open("ab") as log:
            words = [sshd, "-D", "-e", "-f", str(self.folder / "sshd_config")]
            self.process = subprocess.Popen(words, stderr=log)
        deadline = time.monotonic() + _PATIENCE_S
        while not _listens(self.port):
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop the daemon, and the processes that serve its connections."""
        for pid in [*self.sessions(), self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def sessions(self) -> list[int]:
        """Return the processes of the daemon that serve a connection."""
        return descendants(self.process.pid)

    def pause(self, seconds: float) -> None:
        """Stop answering for a while, as after a network failure."""
        pids = [self.process.pid, *self.sessions()]
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):  # its connection has ended
                    os.kill(pid, number)
            if number == signal.SIGSTOP:
                time.sleep(seconds)

    def forwarding(self) -> list[str]:
        """Return the command lines of the operator's ssh processes that forward to a server."""
        found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
        configuration = str(self.folder / "ssh_config")  # others may run such tests, too
        return [
            line for line in found.stdout.splitlines() if configuration in line and " -W " in line
        ]

    def client(self, *options: str) -> Path:
        """Return a folder with an ``ssh`` that has the operator's own configuration."""
        known = self.folder / "known_hosts"
        public = (self.folder / "host.pub").read_text().split()[:2]
        known.write_text(f"{BASTION} {' '.join(public)}\n")
        configuration = self.folder / "ssh_config"
        configuration.write_text(
            "\n".join(
                (
                    f"Host {BASTION}",
                    *options,
                    "HostName 127.0.0.1",
                    f"Port {self.port}",
                    f"HostKeyAlias {BASTION}",
                    f"IdentityFile {self.folder / 'operator'}",
                    "IdentitiesOnly yes",
                    f"UserKnownHostsFile {known}",
                    "GlobalKnownHostsFile /dev/null",
                    "",
                )
            )
        )
        programs = self.folder / "bin"
        programs.mkdir(exist_ok=True)
        wrapper = programs / "ssh"
        # ssh finds its configuration by the account's home folder, not by HOME.
        real = shutil.which("ssh", path=os.defpath + ":/usr/local/bin:/opt/homebrew/bin")
        wrapper.write_text(_SSH.format(server=SERVER, real=real, configuration=configuration))
        wrapper.chmod(0o755)
        return programs


def find_sshd() -> str | None:
    """Return the path of sshd, which is only on root's PATH."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and theirs."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, path.read_text().split()):
                found += [child, *descendants(child)]
    return found


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@dataclass(frozen=True)
class Deployment:
    """A deployment, and the environment of an operator of it."""

    folder: Path
    aws: str  # the address of AWS
    port: int  # of the database server
    superuser: str  # the address of the database, as a superuser
    ca: Path
    bastion: Bastion
    environment: Mapping[str, str]

    def client(self, service: str) -> Any:
        """Return a client of AWS with other credentials than the operator's."""
        return boto3.client(
            service,
            endpoint_url=self.aws,
            region_name="us-west-2",
            aws_access_key_id="administrator",
            aws_secret_access_key="administrator",
        )

    def put_secret(self, stage: str, /, **changes: str | None) -> None:
        """Write the secret of a stage, with changes to its values (None removes one)."""
        values = {
            "DB_address": f"{SERVER}:{self.port}",
            "DB_rw_username": "writer",
            "DB_rw_password": PASSWORD,
            "DB_admin_username": "boss",
            "DB_admin_password": PASSWORD,
            "DB_ro_username": "reader",
            "DB_ro_password": PASSWORD,
            "bastion_host": BASTION,
            "S3_db_bucket": BUCKET,
            **changes,
        }
        text = json.dumps({key: value for key, value in values.items() if value is not None})
        self.put_text(f"{stage}/genepi-config", text)

    def empty_bucket(self) -> None:
        """Create the bucket of the deployment, without any object."""
        storage = self.client("s3")
        with contextlib.suppress(storage.exceptions.BucketAlreadyOwnedByYou):
            where = {"LocationConstraint": "us-west-2"}
            storage.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=where)
        for key in self.objects():
            storage.delete_object(Bucket=BUCKET, Key=key)

    def objects(self) -> list[str]:
        """Return the keys in the bucket."""
        pages = self.client("s3").get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return [each["Key"] for page in pages for each in page.get("Contents", ())]

    def put_text(self, name: str, text: str) -> None:
        """Write a secret's value as it is."""
        secrets = self.client("secretsmanager")
        with contextlib.suppress(secrets.exceptions.ResourceNotFoundException):
            secrets.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
        secrets.create_secret(Name=name, SecretString=text)

    def with_ssh(self, *options: str) -> Deployment:
        """Return it with other options in the operator's ssh configuration."""
        self.bastion.client(*options)
        return self

    def with_config(self, text: str) -> Deployment:
        """Return it with another config file."""
        path = self.folder / f"config-{len(list(self.folder.glob('config-*')))}.toml"
        path.write_text(text)
        return replace(self, environment={**self.environment, "ASPEN_CONFIG": str(path)})

    def through(self, aws: str) -> Deployment:
        """Return it with another address of AWS."""
        return self.with_config(configured(aws, self.ca))

    def having(self, **variables: str) -> Deployment:
        """Return it with more variables in the operator's environment."""
        return replace(self, environment={**self.environment, **variables})

    def as_operator(self, name: str) -> Deployment:
        """Return it as seen by another operator, with their own machine and AWS identity."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        users = self.client("iam")
        with contextlib.suppress(users.exceptions.EntityAlreadyExistsException):
            users.create_user(UserName=name)
        for old in users.list_access_keys(UserName=name)["AccessKeyMetadata"]:
            users.delete_access_key(UserName=name, AccessKeyId=old["AccessKeyId"])
        key = users.create_access_key(UserName=name)["AccessKey"]
        credentials = home / "credentials"
        credentials.write_text(
            "".join(
                f"[{profile}]\naws_access_key_id = {key['AccessKeyId']}\n"
                f"aws_secret_access_key = {key['SecretAccessKey']}\n"
                for profile in PROFILES
            )
        )
        own = {"ASPEN_HOME": str(home), "AWS_SHARED_CREDENTIALS_FILE": str(credentials)}
        return replace(self, environment={**self.environment, **own})

    @property
    def home(self) -> Path:
        """Return the folder with the program's files of the operator."""
        return Path(self.environment["ASPEN_HOME"])

    def run(
        self,
        *arguments: str,
        input: str | None = None,  # noqa: A002 - same name as in subprocess
        timeout: float = 120,
        **more: str,
    ) -> CliResult:
        """Run a command as the operator, and return its result."""
        done = zygote.run_text(
            arguments, env={**self.environment, **more}, stdin=input, timeout=timeout
        )
        return CliResult(done.returncode, done.stdout, done.stderr)

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Run SQL as a superuser, past everything that is tested."""
        with contextlib.closing(psycopg2.connect(self.superuser)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []

    def add_samples(self, count: int) -> None:
        """Add samples ``more-1``, ``more-2``, ... to the first group."""
        self.sql(_MORE_SAMPLES.format(count=count))

    def sessions(self) -> list[tuple[Any, ...]]:
        """Return the sessions of operators on the server."""
        return self.sql(
            "SELECT pid, usename, state, query FROM pg_stat_activity WHERE usename IN "
            "('reader', 'writer', 'boss')"
        )


def configured(aws: str, ca: Path) -> str:
    """Return a config file that has nothing but where AWS is, and the CA."""
    tables = (
        f'[targets.{name}]\naws_endpoint_url = "{aws}"\nca_file = "{ca}"\n'
        for name in ("staging", "prod", "rdev")
    )
    return "\n".join(tables)


@dataclass(frozen=True)
class Servers:
    """Everything of a deployment that runs."""

    aws: str  # its address
    cluster: Cluster
    authority: Authority
    database: str  # the address of the database, as a superuser
    bastion: Bastion


def missing() -> str | None:
    """Return what has to be installed, or None."""
    if find_bindir() is None:
        return "needs a PostgreSQL with TLS (Debian: postgresql)"
    if find_sshd() is None:
        return "needs OpenSSH's server (Debian: openssh-server)"
    return None


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Servers]:
    """Run the servers of a deployment in a folder that other accounts can enter."""
    with contextlib.ExitStack() as exits:
        aws = exits.enter_context(running_moto())
        authority = Authority(folder)
        cluster = _tls_cluster(folder, authority)
        exits.callback(cluster.reset)
        database = _fill(cluster)
        bastion = exits.enter_context(Bastion(folder / "bastion"))
        yield Servers(aws, cluster, authority, database, bastion)


def _tls_cluster(folder: Path, authority: Authority) -> Cluster:
    bindir = find_bindir()
    assert bindir is not None
    certificate, key = authority.issue(SERVER)
    rules = folder / "pg_hba.conf"
    rules.write_text(
        f"host all {SUPERUSER} 127.0.0.1/32 scram-sha-256\n"
        # Only RDS can verify an IAM token.
        "hostssl all iam_reader 127.0.0.1/32 trust\n"
        "hostssl all iam_reader ::1/128 trust\n"
        "hostssl all all 127.0.0.1/32 scram-sha-256\n"
        "hostssl all all ::1/128 scram-sha-256\n"
    )
    settings = {"ssl": "on", "ssl_cert_file": str(certificate), "ssl_key_file": str(key)}
    cluster = Cluster(folder / "tls", settings={**settings, "hba_file": str(rules), "fsync": "off"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASPEN_PG_BINDIR", str(bindir))
        cluster.up()
    return cluster


def _fill(cluster: Cluster) -> str:
    with contextlib.closing(
        psycopg2.connect(_plain(cluster.url("postgres", SUPERUSER)))
    ) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for name in ("writer", "boss", "reader"):
                cursor.execute(f"CREATE ROLE {name} LOGIN PASSWORD %s", [PASSWORD])
            # The administrator of RDS is not one, but may create the same extensions.
            cursor.execute("ALTER ROLE boss SUPERUSER")
            cursor.execute("CREATE ROLE iam_reader LOGIN")
            cursor.execute("GRANT pg_read_all_data, pg_monitor TO reader, iam_reader")
            cursor.execute("GRANT pg_read_all_data, pg_write_all_data, pg_monitor TO writer")
            cursor.execute("CREATE DATABASE aspen_db OWNER boss")
    address = cluster.url("aspen_db", SUPERUSER)
    migrate(address)
    seed(address)
    return _plain(address)


def _plain(address: str) -> str:
    """Return an address without SQLAlchemy's driver."""
    return address.replace("+psycopg2", "")


def operator(servers: Servers, folder: Path) -> Deployment:
    """Return a deployment whose config file has nothing but where AWS is, and the CA."""
    profiles = folder / "aws"
    profiles.mkdir()
    names = PROFILES
    (profiles / "config").write_text(
        "".join(f"[profile {name}]\nregion = us-west-2\n" for name in names)
    )
    (profiles / "credentials").write_text(
        "".join(
            f"[{name}]\naws_access_key_id = key\naws_secret_access_key = secret\n" for name in names
        )
    )
    environment = {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AWS_", "ASPEN_AUDIT_"))
        },
        "AWS_CONFIG_FILE": str(profiles / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(profiles / "credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "PATH": f"{servers.bastion.client()}:{os.environ['PATH']}",
    }
    port = int(servers.cluster.status().port or 0)
    ca = servers.authority.file
    found = Deployment(
        folder, servers.aws, port, servers.database, ca, servers.bastion, environment
    ).with_config(configured(servers.aws, ca))
    for stage in ("gestaging", "geprod", "dev"):
        found.put_secret(stage)
    found.empty_bucket()
    return found


@contextlib.contextmanager
def session_manager(deployment: Deployment) -> Iterator[tuple[Path, Deployment]]:
    """Yield a stand-in for Session Manager's plugin that really forwards, and its deployment."""
    programs = deployment.folder / "programs"
    programs.mkdir(exist_ok=True)
    plugin = programs / "session-manager-plugin"
    plugin.write_text(f"#!{sys.executable}\n{_PLUGIN}{FORWARD}")
    plugin.chmod(0o755)
    with _sessions(deployment.aws) as address:
        found = deployment.with_config(
            f'[targets.staging]\naws_endpoint_url = "{address}"\nca_file = "{deployment.ca}"\n'
            'way = "ssm"\nssm_target = "ecs:cluster_task_runtime"\n'
        )
        path = f"{programs}:{deployment.environment['PATH']}"
        yield plugin, replace(found, aws=address, environment={**found.environment, "PATH": path})


@contextlib.contextmanager
def _sessions(aws: str) -> Iterator[str]:
    """Run an AWS that can start sessions, which moto cannot; moto answers everything else."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["X-Amz-Target"].endswith(".StartSession"):
                session = {"SessionId": "s-1", "StreamUrl": "wss://x", "TokenValue": SESSION_TOKEN}
                status, answer = 200, json.dumps(session).encode()
            else:
                request = urllib.request.Request(aws, body, dict(self.headers))
                with urllib.request.urlopen(request) as found:
                    status, answer = found.status, found.read()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


SESSION_TOKEN = "token-of-the-session"
_PLUGIN = f"""
import json, os, pathlib, sys
if sys.argv[1:] == ["--version"]:
    print("1.2.707.0")
    sys.exit()
pathlib.Path(__file__).with_name("arguments.json").write_text(json.dumps(sys.argv))
assert json.loads(os.environ[sys.argv[1]])["TokenValue"] == "{SESSION_TOKEN}"
wanted = json.loads(sys.argv[5])["Parameters"]
sys.argv = ["", wanted["host"][0], wanted["portNumber"][0], "0"]
"""
FORWARD = """
import socket, sys, threading
host, port, local = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
assert host == "db.aspen.test"
def copy(one, other):
    while data := one.recv(65536):
        other.sendall(data)
    other.shutdown(socket.SHUT_WR)
with socket.create_server(("127.0.0.1", local)) as listener:
    print(f"Port {listener.getsockname()[1]} opened for sessionId s-1.", flush=True)
    while True:
        accepted, _ = listener.accept()
        server = socket.create_connection(("localhost", port))
        for pair in ((accepted, server), (server, accepted)):
            threading.Thread(target=copy, args=pair, daemon=True).start()
"""

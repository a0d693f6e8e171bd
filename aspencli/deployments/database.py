"""The database of a deployment: its address, login, and TLS settings, and the way to it.

It also records the production databases seen from this machine.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

from aspen.database.settings import Route, clean_address
from aspencli.addresses import THIS_MACHINE, canonical_host, look_up
from aspencli.config import Target
from aspencli.errors import AspenError, BadInputError, UnreachableError
from aspencli.files import make_folder, state_dir, write_whole

if TYPE_CHECKING:
    # SQLAlchemy, which a console loads only after its first prompt
    from aspen.database.engine import DatabaseIdentity
    from aspencli.deployments.aws import Aws, Login
    from aspencli.deployments.tunnel import Tunnel

_PORT = 5432
_QUIET_S, _ASKING_S = 10, 60  # to connect through a tunnel; ssh may ask for a passphrase
# libpq's own file of certificates; it verifies servers against it even without a setting.
_ROOT_FILE = "~/.postgresql/root.crt"
_HOST_NAME = re.compile(r"(?:[\w.%+-]+@)?[\w.:][\w.:-]*")  # that ssh cannot take for an option
_CERTIFICATES = "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem"


# libpq's messages for a connection that reached a tunnel but no server, and for a certificate.
_NO_SERVER = re.compile(
    r"server closed the connection|timeout expired|SSL SYSCALL error|Connection re(?:fused|set)"
    r"|could not (?:receive|send) data"
)
# A client's request for TLS; a server answers with ``S`` or ``N`` (protocol 3.0).
_SSL_REQUEST = bytes((0, 0, 0, 8, 4, 210, 22, 47))
_CERTIFICATE = re.compile(r"certificate verify failed|does not match host name|signature failure")


class Access(Enum):
    """The purpose of a session, which decides the user that it signs in as."""

    READ = ("ro", "rw", "admin")
    WRITE = ("rw", "admin")
    ADMIN = ("admin",)


class Server(NamedTuple):
    """The host and the port of a database server."""

    host: str
    port: int


class DeploymentDatabase:
    """The database of a remote target.

    Args:
        target: The target, with all settings resolved.
        aws: Returns its AWS account, which not every target has.
        interactive: True if there is a terminal to ask on.
        warn: Shows a warning.
        say: Shows information.
        exits: Closes what was opened.
    """

    def __init__(
        self,
        target: Target,
        aws: Callable[[], Aws],
        *,
        interactive: bool,
        warn: Callable[[str], None],
        say: Callable[[str], None],
        exits: ExitStack,
    ):
        self._target = target
        self._aws = aws
        self._interactive = interactive
        self._warn = warn
        self._say = say
        self._exits = exits

    def address(self, access: Access) -> str:
        """Return the address of the database, with the login for an access.

        Raises:
            AspenError: It is not known, or the secret cannot be read or used.
        """
        given = self._target.database_url
        if given is not None:
            return self._completed(given)
        server, name = self.server, self._target.database_name
        if not name:
            raise BadInputError(
                f"No database name is configured for {self._target.label}.",
                hint=f"Set database_name under [targets.{self._target.name}] in the config file.",
            )
        host = f"[{server.host}]" if ":" in server.host else server.host
        login = self.login(access)
        words = f"{_quoted(login.user)}:{_quoted(login.password)}"
        address = f"postgresql://{words}@{host}:{server.port}/{_quoted(name)}"
        return f"{address}?{self._tls(server.host)}"

    @cached_property
    def server(self) -> Server:
        """Return the database server.

        Raises:
            AspenError: It is not known, or the secret cannot be read or used.
        """
        given = self._target.database_url
        if given is None:
            return _parsed(self._aws().secret.require("DB_address"), "DB_address in the secret")
        return _parsed(clean_address(given).partition("://")[2], "database_url")

    def login(self, access: Access) -> Login:
        """Return the login for an access: the target's IAM user for reading, or the secret's.

        Raises:
            BadInputError: The secret has none.
            AspenError: AWS credentials are missing.
        """
        from aspencli.deployments.aws import Login

        user = self._target.iam_user
        if user and access is Access.READ:
            return Login(user, self._token(user))
        secret = self._aws().secret
        found = (secret.login(kind) for kind in access.value)
        if (login := next(filter(None, found), None)) is not None:
            return login
        user, password = (f"DB_{access.value[-1]}_{word}" for word in ("username", "password"))
        return Login(secret.require(user), secret.require(password))

    def _token(self, user: str) -> str:
        return self._aws().database_token(*self.server, user)

    def _password(self, user: str) -> str | None:
        """Return a new token for a user who signs in with one: a token expires in 15 minutes."""
        return self._token(user) if user == self._target.iam_user else None

    def _completed(self, address: str) -> str:
        """Return the operator's address, encrypted and with the password for the real server."""
        address = clean_address(address)
        parts = urlsplit(address)
        try:
            host = parts.hostname
        except ValueError:
            host = None
        if not host or "," in parts.netloc:
            return address
        query = parts.query
        encrypted = "sslmode=" in query or os.environ.get("PGSSLMODE")
        if not encrypted and self._is_remote(host, query):
            query = "&".join(filter(None, [query, self._tls(host)]))
        netloc = parts.netloc
        if self.way != "direct" and parts.password is None:
            name = unquote(parts.path.lstrip("/"))
            password = saved_password(self.server, name, unquote(parts.username or ""))
            if password is not None:
                user, _, place = netloc.rpartition("@")
                netloc = f"{user}:{_quoted(password)}@{place}"
        return urlunsplit(parts._replace(netloc=netloc, query=query))

    def _is_remote(self, host: str, query: str) -> bool:
        """Return True if a connection would leave this machine."""
        if self.way != "direct":
            return True
        place = canonical_host(dict(parse_qsl(query)).get("hostaddr", host))
        return place != THIS_MACHINE and look_up([place]).get(place) != frozenset({THIS_MACHINE})

    def _tls(self, host: str) -> str:
        """Return the TLS parameters: verified if there is something to verify against."""
        file = self._ca_file
        if file and file != "system" and not Path(file).is_file():
            raise BadInputError(
                f"The file with the certificates for {self._target.label} does not exist: {file}",
                hint="Fix ca_file in the config file (or PGSSLROOTCERT).",
            )
        if file:
            return f"sslmode=verify-full&sslrootcert={quote(file)}"
        if Path(_ROOT_FILE).expanduser().is_file():
            return "sslmode=verify-full"
        self._warn_once(
            f"The connection to {host} is encrypted, but the server's certificate is not verified: "
            f"no certificates are known. Save {_CERTIFICATES}, and set ca_file under "
            f"[targets.{self._target.name}] to it."
        )
        return "sslmode=require"

    @property
    def _ca_file(self) -> str | None:
        file = self._target.ca_file or os.environ.get("PGSSLROOTCERT")
        return str(Path(file).expanduser()) if file and file != "system" else file or None

    def _warn_once(self, message: str) -> None:
        warn, self._warn = self._warn, lambda _message: None
        warn(message)

    @cached_property
    def way(self) -> str:
        """Return the way to the server: one of `aspencli.config.WAYS`."""
        if self._target.way is not None:
            return self._target.way
        if self._target.bastion:
            return "ssh"
        if self._target.database_url is not None:
            return "direct"
        return "ssh" if self._aws().secret.get("bastion_host") else "direct"

    @cached_property
    def tunnel(self) -> Tunnel | None:
        """Return the tunnel to the server, opened on first use; None if there is a direct way.

        Raises:
            AspenError: It cannot be opened.
        """
        opened = {"ssh": self._ssh, "ssm": self._ssm, "command": self._command}.get(self.way)
        if opened is None:
            return None
        tunnel = opened()
        self._exits.callback(tunnel.close)
        return tunnel

    @property
    def route(self) -> Route:
        """Return the way to the server.

        Raises:
            AspenError: It cannot be opened.
        """
        libpq: dict[str, Any] = {}
        if self.tunnel is not None:
            host, port = self.place
            libpq = {"hostaddr": host, "port": port, "connect_timeout": self.patience}
        return Route(libpq, self._explain, self._password)

    @property
    def place(self) -> Server:
        """Return the host and port to connect to: the tunnel's, or the server's own."""
        return Server(self.tunnel.host, self.tunnel.port) if self.tunnel else self.server

    @property
    def patience(self) -> int:
        """Return how long a connection may take to open, in seconds."""
        return _ASKING_S if self.tunnel and self._interactive else _QUIET_S

    @contextmanager
    def asked_for_tls(self) -> Iterator[tuple[socket.socket, bytes]]:
        """Open a connection, ask for TLS, and yield it with the answer (empty if there is none).

        Raises:
            OSError: The connection cannot be opened, or the server does not answer in time.
        """
        with socket.create_connection(self.place, timeout=self.patience) as connection:
            connection.sendall(_SSL_REQUEST)
            yield connection, connection.recv(1)

    def no_answer(self) -> AspenError:
        """Return the error for a server that did not answer."""
        failure = self.tunnel.failure() if self.tunnel else None
        host, port = self.server
        return failure or UnreachableError(
            f"The database server {host}:{port} does not answer.",
            hint="Check that it is running"
            + (
                f", and that {self.tunnel.through} may reach it."
                if self.tunnel
                else " and reachable."
            ),
        )

    def _explain(self, message: str) -> AspenError | None:
        """Return why a connection failed, given libpq's message; None if that says enough."""
        try:
            if self.tunnel and _NO_SERVER.search(message):
                return self.no_answer()
            if _CERTIFICATE.search(message):
                return self._certificate_error()
        except BadInputError:  # the address names several servers, or a socket
            return None
        return None

    def _certificate_error(self) -> AspenError | None:
        """Verify the server's certificate once more, because libpq does not say what is wrong."""
        import ssl

        host, port = self.server
        file = self._ca_file or str(Path(_ROOT_FILE).expanduser())
        try:
            context = ssl.create_default_context(cafile=None if file == "system" else file)
            with self.asked_for_tls() as (plain, _answer):
                context.wrap_socket(plain, server_hostname=host).close()
        except ssl.SSLCertVerificationError as error:
            reason = error.verify_message.removesuffix(".")
        except OSError:  # also any other error of TLS
            return None
        else:
            return None
        return UnreachableError(
            f"The certificate of the database server {host}:{port} was rejected: {reason}.",
            hint=f"Check ca_file ({file}), and that DB_address in the deployment's secret is the "
            "name in the certificate. If it has expired, the server's owner must renew it.",
        )

    def hand_over(self) -> None:
        """Keep the tunnel open for the program that is about to replace this process."""
        if self.tunnel is not None:
            self.tunnel.hand_over()

    def _ssh(self) -> Tunnel:
        from aspencli.deployments.tunnel import SshTunnel

        bastion = self._target.bastion or self._aws().secret.require("bastion_host")
        if not _HOST_NAME.fullmatch(bastion):
            raise BadInputError(
                f"{bastion!a} is not the name of a bastion.",
                hint="Fix bastion in the config file, or bastion_host in the deployment's secret.",
            )
        return SshTunnel(bastion, *self.server, notify=self._say if self._interactive else None)

    def _ssm(self) -> Tunnel:
        from aspencli.deployments.tunnel import ssm_tunnel

        target = self._needs("ssm_target", "an EC2 instance (i-...) or an ECS task")
        host, port = self.server
        aws = self._aws()
        session = aws.session
        parameters = {
            "Target": target,
            "DocumentName": "AWS-StartPortForwardingSessionToRemoteHost",
            "Parameters": {"host": [host], "portNumber": [str(port)]},
        }
        return ssm_tunnel(
            target,
            lambda: aws.start_session(parameters),
            region=session.region_name or "",
            endpoint=self._target.aws_endpoint_url
            or f"https://ssm.{session.region_name}.amazonaws.com",
            profile=aws.profile,
            parameters=parameters,
        )

    def _command(self) -> Tunnel:
        from aspencli.deployments.tunnel import command_tunnel

        template = self._needs("tunnel_command", "a command with {host}, {port}, and {local_port}")
        return command_tunnel(template, *self.server)

    def _needs(self, key: str, what: str) -> str:
        value: str | None = getattr(self._target, key)
        if value is None:
            raise BadInputError(
                f"The way {self.way!r} to the database of {self._target.label} needs {key}.",
                hint=f"Set {key} to {what}, under [targets.{self._target.name}].",
            )
        return value


def _parsed(place: str, what: str) -> Server:
    """Return the server in ``host``, ``host:port``, or the part of an address after ``://``."""
    try:
        parts = urlsplit(f"//{place.strip()}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or "," in parts.netloc or host.startswith("-"):
        raise BadInputError(
            f"{what} does not name one server that a tunnel can lead to.",
            hint="Write it as host or host:port.",
        )
    return Server(host, port or _PORT)


def _quoted(text: str) -> str:
    return quote(text, safe="")


def saved_password(
    server: Server, name: str, user: str, environ: Mapping[str, str] = os.environ
) -> str | None:
    """Return the password in ``~/.pgpass`` for a server, or None.

    libpq would look it up with the port of the tunnel. As in libpq, a file that others may read is
    ignored, and ``*`` matches anything (libpq, "The Password File").
    """
    path = Path(environ.get("PGPASSFILE") or "~/.pgpass").expanduser()
    try:
        if path.stat().st_mode & 0o077:
            return None
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return None
    wanted = (server.host, str(server.port), name, user)
    for line in lines:
        fields = _fields(line)
        if len(fields) > len(wanted) and all(
            given in {"*", value} for given, value in zip(fields, wanted, strict=False)
        ):
            return fields[len(wanted)]
    return None


def _fields(line: str) -> list[str]:
    """Split a line of the file at its colons; a backslash escapes the next character."""
    fields, escaped = [""], False
    if line.startswith("#"):
        return fields
    for character in line:
        if not escaped and character == "\\":
            escaped = True
            continue
        if character == ":" and not escaped:
            fields.append("")
        else:
            fields[-1] += character
        escaped = False
    return fields


# The production databases seen from this machine
#
# They are recorded by identity rather than by address. A tunnel gives a database another address,
# so an unknown address may still lead to production. The identity is the same through every tunnel,
# proxy, and pooler.


class ProductionDatabases:
    """The record of known production databases, in the state folder."""

    def __init__(self) -> None:
        self.path = state_dir() / "production-databases.json"

    def all(self) -> dict[str, dict[str, Any]]:
        """Return the recorded entries by identity.

        Raises:
            AspenError: The record cannot be read, so production could not be recognized.
        """
        try:
            found = json.loads(self.path.read_text())
            return {str(key): dict(entry) for key, entry in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise AspenError(
                f"Could not read the list of production databases: {self.path}",
                hint="Restore its permissions, or delete it and connect to each production target "
                "once: aspencli --env prod db status",
            ) from error

    def label_of(self, identity: DatabaseIdentity) -> str | None:
        """Return the label of the production target with this database, or None if unknown."""
        entry = self.all().get(_key(identity)) if identity.system else None
        return None if entry is None else str(entry["target"])

    def record(self, label: str, address: str, identity: DatabaseIdentity) -> None:
        """Record that a target's database, at an address without a password, is production."""
        if not identity.system:
            return  # Database OIDs alone are the same on many servers.
        entry = {"target": label, "address": address}
        entries = self.all()
        before: Mapping[str, Any] = entries.get(_key(identity), {})
        if entry.items() <= before.items():
            return
        entries[_key(identity)] = {**entry, "seen_at": dt.datetime.now(dt.UTC).isoformat()}
        make_folder(self.path.parent)
        write_whole(self.path, json.dumps(entries, indent=1))


def _key(identity: DatabaseIdentity) -> str:
    return f"{identity.system}/{identity.oid}"

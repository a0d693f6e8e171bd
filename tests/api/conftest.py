"""The running service: uvicorn on a port, a cloned database, and a provider with real keys."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.routing import _IncludedRouter
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from starlette.routing import BaseRoute

from aspen.api.aws import AccessKey, make_client
from aspen.api.limits import ServiceLimits
from aspen.api.main import create_app
from aspen.api.protocol import ConnectionLimits, LimitedProtocol
from aspen.api.settings import Settings
from aspen.database.engine import Database
from aspen.database.models import Group
from aspen.local.aws.content import (
    JOBS,
    OBJECTS,
    REGION,
    Content,
    ObjectFolder,
    job_parameter,
    new_credentials,
    parameter,
)
from aspen.local.aws.gate import HEALTH
from aspen.local.seed import seed_samples
from tests import zygote
from tests.conftest import BRIEFLY_IDLE, Server
from tests.local.auth0.fixtures import identity, identity_process
from tests.local.auth0.lab import (
    MANAGEMENT,
    MANAGEMENT_SECRET,
    ORGANIZATIONS,
    WEB_SECRET,
    Identity,
)

__all__ = ["identity", "identity_process"]

CLIENT_ID = "aspencli-local"
PRINCIPALS = (
    *("sysadmin", "gadmin", "member", "viewer", "sysmember"),
    *("g2admin", "g2member", "g3admin", "g3member", "multi", "nogroup"),
)
_START_S = 90


class Provider:
    """An identity provider with just enough behavior for the service to verify tokens.

    Attributes:
        requests: The paths of the requests that it received.
        answering: False to answer every request with 503.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.answering = True
        self._keys: list[RSAKey] = []
        self.rotate()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.requests.append(self.path)
                body = json.dumps(provider.documents.get(self.path)).encode()
                known = provider.answering and self.path in provider.documents
                self.send_response(200 if known else 503)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - inherited
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def documents(self) -> dict[str, Any]:
        return {
            "/.well-known/openid-configuration": {
                "issuer": f"{self.url}/",
                "jwks_uri": f"{self.url}/.well-known/jwks.json",
            },
            "/.well-known/jwks.json": KeySet([*self._keys]).as_dict(private=False),
        }

    def rotate(self, *, withdraw: bool = False) -> None:
        """Start signing with a new key; old keys stay published unless withdrawn."""
        new = RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"})
        new.ensure_kid()
        self._keys = [new] if withdraw else [new, *self._keys]

    def token(self, account: str, **changes: Any) -> str:
        """Return an id_token; ``changes`` override claims (None drops one) and the ``header``."""
        now = int(time.time())
        header = {"alg": "RS256", "kid": self._keys[0].kid, **changes.pop("header", {})}
        claims = {
            "iss": f"{self.url}/",
            "sub": account,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 3600,
            **changes,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(header, claims, self._keys[0], algorithms=["RS256"])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def serving(
    settings_of: Callable[[str], Settings],
    limits: ServiceLimits | None = None,
    connections: ConnectionLimits | None = None,
) -> Iterator[Settings]:
    """Run the service under uvicorn in a thread, and yield its settings.

    Args:
        settings_of: Returns its settings, given its address.
        limits: The request limits; the usual ones if None.
        connections: The connection limits; the usual ones if None.
    """
    with listener() as listening:
        settings = settings_of(address_of(listening))
        with running(_with_known_routes(create_app(settings, limits)), listening, connections):
            yield settings


_known_routes: list[BaseRoute] = []


def _with_known_routes(app: FastAPI) -> FastAPI:
    """Make an application share the views of the first one.

    On the first request to an application, FastAPI inspects the parameters of 90 views: 0.4 s.
    """
    if not _known_routes:
        _known_routes.extend(app.router.routes)
    for place, (own, known) in enumerate(zip(app.router.routes, _known_routes, strict=True)):
        if isinstance(own, _IncludedRouter):
            app.router.routes[place] = known
    return app


def listener() -> socket.socket:
    """Return a socket that listens on a free port of this machine."""
    # asyncio disables Nagle's algorithm (40 ms per request) only if the protocol is named.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen(1024)
    return listening


def address_of(listening: socket.socket) -> str:
    """Return the address of a service on the given socket."""
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def running(
    app: FastAPI, listening: socket.socket, connections: ConnectionLimits | None = None
) -> Iterator[None]:
    """Run an application under uvicorn in a thread, with the protocol class of the service."""
    protocol = LimitedProtocol
    if connections is not None:
        protocol = LimitedProtocol.with_limits(connections)
    config = uvicorn.Config(
        app, http=protocol, ws="none", log_config=None, timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + _START_S
    while not server.started:
        assert thread.is_alive(), "the service did not start"
        assert time.monotonic() < deadline, "the service did not start in time"
        time.sleep(0.005)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


@dataclass
class Api:
    """The running service, with what tests need to use it.

    ``api("GET", "/v2/pathogens/", "member")`` asks as a principal; ``as_("member")`` is a client.
    """

    url: str
    provider: Provider
    settings: Settings
    database: Database
    _clients: dict[str | None, httpx.Client] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(
        self, method: str, path: str, principal: str | None = None, **options: Any
    ) -> httpx.Response:
        return self.as_(principal).request(method, path, **options)

    def as_(self, principal: str | None) -> httpx.Client:
        """Return a client signed in as ``auth0|<principal>``, or not signed in if None."""
        with self._lock:
            if principal not in self._clients:
                headers = {"Authorization": f"Bearer {self.token(principal)}"} if principal else {}
                self._clients[principal] = httpx.Client(
                    base_url=self.url,
                    headers=headers,
                    timeout=60,
                    trust_env=False,
                    limits=BRIEFLY_IDLE,
                )
            return self._clients[principal]

    def token(self, principal: str, **changes: Any) -> str:
        return self.provider.token(f"auth0|{principal}", **changes)

    def close(self) -> None:
        for client in self._clients.values():
            client.close()


@pytest.fixture(scope="session")
def provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.close()


def settings_of_tests(dsn: str, provider_url: str, own_url: str, **changes: str) -> dict[str, str]:
    """Return the service's configuration for tests, by environment variable."""
    return {
        "GENEPI_CONFIG_SECRET_NAME": "",
        "DEPLOYMENT_STAGE": "local",
        "API_URL": own_url,
        "FRONTEND_URL": f"{own_url}/",
        "DB_DSN": dsn,
        "FLASK_SECRET": "a-secret-for-tests",
        "AUSPICE_MAC_KEY": base64.urlsafe_b64encode(b"k" * 32).decode(),
        "AUTH0_CLIENT_ID": CLIENT_ID,
        "AUTH0_CLIENT_SECRET": "client-secret",
        "AUTH0_DOMAIN": provider_url,
        "S3_db_bucket": "genepi-db-data",
        "S3_external_auspice_bucket": "genepi-external-auspice-data",
        **changes,
    }


def settings_for(database: Database, provider_url: str, own_url: str, **changes: str) -> Settings:
    """Return the settings of a service on a database; ``changes`` override them by name."""
    dsn = database.url.render_as_string(hide_password=False)
    environment = settings_of_tests(dsn, provider_url, own_url, **changes)
    return Settings.load(environment)


@dataclass(frozen=True)
class Cloud:
    """The AWS emulator on this machine, with the files of `roles`.

    Attributes:
        settings: The settings that point the service at it: ``make_api(roles, **aws.settings)``.
    """

    address: str
    credentials: AccessKey

    @property
    def settings(self) -> dict[str, str]:
        return {
            "BOTO_ENDPOINT_URL": self.address,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": self.credentials.key,
            "AWS_SECRET_ACCESS_KEY": self.credentials.secret,
        }

    def client(self, service: str) -> Any:
        """Return a separate boto3 client for the test."""
        return make_client(service, REGION, self.address, self.credentials)


@contextmanager
def running_cloud(objects: Iterable[tuple[str, str, bytes]]) -> Iterator[Cloud]:
    """Run the AWS emulator in a process, with files by bucket and key, and the service's jobs."""
    parameters = {parameter(name): job_parameter(name) for name in JOBS}
    with tempfile.TemporaryDirectory(prefix="aspen-aws-") as name:
        folder, port = Path(name), _free_port()
        Content(secrets={}, parameters=parameters).write(folder)
        credentials = new_credentials(folder, port)
        kept = ObjectFolder(folder / OBJECTS)
        for file in objects:
            kept.put(*file)
        words = ["--port", str(port), "--folder", name]
        with zygote.start(words, module="aspen.local.aws", stderr=subprocess.DEVNULL) as process:
            address = f"http://127.0.0.1:{port}"
            try:
                _wait_for(f"{address}{HEALTH}", process)
                yield Cloud(address, credentials)
            finally:
                process.terminate()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            answer = httpx.get(url, trust_env=False)
        except httpx.TransportError:
            assert process.poll() is None, "it did not start"
            assert time.monotonic() < deadline, "it did not start in time"
            time.sleep(0.05)
        else:
            answer.raise_for_status()
            return


@pytest.fixture(scope="session")
def _cloud(roles_objects: ObjectFolder, _roles_template: str) -> Iterator[Cloud]:
    with running_cloud(roles_objects) as cloud:
        yield cloud


@pytest.fixture
def aws(_cloud: Cloud) -> Cloud:
    """Return the AWS emulator; all tests share its buckets, so write under unique keys."""
    return _cloud


def told_of(identity: Identity) -> dict[str, str]:
    """Return settings that make the service use a provider's pages and Management API."""
    return {
        "AUTH0_DOMAIN": identity.issuer,
        "AUTH0_CLIENT_SECRET": WEB_SECRET,
        **managed_by(identity),
    }


def managed_by(identity: Identity) -> dict[str, str]:
    """Return settings that make the service use only a provider's Management API."""
    return {
        "AUTH0_MANAGEMENT_DOMAIN": identity.issuer,
        "AUTH0_MANAGEMENT_CLIENT_ID": MANAGEMENT,
        "AUTH0_MANAGEMENT_CLIENT_SECRET": MANAGEMENT_SECRET,
    }


def use_organizations(database: Database) -> None:
    """Assign groups 1 to 3 to the organizations that the test provider knows."""
    with database.begin() as session:
        for number, organization in enumerate(ORGANIZATIONS, 1):
            session.get_one(Group, number).auth0_org_id = organization


ApiFactory = Callable[..., Api]


@contextmanager
def starting(provider: Provider) -> Iterator[ApiFactory]:
    """Yield a factory that starts services, and stop them all at the end."""
    with ExitStack() as stack:

        def make(
            database: Database,
            limits: ServiceLimits | None = None,
            connections: ConnectionLimits | None = None,
            **changes: str,
        ) -> Api:
            def settings_of(url: str) -> Settings:
                return settings_for(database, provider.url, url, **changes)

            settings = stack.enter_context(serving(settings_of, limits, connections))
            made = Api(settings.api_url, provider, settings, database)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def make_api(provider: Provider) -> Iterator[ApiFactory]:
    """Yield a factory of services; ``make_api(seeded, S3_db_bucket="...")`` changes settings."""
    with starting(provider) as make:
        yield make


@pytest.fixture(scope="session")
def _crowded_template(postgres: Server, _seeded_template: str) -> str:
    def fill(address: str) -> None:
        database = Database(address, application_name="tests")
        seed_samples(database, 12_000, group=1)
        database.dispose()

    return postgres.template("crowded", fill, base=_seeded_template)


@pytest.fixture
def crowded(
    postgres: Server, reached: Callable[[str], str], _crowded_template: str
) -> Iterator[Database]:
    """Yield a seeded database with 12,060 samples of group 1."""
    with postgres.cloned(_crowded_template, reached) as database:
        yield database


@pytest.fixture
def api(make_api: ApiFactory, seeded: Database) -> Api:
    """Return the service on a database with test groups, users, and 60 samples of group 1."""
    return make_api(seeded)


@pytest.fixture(scope="session")
def shared_api(postgres: Server, _seeded_template: str, provider: Provider) -> Iterator[Api]:
    """Yield one service for every test that changes nothing, so that it starts only once."""
    with postgres.cloned(_seeded_template) as database, starting(provider) as make:
        yield make(database)


@pytest.fixture(scope="session")
def shared_roles(
    postgres: Server, _roles_template: str, provider: Provider, _cloud: Cloud
) -> Iterator[Api]:
    """Yield one service with every role's samples, for every test that changes nothing."""
    with postgres.cloned(_roles_template) as database, starting(provider) as make:
        yield make(database, **_cloud.settings)

"""A real identity provider in a separate process, and a user who goes through its pages."""

from __future__ import annotations

import base64
import contextlib
import html
import json
import re
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from aspen.local.auth0.store import (
    ALL_MANAGEMENT_SCOPES,
    Client,
    Grant,
    Member,
    Organization,
    Role,
    Seed,
    User,
    seed,
)
from tests import zygote
from tests.conftest import BRIEFLY_IDLE

CLIENT = "aspencli-local"
MANAGEMENT, MANAGEMENT_SECRET = "aspen-management", "a made-up secret"
WEB_SECRET = "another made-up secret"
CALLBACK = "http://127.0.0.1:9/v2/auth/callback"
ORGANIZATIONS = ["org_000000000000000" + n for n in "123"]
_READY_SECONDS = 120
# Nothing here uses TLS, and each client would take 30 ms to create its own context.
_TLS = ssl.create_default_context()
# The roles of each person in groups 1 to 3, by their index in ORGANIZATIONS.
_PEOPLE: dict[str, dict[int, str]] = {
    "sysadmin": {},
    "gadmin": {0: "admin"},
    "member": {0: "member"},
    "viewer": {0: "viewer"},
    "sysmember": {0: "member"},
    "g2admin": {1: "admin"},
    "g2member": {1: "member"},
    "g3admin": {2: "admin"},
    "g3member": {2: "member"},
    "multi": {0: "member", 1: "admin"},
    "nogroup": {},
}
PRINCIPALS = Seed(
    clients=[
        Client(
            CLIENT,
            "aspencli",
            (Grant.DEVICE_CODE, Grant.AUTHORIZATION_CODE, Grant.REFRESH_TOKEN),
            public=True,
            secret=WEB_SECRET,
            callbacks=["http://127.0.0.1/v2/auth/callback"],
            logout_urls=["http://127.0.0.1/"],
            audiences=["https://api.example.org"],
            login_uri="http://127.0.0.1:9/v2/auth/login",
        ),
        Client(
            MANAGEMENT,
            "The service",
            (Grant.CLIENT_CREDENTIALS,),
            secret=MANAGEMENT_SECRET,
            management_scopes=ALL_MANAGEMENT_SCOPES,
        ),
    ],
    users=[
        User(f"auth0|{name}", f"{name}@example.org", f"{name.capitalize()} Example")
        for name in _PEOPLE
    ],
    organizations=[
        Organization(ORGANIZATIONS[0], "group-rcphl", "Redwood County Public Health Laboratory"),
        Organization(ORGANIZATIONS[1], "group-bdph", "Bayside Department of Public Health"),
        Organization(ORGANIZATIONS[2], "group-vsuv", "Valley State University Virology"),
    ],
    roles=[Role("admin"), Role("member"), Role("viewer")],
    members=[
        Member(ORGANIZATIONS[place], f"auth0|{name}", [role])
        for name, roles in _PEOPLE.items()
        for place, role in roles.items()
    ],
)


class Identity:
    """A provider in a separate process, for tests.

    Args:
        folder: The folder for its state.
        arguments: Additional arguments of ``python -m aspen.local.auth0``.
        port: The port to listen on; a free port if omitted.

    Attributes:
        http: A client for requests that need no cookies.
    """

    def __init__(self, folder: Path, *arguments: str, port: int | None = None):
        self.folder = folder
        self.port = port or _free_port()
        self.issuer = f"http://127.0.0.1:{self.port}/"
        self.http = httpx.Client(base_url=self.issuer, timeout=30, verify=_TLS, limits=BRIEFLY_IDLE)
        self.process: subprocess.Popen[bytes]
        self._arguments = arguments

    @property
    def log(self) -> str:
        """Return its output so far."""
        return (self.folder.parent / f"{self.folder.name}.log").read_text()

    def start(self) -> None:
        """Start it and wait until it answers."""
        words = ["--folder", str(self.folder), "--port", str(self.port), *self._arguments]
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log:
            self.process = zygote.start(words, module="aspen.local.auth0", stdout=log, stderr=log)
        deadline = time.monotonic() + _READY_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"the identity provider did not start:\n{self.log}")
            time.sleep(0.02)

    def stop(self) -> int:
        """Stop it as the supervisor does, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)

    def end(self) -> None:
        """End it in any state, cleanly if possible, so that coverage data are kept."""
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill it without a clean shutdown."""
        self.process.kill()
        self.process.wait()

    def client(self, **settings: Any) -> httpx.Client:
        """Return a client with its own cookies that follows redirects, like a browser."""
        return httpx.Client(
            base_url=self.issuer,
            timeout=30,
            verify=_TLS,
            limits=BRIEFLY_IDLE,
            follow_redirects=True,
            **settings,
        )

    def turn(self, **knobs: Any) -> None:
        """Set knobs (``aspen.local.auth0.settings.Knobs``); needs ``--trial``."""
        self.http.patch("trial/knobs", json=knobs).raise_for_status()

    def reset(self) -> None:
        """Reset all knobs."""
        self.http.delete("trial/knobs").raise_for_status()

    def ask(self, **parameters: str) -> dict[str, Any]:
        """Start a device authorization, like a program."""
        sent = {"client_id": CLIENT, "scope": "openid profile email offline_access", **parameters}
        answer = self.http.post("oauth/device/code", data=sent).raise_for_status()
        return dict(answer.json())

    def decide(self, user_code: str, email: str, *, approve: bool = True) -> str:
        """Open the page of a user code, sign in, approve or deny, and return the last page."""
        with self.client() as browser:
            page = browser.get("activate", params={"user_code": user_code})
            page = submit(browser, page, email=email)
            page = submit(browser, page, decision="approve" if approve else "deny")
            return page.raise_for_status().text

    def poll(self, device_code: str, **parameters: str) -> httpx.Response:
        """Request the tokens of a device code."""
        return self.token(grant_type=Grant.DEVICE_CODE, device_code=device_code, **parameters)

    def token(self, **parameters: str) -> httpx.Response:
        """Send a request to the token endpoint."""
        return self.http.post("oauth/token", data={"client_id": CLIENT, **parameters})

    def tokens(self, email: str, **parameters: str) -> dict[str, Any]:
        """Sign in with the device grant: ``id_token``, ``access_token``, ``refresh_token``, ..."""
        asked = self.ask(**parameters)
        self.decide(asked["user_code"], email)
        return dict(self.poll(asked["device_code"]).raise_for_status().json())

    def management(self, **parameters: str) -> httpx.Client:
        """Return a client of the Management API, with a token for it."""
        answer = self.token(
            **{
                "grant_type": Grant.CLIENT_CREDENTIALS,
                "client_id": MANAGEMENT,
                "client_secret": MANAGEMENT_SECRET,
                "audience": f"{self.issuer}api/v2/",
                **parameters,
            }
        ).raise_for_status()
        headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        return httpx.Client(
            base_url=f"{self.issuer}api/v2",
            headers=headers,
            timeout=30,
            verify=_TLS,
            limits=BRIEFLY_IDLE,
        )

    def _answers(self) -> bool:
        try:
            return self.http.get("healthz").is_success
        except httpx.TransportError:
            return False


@contextlib.contextmanager
def running_identity(
    folder: Path, *arguments: str, port: int | None = None, seeded: Seed = PRINCIPALS
) -> Iterator[Identity]:
    """Run a provider that knows the test principals, and end it after the block.

    Args:
        folder: The folder for its state.
        arguments: Additional arguments of ``python -m aspen.local.auth0``, such as ``--trial``.
        port: The port to listen on; a free port if omitted.
        seeded: Its initial data.
    """
    seed(folder, seeded)
    identity = Identity(folder, *arguments, port=port)
    identity.start()
    try:
        yield identity
    finally:
        identity.http.close()
        identity.end()


def submit(browser: httpx.Client, page: httpx.Response, **fields: str) -> httpx.Response:
    """Submit a page's first form with some fields filled in, like a browser without scripts."""
    form = re.search(r'<form method="post" action="([^"]+)".*?</form>', page.text, re.DOTALL)
    assert form, page.text
    hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form[0])
    values = {name: html.unescape(value) for name, value in hidden}
    return browser.post(html.unescape(form[1]), data={**values, **fields})


def claims_of(token: str) -> dict[str, Any]:
    """Return the claims of a token without verifying it."""
    body = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

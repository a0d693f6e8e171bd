"""Attacks of a second account on a deployment: ``python stranger.py UID``.

It reads the ports, the folder, and the PIDs (JSON) from standard input, tries everything first as
the current user and then as that one, and writes each attempt with its outcome. It is a separate
program, so that nothing that the tests know can help it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import psycopg2
from botocore.config import Config
from botocore.exceptions import ClientError

HTTP = httpx.Client(trust_env=False, limits=httpx.Limits(keepalive_expiry=1))
GOT = "GOT"
"""The prefix of the outcome of a successful attempt."""


def attempts(
    ports: dict[str, int], home: str, pids: list[int], clients: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    """Yield each attempt and its outcome."""
    yield from _aws(f"http://127.0.0.1:{ports['aws']}", clients)
    yield from _postgres(ports["postgres"])
    yield from _identity(f"http://127.0.0.1:{ports['identity']}")
    yield from _api(f"http://127.0.0.1:{ports['api']}")
    yield "read a file of the deployment", _readable(Path(home))
    for pid in pids:
        for name in ("environ", "mem"):
            yield f"read /proc/{pid}/{name}", _outcome(Path(f"/proc/{pid}/{name}").read_bytes)


def clients_of(url: str) -> dict[str, Any]:
    """Return AWS clients, created while the library's own files are readable."""
    return {
        service: boto3.client(
            service,
            endpoint_url=url,
            region_name="us-west-2",
            aws_access_key_id="local",
            aws_secret_access_key="local",
            config=Config(retries={"max_attempts": 0}),
        )
        for service in ("secretsmanager", "s3", "ssm", "stepfunctions")
    }


def _aws(url: str, clients: dict[str, Any]) -> Iterator[tuple[str, str]]:
    secret = {"X-Amz-Target": "secretsmanager.GetSecretValue"}
    for method, path, headers in (
        ("POST", "/moto-api/reset", {}),
        ("GET", "/moto-api/data.json", {}),
        ("POST", "/", secret),
        ("GET", "/genepi-db-data", {}),
        ("PUT", "/genepi-db-data/planted", {}),
    ):
        yield f"{method} {url}{path} without a signature", _http(method, url + path, headers)
    for service, call, arguments in (
        ("secretsmanager", "get_secret_value", {"SecretId": "genepi-config"}),
        ("s3", "list_buckets", {}),
        ("ssm", "get_parameters_by_path", {"Path": "/", "Recursive": True}),
        ("stepfunctions", "list_state_machines", {}),
    ):
        ask = getattr(clients[service], call)
        yield f"{service} {call} as local/local", _outcome(lambda ask=ask, a=arguments: ask(**a))  # type: ignore[misc]


def _postgres(port: int) -> Iterator[tuple[str, str]]:
    for user in ("postgres", "user_rw", "user_ro"):
        for password in ("", user, "postgres", "local"):

            def run(user: str = user, password: str = password) -> object:
                with contextlib.closing(
                    psycopg2.connect(
                        host="127.0.0.1",
                        port=port,
                        dbname="aspen_db",
                        user=user,
                        password=password,
                    )
                ) as connection:
                    cursor = connection.cursor()
                    cursor.execute("CREATE TEMPORARY TABLE ran (line text)")
                    cursor.execute("COPY ran FROM PROGRAM 'id'")
                    return "COPY FROM PROGRAM ran"

            yield f"psql as {user} with the password {password!r}", _outcome(run)


def _identity(url: str) -> Iterator[tuple[str, str]]:
    device = {"client_id": "aspencli-local", "scope": "openid"}
    token = {"client_id": "aspen-management", "grant_type": "client_credentials"}
    asked: tuple[tuple[str, str, dict[str, str]], ...] = (
        ("POST", "/oauth/device/code", device),
        ("POST", "/oauth/token", {**token, "client_secret": "local"}),
        ("GET", "/activate", {}),
        ("GET", "/login", {}),
        ("GET", "/api/v2/users", {}),
    )
    for method, path, form in asked:
        yield f"{method} {url}{path}", _http(method, url + path, {}, form)


def _api(url: str) -> Iterator[tuple[str, str]]:
    for path in ("/v2/users/me", "/v2/groups/1/members/", "/v2/orgs/1/pathogens/SC2/samples/"):
        yield f"GET {url}{path}", _http("GET", url + path, {})


def _http(
    method: str, url: str, headers: dict[str, str], form: dict[str, str] | None = None
) -> str:
    answer = HTTP.request(
        method, url, headers={**headers, "Connection": "close"}, data=form or None
    )
    said = " ".join(answer.text.split())[:160]
    refused = answer.status_code in {401, 403, 404}
    return f"{'' if refused else f'{GOT} '}{answer.status_code} {said}"


def _readable(home: Path) -> str:
    found = []
    for folder, folders, files in os.walk(home):
        found += [f"{folder}/{name}" for name in files if os.access(f"{folder}/{name}", os.R_OK)]
        found += [f"{folder}/{name}" for name in folders if os.access(f"{folder}/{name}", os.W_OK)]
    return f"{GOT} {found}" if found else "none can be read"


def _outcome(run: Callable[[], Any]) -> str:
    try:
        return f"{GOT} {str(run())[:200]}"
    except (OSError, psycopg2.Error, ClientError) as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"


if __name__ == "__main__":
    told = json.load(sys.stdin)
    uid = int(sys.argv[1])
    clients = clients_of(f"http://127.0.0.1:{told['ports']['aws']}")
    # Run everything once as ourselves: modules that Python loads later may be unreadable.
    tried = {"own": [*attempts(told["ports"], told["home"], told["pids"], clients)]}
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    tried["other"] = [*attempts(told["ports"], told["home"], told["pids"], clients)]
    json.dump(tried, sys.stdout)

"""From a target's name to the first row: through the secret, the bastion, and TLS."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from aspen.api.database import make_engine
from tests.deployments.rig import (
    BASTION,
    FORWARD,
    PASSWORD,
    SERVER,
    SESSION_TOKEN,
    configured,
    session_manager,
)

if TYPE_CHECKING:
    from tests.deployments.rig import Deployment

_WHERE = "SELECT current_database();"
_ENCRYPTED = "SELECT ssl, current_user FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


def test_psql_reaches_staging_without_any_setting(deployment: Deployment) -> None:
    done = deployment.run("--env", "staging", "db", "psql", "-c", _ENCRYPTED, "--", "-At")
    assert (done.code, done.out) == (0, "t|reader\n"), done.err
    assert PASSWORD not in done.err


def test_status_names_the_server_itself_and_not_the_tunnel(deployment: Deployment) -> None:
    done = deployment.run("--env", "prod", "db", "status", "-o", "json")
    assert done.code == 0, done.err
    (found,) = json.loads(done.out)
    assert (found["target"], found["database"], found["user"]) == ("prod", "aspen_db", "reader")


def test_target_check_says_that_the_database_is_known_as_production(
    deployment: Deployment,
) -> None:
    words = ("--env", "staging", "target", "check", "-o", "json")
    before = {row["part"]: row for row in json.loads(deployment.run(*words).out)}
    assert deployment.run("--env", "prod", "db", "current").code == 0  # the server of both here
    after = {row["part"]: row for row in json.loads(deployment.run(*words).out)}
    assert [rows["Database"]["state"] for rows in (before, after)] == ["ok", "note"]
    assert "the database of prod" in after["Database"]["found"]


def test_target_check_does_not_take_database_for_that_of_a_production_api(
    deployment: Deployment,
) -> None:
    words = ("--env", "staging", "--api", "https://api.czgenepi.org", "target", "check")
    rows = {row["part"]: row for row in json.loads(deployment.run(*words, "-o", "json").out)}
    assert rows["Database"]["state"] == "ok"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("db", "interact", "-c", "print(session.query(User).count())"), "11\n"),
        (("samples", "list", "--via", "db", "--limit", "3", "-o", "json"), None),
        (("db", "current", "-o", "json"), None),
        (("db", "sizes", "-o", "json"), None),
        (("db", "profile", "--sql", "SELECT count(*) FROM samples"), None),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_database_commands_reach_prod(
    deployment: Deployment, words: tuple[str, ...], expected: str | None
) -> None:
    done = deployment.run("--env", "prod", *words)
    assert done.code == 0, done.err
    assert expected is None or done.out == expected


def test_request_is_profiled_through_the_tunnel(deployment: Deployment) -> None:
    ((email,),) = deployment.sql("SELECT email FROM aspen.users ORDER BY id LIMIT 1")
    asked = ("db", "profile", "--request", "GET /v2/users/me", "--as", email, "-o", "json")
    done = deployment.run("--env", "staging", *asked)
    assert done.code == 0, done.err
    assert "GET /v2/users/me: 200" in done.err
    assert "aspen.users" in done.out


@pytest.mark.parametrize(
    ("host", "query", "error"),
    [
        ("localhost", "sslmode=verify-full&sslrootcert={ca}&connect_timeout=5", None),
        (SERVER, "sslmode=verify-full&sslrootcert={ca}&hostaddr=127.0.0.1", None),
        ("127.0.0.1", "sslmode=verify-full&sslrootcert={ca}", "CERTIFICATE_VERIFY_FAILED"),
        ("other.test", "sslmode=verify-full&sslrootcert={ca}&hostaddr=127.0.0.1", "mismatch"),
        ("127.0.0.1", "sslmode=verify-ca&sslrootcert={ca}", None),
        ("localhost", "sslmode=verify-full&sslrootcert=system", "CERTIFICATE_VERIFY_FAILED"),
        ("127.0.0.1", "sslmode=require&application_name=x", None),
        ("127.0.0.1", "sslmode=prefer", None),
        ("127.0.0.1", "sslmode=disable", "no encryption"),
    ],
)
def test_service_uses_tls_settings_of_its_address(
    deployment: Deployment, host: str, query: str, error: str | None
) -> None:
    place = f"{quote(host)}:{deployment.port}/aspen_db?{query.format(ca=deployment.ca)}"
    url = make_url(f"postgresql+asyncpg://reader:{quote(PASSWORD, safe='')}@{place}")

    async def connect() -> bool:
        engine = make_engine(url)
        try:
            async with engine.connect() as connection:
                asked = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
                return bool(await connection.scalar(sa.text(asked)))
        finally:
            await engine.dispose()

    if error is None:
        assert asyncio.run(connect())
    else:
        with pytest.raises(Exception, match=error):
            asyncio.run(connect())


def test_stack_has_its_own_database(deployment: Deployment) -> None:
    deployment.sql('CREATE DATABASE "my-stack" OWNER boss')
    done = deployment.run(
        *("--env", "rdev", "--stack", "my-stack", "db", "psql", "-c", "SELECT current_database()"),
        *("--", "-At"),
    )
    assert (done.code, done.out) == (0, "my-stack\n"), done.err


@pytest.mark.parametrize("mode", ["no", "auto", "persist"])
def test_operators_control_master_is_used_and_nothing_of_ours_is_left(
    deployment: Deployment, mode: str
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # the path of a socket must be short
        _check_masters(deployment, mode, Path(short))


def _check_masters(deployment: Deployment, mode: str, folder: Path) -> None:
    control = f"ControlPath {folder}/%C"
    options = {
        "no": [],
        "auto": ["ControlMaster auto", control],
        "persist": ["ControlMaster auto", control, "ControlPersist 60"],
    }
    deployment = deployment.with_ssh(*options[mode])
    for _ in range(2):
        done = deployment.run("--env", "staging", "db", "psql", "-c", "SELECT 1", "--", "-At")
        assert (done.code, done.out) == (0, "1\n"), done.err
    assert deployment.bastion.forwarding() == []
    found = subprocess.run(
        ["ps", "-eo", "args"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    masters = [line for line in found if str(folder) in line and "[mux]" in line]
    assert len(masters) == (mode == "persist")
    if masters:
        ssh = deployment.environment["PATH"].partition(os.pathsep)[0] + "/ssh"
        subprocess.run([ssh, "-O", "exit", BASTION], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("words", "stdin", "expected"),
    [
        (
            ("remote-pgconsole", "ENV=staging", "DB=aspen_db"),
            "SELECT current_database();",
            "aspen_db",
        ),
        (("remote-pgconsole", "DB=made-stack"), _WHERE, "made-stack"),
        (("remote-dbconsole", "DB=made-stack"), "print(engine.url.database)", "made-stack"),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_old_make_targets_open_remote_consoles(
    deployment: Deployment, words: tuple[str, ...], stdin: str, expected: str
) -> None:
    if not deployment.sql("SELECT 1 FROM pg_database WHERE datname = 'made-stack'"):
        deployment.sql('CREATE DATABASE "made-stack" OWNER boss')
    program = Path(sys.executable).with_name("aspencli")
    done = subprocess.run(
        ["make", "-s", "-o", "setup", *words, f"ASPENCLI={program}"],
        cwd=Path(__file__).parents[2],
        env=deployment.environment,
        input=stdin + "\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout


def test_iam_user_signs_in_with_a_token_that_is_new_for_each_connection(
    deployment: Deployment,
) -> None:
    text = configured(deployment.aws, deployment.ca).replace(
        "[targets.staging]", '[targets.staging]\niam_user = "iam_reader"'
    )
    deployment = deployment.with_config(text)
    done = deployment.run(
        *("--env", "staging", "db", "tunnel", "--"),
        *("psql", "-At", "-c", r"\getenv token PGPASSWORD", "-c", "SELECT current_user"),
    )
    assert (done.code, done.out) == (0, "iam_reader\n"), done.err
    shown = deployment.run("--env", "staging", "db", "tunnel", "--", "printenv", "PGPASSWORD")
    host, _, query = shown.out.strip().partition("/?")
    values = dict(parse_qsl(query))
    assert host == f"{SERVER}:{deployment.port}"
    assert (values["Action"], values["DBUser"]) == ("connect", "iam_reader")
    assert values["X-Amz-Expires"] == "900"
    code = (
        "import time; first = engine.engine.connect(); time.sleep(1.1);"
        "second = engine.engine.connect();"
        "print(len({c.connection.driver_connection.info.password for c in (first, second)}))"
    )
    tokens = deployment.run("--env", "staging", "db", "interact", "-c", code)
    assert (tokens.code, tokens.out) == (0, "2\n"), tokens.err
    written = deployment.run(
        *("--env", "staging", "db", "psql", "--write", "--yes", "--reason", "a test"),
        *("-c", "SELECT current_user"),
        *("--", "-At"),
    )
    assert written.out == "writer\n", written.err


def test_update_goes_through_the_tunnel_as_the_writer(deployment: Deployment) -> None:
    name = deployment.sql("SELECT private_identifier FROM aspen.samples ORDER BY id LIMIT 1")[0][0]
    done = deployment.run(
        *("--env", "staging", "samples", "update-public-ids", "--via", "db", "--group-id", "1"),
        *("-f", "-", "--yes"),
        input=f"private_identifier,public_identifier\n{name},hCoV-19/USA/Tunnel-1/2026\n",
    )
    assert done.code == 0, done.err
    found = deployment.sql("SELECT public_identifier FROM aspen.samples ORDER BY id LIMIT 1")
    assert found == [("hCoV-19/USA/Tunnel-1/2026",)]


def test_database_is_created_migrated_and_dropped_through_the_tunnel(
    deployment: Deployment,
) -> None:
    stack = ("--env", "rdev", "--stack", "new-stack")
    made = deployment.run(*stack, "db", "setup", "--yes", "-o", "json")
    assert made.code == 0, made.err
    (row,) = json.loads(made.out)
    assert (row["created"], row["outcome"]) == (True, "created")
    checked = deployment.run(*stack, "db", "check")
    assert checked.code == 0, checked.err
    dropped = deployment.run(*stack, "db", "drop", "--confirm", "rdev/new-stack", "--yes")
    assert dropped.code == 0, dropped.err
    assert deployment.sql("SELECT 1 FROM pg_database WHERE datname = 'new-stack'") == []


def test_command_way_uses_the_operators_program(deployment: Deployment) -> None:
    forward = deployment.folder / "forward.py"
    forward.write_text(FORWARD)
    text = configured(deployment.aws, deployment.ca).replace(
        "[targets.staging]",
        '[targets.staging]\nway = "command"\n'
        f'tunnel_command = "{sys.executable} {forward} {{host}} {{port}} {{local_port}}"',
    )
    deployment = deployment.with_config(text)
    done = deployment.run("--env", "staging", "db", "psql", "-c", _ENCRYPTED, "--", "-At")
    assert (done.code, done.out) == (0, "t|reader\n"), done.err
    left = subprocess.run(["pgrep", "-f", str(forward)], capture_output=True, check=False)
    assert left.stdout == b""


def test_ssm_way_forwards_through_the_plugin_without_showing_its_token(
    deployment: Deployment,
) -> None:
    with session_manager(deployment) as (plugin, managed):
        done = managed.run("--env", "staging", "db", "psql", "-c", _ENCRYPTED, "--", "-At")
    assert (done.code, done.out) == (0, "t|reader\n"), done.err
    arguments = json.loads(plugin.with_name("arguments.json").read_text())
    assert SESSION_TOKEN not in " ".join(arguments)
    assert arguments[3] == "StartSession"
    left = subprocess.run(["pgrep", "-f", str(plugin)], capture_output=True, check=False)
    assert left.stdout == b""

"""A dry run refuses what the real command refuses, with the same exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from tests.api.conftest import Api, shared_api
from tests.cli.commands.api_lab import ApiLab
from tests.conftest import CliRunner, Server

__all__ = ["shared_api"]
GROUP = ("groups", "create", "--name", "A new one", "--prefix", "NEWONE")
USER = ("users", "create", "--via", "api", "--group", "1", "--name", "Ada", "--email")
_ADMIT = "\nhost all all 127.0.0.1/32 scram-sha-256\n"
_READER = "aspen_test_reads_only"


@pytest.fixture
def ask(shared_api: Api, lab_of: Callable[[Api], ApiLab]) -> ApiLab:
    return lab_of(shared_api)


@pytest.mark.parametrize(
    ("who", "command"),
    [
        ("member", (*GROUP, "--default-tree-location", "1")),
        ("gadmin", (*GROUP, "--default-tree-location", "1")),
        ("gadmin", (*USER, "new@example.org", "--auth0-user-id", "auth0|new")),
        ("viewer", ("samples", "update", "7", "--private", "--org", "1")),
        ("viewer", ("samples", "delete", "7", "--org", "1")),
        ("viewer", ("phylo-runs", "delete", "7", "--org", "1")),
        (
            "viewer",
            ("phylo-runs", "create", "X", "--name", "N", "--tree-type", "overview", "--org", "1"),
        ),
    ],
)
def test_api_dry_run_is_refused_like_real_command(
    ask: ApiLab, who: str, command: tuple[str, ...]
) -> None:
    real, dry = (ask(*command, flag, who=who) for flag in ("--yes", "--dry-run"))
    assert real.code == 4, real.err
    assert dry.code == 4, dry.err


@pytest.mark.parametrize(
    ("who", "command"),
    [
        ("sysadmin", (*GROUP, "--default-tree-location", "1")),
        ("sysadmin", (*USER, "new@example.org", "--auth0-user-id", "auth0|new")),
    ],
)
def test_permitted_dry_run_creates_nothing(ask: ApiLab, who: str, command: tuple[str, ...]) -> None:
    counts = "SELECT (SELECT count(*) FROM aspen.groups) + (SELECT count(*) FROM aspen.users)"
    with ask.service.database.engine.connect() as connection:
        before = connection.scalar(sa.text(counts))
    ended = ask(*command, "--dry-run", who=who)
    assert ended.code == 0, ended.err
    with ask.service.database.engine.connect() as connection:
        assert connection.scalar(sa.text(counts)) == before


def _scalar(database: Database, statement: str) -> object:
    with database.engine.connect() as connection:
        return connection.scalar(sa.text(statement))


def test_invitation_dry_run_checks_permission_to_invite(people_lab: ApiLab) -> None:
    invite = ("groups", "invite", "--group", "1", "new@example.org")
    for who, code in (("member", 4), ("g2admin", 4), ("gadmin", 0), ("sysadmin", 0)):
        dry = people_lab(*invite, "--dry-run", who=who)
        assert dry.code == code, dry.err
        assert people_lab(*invite, "--yes", who=who).code == code


@pytest.fixture
def reader(postgres: Server, seeded: Database) -> Iterator[str]:
    """Yield the seeded database's address for a user who may read it and change sample dates."""
    admin = Database(seeded.url, application_name="tests", writable=True)
    name = f"{_READER}_{seeded.url.database}"[-60:]
    with admin.engine.begin() as connection:
        for statement in (
            f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'x'",
            f'GRANT USAGE ON SCHEMA aspen TO "{name}"',
            f'GRANT SELECT ON ALL TABLES IN SCHEMA aspen TO "{name}"',
            f'GRANT SELECT ON public.alembic_version TO "{name}"',
            f'GRANT UPDATE (collection_date) ON aspen.samples TO "{name}"',
        ):
            connection.execute(sa.text(statement))
    rules = Path(str(_scalar(admin, "SHOW hba_file")))
    if _ADMIT not in rules.read_text():
        with rules.open("a") as file:
            file.write(_ADMIT)
        with admin.engine.begin() as connection:
            connection.execute(sa.text("SELECT pg_reload_conf()"))
    yield seeded.url.set(username=name, password="x").render_as_string(hide_password=False)
    with admin.engine.begin() as connection:
        connection.execute(sa.text(f'DROP OWNED BY "{name}"'))
        connection.execute(sa.text(f'DROP ROLE "{name}"'))
    admin.dispose()


def test_database_dry_run_is_refused_like_real_command(
    reader: str, run_cli: CliRunner, tmp_path: Path
) -> None:
    ids, dates, users = (tmp_path / name for name in ("ids.csv", "dates.csv", "users.csv"))
    ids.write_text("private_identifier,public_identifier\nRCPHL-0000001,NEW-1\n")
    dates.write_text("private_identifier,collection_date\nRCPHL-0000001,2020-01-02\n")
    users.write_text(
        "email,name,auth0_user_id,group,role\nnew@example.org,New,auth0|new,1,member\n"
    )
    rename = ("samples", "update-public-ids", "--group-id", "1", "-f", str(ids))
    who = ("--name", "New", "--email", "new@example.org", "--auth0-user-id", "auth0|new")
    create = ("users", "create", *who, "--group", "1")
    for command in (rename, ("users", "import", str(users)), create):
        real, dry = (run_cli(*command, flag, database=reader) for flag in ("--yes", "--dry-run"))
        assert real.code == 4, real.err
        assert dry.code == 4, dry.err
        assert "missing: " in dry.err
    allowed = ("samples", "bulk-update", "--group-id", "1", "--from", str(dates))
    assert run_cli(*allowed, "--dry-run", database=reader).code == 0
    done = run_cli(*allowed, "--yes", database=reader)
    assert done.code == 0, done.err

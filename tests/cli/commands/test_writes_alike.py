"""Every command that writes: the same words, JSON, and history for a plan, a refusal, a write."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from aspencli.cli.app import load_group
from aspencli.cli.main import ENTRIES
from aspencli.cli.output.formats import DONE, PLANNED
from tests.api.conftest import Api, managed_by
from tests.cli.commands.api_lab import ApiLab
from tests.cli.commands.ending import Ended
from tests.conftest import Server
from tests.jobs.lab import CloudLab, add_run
from tests.jobs.lab import reset as reset_aws
from tests.local.auth0.lab import ORGANIZATIONS, Identity
from tests.moto import running_moto

Words = tuple[str, ...]

DRY_RUN = "Dry run: nothing was written."
UNCHANGED = re.compile(r"^. ?Nothing to change(: .+)?\.$|^Nothing to change(: .+)?\.$", re.M)
NO_TERMINAL = re.compile(r"Confirmation (by name )?required to .*; nothing was written\.")
DECLINED = re.compile(r"Error: (Declined|Not confirmed); nothing was written\.")
INTERRUPTED = "Error: Interrupted. Nothing was changed beyond what is reported above."
IDLE = {"unchanged", "skip", "skipped"}

READS = {
    *("samples list", "samples show", "samples get", "samples download", "samples validate-ids"),
    *("samples submission-template", "users list", "users show", "users me", "groups list"),
    *("groups show", "groups get", "groups members", "groups invites", "phylo-runs list"),
    *("users roles list",),
    *("phylo-trees download", "phylo-trees selected-samples", "qc-mutations download"),
    *("usher get-tree-versions", "usher get-link", "locations list", "locations search"),
    *("pathogens list", "lineages list-pango", "auspice link", "history list", "history show"),
    *("history check", "db current", "db history", "db check", "db revision", "db status"),
    *("db activity", "db locks", "db outliers", "db sizes", "db indexes", "db bloat"),
    *(
        "db settings",
        "db doctor",
        "local status",
        "local logs",
        "local mail",
        "auth list",
        "auth status",
    ),
    *(
        "auth token",
        "config show",
        "config get",
        "target list",
        "target check",
        "stacks list",
        "history verify",
    ),
    *("identity diff", "jobs list", "jobs show", "jobs why", "jobs logs", "jobs outputs"),
    *("jobs schedule list", "phylo-trees open"),
    *("files list", "files show", "files download", "files check"),
    "db dumps verify",
}
"""Commands that change no target."""
OTHERS = {
    "db interact": "runs any code, so it has no plan",
    "db psql": "runs any statement, so it has no plan",
    "db dump": "reads the target, and writes a folder of its own: see tests/copies",
    "db profile": "runs any code, so it has no plan",
    "db tunnel": "lets other programs run anything, so it has no plan",
    "db access ensure-readonly": "changes a server's roles: deployments/test_readonly_role",
    "samples resume": "finishes a run that is recorded already; see test_renames_accidents",
    "phylo-runs rename": "the older name of phylo-runs update",
    "local up": "starts processes on this machine",
    "local init": "starts processes on this machine",
    "local down": "stops processes on this machine",
    "local seed": "adds test data to the local deployment only, without asking",
    "local reset": "deletes the local deployment only; it has no history afterward",
    "history sync": "sends records of runs that are recorded already",
    "config set": "changes only the config file on this machine",
    "config unset": "changes only the config file on this machine",
    "auth login": "changes only the stored sign-in",
    "auth switch": "changes only which stored sign-in is used",
    "auth logout": "changes only the stored sign-in",
}
"""Commands with side effects that are no planned write, and why."""


@dataclass
class Bench:
    """A target with everything that the commands need, and the state that they change.

    Attributes:
        lab: The service with its database.
        postgres: The server of all databases.
        folder: The folder for input files.
        exits: What to close at the end of the test.
        template: The template of a database with the schema.
        identity: The identity provider.
        other: Another database, for commands on whole databases.
        sessions: The PIDs of other sessions.
    """

    lab: ApiLab
    postgres: Server
    folder: Path
    exits: ExitStack
    template: str
    identity: Identity
    other: str = ""
    sessions: list[int] = field(default_factory=list)

    def run(self, write: Write, *words: str) -> Ended:
        env = {}
        if self.other:
            env = {"ASPEN_DATABASE_URL_STAGING": self.other}
        return self.lab(*words, who=write.who, env=env)

    def file(self, name: str, *lines: str) -> str:
        path = self.folder / name
        path.write_text("\n".join(lines) + "\n")
        return str(path)

    def ok(self, *words: str) -> Ended:
        ended = self.lab(*words, "--yes", who="gadmin")
        assert ended.code == 0, ended.err
        return ended

    def user(self, group: str = "1") -> str:
        """Create a user without an account at the provider; return the e-mail address."""
        one = uuid.uuid4().hex[:8]
        who = ("--name", "Old", "--email", f"{one}@example.org", "--auth0-user-id", f"auth0|{one}")
        self.ok("users", "create", "--via", "db", *who, "--group", group)
        return f"{one}@example.org"

    def group(self) -> str:
        """Create a group with an organization; return its prefix."""
        ended = self.lab(*_create_group(self), "--yes", "-o", "json", who="sysadmin")
        assert ended.code == 0, ended.err
        return str(ended.json[0]["prefix"])

    def last_run(self) -> dict[str, Any]:
        (run, *_) = self.runs()
        return run

    def runs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.lab("history", "list", "-o", "json").json
        return found

    def samples(self) -> Iterator[str]:
        """Yield private identifiers of group 1."""
        with self.lab.service.database.reading() as session:
            found = session.scalars(
                sa.text(
                    "SELECT private_identifier FROM aspen.samples WHERE submitting_group_id = 1"
                    " ORDER BY random()"
                )
            ).all()
        yield from found

    def run_of(self, status: str) -> str:
        path = "/v2/orgs/1/pathogens/SC2/phylo_runs/"
        runs = self.lab.service("GET", path, "gadmin").json()["phylo_runs"]
        return str(next(run["id"] for run in runs if run["workflow_status"] == status))

    def database(self, template: str | None) -> Words:
        """Make the target staging another database; return the words that choose it."""
        name = f"aspen_alike_{uuid.uuid4().hex[:8]}"
        if template is not None:
            name = self.postgres.create(template=template)
        self.exits.callback(self.postgres.drop, name)
        self.other = self.postgres.url(name)
        return "--env", "staging"

    def session(self) -> str:
        """Start a long statement in another session, and return the session's PID."""
        url = make_url(self.lab.service.database.url)
        connection = psycopg2.connect(
            host=url.host,
            port=url.port,
            user=url.username,
            password=url.password,
            dbname=url.database,
        )

        def work() -> None:
            with suppress(psycopg2.Error), connection.cursor() as cursor:
                cursor.execute("SELECT pg_sleep(300)")

        threading.Thread(target=work, daemon=True).start()
        pid: int = connection.get_backend_pid()
        self.exits.callback(self._terminate, pid)
        self.sessions.append(pid)
        while not self._activity():
            pass
        return str(pid)

    def _terminate(self, pid: int) -> None:
        with self.lab.service.database.begin() as session:
            session.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})

    def _activity(self) -> list[Any]:
        with self.lab.service.database.reading() as session:
            query = "SELECT pid FROM pg_stat_activity WHERE pid = ANY(:pids) AND state = 'active'"
            return [tuple(row) for row in session.execute(sa.text(query), {"pids": self.sessions})]

    def state(self) -> str:
        """Return a fingerprint of everything that a write of this test could change."""
        tables = ("samples", "users", "groups", "user_roles", "phylo_runs", "workflows")
        queries = [
            f"SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM aspen.{t} t" for t in tables
        ]
        with self.lab.service.database.reading() as session:
            found = [session.scalar(sa.text(query)) for query in queries]
        home = Path(os.environ["ASPEN_HOME"]) / "state" / "undo"
        files = sorted(map(str, home.glob("*")))
        return repr((found, files, self._activity(), self._other(), self.invited()))

    def invited(self) -> list[str]:
        answer = self.lab.service("GET", "/v2/groups/1/invitations/", "gadmin")
        return sorted(each["id"] for each in answer.json()["invitations"])

    def _other(self) -> list[Any]:
        if not self.other:
            return []
        engine = sa.create_engine(self.other, poolclass=NullPool)
        try:
            with engine.connect() as connection:
                query = (
                    "SELECT schemaname, tablename FROM pg_tables"
                    " WHERE schemaname IN ('aspen', 'public')"
                )
                return [True, *sorted(map(tuple, connection.execute(sa.text(query))))]
        except OperationalError:
            return [False]


@dataclass(frozen=True)
class Write:
    """A command that writes.

    Attributes:
        words: Prepares the write, and returns the command line.
        who: The user of the API.
        yes: The confirmation.
        again: The result of the same command after it: ``unchanged``, ``conflict``, or None if it
            would be another write, or what it names is gone.
        recorded: True if the history shows it.
    """

    words: Callable[[Bench], Words]
    who: str = "gadmin"
    yes: Words = ("--yes",)
    again: str | None = "unchanged"
    recorded: bool = True


def _create_user(backend: str) -> Callable[[Bench], Words]:
    def words(_bench: Bench) -> Words:
        one = uuid.uuid4().hex[:8]
        return (
            *("users", "create", "--via", backend, "--name", "New", "--group", "1"),
            *("--email", f"{one}@example.org", "--auth0-user-id", f"auth0|{one}"),
        )

    return words


def _onboard(_bench: Bench) -> Words:
    email = f"{uuid.uuid4().hex[:8]}@example.org"
    return "users", "onboard", email, "--name", "New", "--group", "1"


def _offboard(bench: Bench) -> Words:
    words = _onboard(bench)
    bench.ok(*words)
    return "users", "offboard", words[2]


def _onboard_group(_bench: Bench) -> Words:
    one = uuid.uuid4().hex[:8]
    return (
        *("groups", "onboard", "--name", f"Group {one}", "--prefix", one),
        *("--default-tree-location", "1", "--admin", f"{one}@example.org", "--admin-name", "Ada"),
    )


def _import_users(bench: Bench) -> Words:
    one = uuid.uuid4().hex[:8]
    head = "email,name,auth0_user_id,group,role"
    file = bench.file("users.csv", head, f"{one}@example.org,M,auth0|{one},RCPHL,admin")
    return "users", "import", file


def _import_groups(bench: Bench) -> Words:
    one = uuid.uuid4().hex[:8]
    head = "prefix,name,default_tree_location,auth0_org_id"
    return "groups", "import", bench.file("groups.csv", head, f"{one},Group {one},1,org_{one}")


def _undo(noun: str, write: Callable[[Bench], Words], *more: str) -> Callable[[Bench], Words]:
    def words(bench: Bench) -> Words:
        bench.ok(*write(bench))
        return noun, "undo", str(bench.last_run()["run"]), *more

    return words


def _update_user(bench: Bench) -> Words:
    return "users", "update", bench.user(), "--name", uuid.uuid4().hex


def _update_group(bench: Bench) -> Words:
    return "groups", "update", bench.group(), "--name", uuid.uuid4().hex


def _archive_group(bench: Bench) -> Words:
    prefix = bench.group()
    bench.user(prefix)
    return "groups", "archive", prefix


def _sync(bench: Bench) -> Words:
    """Add an account with a role to the provider, which the database does not have."""
    one = uuid.uuid4().hex[:8]
    with bench.identity.management() as provider:
        body = {
            "connection": "Username-Password-Authentication",
            "email": f"{one}@example.org",
            "password": one,
            "user_id": one,
        }
        provider.post("users", json=body).raise_for_status()
        place = f"organizations/{ORGANIZATIONS[2]}/members"
        provider.post(place, json={"members": [f"auth0|{one}"]}).raise_for_status()
        role = next(role["id"] for role in provider.get("roles").json() if role["name"] == "viewer")
        provider.post(f"{place}/auth0|{one}/roles", json={"roles": [role]}).raise_for_status()
    return "identity", "sync", "--source", "auth0", "--no-sync-user-attributes", "--no-sync-roles"


def _create_group(_bench: Bench) -> Words:
    one = uuid.uuid4().hex[:8]
    name = ("--name", f"Group {one}", "--prefix", one)
    return "groups", "create", *name, "--default-tree-location", "1"


def _create_sample(_bench: Bench) -> Words:
    return (
        *("--org", "1", "samples", "create", "--private-identifier", uuid.uuid4().hex),
        *("--sequence", "ACGT" * 300, "--collection-date", "2023-05-17", "--location", "1"),
    )


def _update_sample(bench: Bench) -> Words:
    one = next(bench.samples())
    return "--org", "1", "samples", "update", one, "--public-identifier", uuid.uuid4().hex


def _rename(backend: str) -> Callable[[Bench], Words]:
    def words(bench: Bench) -> Words:
        samples = bench.samples()
        rows = [f"{next(samples)},{uuid.uuid4().hex}" for _ in range(2)]
        file = bench.file("ids.csv", "private_identifier,public_identifier", *rows)
        return "samples", "update-public-ids", "--group-id", "1", "-f", file, "--via", backend

    return words


def _bulk_update(bench: Bench) -> Words:
    row = f"{next(bench.samples())},{uuid.uuid4().hex}"
    file = bench.file("more.csv", "private_identifier,public_identifier", row)
    return "samples", "bulk-update", "--group-id", "1", "--from", file


def _prune(bench: Bench) -> Words:
    bench.ok(*_bulk_update(bench))
    return "history", "prune", "--older-than", "0"


def _with_jobs(bench: Bench) -> CloudLab:
    """Make the database that of the target staging, whose jobs run in AWS."""
    address = bench.exits.enter_context(running_moto())
    reset_aws(address)
    cloud = CloudLab(address)
    cloud.deploy()
    patch = pytest.MonkeyPatch()
    bench.exits.callback(patch.undo)
    for name, value in cloud.environment(bench.lab.service.database.url).items():
        patch.setenv(name, value)
    (bench.folder / "jobs.toml").write_text(cloud.config())
    patch.setenv("ASPEN_CONFIG", str(bench.folder / "jobs.toml"))
    return cloud


def _job(status: str, execution: str, *words: str) -> Callable[[Bench], Words]:
    """Return the preparation of a command for a run with an execution."""

    def prepare(bench: Bench) -> Words:
        cloud, began = _with_jobs(bench), dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
        database = bench.lab.service.database
        run = add_run(database, status, began)
        with database.reading() as session:
            prefix = str(session.scalar(sa.text("SELECT prefix FROM aspen.groups WHERE id = 1")))
        cloud.tree(run, prefix, began, status=execution)
        return "--env", "staging", "jobs", *(word.format(run=run) for word in words)

    return prepare


def _start_job(bench: Bench) -> Words:
    _with_jobs(bench)
    return "--env", "staging", "jobs", "start", "qc", "--pathogen", "SC2", "--stale"


def _undo_jobs(bench: Bench) -> Words:
    bench.ok(*_job("STARTED", "FAILED", "reconcile")(bench))
    return "--env", "staging", "jobs", "undo", str(bench.last_run()["run"])


def _restore(bench: Bench) -> Words:
    folder = str(bench.folder / uuid.uuid4().hex)
    bench.ok("db", "dump", folder, "--trees", "drop")
    return *bench.database("template1"), "db", "restore", folder


def _copy(bench: Bench) -> Words:
    bench.database("template1")
    return "db", "copy", "--from", "local", "--to", "staging", "--trees", "drop"


_STAGING = ("--confirm", "staging")
WRITES = {
    "users create --via db": Write(_create_user("db")),
    "users create --via api": Write(_create_user("api"), who="sysmember", again="conflict"),
    "users update-me": Write(
        lambda _bench: ("users", "update-me", "--gisaid-submitter-id", uuid.uuid4().hex)
    ),
    "users onboard": Write(_onboard),
    "users offboard": Write(_offboard),
    "users import": Write(_import_users),
    "users undo": Write(_undo("users", _import_users)),
    "users update": Write(_update_user),
    "users roles add": Write(
        lambda bench: ("users", "roles", "add", bench.user(), "--group", "2", "--role", "viewer")
    ),
    "users roles remove": Write(
        lambda bench: ("users", "roles", "remove", bench.user(), "--group", "1")
    ),
    "users delete": Write(lambda bench: ("users", "delete", bench.user()), again=None),
    "users undo of an update": Write(_undo("users", _update_user)),
    "groups update": Write(_update_group),
    "groups archive": Write(_archive_group),
    "groups delete": Write(lambda bench: ("groups", "delete", bench.group()), again=None),
    "groups undo of an update": Write(_undo("groups", _update_group)),
    "groups create": Write(_create_group, who="sysadmin", again="conflict"),
    "groups onboard": Write(_onboard_group),
    "groups invite": Write(
        lambda _bench: ("groups", "invite", "--group", "1", f"{uuid.uuid4().hex[:8]}@example.org")
    ),
    "groups import": Write(_import_groups),
    "groups undo": Write(_undo("groups", _import_groups)),
    "identity sync": Write(_sync),
    "samples create": Write(_create_sample, again="conflict"),
    "samples update": Write(_update_sample),
    "samples delete": Write(
        lambda bench: ("--org", "1", "samples", "delete", next(bench.samples())), again=None
    ),
    "samples update-public-ids --via db": Write(_rename("db")),
    "samples update-public-ids --via api": Write(_rename("api")),
    "samples bulk-update": Write(_bulk_update),
    "samples undo --via db": Write(_undo("samples", _rename("db"))),
    "samples undo --via api": Write(_undo("samples", _rename("api"))),
    "phylo-runs create": Write(
        lambda bench: (
            *("--org", "1", "phylo-runs", "create", next(bench.samples())),
            *("--name", "Cannery", "--tree-type", "targeted"),
        ),
        again=None,
    ),
    "phylo-runs update": Write(
        lambda bench: (
            *("--org", "1", "phylo-runs", "update", bench.run_of("COMPLETED")),
            *("--name", uuid.uuid4().hex),
        )
    ),
    "phylo-runs delete": Write(
        lambda bench: ("--org", "1", "phylo-runs", "delete", bench.run_of("COMPLETED")), again=None
    ),
    "jobs start": Write(_start_job, again=None),
    "jobs cancel": Write(_job("STARTED", "RUNNING", "cancel", "{run}")),
    "jobs retry": Write(_job("FAILED", "FAILED", "retry", "{run}"), again="conflict"),
    "jobs reconcile": Write(_job("STARTED", "FAILED", "reconcile")),
    "jobs undo": Write(_undo_jobs),
    "history prune": Write(_prune, recorded=False),
    "db upgrade": Write(
        lambda bench: (*bench.database("template1"), "db", "upgrade"), yes=_STAGING
    ),
    "db downgrade": Write(
        lambda bench: (*bench.database(bench.template), "db", "downgrade", "base"), yes=_STAGING
    ),
    "db setup": Write(lambda bench: (*bench.database("template1"), "db", "setup"), yes=_STAGING),
    "db create": Write(lambda bench: (*bench.database(None), "db", "create"), yes=_STAGING),
    "db drop": Write(lambda bench: (*bench.database(bench.template), "db", "drop"), yes=_STAGING),
    "db restore": Write(_restore, yes=_STAGING, again=None),
    "db copy": Write(_copy, yes=_STAGING, again=None),
    "db cancel": Write(lambda bench: ("db", "cancel", bench.session()), again=None),
    "db terminate": Write(lambda bench: ("db", "terminate", bench.session()), again=None),
}


@pytest.fixture
def bench(
    managed_service: Api,
    lab_of: Callable[[Api], ApiLab],
    postgres: Server,
    tmp_path: Path,
    _migrated_template: str,
    identity_process: Identity,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Bench]:
    for name, value in managed_by(identity_process).items():
        monkeypatch.setenv(name, value)
    with ExitStack() as exits:
        lab = lab_of(managed_service)
        yield Bench(lab, postgres, tmp_path, exits, _migrated_template, identity_process)


def _commands() -> dict[str, Any]:
    return {
        name: command
        for entry in ENTRIES
        for name, command in _below(entry.name, load_group(entry))
    }


def _below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield name, command
        return
    for word, child in command.commands.items():
        yield from _below(f"{name} {word}", child)


def _command_of(name: str) -> str:
    """Return the command of an entry of `WRITES`."""
    words = name.partition(" --")[0].partition(" of ")[0]
    assert words in _commands(), words
    return words


def test_every_command_is_known_as_a_read_or_a_write() -> None:
    writes = set(map(_command_of, WRITES))
    assert sorted(_commands()) == sorted(READS | OTHERS.keys() | writes)


def test_every_dry_run_belongs_to_a_write() -> None:
    with_dry_run = {
        name
        for name, command in _commands().items()
        if any("--dry-run" in parameter.opts for parameter in command.params)
    }
    writes = set(map(_command_of, WRITES))
    assert writes <= with_dry_run
    assert with_dry_run <= writes | OTHERS.keys()


def _outcomes(ended: Ended, known: Words) -> set[str]:
    rows = json.loads(ended.out)
    assert all(row["outcome"] in known for row in rows), rows
    return {row["outcome"] for row in rows}


@pytest.mark.parametrize("name", WRITES)
def test_write_says_the_same_at_every_stage(name: str, bench: Bench) -> None:
    write = WRITES[name]
    words = write.words(bench)
    before, recorded = bench.state(), len(bench.runs())

    planned = bench.run(write, *words, "--dry-run", "-o", "json")
    assert planned.code == 0, planned.err
    assert planned.err.splitlines()[-1].strip() == DRY_RUN
    assert _outcomes(planned, PLANNED) - IDLE
    assert (bench.state(), len(bench.runs())) == (before, recorded)

    refused = bench.run(write, *words, "-o", "json")
    assert (refused.code, refused.out) == (3, ""), refused.err
    assert NO_TERMINAL.fullmatch(refused.error["message"]), refused.err
    declined = bench.lab.on_terminal(*words, who=write.who, answers=["n"])
    assert DECLINED.search(declined), declined
    interrupted = bench.lab.on_terminal(*words, who=write.who, answers=["\x03"])
    assert INTERRUPTED in interrupted, interrupted
    assert bench.state() == before

    done = bench.run(write, *words, *write.yes, "-o", "json")
    assert done.code == 0, done.err
    assert _outcomes(done, DONE) - IDLE
    after = bench.state()
    assert after != before or name in {"history prune", "phylo-runs create", "jobs start"}
    if write.recorded:
        command = _command_of(name)
        found = [(run["command"], run["outcome"]) for run in bench.runs()[:4]]
        assert found == [(command, "written"), *[(command, "declined")] * 3]
    if write.again == "unchanged":
        same = bench.run(write, *words, *write.yes, "-o", "json")
        assert same.code == 0, same.err
        assert _outcomes(same, DONE) <= IDLE
        assert UNCHANGED.search(same.err), same.err
        assert bench.state() == after
    if write.again == "conflict":
        clash = bench.run(write, *words, *write.yes, "-o", "json")
        assert (clash.code, clash.out) == (7, ""), clash.err
        assert "nothing was written" in clash.err
        assert bench.state() == after
        # A conflict that the plan already shows is found before anything is recorded.
        assert bench.runs()[0]["outcome"] in {"written", "rolled back"}

"""Production reached by any name or address: nothing is written without consent."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL

from aspen.database.engine import Database
from aspencli.cli.main import run
from tests.cli.commands.ending import Ended
from tests.cli.commands.proxy import CommitProxy
from tests.local.marking import mark_as_created

Way = Callable[["Site"], None]


@dataclass
class Site:
    """A production target, and the operator's settings."""

    database: Database
    folder: Path
    patch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    ways_out: contextlib.ExitStack
    words: list[str] = field(default_factory=list)

    @property
    def url(self) -> URL:
        return self.database.url.set(drivername="postgresql")

    def text(self, **changes: object) -> str:
        return self.url.set(**changes).render_as_string(hide_password=False)  # type: ignore[arg-type]

    def say(self, target: str, address: str) -> None:
        self.patch.setenv(f"ASPEN_DATABASE_URL_{target}", address)

    def configure(self, *lines: str) -> None:
        path = self.folder / "config.toml"
        path.write_text("\n".join(lines) + "\n")
        self.patch.setenv("ASPEN_CONFIG", str(path))

    def __call__(self, *words: str) -> Ended:
        self.capsys.readouterr()
        code = run([*self.words, *words])
        return Ended(code, *self.capsys.readouterr())

    def state(self) -> str:
        """Return a fingerprint of everything that a write would change."""
        queries = (
            "SELECT md5(string_agg(s::text, '' ORDER BY id)) FROM aspen.samples s",
            "SELECT md5(string_agg(u::text, '' ORDER BY id)) FROM aspen.users u",
            "SELECT md5(string_agg(g::text, '' ORDER BY id)) FROM aspen.groups g",
            "SELECT string_agg(version_num, ',') FROM public.alembic_version",
            # Not pg_class, which may contain temporary tables of a session that just ended.
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'aspen'",
        )
        with self.database.reading() as session:
            return repr([session.scalar(sa.text(query)) for query in queries])


@pytest.fixture
def site(
    seeded: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Site]:
    monkeypatch.setenv("ASPEN_VIA", "db")
    with contextlib.ExitStack() as stack:
        made = Site(seeded, tmp_path, monkeypatch, capsys, stack)
        made.say("PROD", made.text())
        yield made


def leftover_variable(site: Site) -> None:
    site.say("LOCAL", site.text())


def variable_of_staging(site: Site) -> None:
    site.say("STAGING", site.text(username="postgres"))
    site.words = ["--env", "staging"]


def rdev_stack(site: Site) -> None:
    site.say("RDEV", site.text())
    site.words = ["--env", "rdev", "--stack", "mine"]


def local_in_the_file(site: Site) -> None:
    site.configure("[targets.local]", f"database_url = {json.dumps(site.text())}")


def own_target_called_local(site: Site) -> None:
    site.configure("[targets.qa]", 'safety = "local"', f"database_url = {json.dumps(site.text())}")
    site.words = ["--env", "qa"]


def production_in_the_file_only(site: Site) -> None:
    site.patch.delenv("ASPEN_DATABASE_URL_PROD")
    site.configure("[targets.prod]", f"database_url = {json.dumps(site.text())}")
    site.say("LOCAL", site.text())


def name_of_the_host(site: Site) -> None:
    site.say("LOCAL", site.text(host="localhost"))


def another_letter_case_and_a_dot(site: Site) -> None:
    site.say("PROD", site.text(host="LocalHost."))
    site.say("LOCAL", site.text(host="127.0.0.1"))


def short_number(site: Site) -> None:
    site.say("LOCAL", site.text(host="127.1"))


def one_number(site: Site) -> None:
    site.say("LOCAL", site.text(host="2130706433"))


def mapped_ipv6(site: Site) -> None:
    site.say("LOCAL", site.text(host="::ffff:127.0.0.1"))


def own_name_of_this_machine(site: Site) -> None:
    site.say("LOCAL", site.text(host=socket.gethostname()))


def host_as_a_parameter(site: Site) -> None:
    query = {"host": "127.0.0.1", "port": str(site.url.port)}
    site.say("LOCAL", site.text(host=None, port=None, query=query))


def several_hosts(site: Site) -> None:
    place = f"127.0.0.1:{site.url.port}"
    site.say("LOCAL", site.text(host=None, port=None, query={"host": ("127.0.0.1:1", place)}))


def hostaddr(site: Site) -> None:
    site.say("LOCAL", site.text(host="db.example.org", query={"hostaddr": "127.0.0.1"}))


def defaults_of_the_shell(site: Site) -> None:
    site.patch.setenv("PGHOST", "127.0.0.1")
    site.patch.setenv("PGPORT", str(site.url.port))
    site.say("LOCAL", site.text(host=None, port=None))


def service_file(site: Site) -> None:
    path = site.folder / "services.conf"
    path.write_text(f"[there]\nhost=127.0.0.1\nport={site.url.port}\n")
    site.patch.setenv("PGSERVICEFILE", str(path))
    site.say("LOCAL", site.text(host=None, port=None, query={"service": "there"}))


def tunnel_after_production_was_seen(site: Site) -> None:
    assert site("--env", "prod", "db", "status").code == 0
    site.say("LOCAL", site.ways_out.enter_context(CommitProxy(site.text(), deliver=True)).address)


def tunnel_and_nothing_configured(site: Site) -> None:
    tunnel_after_production_was_seen(site)
    site.patch.delenv("ASPEN_DATABASE_URL_PROD")


def tunnel_after_production_was_seen_as_read_only(site: Site) -> None:
    """Reach production by a tunnel, after it was only seen by an address that refuses writes."""
    query = {"options": "-c default_transaction_read_only=on"}
    site.say("PROD", site.text(query=query))
    tunnel_after_production_was_seen(site)


WAYS: tuple[Way, ...] = (
    leftover_variable,
    variable_of_staging,
    rdev_stack,
    local_in_the_file,
    own_target_called_local,
    production_in_the_file_only,
    name_of_the_host,
    another_letter_case_and_a_dot,
    short_number,
    one_number,
    mapped_ipv6,
    own_name_of_this_machine,
    host_as_a_parameter,
    several_hosts,
    hostaddr,
    defaults_of_the_shell,
    service_file,
    tunnel_after_production_was_seen,
    tunnel_and_nothing_configured,
    tunnel_after_production_was_seen_as_read_only,
)


def writes(site: Site) -> list[tuple[str, ...]]:
    """Return every command that writes to a database."""
    with site.database.reading() as session:
        lab = session.scalar(
            sa.text(
                "SELECT private_identifier FROM aspen.samples WHERE submitting_group_id = 1"
                " ORDER BY id LIMIT 1"
            )
        )
    names = site.folder / "names.csv"
    names.write_text(f"private_identifier,public_identifier\n{lab},Renamed\n")
    dates = site.folder / "dates.csv"
    dates.write_text(f"private_identifier,collection_date\n{lab},2020-02-02\n")
    people = site.folder / "people.csv"
    people.write_text("email,name,auth0_user_id,group,role\nm@example.org,M,auth0|m,RCPHL,admin\n")
    groups = site.folder / "groups.csv"
    groups.write_text(
        "prefix,name,address,division,location,default_tree_location,submitting_lab,auth0_org_id\n"
        "INT,Intruders,Nowhere 1,California,Town,1,Intruders,org_intruders\n"
    )
    statement = "insert into aspen.pathogens (slug, name) values ('ZZ', 'zz')"
    change = f"session.execute(sa.text({statement!r})); session.commit()"
    return [
        ("samples", "update-public-ids", "--group-id", "1", "-f", str(names)),
        ("samples", "bulk-update", "--group-id", "1", "--from", str(dates)),
        ("users", "import", str(people)),
        ("groups", "import", str(groups)),
        (
            *("users", "create", "--email", "m@example.org", "--name", "M", "--group", "RCPHL"),
            "--auth0-user-id",
            "auth0|m",
        ),
        ("db", "interact", "--write", "--reason", "x", "-c", change),
        ("db", "psql", "--write", "--reason", "x", "-c", statement),
        ("db", "profile", "--write", "--commit", "--reason", "x", "-c", change),
        ("db", "downgrade", "base"),
        ("db", "drop", "--force"),
        ("local", "seed", "--samples", "3"),
        ("local", "seed"),
    ]


@pytest.mark.parametrize("number", range(len(WAYS)), ids=[way.__name__ for way in WAYS])
def test_unconfirmed_write_never_reaches_production(number: int, site: Site) -> None:
    WAYS[number](site)
    before, commands = site.state(), writes(site)
    # Rotate, so that each command is tried in several ways, and each way with several commands.
    for step in range(4):
        words = commands[(number * 5 + step) % len(commands)]
        consent = (("--yes",), ("--yes", "--no-input"), ("--confirm", "local"))[step % 3]
        ended = site(*words, *consent)
        elsewhere = words[0] == "local" and site.words  # a command only for --env local
        # An address that names a service may also be refused as invalid.
        codes = {2} if elsewhere else {2, 3} if WAYS[number] is service_file else {3}
        assert ended.code in codes, (words, consent, ended)
    assert site.state() == before


def test_alias_of_production_is_confirmed_by_production_name(site: Site) -> None:
    leftover_variable(site)
    words = writes(site)[0]
    refused = site(*words, "--yes")
    assert "Target: local, but this address belongs to prod. Treated as production." in refused.err
    assert "--confirm prod" in refused.err
    assert site(*words, "--confirm", "prod").code == 0
    shown = site("config", "show", "-o", "json")
    assert "local (production, address belongs to prod)" in shown.out


@pytest.mark.parametrize("form", [("-h", "127.0.0.1", "-d", "{}"), ("{}",), ("--dbname={}",)])
def test_psql_write_to_another_database_is_refused(
    form: tuple[str, ...], site: Site, migrated_db: str
) -> None:
    site.say("LOCAL", migrated_db)
    before = site.state()
    words = (word.format(site.text()) for word in form)
    statement = "delete from aspen.samples"
    ended = site("db", "psql", "--write", "--yes", "--reason", "x", "-c", statement, "--", *words)
    assert (ended.code, site.state()) == (3, before), ended.err


def test_other_database_on_production_server_is_not_production(
    site: Site, migrated_db: str
) -> None:
    site("--env", "prod", "db", "status")
    site.say("LOCAL", migrated_db)
    assert site("db", "upgrade").code == 0
    assert "production" not in site("config", "show").out


@pytest.mark.parametrize(
    "name",
    [
        "PROD",
        "Prod",
        "prod ",
        " prod",
        "pr\\u00a0od",
        "prod\\u200b",
        "\\uff50rod",
        "\\u0440rod",
        "LOCAL",
        "pr0d",
    ],
)
def test_lookalike_target_name_is_refused(name: str, site: Site) -> None:
    site.configure(f'[targets."{name}"]', 'safety = "local"', 'database_url = "postgresql://x/y"')
    ended = site("config", "show")
    assert ended.code == 2
    assert "looks like" in ended.err


def test_seed_and_drop_require_database_of_local_deployment(
    site: Site, aspen_home: Path, migrated_db: str
) -> None:
    site.say("LOCAL", migrated_db)
    for words in (
        ("local", "seed", "--yes"),
        ("local", "seed", "--samples", "2", "--yes"),
        ("db", "drop", "--yes"),
    ):
        ended = site(*words)
        assert ended.code == 3
        assert "was not created by the local deployment" in ended.err
    mark_as_created(aspen_home, migrated_db)
    assert site("local", "seed", "--yes").code == 0

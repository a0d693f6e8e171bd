"""One PostgreSQL server for the whole test run, and databases cloned from templates for each test.

The server starts with the first test that needs it, in whichever process that is, and stops with
the run. ``ASPEN_TEST_DATABASE_URL`` (a superuser's address) selects an existing server instead.
``ASPEN_TEST_POOLER=session`` (or ``transaction``, either with ``,ignore``) goes through PgBouncer.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import select
import shutil
import signal
import ssl
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import psycopg2
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import NullPool

from aspen.database.engine import Database, normalize_url
from aspen.database.profiling.budgets import held_to
from aspen.database.profiling.recorder import Recordable, Recorder
from aspen.local.aws.content import ObjectFolder
from aspen.local.postgres.server import SUPERUSER, Cluster
from aspen.local.processes import file_lock
from aspen.local.seed import seed_roles
from aspencli.machine import command_of
from tests import zygote
from tests.pooler import SWITCH, Pooler

# Nearly everything that is loaded stays, so collecting garbage meanwhile (a fifth of the time of
# loading all tests) finds nothing.
gc.disable()

# Hypothesis must not fail a test because the machine is busy.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

GIVEN_SERVER = "ASPEN_TEST_DATABASE_URL"
BRIEFLY_IDLE = httpx.Limits(keepalive_expiry=1)
"""For clients that are kept: servers close idle connections after 5 s, and httpx's default is the
same, so that a request could be sent just as its connection is closed."""
_POOLER = os.environ.get(SWITCH)
# These say where things are on this machine; they are not settings of the program under test.
_KEPT = frozenset({"ASPEN_PG_BINDIR", "ASPEN_SHARED_DATA"})
DEPLOYED = ("RDEV", "STAGING", "PROD")
"""The targets with an audit trail, as in the names of variables."""
_FOLDER = "aspen-tests-"
_FAST = {
    # Several workers of tests share the server, and some tests fill pools of connections.
    "max_connections": "250",
    **dict.fromkeys(("fsync", "synchronous_commit", "full_page_writes"), "off"),
    # Thousands of other statements must not evict those that a test counts.
    "pg_stat_statements.max": "20000",
}
_SEEDED_SAMPLES = 60
_MEMORY = Path("/dev/shm")
_MEMORY_BYTES = 4 << 30  # a run uses 0.3 GB at a time
_HAS_STRATEGIES = 150_000  # PostgreSQL 15
_COUNTS_ITERATIONS = 160_000  # PostgreSQL 16

_run_folder = pytest.StashKey[Path]()


# Modules that start whole servers or take long run first, so that the run ends on short ones.
_LONG_FIRST = (
    *("local/test_deployment", "campaigns/test_accidents", "contract/test_madeup", "deployments/"),
    *("workflows/tree/test_trees", "workflows/engine/", "copies/", "cli/assistant/test_server"),
    *("cli/commands/test_renames", "poolers/", "api/test_samples_put", "api/test_limits"),
    *("guides/", "screens/", "site/", "local/test_lifecycle", "cli/commands/test_local", "local/"),
    *("cli/commands/test_samples_bulk", "database/test_renames", "cli/commands/test_standbys"),
    *("cli/console/", "auth/", "api/test_workers", "campaigns/test_fuzz_changes"),
    *("workflows/", "jobs/", "samples/", "cli/test_doctor"),
    *("cli/commands/", "campaigns/", "contract/", "migrations/", "database/", "api/"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run long modules first, keeping the order within each module."""
    here = Path(__file__).parent

    @functools.cache
    def place(path: Path) -> int:
        name = path.relative_to(here).as_posix() if here in path.parents else ""
        return next(
            (number for number, one in enumerate(_LONG_FIRST) if name.startswith(one)),
            len(_LONG_FIRST),
        )

    items.sort(key=lambda item: place(item.path))
    pooler = _POOLER or ""
    for item in items if pooler else ():
        for mark in item.iter_markers("unpooled"):
            if pooler.startswith(mark.kwargs.get("modes", "")):
                item.add_marker(pytest.mark.skip(reason=f"through a pooler: {mark.args[0]}"))


def pytest_collection_finish() -> None:
    """Exclude what is loaded by now from every later garbage collection."""
    gc.enable()
    gc.collect()
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    """Set up the run's folder; a worker gets it from the process that started it."""
    _load_certificates_once()
    zygote.keep_models()
    # Keep compiled modules; otherwise each of some thousand commands recompiles all of our code.
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Background jobs start with SIGINT ignored, and the tested processes would inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        config.stash[_run_folder] = Path(config.workerinput["aspen_run_folder"])
        zygote.use_folder(config.stash[_run_folder])
        return
    _work_in_memory()
    _remove_orphans()
    folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-"))
    folder.chmod(0o711)  # the server's account needs to pass through
    config.stash[_run_folder] = folder
    zygote.use_folder(folder)


def _work_in_memory() -> None:
    """Put temporary files in memory if there is room, unless ``TMPDIR`` is set.

    Creating a database writes some 1,000 small files: 0.03 s in memory, and 0.6 s on a cloud's
    virtual disk, which was most of the time of a run.
    """
    if "TMPDIR" in os.environ or not _MEMORY.is_dir():
        return
    found = os.statvfs(_MEMORY)
    has_room = found.f_bavail * found.f_frsize >= _MEMORY_BYTES
    if has_room and not found.f_flag & os.ST_NOEXEC and os.access(_MEMORY, os.W_OK | os.X_OK):
        os.environ["TMPDIR"] = str(_MEMORY)  # for every process of the run
        tempfile.tempdir = None


def _load_certificates_once() -> None:
    """Share the TLS context among clients: loading 140 certificates takes 0.05 s per client."""

    @functools.cache
    def load(variables: tuple[str | None, ...], **options: Any) -> ssl.SSLContext:
        return httpx.create_ssl_context(**options)

    def known(**options: Any) -> ssl.SSLContext:
        return load((os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")), **options)

    httpx._transports.default.create_ssl_context = known  # type: ignore[attr-defined, assignment]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Pass the run's folder to a worker."""
    node.workerinput["aspen_run_folder"] = str(node.config.stash[_run_folder])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the server, even after Ctrl-C."""
    if hasattr(config, "workerinput") or _run_folder not in config.stash:
        return
    folder = config.stash[_run_folder]
    if GIVEN_SERVER in os.environ:
        server = Server(folder, os.environ[GIVEN_SERVER])
        server.drop_templates()
        server.close()
    _remove(folder)


def _remove(folder: Path) -> None:
    for home in (folder, *folder.glob("servers-*/*")):
        Cluster(home).reset()
    shutil.rmtree(folder, ignore_errors=True)


def _remove_orphans() -> None:
    """Clean up after runs that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        pid = int(folder.name.removeprefix(_FOLDER).partition("-")[0])
        with contextlib.suppress(FileNotFoundError):  # another run may be cleaning up, too
            mine = folder.stat().st_uid == os.geteuid()
            if mine and not command_of(pid):
                _remove(folder)


class Server:
    """The PostgreSQL server of the test run.

    Args:
        folder: The run's folder.
        given: The address of an existing server to use instead of a new one in the folder.
    """

    def __init__(self, folder: Path, given: str | None = None):
        self._folder = folder
        self._kept: Any = None
        self._prefix = f"aspen_test_{folder.name.removeprefix(_FOLDER).replace('-', '_')}"
        if given:
            self._url = normalize_url(given)
        else:
            cluster = Cluster(folder, settings=_FAST)
            cluster.up()
            self._url = make_url(cluster.url("postgres", SUPERUSER))
        self._version = int(self._execute("SHOW server_version_num")[0][0])
        if not given and self._version >= _COUNTS_ITERATIONS:
            self._ease_sign_in()

    def _ease_sign_in(self) -> None:
        """Hash the superuser's password once; 4,096 iterations dominate a connection's cost."""
        cheap = "SELECT 1 FROM pg_authid WHERE rolname = %s AND rolpassword LIKE %s"
        with file_lock(self._folder / "password.lock"):
            if not self._execute(cheap, SUPERUSER, "SCRAM-SHA-256$1:%"):
                change = f'ALTER ROLE "{SUPERUSER}" PASSWORD %s'
                self._execute(f"SET scram_iterations = 1; {change}", self._url.password or "")

    def url(self, database: str) -> str:
        """Return the superuser's address of a database."""
        return self._url.set(database=database).render_as_string(hide_password=False)

    def create(self, *, template: str = "template1") -> str:
        """Create a database and return its name."""
        name = f"{self._prefix}_{uuid.uuid4().hex[:12]}"
        # This takes half the time of the default strategy when fsync is off.
        strategy = "STRATEGY file_copy" if self._version >= _HAS_STRATEGIES else ""
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" {strategy}')
        return name

    def drop(self, name: str) -> None:
        """Drop a database along with any open connections to it."""
        self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    @contextlib.contextmanager
    def cloned(
        self,
        template: str,
        reached: Callable[[str], str] | None = None,
        *,
        application_name: str = "tests",
        writable: bool = False,
    ) -> Iterator[Database]:
        """Yield a database made from a template, and drop it at the end.

        Args:
            template: The template.
            reached: Returns the address of a database; a direct one if omitted.
            application_name: The name that its sessions show.
            writable: True if its sessions may write.
        """
        name = self.create(template=template)
        address = (reached or self.url)(name)
        database = Database(address, application_name=application_name, writable=writable)
        yield database
        database.dispose()
        self.drop(name)

    def template(self, kind: str, fill: Callable[[str], None], *, base: str = "template1") -> str:
        """Return the name of a template database, filled once per run by the first caller."""
        name = f"{self._prefix}_template_{kind}"
        with file_lock(self._folder / f"{kind}.lock"):
            if self._execute("SELECT 1 FROM pg_database WHERE datname = %s", name):
                return name
            unfinished = self.create(template=base)
            try:
                fill(self.url(unfinished))
            except BaseException:
                self.drop(unfinished)
                raise
            self._execute(f'ALTER DATABASE "{unfinished}" RENAME TO "{name}"')
        return name

    def drop_templates(self) -> None:
        """Drop what this run leaves on a server that it did not start."""
        names = "SELECT datname FROM pg_database WHERE starts_with(datname, %s)"
        for (name,) in self._execute(names, self._prefix):
            self.drop(name)

    def close(self) -> None:
        """Close the connection that was kept."""
        if self._kept is not None:
            self._kept.close()

    def _execute(self, statement: str, *parameters: str) -> list[tuple[Any, ...]]:
        with self._connection().cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def _connection(self) -> Any:
        """Return a connection for all statements; a new one for each takes 10 ms."""
        # The server sends nothing to an idle session until it ends it.
        if self._kept is None or select.select([self._kept], [], [], 0)[0]:
            self.close()
            self._kept = self._connect()
            self._kept.autocommit = True
        return self._kept

    def _connect(self) -> Any:
        url = self._url
        return psycopg2.connect(
            host=url.host,
            port=url.port,
            user=url.username,
            password=url.password,
            dbname=url.database or "postgres",
        )


@pytest.fixture(scope="session")
def postgres(pytestconfig: pytest.Config) -> Iterator[Server]:
    server = Server(pytestconfig.stash[_run_folder], os.environ.get(GIVEN_SERVER))
    yield server
    server.close()


@pytest.fixture(scope="module")
def server_folder(pytestconfig: pytest.Config) -> Path:
    """Return a folder for a module's own servers that their account can enter.

    pytest closes its own folders to other accounts whenever another run begins.
    """
    run = pytestconfig.stash[_run_folder]
    folder = Path(tempfile.mkdtemp(prefix="servers-", dir=run))
    folder.chmod(0o711)
    return folder


@pytest.fixture(scope="session")
def reached(postgres: Server, pytestconfig: pytest.Config) -> Iterator[Callable[[str], str]]:
    """Return a function that gives a database's address, through a pooler if one is requested."""
    if not _POOLER:
        yield postgres.url
        return
    folder = pytestconfig.stash[_run_folder] / f"pooler-{os.getpid()}"
    # Tests hold connections in addition to those of the program.
    with Pooler(folder, make_url(postgres.url("postgres")), _POOLER, size=40) as pooler:

        def address(name: str) -> str:
            url = pooler.url(make_url(postgres.url(name)))
            return url.render_as_string(hide_password=False)

        yield address


@pytest.fixture(scope="session")
def _migrated_template(postgres: Server) -> str:
    if find_spec("aspen.database.migrate") is None:
        pytest.skip("aspen.database.migrate does not exist yet")
    return postgres.template("migrated", migrate)


@pytest.fixture(scope="session")
def _roles_template(postgres: Server, _migrated_template: str, roles_objects: ObjectFolder) -> str:
    def fill(address: str) -> None:
        database = Database(address, application_name="tests")
        seed_roles(database, roles_objects)
        database.dispose()

    return postgres.template("roles", fill, base=_migrated_template)


@pytest.fixture(scope="session")
def _seeded_template(postgres: Server, _migrated_template: str) -> str:
    if find_spec("aspen.local.seed") is None:
        pytest.skip("aspen.local.seed does not exist yet")
    return postgres.template("seeded", seed, base=_migrated_template)


def migrate(address: str) -> None:
    """Upgrade a database to the newest schema."""
    from aspen.database.migrate import upgrade

    engine = sa.create_engine(address, poolclass=NullPool)
    upgrade(engine)
    engine.dispose()


def seed(address: str) -> None:
    """Add the test groups and users, and 60 samples of group 1."""
    from aspen.local.seed import seed_base, seed_samples

    database = Database(address, application_name="tests")
    seed_base(database)
    seed_samples(database, _SEEDED_SAMPLES)
    database.dispose()


@pytest.fixture
def empty_db(postgres: Server, reached: Callable[[str], str]) -> Iterator[str]:
    name = postgres.create()
    yield reached(name)
    postgres.drop(name)


@pytest.fixture
def migrated_db(
    postgres: Server, reached: Callable[[str], str], _migrated_template: str
) -> Iterator[str]:
    name = postgres.create(template=_migrated_template)
    yield reached(name)
    postgres.drop(name)


@pytest.fixture
def database(migrated_db: str) -> Iterator[Database]:
    database = Database(migrated_db, application_name="tests")
    yield database
    database.dispose()


@pytest.fixture
def seeded(
    postgres: Server, reached: Callable[[str], str], _seeded_template: str
) -> Iterator[Database]:
    with postgres.cloned(_seeded_template, reached) as database:
        yield database


@pytest.fixture(scope="session")
def roles_objects(pytestconfig: pytest.Config) -> ObjectFolder:
    """Return the S3 files that the `roles` database refers to; treat them as read-only."""
    return ObjectFolder(pytestconfig.stash[_run_folder] / "roles-objects")


@pytest.fixture
def roles(
    postgres: Server, reached: Callable[[str], str], _roles_template: str
) -> Iterator[Database]:
    """Yield a database with all roles, and 1,000 (200 private), 20 (4), and 5 (1) samples."""
    with postgres.cloned(_roles_template, reached) as database:
        yield database


@pytest.fixture(autouse=True)
def aspen_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Set a home directory for the test, and clear the settings of whoever runs the tests."""
    for name in list(os.environ):
        foreign = name.startswith(("ASPEN_", "CZGE_", "PG")) or name in {"NO_COLOR", "FORCE_COLOR"}
        if foreign and name not in _KEPT:
            monkeypatch.delenv(name)
    home = tmp_path / "aspen-home"
    monkeypatch.setenv("ASPEN_HOME", str(home))
    for name in DEPLOYED:  # there is no AWS; see tests/deployments
        monkeypatch.setenv(f"ASPEN_AUDIT_BUCKET_{name}", "none")
    monkeypatch.setenv("PYTHONWARNINGS", zygote.WARNINGS)
    return home


@dataclass(frozen=True)
class CliResult:
    """The result of a command: its exit code, and its output on each stream."""

    code: int
    out: str
    err: str


class CliRunner:
    """A runner of the real command in a separate process.

    ``run_cli("samples", "list", database=seeded)`` makes the target ``local`` that database.
    """

    def __call__(
        self,
        *arguments: str,
        input: str | None = None,  # noqa: A002 - same name as in subprocess
        env: Mapping[str, str] | None = None,
        timeout: float = 180,
        database: Database | URL | str | None = None,
    ) -> CliResult:
        done = zygote.run_text(
            arguments,
            env={**os.environ, **cli_environment(database), **(env or {})},
            stdin=input,
            timeout=timeout,
        )
        return CliResult(done.returncode, done.stdout, done.stderr)


def cli_environment(database: Database | URL | str | None) -> dict[str, str]:
    """Return the variables that make a database the command's target ``local``."""
    if database is None:
        return {}
    url = database.url if isinstance(database, Database) else make_url(database)
    return {"ASPEN_DATABASE_URL_LOCAL": url.render_as_string(hide_password=False)}


def only_target(words: Iterable[str], address: str | URL, home: Path) -> dict[str, str | None]:
    """Return the variables that make a database the only target of a command line.

    A database cannot be two targets at a time: the strictest of them would apply to both. For the
    same reason, this deletes the record of databases that earlier commands saw as production.
    """
    given = list(words)
    chosen = given[given.index("--env") + 1] if "--env" in given else "local"
    url = make_url(address).render_as_string(hide_password=False)
    (home / "state" / "production-databases.json").unlink(missing_ok=True)
    return {
        f"ASPEN_DATABASE_URL_{name.upper()}": url if name == chosen else None
        for name in ("local", "staging", "prod")
    }


def use_target(
    monkeypatch: pytest.MonkeyPatch, words: Iterable[str], address: str | URL, home: Path
) -> None:
    """Set the variables of `only_target` for a command that runs in this process."""
    for name, value in only_target(words, address, home).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


@pytest.fixture
def run_cli(aspen_home: Path) -> CliRunner:
    return CliRunner()


@pytest.fixture
def cli_env(aspen_home: Path) -> Callable[[Database | URL | str | None], dict[str, str]]:
    """Return a function that builds the environment for a command that works on a database."""
    return lambda database: {**os.environ, **cli_environment(database)}


@pytest.fixture
def query_budget() -> Callable[[Recordable, str], AbstractContextManager[Recorder]]:
    """Return a context manager that enforces a query budget such as ``"queries<=12,n+1=0"``."""
    return held_to

"""Fixtures for tests of commands: runs in the test's own process, and samples to run them on."""

from __future__ import annotations

import datetime as dt
import io
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aspen.database.engine import Database
from aspen.database.models import Sample
from aspencli.cli.main import run
from aspencli.remote import identity as remote_identity
from tests.api.conftest import (
    Api,
    ApiFactory,
    Cloud,
    Provider,
    _cloud,
    aws,
    identity,
    identity_process,
    make_api,
    managed_by,
    provider,
    shared_roles,
    starting,
    use_organizations,
)
from tests.cli.commands.accounts_lab import Accounts
from tests.cli.commands.api_lab import ApiLab
from tests.cli.commands.both_lab import Both, ProviderRelay, credentials, restore
from tests.cli.commands.ending import Ended, ended
from tests.cli.commands.identity_lab import IdentityLab
from tests.cli.commands.mapping_lab import Lab
from tests.cli.commands.people_lab import PeopleLab
from tests.cli.commands.profile_lab import Profiling
from tests.conftest import CliRunner, Server, cli_environment, use_target
from tests.identity.site import Site, running_provider
from tests.local.auth0.detour import Detour
from tests.local.auth0.lab import Identity
from tests.remote.conftest import Serving, serving

__all__ = [
    "_cloud",
    "aws",
    "identity",
    "identity_process",
    "make_api",
    "provider",
    "serving",
    "shared_roles",
]

Cli = Callable[..., Ended]
AddSample = Callable[..., int]


@pytest.fixture
def cli(
    seeded: Database,
    aspen_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Cli:
    """Return a function that runs a command in this process, in a tenth of the usual time."""
    use_target(monkeypatch, (), seeded.url, aspen_home)

    def call(*arguments: str) -> Ended:
        use_target(monkeypatch, arguments, seeded.url, aspen_home)
        capsys.readouterr()
        return ended(arguments, run(arguments), capsys)

    return call


@pytest.fixture
def profile(seeded: Database, run_cli: CliRunner) -> Profiling:
    """Return a function that runs ``db profile`` on the seeded database in a separate process."""

    def call(*words: str, form: str = "json", env: Mapping[str, str] | None = None) -> Ended:
        environment = {**cli_environment(seeded), **(env or {})}
        done = run_cli("db", "profile", "-o", form, *words, env=environment)
        return Ended(done.code, done.out, done.err)

    return call


@pytest.fixture
def accounts(seeded: Database, tmp_path: Path, cli: Cli) -> Iterator[Accounts]:
    """Yield the seeded database, to import users and groups into."""
    database = Database(seeded.url, application_name="tests", writable=True)
    yield Accounts(database, tmp_path, cli)
    database.dispose()


@pytest.fixture
def both(accounts: Accounts, identity: Identity, monkeypatch: pytest.MonkeyPatch) -> Both:
    """Return a seeded database and a provider that agree, to change users and groups on both."""
    restore(identity)
    use_organizations(accounts.database)
    for name, value in credentials(identity).items():
        monkeypatch.setenv(name, value)
    return Both(accounts, identity)


@pytest.fixture
def relay(both: Both, serving: Serving, monkeypatch: pytest.MonkeyPatch) -> ProviderRelay:
    """Return a route to the provider, which commands take, on which requests can fail."""
    found = ProviderRelay(both.identity)
    found.address = serving(route=found).url
    monkeypatch.setenv("AUTH0_MANAGEMENT_DOMAIN", found.address)
    # Pauses between more attempts take seconds, and a repeated addition would succeed.
    usual = remote_identity.PATIENCE
    monkeypatch.setattr(remote_identity, "PATIENCE", replace(usual, tries=2, persists=False))
    return found


@pytest.fixture
def add_sample(seeded: Database) -> AddSample:
    def add(**fields: Any) -> int:
        values: dict[str, Any] = {
            "submitting_group_id": 1,
            "private_identifier": "LAB-1",
            "public_identifier": "PUB-1",
            "sample_collected_by": "a laboratory",
            "collection_date": dt.date(2023, 5, 17),
            "organism": "SARS-CoV-2",
            "uploaded_by_id": 2,
            "pathogen_id": 1,
        }
        with seeded.begin() as session:
            sample = Sample(**(values | fields))
            session.add(sample)
            session.flush()
            return sample.id

    return add


@pytest.fixture
def lab_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Api], ApiLab]:
    """Return a function that makes a lab for a service."""
    call = _in_process(monkeypatch, capsys)
    return lambda service: ApiLab(service, call)


def _in_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Mapping[str, str], tuple[str, ...], str | None], Ended]:
    """Return a function that runs a command in this process."""

    def call(env: Mapping[str, str], arguments: tuple[str, ...], stdin: str | None) -> Ended:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        given = io.TextIOWrapper(io.BytesIO((stdin or "").encode()), encoding="utf-8")
        monkeypatch.setattr(sys, "stdin", given)
        capsys.readouterr()
        return ended(arguments, run(arguments), capsys)

    return call


@pytest.fixture
def shared_lab(shared_roles: Api, aws: Cloud, lab_of: Callable[[Api], ApiLab]) -> ApiLab:
    """Return a lab on a service that no test may change, with 1,000 samples in group 1."""
    return lab_of(shared_roles)


@pytest.fixture
def api_lab(make_api: ApiFactory, roles: Database, aws: Cloud, lab_of: Any) -> ApiLab:
    """Return a lab on the test's own service, with every role and 1,025 samples."""
    made: ApiLab = lab_of(make_api(roles, **aws.settings))
    return made


@pytest.fixture
def people_lab(
    make_api: ApiFactory, seeded: Database, identity: Identity, lab_of: Callable[[Api], ApiLab]
) -> ApiLab:
    """Return a lab on the test's own service, with an identity provider to manage."""
    use_organizations(seeded)
    return lab_of(make_api(seeded, **managed_by(identity)))


@pytest.fixture
def people(
    seeded: Database,
    identity: Identity,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[PeopleLab]:
    """Yield a database whose groups have organizations at the module's provider."""
    use_organizations(seeded)
    call = _in_process(monkeypatch, capsys)
    database = Database(seeded.url, application_name="tests", writable=True)
    yield PeopleLab(database, identity, tmp_path, call)
    database.dispose()


@pytest.fixture
def detour(people: PeopleLab) -> Iterator[Detour]:
    """Yield the way that the commands of `people` take to the provider."""
    with Detour(people.identity.issuer) as detour:
        people.address = detour.url
        yield detour


@pytest.fixture(scope="module")
def managed_service(
    postgres: Server,
    _roles_template: str,
    provider: Provider,
    _cloud: Cloud,
    identity_process: Identity,
) -> Iterator[Api]:
    """Yield one service with everything for the whole module; each test writes to other items."""
    with postgres.cloned(_roles_template, writable=True) as database:
        use_organizations(database)
        with starting(provider) as make:
            yield make(database, **_cloud.settings, **managed_by(identity_process))


@pytest.fixture(scope="module")
def lab(
    postgres: Any, _migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lab]:
    """Yield a database for many tests; each creates its own groups."""
    name = postgres.create(template=_migrated_template)
    yield Lab(postgres.url(name), tmp_path_factory.mktemp("lab"))
    postgres.drop(name)


@pytest.fixture(scope="module")
def _counting_provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Identity]:
    with running_provider(tmp_path_factory.mktemp("provider") / "state") as identity:
        yield identity


@pytest.fixture
def identity_lab(
    postgres: Server,
    _migrated_template: str,
    _counting_provider: Identity,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[IdentityLab]:
    """Yield a target whose provider and database the test fills."""
    _counting_provider.reset()
    with postgres.cloned(_migrated_template, writable=True) as database:

        def call(environment: Mapping[str, str], arguments: tuple[str, ...]) -> Ended:
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            capsys.readouterr()
            code = run(arguments)
            return Ended(code, *capsys.readouterr())

        yield IdentityLab(Site(_counting_provider, database), call)

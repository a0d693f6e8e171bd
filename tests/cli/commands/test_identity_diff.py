"""``identity diff``: all differences and no others, with few requests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aspencli.identity.comparison import TITLES, Kind
from tests.cli.commands.identity_lab import IdentityLab
from tests.identity.population import Population, account, population
from tests.identity.site import Site
from tests.local.auth0.lab import running_identity

GROUPS, PEOPLE, EACH = 12, 240, 8
BY_DEFAULT = set(Kind) - {Kind.INVITATION}


@pytest.fixture
def made(identity_lab: IdentityLab) -> Population:
    made = population(PEOPLE, GROUPS, EACH, seed=7)
    identity_lab.fill(made)
    return made


def test_diff_finds_exactly_what_was_planted(identity_lab: IdentityLab, made: Population) -> None:
    assert identity_lab.diff() == made.of(*BY_DEFAULT)


@pytest.mark.parametrize("seed", range(4))
def test_diff_of_random_sides_finds_exactly_what_was_planted(
    identity_lab: IdentityLab, seed: int
) -> None:
    made = population(90, 6, 5, seed=seed)
    identity_lab.fill(made)
    assert identity_lab.diff("--invitations") == made.planted


def test_diff_of_equal_sides_ends_with_0(identity_lab: IdentityLab) -> None:
    identity_lab.fill(population(60, 4, 0, seed=1))
    ended = identity_lab("identity", "diff", "-o", "json", "--invitations")
    assert (ended.code, ended.json) == (0, [])
    assert ended.err.splitlines()[-1].endswith("No differences.")


def test_diff_counts_its_requests(identity_lab: IdentityLab, made: Population) -> None:
    before = identity_lab.site.requests()
    ended = identity_lab("identity", "diff", "-o", "json")
    sent = identity_lab.site.requests() - before
    shown = re.search(r"\((\d+) requests\)", ended.err)
    assert shown
    assert sent == int(shown[1])
    absent = len(made.of(Kind.USER))
    lists = 1 + GROUPS  # one page of organizations, and one of each group's members
    members = {key for group, key in made.provider.roles if group in made.database.groups}
    sought = len({k for k in made.database.people if k.startswith("auth0|")} - members)
    assert sought >= absent
    assert sent == lists + -(-sought // 50)


def test_request_for_invitations_is_one_per_group(
    identity_lab: IdentityLab, made: Population
) -> None:
    counts = []
    for options in ((), ("--invitations",), ("--only", "invitation")):
        before = identity_lab.site.requests()
        identity_lab("identity", "diff", *options)
        counts.append(identity_lab.site.requests() - before)
    assert counts == [counts[0], counts[0] + GROUPS, counts[0] + GROUPS]


def test_members_and_organizations_beyond_1000_are_found(identity_lab: IdentityLab) -> None:
    made = population(1_300, 3, 6, seed=3)
    group = next(iter(made.database.groups))
    for key in made.database.people:
        if key.startswith("auth0|") and key in made.provider.people:
            for side in (made.provider, made.database):
                side.roles.setdefault((group, key), {"viewer"})
    for number in range(1_005):
        key = f"org_{number:012d}many"
        made.provider.groups[key] = f"Many {number}"
    identity_lab.fill(made)
    assert identity_lab.diff() == identity_lab.site.unequal


def test_all_accounts_lists_those_without_an_organization(
    identity_lab: IdentityLab, made: Population
) -> None:
    for number in range(2_100):  # more than numbered pages reach
        key = account(9 * 10**6 + number)
        made.provider.people[key] = f"Lone {number}", f"lone{number}@example.org"
    identity_lab.fill(made)
    belongs = {key for _group, key in made.provider.roles}
    lone = {
        (Kind.ACCOUNT, "", key)
        for key in made.provider.people.keys() - made.database.people - belongs
        if key.startswith("auth0|")
    }
    assert len(lone) > 2_100
    assert identity_lab.diff("--all-accounts") == made.of(*BY_DEFAULT) | lone
    assert identity_lab.diff() == made.of(*BY_DEFAULT)


def test_only_limits_kinds_and_exit_code(identity_lab: IdentityLab, made: Population) -> None:
    assert identity_lab.diff("--only", "name", "--only", "email") == made.of(Kind.NAME, Kind.EMAIL)
    identity_lab.fill(population(60, 4, 0, seed=1))
    assert identity_lab.diff("--only", "name") == set()
    assert identity_lab("identity", "diff", "--only", "surname").code == 2


def test_table_has_a_heading_with_a_number_for_each_kind(
    identity_lab: IdentityLab, made: Population
) -> None:
    ended = identity_lab("identity", "diff", "--invitations", "-o", "table")
    assert ended.code == 7
    headings = re.findall(r"^(\S.*) \((\d+)\)$", ended.out, re.MULTILINE)
    assert headings == [(TITLES[kind], str(len(made.of(kind)))) for kind in Kind]
    assert f"{len(made.planted)} differences: organizations without a group: 8, " in ended.err


def test_csv_has_one_line_for_each_difference(identity_lab: IdentityLab, made: Population) -> None:
    ended = identity_lab("identity", "diff", "-o", "csv")
    lines = ended.out.splitlines()
    assert lines[0] == ("kind,group,organization_id,email,auth0_user_id,provider,database,note")
    assert len(lines) == 1 + len(made.of(*BY_DEFAULT))


def test_diff_writes_nothing(identity_lab: IdentityLab, made: Population) -> None:
    before = identity_lab.site.provider_side, identity_lab.site.database_side
    writes = identity_lab.site.writes()
    identity_lab("identity", "diff", "--invitations", "--all-accounts")
    assert (identity_lab.site.provider_side, identity_lab.site.database_side) == before
    assert identity_lab.site.writes() == writes


def test_people_of_other_identity_providers_are_mentioned(
    identity_lab: IdentityLab, made: Population
) -> None:
    err = identity_lab("identity", "diff").err
    assert re.search(r"not compared: \d+ users of other identity providers", err)
    assert re.search(r"not compared: \d+ members of organizations", err)


def test_missing_scope_for_roles_is_suspected(identity_lab: IdentityLab) -> None:
    made = population(60, 4, 0, seed=1)
    made.provider.roles = {place: set() for place in made.provider.roles}
    identity_lab.fill(made)
    assert "read:organization_member_roles" in identity_lab("identity", "diff").err


def test_missing_credentials_say_what_to_set(
    identity_lab: IdentityLab,
    made: Population,
    aspen_home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = identity_lab.site.environment["ASPEN_DATABASE_URL_LOCAL"]
    config = aspen_home / "config" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f"[targets.mine]\ndatabase_url = '{address}'\n")
    monkeypatch.setattr("tests.identity.site.Site.environment", {"ASPEN_ENV": "mine"})
    ended = identity_lab("identity", "diff")
    assert (ended.code, ended.out) == (4, ""), ended.err
    assert "AUTH0_MANAGEMENT_CLIENT_ID" in ended.err


def test_unreachable_provider_ends_with_5(
    identity_lab: IdentityLab, made: Population, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**identity_lab.site.environment, "AUTH0_MANAGEMENT_DOMAIN": "http://127.0.0.1:1"}
    monkeypatch.setattr("tests.identity.site.Site.environment", environment)
    ended = identity_lab("identity", "diff")
    assert (ended.code, ended.out) == (5, ""), ended.err
    assert "did not respond" in ended.err


def test_rate_limit_is_waited_for(
    identity_lab: IdentityLab, made: Population, tmp_path: Path
) -> None:
    folder = tmp_path / "limited"
    with running_identity(folder, "--burst", "5", "--rate", "15") as identity:
        site = Site(identity, identity_lab.site.database)
        site.fill(made)
        identity_lab.site = site
        assert identity_lab.diff() == made.of(*BY_DEFAULT)

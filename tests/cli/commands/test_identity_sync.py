"""``identity sync``: both sides equal afterward, with limits, and safe to stop and repeat."""

from __future__ import annotations

import json
import random
import re
import signal
from pathlib import Path

import pytest
import sqlalchemy as sa

from aspen.database.models import Group, Sample, User
from aspencli.identity.comparison import Kind
from tests.cli.commands.ending import Ended
from tests.cli.commands.identity_lab import IdentityLab
from tests.identity.gate import Loss, gated
from tests.identity.population import (
    Population,
    Side,
    account,
    everything,
    organization,
    population,
    small,
)

GROUPS, PEOPLE, EACH = 8, 120, 6
NEVER = {Kind.UNKNOWN_ROLE}
"""The kinds that no sync changes."""
CONSENT = ("--delete", "--confirm", "local")


@pytest.fixture
def made(identity_lab: IdentityLab) -> Population:
    made = population(PEOPLE, GROUPS, EACH, seed=11)
    identity_lab.fill(made)
    return made


def outcomes(ended: Ended) -> dict[str, list[str]]:
    """Return the outcomes by kind."""
    found: dict[str, list[str]] = {}
    for row in ended.json:
        found.setdefault(row["kind"], []).append(row["outcome"])
    return found


def left(made: Population, source: str) -> set[tuple[str, str, str]]:
    """Return the differences that a sync with everything leaves."""
    kinds = {*NEVER, Kind.ORGANIZATION} if source == "auth0" else NEVER
    return made.of(*kinds)


# Both directions


@pytest.mark.parametrize("source", ["auth0", "db"])
def test_sync_makes_sides_equal_and_second_run_writes_nothing(
    identity_lab: IdentityLab, made: Population, source: str
) -> None:
    lab = identity_lab
    right = lab.site.provider_side if source == "auth0" else lab.site.database_side
    ended = lab.sync(source, "--delete", consent=("--confirm", "local"))
    assert ended.code == 0, ended.err
    assert lab.site.unequal == left(made, source)
    assert lab.diff() == left(made, source)
    now = lab.site.provider_side if source == "auth0" else lab.site.database_side
    if source == "auth0":
        assert now == right
    else:  # new organizations have new IDs, which their groups then have
        assert (now.people, sorted(now.groups.values())) == (
            right.people,
            sorted(right.groups.values()),
        )
    state, writes = (lab.site.provider_side, lab.site.database_side), lab.site.writes()
    again = lab.sync(source, "--delete", consent=("--confirm", "local"))
    assert again.code == 0, again.err
    assert "Nothing to change" in again.err
    assert {row["outcome"] for row in again.json} <= {"skipped"}
    assert (lab.site.provider_side, lab.site.database_side) == state
    assert lab.site.writes() == writes


@pytest.mark.parametrize("source", ["auth0", "db"])
def test_plan_has_the_rows_of_diff(
    identity_lab: IdentityLab, made: Population, source: str
) -> None:
    before = identity_lab.site.provider_side, identity_lab.site.database_side
    rows = identity_lab("identity", "diff", "-o", "json").json
    planned = identity_lab.sync(source, "--delete", "--dry-run", consent=())
    assert planned.code == 0, planned.err
    assert planned.err.splitlines()[-1] == "Dry run: nothing was written."
    shown = [{key: row[key] for key in rows[0]} for row in planned.json]
    assert shown == rows
    assert {row["outcome"] for row in planned.json} <= {"create", "update", "delete", "skip"}
    assert (identity_lab.site.provider_side, identity_lab.site.database_side) == before


@pytest.mark.parametrize("source", ["auth0", "db"])
def test_nothing_is_deleted_without_delete(
    identity_lab: IdentityLab, made: Population, source: str
) -> None:
    lab = identity_lab
    before = lab.site.database_side if source == "auth0" else lab.site.provider_side
    ended = lab.sync(source)
    assert ended.code == 0, ended.err
    after = lab.site.database_side if source == "auth0" else lab.site.provider_side
    assert before.people.keys() <= after.people.keys()
    assert before.groups.keys() <= after.groups.keys()
    assert before.roles.keys() <= after.roles.keys()
    assert "add --delete" in json.dumps(ended.json)


def test_delete_requires_the_name_of_the_target(
    identity_lab: IdentityLab, made: Population
) -> None:
    before = identity_lab.site.provider_side
    ended = identity_lab.sync("db", "--delete")
    assert (ended.code, ended.out) == (3, "")
    assert "--confirm local" in ended.err
    assert identity_lab.site.provider_side == before


@pytest.mark.parametrize(
    ("part", "kinds"),
    [
        ("groups", {Kind.ORGANIZATION, Kind.GROUP, Kind.GROUP_NAME}),
        ("users", {Kind.ACCOUNT, Kind.USER}),
        ("memberships", {Kind.MEMBERSHIP}),
        ("roles", {Kind.ROLE, Kind.UNKNOWN_ROLE}),
        ("user-attributes", {Kind.NAME, Kind.EMAIL}),
    ],
)
def test_parts_can_be_left_out(
    identity_lab: IdentityLab, made: Population, part: str, kinds: set[Kind]
) -> None:
    parts = {"groups", "users", "memberships", "roles", "user-attributes"}
    only = identity_lab.sync(
        "db", "--dry-run", *(f"--no-sync-{other}" for other in parts - {part}), consent=()
    )
    assert {row["kind"] for row in only.json} == kinds
    without = identity_lab.sync("db", "--dry-run", f"--no-sync-{part}", consent=())
    assert not {row["kind"] for row in without.json} & kinds


def test_expired_invitations_are_deleted_only_if_asked(
    identity_lab: IdentityLab, made: Population
) -> None:
    lab = identity_lab
    lab.sync("db", "--delete", consent=("--confirm", "local"))
    assert lab.diff("--only", "invitation") == made.of(Kind.INVITATION)
    ended = lab.sync("db", "--sync-invitations", "--delete", consent=("--confirm", "local"))
    assert outcomes(ended)["invitation"] == ["deleted"] * EACH
    assert lab.diff("--only", "invitation") == set()


# Limits


@pytest.mark.parametrize("source", ["auth0", "db"])
def test_too_many_changes_are_refused_before_anything_is_written(
    identity_lab: IdentityLab, made: Population, source: str
) -> None:
    lab, writes = identity_lab, identity_lab.site.writes()
    before = lab.site.provider_side, lab.site.database_side
    ended = lab("identity", "sync", "--source", source, "--max-changes", "3", "--yes")
    assert (ended.code, ended.out) == (3, "")
    assert re.search(r"The plan has \d+ changes .*more than --max-changes 3; nothing", ended.err)
    assert (lab.site.provider_side, lab.site.database_side) == before
    assert lab.site.writes() == writes
    shown = lab(
        "identity", "sync", "--source", source, "--max-changes", "3", "--dry-run", "-o", "json"
    )
    assert shown.code == 3
    assert shown.json


def test_usual_limit_is_100_changes(identity_lab: IdentityLab) -> None:
    made = small()
    for number in range(101):
        made.database.people[account(100 + number)] = f"New {number}", f"new{number}@example.org"
    identity_lab.fill(made)
    ended = identity_lab("identity", "sync", "--source", "db", "--yes")
    assert ended.code == 3
    assert "--max-changes 101" in ended.err


@pytest.mark.parametrize("source", ["auth0", "db"])
def test_sync_refuses_to_empty_a_group(identity_lab: IdentityLab, source: str) -> None:
    made, lab = small(), identity_lab
    wrong, target = (made.provider, made.database)[:: 1 if source == "auth0" else -1]
    wrong.roles.clear()
    lab.fill(made)
    ended = lab.sync(source, *CONSENT, consent=())
    assert (ended.code, ended.out) == (3, ""), ended.err
    assert "Lab would lose its last member" in ended.err
    now = lab.site.database_side if source == "auth0" else lab.site.provider_side
    assert now.roles == target.roles


@pytest.mark.parametrize("source", ["auth0", "db"])
def test_sync_refuses_to_remove_last_administrator(identity_lab: IdentityLab, source: str) -> None:
    made, lab = small(), identity_lab
    wrong = made.provider if source == "auth0" else made.database
    wrong.roles[organization(1), account(0)] = {"member"}
    wrong.people[account(1)] = "Renamed", "p1@example.org"
    lab.fill(made)
    ended = lab.sync(source, *CONSENT, consent=())
    assert (ended.code, ended.out) == (3, ""), ended.err
    assert "Lab would lose its last administrator" in ended.err
    ended = lab.sync(source, "--skip-protected", *CONSENT, consent=())
    assert ended.code == 0, ended.err
    assert outcomes(ended) == {"role": ["skipped"], "name": ["updated"]}
    assert lab.diff() == {(Kind.ROLE, organization(1), account(0))}


@pytest.mark.parametrize("source", ["auth0", "db"])
def test_provider_of_another_deployment_is_refused(identity_lab: IdentityLab, source: str) -> None:
    made, lab = small(), identity_lab
    for number in (1, 2):
        made.provider.groups[organization(50 + number)] = f"Another {number}"
    made.provider.roles.clear()
    del made.provider.groups[organization(1)]
    lab.fill(made)
    before = lab.site.provider_side, lab.site.database_side
    ended = lab.sync(source, *CONSENT, consent=())
    assert (ended.code, ended.out) == (3, "")
    assert "another deployment" in ended.err
    assert (lab.site.provider_side, lab.site.database_side) == before


# What others change meanwhile


class Meddler:
    """Changes something once the plan has been made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, act: object):
        from aspencli.cli.context import AppContext

        self.done = False
        authorize = AppContext.authorize

        def authorized(context: AppContext, *words: object, **options: object) -> None:
            authorize(context, *words, **options)  # type: ignore[arg-type] # passed on
            if not self.done:
                self.done = True
                act()  # type: ignore[operator] # a function

        monkeypatch.setattr(AppContext, "authorize", authorized)


def test_object_changed_since_plan_is_skipped_at_provider(
    identity_lab: IdentityLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, lab = small(), identity_lab
    made.database.people[account(1)] = "New name", "p1@example.org"
    made.database.people[account(2)] = "Other name", "p2@example.org"
    made.database.roles[organization(1), account(2)] = {"viewer"}
    lab.fill(made)

    def act() -> None:
        with lab.site.identity.management() as client:
            client.patch(f"users/{account(1)}", json={"name": "Third name"}).raise_for_status()
            role = next(r["id"] for r in client.get("roles").json() if r["name"] == "admin")
            path = f"organizations/{organization(1)}/members/{account(2)}/roles"
            client.post(path, json={"roles": [role]}).raise_for_status()

    Meddler(monkeypatch, act)
    ended = lab.sync("db")
    assert ended.code == 7, ended.err
    found = {(row["kind"], row["auth0_user_id"]): row for row in ended.json}
    assert found["name", account(1)]["outcome"] == "skipped"
    assert "changed since" in found["name", account(1)]["reason"]
    assert "changed since" in found["role", account(2)]["reason"]
    assert found["name", account(2)]["outcome"] == "updated"
    assert lab.site.provider_side.people[account(1)][0] == "Third name"
    assert lab.site.provider_side.roles[organization(1), account(2)] == {"admin", "member"}


def test_source_changed_since_plan_is_skipped_at_provider(
    identity_lab: IdentityLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, lab = small(), identity_lab
    made.provider.people[account(9)] = "Gone", "gone@example.org"
    made.provider.roles[organization(1), account(9)] = {"member"}
    lab.fill(made)

    def act() -> None:
        with lab.site.database.begin() as session:
            session.add(User(name="Gone", email="gone@example.org", auth0_user_id=account(9)))

    Meddler(monkeypatch, act)
    ended = lab.sync("db", *CONSENT, consent=())
    assert ended.code == 7, ended.err
    assert account(9) in lab.site.provider_side.people


def test_row_changed_since_plan_is_skipped_in_database(
    identity_lab: IdentityLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, lab = small(), identity_lab
    made.provider.people[account(1)] = "New name", "p1@example.org"
    made.provider.people[account(2)] = "Other name", "p2@example.org"
    lab.fill(made)

    def act() -> None:
        with lab.site.database.begin() as session:
            change = sa.update(User).where(User.auth0_user_id == account(1))
            session.execute(change.values(name="Third name"))

    Meddler(monkeypatch, act)
    ended = lab.sync("auth0")
    assert ended.code == 7, ended.err
    people = lab.site.database_side.people
    assert (people[account(1)][0], people[account(2)][0]) == ("Third name", "Other name")


def test_last_administrator_removed_by_someone_else_stops_database_sync(
    identity_lab: IdentityLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, lab = small(), identity_lab
    for side in (made.provider, made.database):
        side.roles[organization(1), account(1)] = {"admin"}
    made.provider.roles[organization(1), account(0)] = {"member"}
    lab.fill(made)

    def act() -> None:
        with lab.site.database.begin() as session:
            session.execute(
                sa.text(
                    "UPDATE aspen.user_roles SET role_id = (SELECT id FROM aspen.roles WHERE name"
                    " = 'member') WHERE user_id = (SELECT id FROM aspen.users WHERE auth0_user_id"
                    " = :key)"
                ),
                {"key": account(1)},
            )

    Meddler(monkeypatch, act)
    ended = lab.sync("auth0")
    assert (ended.code, ended.out) == (7, ""), ended.err
    assert "Lab would lose its last administrator; nothing was written" in ended.err
    assert lab.site.database_side.roles[organization(1), account(0)] == {"admin"}


# The database


def test_users_undo_reverts_a_sync_of_the_database(identity_lab: IdentityLab) -> None:
    lab, made = identity_lab, population(60, 5, 4, seed=5)
    for place in list(made.provider.roles):  # the undo file holds one role per group
        for side in (made.provider, made.database):
            if place in side.roles:
                side.roles[place] = {sorted(side.roles[place])[0]}
    lab.fill(made)
    before = lab.site.database_side
    parts = ("--no-sync-groups",)
    ended = lab.sync("auth0", *parts, *CONSENT, consent=())
    assert ended.code == 0, ended.err
    undo = re.search(r"aspencli --env local users undo (\S+)", ended.err)
    assert undo
    after = lab.site.database_side
    assert after != before
    undone = lab("users", "undo", undo[1], "--yes")
    assert undone.code == 0, undone.err
    assert lab.site.database_side == before
    history = lab("history", "list", "-o", "json").json
    assert [(run["command"], run["outcome"]) for run in history] == [
        ("users undo", "written"),
        ("identity sync", "written"),
    ]


def test_old_values_that_undo_cannot_hold_are_saved(identity_lab: IdentityLab) -> None:
    made, lab = small(), identity_lab
    made.provider.groups[organization(1)] = "Laboratory"
    made.provider.roles[organization(1), account(1)] = {"admin", "viewer"}
    lab.fill(made)
    ended = lab.sync("auth0")
    assert ended.code == 0, ended.err
    path = re.search(r"Old values .*: (\S+)$", ended.err, re.MULTILINE)
    assert path
    saved = json.loads(Path(path[1]).read_text())["objects"]
    assert [(one["kind"], one["before"], one["after"]) for one in saved] == [
        ("group-name", "Lab", "Laboratory"),
        ("role", ["member"], ["admin", "viewer"]),
    ]
    assert lab.site.unequal == set()


def test_exchanged_addresses_are_written_to_the_database(identity_lab: IdentityLab) -> None:
    made, lab = small(), identity_lab
    made.provider.people[account(0)] = "Person 0", "p1@example.org"
    made.provider.people[account(1)] = "Person 1", "p2@example.org"
    made.provider.people[account(2)] = "Person 2", "p0@example.org"
    lab.fill(made)
    ended = lab.sync("auth0")
    assert ended.code == 0, ended.err
    assert lab.site.unequal == set()


def test_users_and_groups_in_use_are_not_deleted(identity_lab: IdentityLab) -> None:
    made, lab = small(), identity_lab
    made.database.people[account(9)] = "Uploader", "uploader@example.org"
    made.database.groups[organization(9)] = "Old lab"
    made.database.roles[organization(9), account(9)] = {"member"}
    lab.fill(made)
    with lab.site.database.begin() as session:
        user = session.scalars(sa.select(User).where(User.auth0_user_id == account(9))).one()
        group = session.scalars(sa.select(Group).where(Group.name == "Old lab")).one()
        pathogen = session.scalar(sa.text("SELECT min(id) FROM aspen.pathogens"))
        session.add(
            Sample(
                submitting_group_id=group.id,
                private_identifier="LAB-1",
                public_identifier="PUB-1",
                sample_collected_by="a laboratory",
                collection_date="2023-05-17",
                organism="SARS-CoV-2",
                uploaded_by_id=user.id,
                pathogen_id=pathogen,
            )
        )
    ended = lab.sync("auth0", *CONSENT, consent=())
    assert ended.code == 0, ended.err
    reasons = {row["kind"]: row["reason"] for row in ended.json}
    assert reasons == {
        "group": "other data refer to it: samples: 1, roles of members: 1",
        "user": "other data refer to it: samples uploaded: 1",
    }


def test_user_without_role_in_provider_gets_none(identity_lab: IdentityLab) -> None:
    made, lab = small(), identity_lab
    made.provider.people[account(9)] = "", "fresh@example.org"
    made.provider.roles[organization(1), account(9)] = set()
    lab.fill(made)
    ended = lab.sync("auth0")
    assert outcomes(ended) == {"account": ["created"]}
    side = lab.site.database_side
    assert side.people[account(9)] == ("fresh@example.org", "fresh@example.org")
    assert (organization(1), account(9)) not in side.roles


# The provider


def test_new_accounts_get_no_mail_unless_asked(identity_lab: IdentityLab) -> None:
    lab = identity_lab
    for number, options in enumerate(((), ("--verification-mail",))):
        made = small()
        made.database.people[account(9)] = "Fresh", "fresh@example.org"
        made.database.roles[organization(1), account(9)] = {"viewer"}
        lab.fill(made)
        ended = lab.sync("db", *options)
        assert ended.code == 0, ended.err
        with lab.site.identity.management() as client:
            found = client.get(f"users/{account(9)}").json()
        assert found["email_verified"] == (number == 0)
        assert ("no mail was sent" in ended.err) == (number == 0)
        assert lab.site.unequal == set()


def test_account_of_another_organization_is_not_deleted(identity_lab: IdentityLab) -> None:
    made, lab = small(), identity_lab
    made.provider.groups[organization(5)] = "Another program"
    made.provider.people[account(9)] = "Both", "both@example.org"
    for number in (1, 5):
        made.provider.roles[organization(number), account(9)] = {"member"}
    lab.fill(made)
    ended = lab.sync("db", *CONSENT, consent=())
    assert ended.code == 0, ended.err
    reasons = {row["kind"]: row["reason"] for row in ended.json}
    assert reasons["organization"] == "the organization has members; remove them first"
    assert "which has no group" in reasons["account"]
    assert lab.site.provider_side.people[account(9)] == ("Both", "both@example.org")


def test_address_of_an_unrelated_account_is_reported(identity_lab: IdentityLab) -> None:
    made, lab = small(), identity_lab
    made.provider.people[account(8)] = "Signed up", "fresh@example.org"  # in no organization
    made.database.people[account(9)] = "Fresh", "fresh@example.org"
    lab.fill(made)
    ended = lab.sync("db")
    assert ended.code == 1, ended.err
    assert ended.json[0]["outcome"] == "failed"
    assert "another account has the address fresh@example.org" in ended.json[0]["reason"]


def test_organization_is_created_like_the_service_does(identity_lab: IdentityLab) -> None:
    made, lab = small(), identity_lab
    made.database.groups[organization(7)] = "New lab"
    made.database.roles[organization(7), account(1)] = {"admin"}
    lab.fill(made)
    ended = lab.sync("db")
    assert ended.code == 0, ended.err
    assert lab.site.unequal == set()
    with lab.site.identity.management() as client:
        found = client.get("organizations/name/group-p0000000000000007").json()
    assert found["display_name"] == "New lab"
    assert lab.site.database_side.groups[found["id"]] == "New lab"


# Interruptions


@pytest.mark.parametrize(
    ("seed", "number"), [(0, signal.SIGKILL), (1, signal.SIGKILL), (2, signal.SIGINT)]
)
def test_stopped_sync_of_provider_is_completed_by_the_next(
    identity_lab: IdentityLab, made: Population, seed: int, number: int
) -> None:
    lab, chance = identity_lab, random.Random(seed)
    words = ("identity", "sync", "--source", "db", "--max-changes", "100000", *CONSENT)
    for _ in range(2):
        process = lab.start(*words)
        ended = lab.stop(process, chance.randrange(1, 40), number)
        assert ended.code in {-number, 130, 0}
        if number == signal.SIGINT and ended.code:
            assert ended.code == 130, ended.err
            assert "Stopping once" in ended.err
            assert "before the error" in ended.err
    ended = lab.sync("db", *CONSENT, consent=())
    assert ended.code == 0, ended.err
    assert lab.site.unequal == left(made, "db")
    names = lab.site.provider_side.groups.values()
    assert len(set(names)) == len(names)
    assert sorted(lab.site.provider_side.groups) == sorted(lab.site.database_side.groups)


@pytest.mark.parametrize("event", ["started", "writing", "committing"])
def test_killed_sync_of_database_wrote_all_or_nothing(
    identity_lab: IdentityLab, made: Population, aspen_home: Path, event: str
) -> None:
    lab, before = identity_lab, identity_lab.site.database_side
    process = lab.start(
        *("identity", "sync", "--source", "auth0", "--max-changes", "100000", *CONSENT)
    )
    journal = aspen_home / "state" / "history" / "journal.jsonl"
    while not (journal.is_file() and f'"event": "{event}"' in journal.read_text()):
        if process.poll() is not None:  # on a busy machine it may end before that is seen
            break
    process.kill()
    _, err = process.communicate()
    assert process.returncode in {0, -signal.SIGKILL}, err
    has_written = lab.site.database_side != before
    assert not has_written or lab.site.unequal == left(made, "auth0")
    (run,) = lab("history", "list", "-o", "json").json
    if run["outcome"] != "written":  # it was killed before it recorded that
        checked = lab("history", "check", run["run"], "-o", "json")
        assert checked.code == 0, checked.err
        (run,) = checked.json
    assert run["outcome"] == ("written" if has_written else "rolled back")
    ended = lab.sync("auth0", *CONSENT, consent=())
    assert ended.code == 0, ended.err
    assert lab.site.unequal == left(made, "auth0")


@pytest.mark.parametrize("first", [0, 1])
def test_write_that_is_lost_anywhere_is_completed_by_the_next_run(
    identity_lab: IdentityLab, first: int
) -> None:
    """``make identity-differences`` loses each write both before and after it has its effect."""
    lab, options = identity_lab, ("--sync-invitations", *CONSENT)
    with gated(lab.site.identity) as gate:
        lab.site.address = gate.address
        lab.fill(everything())
        assert lab.sync("db", *options, consent=()).code == 0
        number = gate.writes
        assert number > 15
        for place in range(1 + 3 * first, number + 1, 6):  # one in three
            lab.fill(everything())
            gate.lose(place, [*Loss][place // 6 % 2])
            # What is safe to repeat is repeated at once; after other losses the run ends.
            assert lab.sync("db", *options, consent=()).code in {0, 5}
            assert gate.lost == 1
            ended = lab.sync("db", *options, consent=())
            assert ended.code == 0, ended.err
            assert lab.site.unequal == set()
            assert lab.diff("--only", "invitation") == set()
            assert sorted(lab.site.provider_side.groups.values()) == ["New lab", "Renamed lab"]


def test_failed_request_stops_sync_and_next_run_completes_it(
    identity_lab: IdentityLab, made: Population, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, words = identity_lab, ("identity", "sync", "--source", "db", "--max-changes", "100000")
    with gated(lab.site.identity) as gate:
        lab.site.address = gate.address
        gate.act(5, lambda: lab.site.identity.turn(throttled=100_000, retry_after=3_600))
        process = lab.start(*words, *CONSENT)
        out, err = process.communicate(timeout=120)
        lab.site.address = None
    lab.site.identity.reset()
    assert process.returncode == 5, err
    assert "before the error" in err
    assert out
    ended = lab.sync("db", *CONSENT, consent=())
    assert ended.code == 0, ended.err
    assert lab.site.unequal == left(made, "db")


# The old command


@pytest.mark.parametrize("name", ["sync_users", "sync-users"])
def test_old_command_syncs_in_the_direction_that_it_says(
    identity_lab: IdentityLab, name: str
) -> None:
    made, lab = small(), identity_lab
    made.database.people[account(1)] = "In the database", "p1@example.org"
    lab.fill(made)
    dry = lab(name, "--dry-run", "--source-of-truth", "auth0", "-o", "json")
    assert (dry.code, dry.json[0]["outcome"]) == (0, "update"), dry.err
    assert "make the database equal to the identity provider" in dry.err
    assert lab(name, "--yes").code == 0
    assert lab.site.provider_side.people[account(1)][0] == "In the database"


def test_old_command_deletes_only_with_its_flag_and_consent(identity_lab: IdentityLab) -> None:
    made, lab = small(), identity_lab
    made.provider.people[account(9)] = "Gone", "gone@example.org"
    made.provider.roles[organization(1), account(9)] = {"member"}
    lab.fill(made)
    assert lab("sync_users", "--yes").code == 0
    assert account(9) in lab.site.provider_side.people
    assert lab("sync_users", "--delete-ok", "--no-sync-groups", "--yes").code == 3
    ended = lab("sync_users", "--delete-ok", "--no-sync-groups", "--confirm", "local")
    assert ended.code == 0, ended.err
    assert account(9) not in lab.site.provider_side.people


def test_old_command_does_not_make_a_renamed_group_twice(identity_lab: IdentityLab) -> None:
    made, lab = small(), identity_lab
    made.database.groups[organization(1)] = "Renamed lab"
    lab.fill(made)
    assert lab("sync_users", "--yes").code == 0
    assert lab.site.provider_side.groups == {organization(1): "Renamed lab"}


def test_source_is_required(identity_lab: IdentityLab) -> None:
    identity_lab.fill(small())
    assert identity_lab("identity", "sync", "--yes").code == 2
    side: Side = identity_lab.site.database_side
    assert len(side.people) == 3

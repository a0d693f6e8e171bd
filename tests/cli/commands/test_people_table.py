"""Every command on people and groups: without consent, in a conflict, for a second time, undone.

The guide has the same table, which is compared with this one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

import aspencli
from aspencli.identity.database import PersonTransaction
from tests.cli.commands.both_lab import BDPH, VSUV, Both, ProviderRelay, after
from tests.cli.commands.conftest import AddSample

GUIDE = Path(aspencli.__file__).parents[1] / "docs" / "guides" / "onboarding.md"
Words = tuple[str, ...]
EMAIL, ADDRESS = "nadia@new.example.org", "mo@new.example.org"
ADD_ROLE = (
    "INSERT INTO aspen.user_roles (user_id, group_id, role_id)"
    " SELECT u.id, :group, r.id FROM aspen.users u, aspen.roles r"
    " WHERE u.auth0_user_id = 'auth0|' || :name AND r.name = :role"
)
LAKE = (
    "INSERT INTO aspen.groups (name, prefix, default_tree_location_id, auth0_org_id)"
    " VALUES ('Lake County', 'LAKE', 1, :organization)"
)


@dataclass
class Scene:
    """Both sides, and what can get in the way of a command.

    Attributes:
        both: Both sides.
        relay: The way to the provider.
        add_sample: Adds a sample.
        exits: What to close at the end.
    """

    both: Both
    relay: ProviderRelay
    add_sample: AddSample
    exits: ExitStack

    def give(self, name: str, group: int, role: str) -> None:
        """Give a user a role in the database."""
        self.both.accounts.execute(ADD_ROLE, name=name, group=group, role=role)

    def during(self, request: str, change: Callable[[], None]) -> Callable[[], object]:
        """Change something right after a request; return a function for the state after that."""
        found: list[object] = []

        def then() -> None:
            change()
            found.append(self.both.state)

        self.relay.fail(request, after(then))
        return lambda: found[0]

    def now(self) -> Callable[[], object]:
        """Return a function for the state as it is now."""
        state = self.both.state
        return lambda: state


@dataclass(frozen=True)
class Case:
    """A command that writes.

    Attributes:
        words: Prepares the command, and returns its words.
        conflict: Prepares a conflict, and returns a function for the state that must remain.
        in_the_way: The conflict, in words.
        says: The error of the conflict.
        undoes: Undoes the command, given the state before it.
        undo: How to undo it, in words.
        code: The exit code of the conflict.
        again: The exit code of the same command after it: 0 if it changes nothing, or 6.
        consent: The options that confirm the command.
    """

    words: Callable[[Scene], Words]
    conflict: Callable[[Scene], Callable[[], object]]
    in_the_way: str
    says: str
    undoes: Callable[[Scene, Words, object], None]
    undo: str
    code: int = 7
    again: int = 0
    consent: Words = ("--yes",)

    @property
    def row(self) -> str:
        """Return the rest of the line in the guide's table, after the command."""
        again = "nothing to do" if self.again == 0 else f"no longer there ({self.again})"
        return f" | {self.in_the_way} ({self.code}) | {again} | {self.undo} |"


# What undoes a command


def by_undo(noun: str) -> Callable[[Scene, Words, object], None]:
    def undone(scene: Scene, _words: Words, before: object) -> None:
        scene.both.ok(noun, "undo", str(scene.both.last_run()["run"]))
        assert scene.both.state == before

    return undone


def by_offboarding(scene: Scene, words: Words, _before: object) -> None:
    scene.both.ok("users", "offboard", words[2])
    assert scene.both.accounts.roles(words[2]) == {}
    assert EMAIL not in scene.both.invited(BDPH)
    assert set(scene.both.members(BDPH)) == {"g2admin", "g2member", "multi"}


def by_onboarding(scene: Scene, _words: Words, _before: object) -> None:
    for group, role in (("RCPHL", "member"), ("BDPH", "admin")):
        scene.both.ok("users", "onboard", "multi@example.org", "--group", group, "--role", role)
    assert scene.both.accounts.roles("multi@example.org") == {"RCPHL": "member", "BDPH": "admin"}
    assert scene.both.members(BDPH)["multi"] == ["admin"]


def by_deletion(scene: Scene, _words: Words, _before: object) -> None:
    scene.both.ok("users", "offboard", EMAIL)
    scene.both.ok("groups", "delete", "LAKE")
    assert scene.both("groups", "show", "LAKE").code == 6


def not_at_all(scene: Scene, _words: Words, _before: object) -> None:
    assert scene.both.kept_files.count("undo") == 0


# The commands


def lake(scene: Scene) -> Words:
    body = {"name": "group-lake", "display_name": "Lake County"}
    with scene.both.identity.management() as provider:
        found = provider.post("organizations", json=body).raise_for_status().json()
    scene.both.accounts.execute(LAKE, organization=found["id"])
    return "groups", "delete", "LAKE"


def sync_to_provider(scene: Scene) -> Words:
    scene.give("nogroup", 3, "viewer")
    return "identity", "sync", "--source", "db", "--no-sync-user-attributes", "--no-sync-groups"


def sync_to_database(scene: Scene) -> Words:
    with scene.both.identity.management() as provider:
        place = f"organizations/{VSUV}/members"
        provider.post(place, json={"members": ["auth0|nogroup"]}).raise_for_status()
        role = next(one["id"] for one in provider.get("roles").json() if one["name"] == "viewer")
        given = provider.post(f"{place}/auth0|nogroup/roles", json={"roles": [role]})
        given.raise_for_status()
    return "identity", "sync", "--source", "auth0", "--no-sync-user-attributes", "--no-sync-groups"


# What gets in the way


def stranger(scene: Scene) -> Callable[[], object]:
    """Create an account with the newcomer's address that nobody verified."""
    body = {"email": EMAIL, "password": "-", "connection": "Username-Password-Authentication"}
    with scene.both.identity.management() as provider:
        sent = {**body, "email_verified": False, "verify_email": False}
        provider.post("users", json=sent).raise_for_status()
    return scene.now()


def other_run(scene: Scene) -> Callable[[], object]:
    database = scene.both.accounts.database
    held = PersonTransaction(database, "multi@example.org")
    scene.exits.callback(held.close)
    return scene.now()


def data(scene: Scene) -> Callable[[], object]:
    scene.add_sample(uploaded_by_id=11)
    return scene.now()


def member_of_lake(scene: Scene) -> Callable[[], object]:
    ((group,),) = scene.both.accounts.rows("SELECT id FROM aspen.groups WHERE prefix = 'LAKE'")
    scene.give("nogroup", group, "viewer")
    return scene.now()


def taken_address(scene: Scene) -> Callable[[], object]:
    statement = "UPDATE aspen.users SET email = :email WHERE auth0_user_id = 'auth0|viewer'"
    scene.both.accounts.execute(statement, email=ADDRESS.upper())
    return scene.now()


def other_role(scene: Scene) -> Callable[[], object]:
    scene.give("nogroup", 2, "member")
    return scene.now()


def other_lake(scene: Scene) -> Callable[[], object]:
    lake(scene)
    scene.both.accounts.execute("UPDATE aspen.groups SET name = 'Another' WHERE prefix = 'LAKE'")
    return scene.now()


def taken_name(scene: Scene) -> Callable[[], object]:
    statement = "UPDATE aspen.groups SET name = 'VALLEY VIROLOGY' WHERE prefix = 'BDPH'"
    scene.both.accounts.execute(statement)
    return scene.now()


def role_in_between(name: str, group: int, request: str) -> Callable[[Scene], Callable[[], object]]:
    def conflict(scene: Scene) -> Callable[[], object]:
        return scene.during(request, lambda: scene.give(name, group, "viewer"))

    return conflict


def source_in_between(scene: Scene) -> Callable[[], object]:
    return scene.during("GET roles", lambda: scene.give("nogroup", 3, "member"))


def target_in_between(scene: Scene) -> Callable[[], object]:
    return scene.during("GET organizations[?]", lambda: scene.give("nogroup", 3, "admin"))


CASES = {
    "users onboard": Case(
        lambda _scene: ("users", "onboard", EMAIL, "--name", "Nadia New", "--group", "BDPH"),
        stranger,
        "the account was never verified",
        "was never verified",
        by_offboarding,
        "`users offboard`",
    ),
    "users offboard": Case(
        lambda _scene: ("users", "offboard", "multi@example.org"),
        other_run,
        "another run is at it",
        "Another run is onboarding or offboarding multi@example.org",
        by_onboarding,
        "`users onboard`, as the output says",
    ),
    "users update": Case(
        lambda _scene: ("users", "update", "10", "--email", ADDRESS),
        taken_address,
        "another user has the address",
        "already belongs to another user",
        by_undo("users"),
        "`users undo`",
    ),
    "users roles add": Case(
        lambda _scene: (
            *("users", "roles", "add", "nogroup@example.org", "--group", "BDPH"),
            *("--role", "viewer"),
        ),
        other_role,
        "another role, without `--replace`",
        "already has the role member",
        by_undo("users"),
        "`users undo`",
    ),
    "users roles remove": Case(
        lambda _scene: ("users", "roles", "remove", "multi@example.org", "--group", "RCPHL"),
        role_in_between("multi", 1, "GET users/auth0%7Cmulti/organizations"),
        "someone else changed the roles",
        "Another operator changed this after the plan was made",
        by_undo("users"),
        "`users undo`",
    ),
    "users delete": Case(
        lambda _scene: ("users", "delete", "nogroup@example.org"),
        data,
        "samples or runs refer to the user",
        "Cannot delete user nogroup@example.org, because other data refer to the user",
        by_undo("users"),
        "`users undo`; not with `--account`",
        again=6,
    ),
    "groups onboard": Case(
        lambda _scene: (
            *("groups", "onboard", "--name", "Lake County", "--prefix", "LAKE"),
            *("--default-tree-location", "1", "--admin", EMAIL, "--admin-name", "Nadia New"),
        ),
        other_lake,
        "another group has the name or prefix",
        "has this name or prefix already",
        by_deletion,
        "`users offboard`, then `groups delete`",
    ),
    "groups update": Case(
        lambda _scene: ("groups", "update", "VSUV", "--name", "Valley Virology"),
        taken_name,
        "another group has the name or prefix",
        "already belongs to another group",
        by_undo("groups"),
        "`groups undo`",
    ),
    "groups archive": Case(
        lambda _scene: ("groups", "archive", "VSUV"),
        role_in_between("nogroup", 3, f"GET organizations/{VSUV}/members"),
        "someone else changed the members",
        "Another operator changed this after the plan was made",
        by_undo("groups"),
        "`groups undo`, but no invitations",
    ),
    "groups delete": Case(
        lake,
        member_of_lake,
        "members, samples, or anything else",
        "Cannot delete group Lake County, because other data refer to it",
        not_at_all,
        "no",
        again=6,
    ),
    "identity sync --source db": Case(
        sync_to_provider,
        source_in_between,
        "skipped if it changed meanwhile",
        "because something changed since the plan was made",
        not_at_all,
        "no; the old values are in a file",
    ),
    "identity sync --source auth0": Case(
        sync_to_database,
        target_in_between,
        "skipped if it changed meanwhile",
        "because something changed since the plan was made",
        by_undo("users"),
        "`users undo`; the rest is in a file",
    ),
}


@pytest.fixture
def scene(both: Both, relay: ProviderRelay, add_sample: AddSample) -> Scene:
    exits = ExitStack()
    return Scene(both, relay, add_sample, exits)


def refused(case: Case, scene: Scene) -> None:
    words = case.words(scene)
    before = scene.both.state
    ended = scene.both(*words, "-o", "json")
    assert (ended.code, ended.out) == (3, ""), ended.err
    assert "Confirmation required to" in ended.err
    assert scene.both.state == before


def in_conflict(case: Case, scene: Scene) -> None:
    words = case.words(scene)
    remaining = case.conflict(scene)
    with scene.exits:
        ended = scene.both(*words, *case.consent, "-o", "json")
    assert ended.code == case.code, ended.err
    assert case.says in ended.err
    assert scene.both.state == remaining()


def repeated(case: Case, scene: Scene) -> None:
    words = case.words(scene)
    assert scene.both(*words, *case.consent, "-o", "json").code == 0
    after_first = scene.both.state
    ended = scene.both(*words, *case.consent, "-o", "json")
    assert ended.code == case.again, ended.err
    if case.again == 0:
        assert "Nothing to change" in ended.err
    assert scene.both.state == after_first


def undone(case: Case, scene: Scene) -> None:
    words = case.words(scene)
    before = scene.both.state
    ended = scene.both(*words, *case.consent, "-o", "json")
    assert ended.code == 0, ended.err
    assert scene.both.state != before
    case.undoes(scene, words, before)


@pytest.mark.parametrize("stage", [refused, in_conflict, repeated, undone])
@pytest.mark.parametrize("name", CASES)
def test_command_behaves_as_the_table_says(
    name: str, stage: Callable[[Case, Scene], None], scene: Scene
) -> None:
    stage(CASES[name], scene)


def test_guide_has_the_same_table() -> None:
    lines = [f"| `{name}`{case.row}" for name, case in CASES.items()]
    assert "\n".join(lines) in GUIDE.read_text()

"""Differences between two sides, and what is none."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from aspen.identity.management import Invitation
from aspencli.identity.comparison import Difference, Kind, compare
from aspencli.identity.directory import Directory, Group, Person

NOW = dt.datetime(2026, 11, 24, tzinfo=dt.UTC)
ADA = Person("auth0|ada", "Ada", "ada@lab.example.org", 1)
BEA = Person("auth0|bea", "Bea", "bea@lab.example.org", 2)
LAB, CLINIC = Group("org_1", "Lab", "LAB", 1), Group("org_2", "Clinic", "CL", 2)


def side(*things: Person | Group, **roles: str) -> Directory:
    """Return a side with people and groups; ``org_1_ada="admin"`` makes Ada its admin."""
    found = Directory()
    for thing in things:
        if isinstance(thing, Person):
            found.people[thing.key] = thing
        else:
            found.groups[thing.key] = thing
    for place, names in roles.items():
        group, _, person = place.rpartition("_")
        found.roles[group, f"auth0|{person}"] = frozenset(names.split())
    return found


def rows(provider: Directory, database: Directory) -> list[tuple[Kind, Any, Any, str]]:
    return [
        (one.kind, one.provider, one.database, one.note) for one in compare(provider, database, NOW)
    ]


def test_equal_sides_have_no_differences() -> None:
    here = side(ADA, LAB, org_1_ada="admin member")
    there = side(Person(ADA.key, "Ada", "ADA@lab.example.org"), LAB, org_1_ada="member admin")
    assert rows(there, here) == []


def test_groups_are_matched_by_id_and_never_by_name() -> None:
    there = side(Group("org_9", "Lab", "group-lab"))
    assert rows(there, side(LAB)) == [
        (Kind.ORGANIZATION, "Lab", None, ""),
        (Kind.GROUP, None, "Lab", ""),
    ]
    renamed = side(Group("org_1", "Laboratory", "group-lab"))
    assert rows(renamed, side(LAB)) == [(Kind.GROUP_NAME, "Laboratory", "Lab", "")]


def test_person_on_one_side_is_one_difference_with_its_memberships() -> None:
    there = side(ADA, LAB, org_1_ada="admin", org_1_bea="member viewer")
    here = side(ADA, LAB, BEA, org_1_ada="admin", org_1_bea="member viewer")
    assert rows(there, here) == [(Kind.USER, None, "Bea", "member, viewer in Lab")]
    there, here = side(ADA, BEA, LAB, org_1_bea="admin"), side(ADA, LAB)
    assert rows(there, here) == [(Kind.ACCOUNT, "Bea", None, "admin in Lab")]


def test_group_on_one_side_is_one_difference_with_its_members() -> None:
    there, here = side(ADA), side(ADA, LAB, org_1_ada="admin")
    assert rows(there, here) == [(Kind.GROUP, None, "Lab", "1 member")]


@pytest.mark.parametrize(
    ("there", "here", "kind", "values"),
    [
        ("admin", None, Kind.MEMBERSHIP, ("admin", None)),
        (None, "viewer member", Kind.MEMBERSHIP, (None, "member, viewer")),
        ("", None, Kind.MEMBERSHIP, ("(no role)", None)),
        ("", "admin", Kind.ROLE, ("(no role)", "admin")),
        ("admin member", "member", Kind.ROLE, ("admin, member", "member")),
    ],
)
def test_membership_and_role_differences(
    there: str | None, here: str | None, kind: Kind, values: tuple[str | None, str | None]
) -> None:
    def one(roles: str | None) -> Directory:
        return side(ADA, LAB, **({} if roles is None else {"org_1_ada": roles}))

    assert rows(one(there), one(here)) == [(kind, *values, "")]


def test_roles_that_service_lacks_are_named_beside_the_others() -> None:
    there = side(ADA, LAB, org_1_ada="auditor member")
    assert rows(there, side(ADA, LAB, org_1_ada="member")) == [
        (Kind.UNKNOWN_ROLE, "auditor", None, "")
    ]
    assert rows(there, side(ADA, LAB, org_1_ada="auditor viewer")) == [
        (Kind.ROLE, "member, auditor", "viewer, auditor", "")
    ]


def test_people_of_other_identity_providers_are_not_compared() -> None:
    there, here = side(LAB), side(LAB)
    there.roles["org_1", "google-oauth2|1"] = frozenset({"admin"})
    here.roles["org_1", "google-oauth2|2"] = frozenset({"member"})
    assert rows(there, here) == []


def test_names_and_addresses_are_compared_by_id() -> None:
    there = side(Person(ADA.key, "Ada L.", "love@lab.example.org"))
    assert rows(there, side(ADA)) == [
        (Kind.NAME, "Ada L.", "Ada", ""),
        (Kind.EMAIL, "love@lab.example.org", "ada@lab.example.org", ""),
    ]


def test_only_expired_invitations_are_differences() -> None:
    there = side(LAB)
    for number, days in enumerate((-1, 0, 1)):
        moment = NOW + dt.timedelta(days=days)
        there.invitations.append(Invitation(f"uinv_{number}", "org_1", "x@y.org", moment))
    found: list[Difference] = compare(there, side(LAB), NOW)
    assert [one.invitation for one in found] == ["uinv_0", "uinv_1"]
    assert [one.provider for one in found] == ["expired 2026-11-23", "expired 2026-11-24"]


def test_role_of_user_who_was_created_while_reading_is_left_for_next_time() -> None:
    here = side(ADA, LAB, org_1_ada="admin", org_1_bea="member", org_9_ada="member")
    assert rows(side(ADA, LAB, org_1_ada="admin"), here) == []

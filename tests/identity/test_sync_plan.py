"""The plan of a sync: its steps, their order, and its limits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aspencli.errors import RefusedError
from aspencli.identity.comparison import Kind, compare
from aspencli.identity.directory import Directory, Group, Person
from aspencli.identity.limits import Loss, check_number, count, losses, refusal, without_losses
from aspencli.identity.sync import MARK, Part, Sides, Source, Step, blocked_by, in_order, plan_sync
from tests.identity.test_comparison import ADA, BEA, CLINIC, LAB, NOW, side

BOTH = pytest.mark.parametrize("source", Source)


def planned(
    provider: Directory,
    database: Directory,
    source: Source,
    *,
    delete: bool = True,
    parts: tuple[Part, ...] = tuple(Part),
    blocked: dict[str, str] | None = None,
) -> tuple[list[Step], Sides]:
    sides = Sides(provider, database, source, blocked or {})
    return plan_sync(compare(provider, database, NOW), sides, parts, delete=delete), sides


def outcomes(steps: list[Step]) -> list[tuple[Kind, str]]:
    return [(step.difference.kind, step.outcome) for step in steps]


@BOTH
def test_nothing_is_deleted_without_delete(source: Source) -> None:
    there = side(ADA, LAB, CLINIC, org_1_ada="admin")
    here = side(ADA, BEA, LAB, org_1_ada="admin", org_1_bea="member")
    if source is Source.AUTH0:
        steps, _ = planned(there, here, source, delete=False)
        assert outcomes(steps) == [(Kind.ORGANIZATION, "skip"), (Kind.USER, "skip")]
    else:
        steps, _ = planned(here, replace(there, groups={LAB.key: LAB}), source, delete=False)
        assert outcomes(steps) == [(Kind.ACCOUNT, "skip")]
    assert "--delete" in steps[-1].reason


def test_organization_without_group_is_reported_with_what_to_do() -> None:
    steps, _ = planned(side(LAB), side(), Source.AUTH0)
    assert outcomes(steps) == [(Kind.ORGANIZATION, "skip")]
    assert "groups import" in steps[0].reason
    assert "org_1" in steps[0].reason


def test_new_objects_come_with_their_memberships() -> None:
    there, here = side(ADA, LAB, org_1_ada="admin"), side(ADA, BEA, LAB, CLINIC)
    here.roles[LAB.key, ADA.key] = frozenset({"admin"})
    for group in (LAB, CLINIC):
        here.roles[group.key, BEA.key] = frozenset({"member"})
    here.roles[CLINIC.key, ADA.key] = frozenset({"admin"})
    steps, _ = planned(there, here, Source.DB)
    assert outcomes(steps) == [(Kind.GROUP, "create"), (Kind.USER, "create")]
    assert [step.places for step in steps] == [
        ((CLINIC.key, ADA.key),),
        ((LAB.key, BEA.key), (CLINIC.key, BEA.key)),
    ]
    assert count(steps) == 5
    steps, _ = planned(there, here, Source.DB, parts=(Part.GROUPS, Part.USERS))
    assert count(steps) == 2


def test_organization_of_interrupted_sync_is_adopted() -> None:
    made = Group("org_9", "Lab", "group-lab", marks={MARK: "1"})
    steps, _ = planned(side(made), side(LAB), Source.DB)
    assert [(step.outcome, step.adopts) for step in steps] == [("update", "org_9")]
    for other in (replace(made, marks={}), replace(made, marks={MARK: "2"})):
        steps, _ = planned(side(other), side(LAB), Source.DB, blocked={"org_9": "it is in use"})
        assert outcomes(steps) == [(Kind.ORGANIZATION, "skip"), (Kind.GROUP, "skip")]
        assert "org_9" in steps[1].reason


@BOTH
def test_blocked_objects_are_not_deleted(source: Source) -> None:
    extra, bare = (
        side(ADA, BEA, LAB, org_1_ada="admin", org_1_bea="member"),
        side(ADA, LAB, org_1_ada="admin"),
    )
    both = (bare, extra) if source is Source.AUTH0 else (extra, bare)
    steps, _ = planned(*both, source, blocked={BEA.key: blocked_by(["samples uploaded: 3"])})
    reason = "other data refer to it: samples uploaded: 3"
    assert [(step.outcome, step.reason) for step in steps] == [("skip", reason)]


@BOTH
def test_value_of_another_object_is_skipped(source: Source) -> None:
    taken = Person("auth0|new", "New", "ADA@lab.example.org", 7)
    more, less = side(ADA, taken, LAB, org_1_new="member"), side(ADA, LAB)
    both = (more, less) if source is Source.AUTH0 else (less, more)
    steps, _ = planned(*both, source)
    assert [step.outcome for step in steps] == ["skip"]
    assert taken.email in steps[0].reason


def test_addresses_are_given_up_before_they_are_taken() -> None:
    people = [Person(f"auth0|{n}", "N", f"{n}@lab.example.org", n) for n in range(4)]
    moved = [
        replace(one, email=f"{number + 1}@lab.example.org") for number, one in enumerate(people)
    ]
    steps, sides = planned(side(*people), side(*moved), Source.DB)
    order = [
        step.difference.person.key for step in in_order(steps, sides) if step.difference.person
    ]
    assert order == ["auth0|3", "auth0|2", "auth0|1", "auth0|0"]


def test_exchanged_addresses_are_skipped_at_provider_and_written_in_database() -> None:
    there = side(ADA, BEA)
    here = side(replace(ADA, email=BEA.email), replace(BEA, email=ADA.email))
    steps, _ = planned(there, here, Source.DB)
    assert [step.outcome for step in steps] == ["skip", "skip"]
    assert "exchange" in steps[0].reason
    steps, _ = planned(there, here, Source.AUTH0)
    assert [step.outcome for step in steps] == ["update", "update"]


def test_access_is_granted_before_it_is_taken_away() -> None:
    there = side(ADA, BEA, LAB, org_1_ada="admin")
    here = side(ADA, BEA, LAB, org_1_bea="admin")
    steps, sides = planned(there, here, Source.DB)
    assert [step.outcome for step in in_order(steps, sides)] == ["create", "delete"]
    there, here = (
        side(ADA, BEA, LAB, org_1_ada=one, org_1_bea=other)
        for one, other in (("admin", "member"), ("member", "admin"))
    )
    steps, sides = planned(there, here, Source.DB)
    first, _last = in_order(steps, sides)
    assert first.difference.person == BEA


@pytest.mark.parametrize("name", ["", " ", "a\u200bb", "a\nb"])
def test_unusable_name_of_account_is_skipped(name: str) -> None:
    odd = side(replace(ADA, name=name), LAB)
    steps, _ = planned(odd, side(ADA, LAB), Source.AUTH0)
    assert outcomes(steps) == [(Kind.NAME, "skip")]


def test_member_without_a_role_is_skipped_in_database() -> None:
    there = side(ADA, BEA, LAB, org_1_ada="", org_1_bea="auditor")
    here = side(ADA, BEA, LAB, org_1_bea="admin")
    steps, _ = planned(there, here, Source.AUTH0)
    assert {step.outcome for step in steps} == {"skip"}


# Limits


@BOTH
def test_plan_that_empties_a_group_is_refused(source: Source) -> None:
    full = side(ADA, BEA, LAB, CLINIC, org_1_ada="member", org_2_ada="member", org_2_bea="viewer")
    less = side(ADA, BEA, LAB, CLINIC, org_2_ada="member")
    both = (less, full) if source is Source.AUTH0 else (full, less)
    steps, sides = planned(*both, source)
    found = losses(steps, sides)
    assert found == [Loss(LAB.key, "would lose its last member")]
    error = refusal(found, sides)
    assert "nothing was written" in error.message
    assert error.details == ("Lab would lose its last member",)
    rest = list(without_losses(steps, found, sides))
    assert [step.outcome for step in rest] == ["delete", "skip"]
    assert losses(rest, sides) == []


@BOTH
def test_plan_that_removes_last_administrator_is_refused(source: Source) -> None:
    led = side(ADA, BEA, LAB, org_1_ada="admin", org_1_bea="member")
    unled = side(ADA, BEA, LAB, org_1_ada="member", org_1_bea="member")
    both = (unled, led) if source is Source.AUTH0 else (led, unled)
    steps, sides = planned(*both, source)
    assert losses(steps, sides) == [Loss(LAB.key, "would lose its last administrator")]
    assert [step.outcome for step in without_losses(steps, losses(steps, sides), sides)] == ["skip"]
    other = side(ADA, BEA, LAB, org_1_ada="member", org_1_bea="admin")
    both = (other, led) if source is Source.AUTH0 else (led, other)
    steps, sides = planned(*both, source)
    assert losses(steps, sides) == []


@BOTH
def test_deleting_a_person_counts_as_a_loss_of_their_groups(source: Source) -> None:
    full, less = (
        side(ADA, BEA, LAB, org_1_ada="admin", org_1_bea="member"),
        side(BEA, LAB, org_1_bea="member"),
    )
    both = (less, full) if source is Source.AUTH0 else (full, less)
    steps, sides = planned(*both, source)
    assert losses(steps, sides) == [Loss(LAB.key, "would lose its last administrator")]


def test_people_of_other_identity_providers_keep_a_group_alive() -> None:
    there, here = side(ADA, LAB), side(ADA, LAB, org_1_ada="admin")
    here.roles[LAB.key, "google-oauth2|1"] = frozenset({"admin"})
    steps, sides = planned(there, here, Source.AUTH0)
    assert [step.outcome for step in steps] == ["delete"]
    assert losses(steps, sides) == []


def test_more_changes_than_allowed_are_refused() -> None:
    steps, _ = planned(side(ADA, LAB, org_1_ada="admin"), side(LAB), Source.AUTH0)
    assert count(steps) == 2
    check_number(steps, 2)
    with pytest.raises(RefusedError, match="2 changes") as caught:
        check_number(steps, 1)
    assert "1 membership of new objects" in caught.value.message
    assert caught.value.hint
    assert "--max-changes 2" in caught.value.hint

"""The plan that makes one side equal to the other.

The *source* is the side that is right, the *target* the one that is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from aspen.identity.names import organization_name
from aspencli.identity.comparison import Difference, Kind
from aspencli.identity.directory import ROLES, Directory, Group, Place
from aspencli.text import LONGEST_TEXT, email_flaw, name_flaw

CREATE, UPDATE, DELETE, SKIP = "create", "update", "delete", "skip"
WORK = frozenset({CREATE, UPDATE, DELETE})
"""The outcomes that write something."""
CREATED, UPDATED, DELETED = "created", "updated", "deleted"
UNCHANGED, SKIPPED, FAILED = "unchanged", "skipped", "failed"
CHANGED_SINCE = "changed since the plan was made"
MARK = "aspencli_group"
"""The metadata of an organization that names the ID of the group for which it was created."""
KNOWN = frozenset(ROLES)
ADMIN = "admin"
_LONGEST_NAME = 128  # of a group, in the API
_EXCHANGED = "exchanges its address with another account; give one of them a third address first"
_WITHOUT_ROLE = f"has none of the roles {', '.join(ROLES)} in the source"
# What grants access comes before what takes it away, so that no group is left without members or
# an administrator in between.
_TURNS: Mapping[tuple[Kind, str], int] = {
    each: number
    for number, each in enumerate(
        (
            *((Kind.GROUP, outcome) for outcome in (CREATE, UPDATE)),
            (Kind.GROUP_NAME, UPDATE),
            *((kind, CREATE) for kind in (Kind.ACCOUNT, Kind.USER, Kind.MEMBERSHIP)),
            *((kind, UPDATE) for kind in (Kind.NAME, Kind.EMAIL, Kind.ROLE)),
            *((kind, DELETE) for kind in (Kind.MEMBERSHIP, Kind.ACCOUNT, Kind.USER)),
            *((kind, DELETE) for kind in (Kind.GROUP, Kind.ORGANIZATION, Kind.INVITATION)),
        )
    )
}


class Source(StrEnum):
    """The side that is right."""

    AUTH0 = "auth0"
    DB = "db"


class Part(StrEnum):
    """The parts that can be synced separately."""

    GROUPS = "groups"
    USERS = "users"
    MEMBERSHIPS = "memberships"
    ROLES = "roles"
    USER_ATTRIBUTES = "user-attributes"
    INVITATIONS = "invitations"


PART_OF: Mapping[Kind, Part] = {
    Kind.ORGANIZATION: Part.GROUPS,
    Kind.GROUP: Part.GROUPS,
    Kind.GROUP_NAME: Part.GROUPS,
    Kind.ACCOUNT: Part.USERS,
    Kind.USER: Part.USERS,
    Kind.MEMBERSHIP: Part.MEMBERSHIPS,
    Kind.ROLE: Part.ROLES,
    Kind.UNKNOWN_ROLE: Part.ROLES,
    Kind.NAME: Part.USER_ATTRIBUTES,
    Kind.EMAIL: Part.USER_ATTRIBUTES,
    Kind.INVITATION: Part.INVITATIONS,
}
"""The part that each kind of difference belongs to."""


_WRITTEN: Mapping[Kind, tuple[str, str]] = {
    Kind.ORGANIZATION: ("organization", "group"),
    Kind.GROUP: ("organization", "group"),
    Kind.GROUP_NAME: ("organization name", "group name"),
    Kind.ACCOUNT: ("account", "user"),
    Kind.USER: ("account", "user"),
    Kind.UNKNOWN_ROLE: ("role", "role"),
}


def written_object(kind: Kind, source: Source) -> str:
    """Return what a sync of a difference writes, in the terms of the target."""
    at_provider, in_database = _WRITTEN.get(kind, (kind.value, kind.value))
    return at_provider if source is Source.DB else in_database


@dataclass(frozen=True)
class Step:
    """One difference, and what is done about it.

    Attributes:
        difference: The difference.
        outcome: ``create``, ``update``, ``delete``, or ``skip``.
        reason: Why it is skipped.
        places: The memberships that are created along with the object.
        adopts: The key of an organization that an interrupted sync created for this group.
    """

    difference: Difference
    outcome: str
    reason: str = ""
    places: tuple[Place, ...] = ()
    adopts: str | None = None

    @property
    def writes(self) -> int:
        """Return the number of objects that it writes."""
        return 1 + len(self.places) if self.outcome in WORK else 0

    def skipped(self, reason: str) -> Step:
        """Return the step as one that does nothing."""
        return replace(self, outcome=SKIP, reason=reason, places=(), adopts=None)


@dataclass(frozen=True)
class Result:
    """The result of a step.

    Attributes:
        step: The step.
        outcome: ``created``, ``updated``, ``deleted``, ``unchanged``, ``skipped``, or ``failed``.
        reason: Why it was skipped or failed.
        is_late: True if it was skipped because something changed since the plan was made.
    """

    step: Step
    outcome: str
    reason: str = ""
    is_late: bool = False


def blocked_by(uses: Iterable[str]) -> str:
    """Return the reason why something cannot be deleted, given what refers to it."""
    return f"other data refer to it: {', '.join(uses)}"


class LeftAsItIsError(Exception):
    """An object that must not be changed; the message is the reason."""


class LateError(LeftAsItIsError):
    """An object that is no longer as planned."""


@dataclass(frozen=True)
class Sides:
    """Both sides, and which of them is right.

    Attributes:
        provider: The identity provider.
        database: The database.
        source: The side that is right.
        blocked: Why a group or a person of the target cannot be deleted, by key.
    """

    provider: Directory
    database: Directory
    source: Source
    blocked: Mapping[str, str] = field(default_factory=dict)

    @property
    def right(self) -> Directory:
        """Return the source."""
        return self.database if self.source is Source.DB else self.provider

    @property
    def target(self) -> Directory:
        """Return the target."""
        return self.provider if self.source is Source.DB else self.database

    @property
    def shared(self) -> set[str]:
        """Return the keys of the groups that both sides have."""
        return self.provider.groups.keys() & self.database.groups.keys()

    def roles(self, place: Place) -> frozenset[str]:
        """Return the roles that a membership has in the source, as far as the service has them."""
        return self.right.roles.get(place, frozenset()) & KNOWN

    def right_value(self, one: Difference) -> str | None:
        """Return the value of a difference in the source."""
        return one.database if self.source is Source.DB else one.provider

    def target_value(self, one: Difference) -> str | None:
        """Return the value of a difference in the target."""
        return one.provider if self.source is Source.DB else one.database


def plan_sync(
    differences: Iterable[Difference], sides: Sides, parts: Iterable[Part], *, delete: bool
) -> list[Step]:
    """Return what is done about each difference of the given parts.

    Without ``delete``, whatever only the target has is skipped.
    """
    steps = _Planner(sides, frozenset(parts), delete=delete).steps(differences)
    steps = _free(
        steps, sides, _wanted_address, _freed_address, "e-mail address", _addresses(sides)
    )
    if sides.source is Source.AUTH0:
        names = [group.name for group in sides.database.groups.values()]
        return _free(steps, sides, _wanted_name, _freed_name, "name", names)
    circular = _chained(steps, sides)[1]
    return [
        step.skipped(_EXCHANGED) if place in circular else step for place, step in enumerate(steps)
    ]


class _Planner:
    """Plans the steps of one sync, each for itself."""

    def __init__(self, sides: Sides, parts: frozenset[Part], *, delete: bool):
        self._sides, self._parts, self._delete = sides, parts, delete
        self._arriving: set[str] = set()  # the groups that the target gets
        plan: dict[Kind, Callable[[Difference], Step]] = {
            Kind.GROUP_NAME: self._group_name,
            Kind.MEMBERSHIP: self._membership,
            Kind.ROLE: self._role,
            Kind.UNKNOWN_ROLE: _unknown_role,
            Kind.NAME: self._attribute,
            Kind.EMAIL: self._attribute,
        }
        if sides.source is Source.DB:
            plan[Kind.ORGANIZATION] = self._removed_group
            plan[Kind.GROUP] = self._new_organization
            plan[Kind.ACCOUNT] = self._removed_person
            plan[Kind.USER] = self._new_person
            plan[Kind.INVITATION] = self._removed
        else:
            plan[Kind.ORGANIZATION] = _new_group
            plan[Kind.GROUP] = self._removed_group
            plan[Kind.ACCOUNT] = self._new_person
            plan[Kind.USER] = self._removed_person
            plan[Kind.INVITATION] = _left_invitation
        self._plan = plan

    def steps(self, differences: Iterable[Difference]) -> list[Step]:
        """Return a step for each difference of the parts; they are sorted by kind."""
        wanted = [one for one in differences if PART_OF[one.kind] in self._parts]
        adopted = self._adopted(wanted)
        keys = set(adopted.values())
        found = []
        for one in wanted:
            group = one.group.key if one.group else ""
            if one.kind is Kind.ORGANIZATION and group in keys:
                continue  # it becomes the organization of its group
            step = self._plan[one.kind](one)
            if one.kind is Kind.GROUP and step.outcome == CREATE:
                self._arriving.add(group)
                if group in adopted:
                    step = replace(step, outcome=UPDATE, adopts=adopted[group])
            found.append(step)
        return found

    def _removed(self, one: Difference, key: str = "") -> Step:
        if not self._delete:
            return Step(one, SKIP, "only the target has it; add --delete to delete it")
        blocked = self._sides.blocked.get(key)
        return Step(one, SKIP, blocked) if blocked else Step(one, DELETE)

    # Groups

    def _removed_group(self, one: Difference) -> Step:
        return self._removed(one, one.group.key if one.group else "")

    def _new_organization(self, one: Difference) -> Step:
        assert one.group  # noqa: S101 - it is about one
        name = organization_name(one.group.slug)
        for other in self._lone_organizations():
            if other.slug == name and other.marks.get(MARK) != str(one.group.id):
                return Step(
                    one,
                    SKIP,
                    f"organization {other.key} already has the name {name}; if it belongs to this "
                    "group, set its auth0_org_id: aspencli groups import",
                )
        people = self._sides.provider.people
        places = self._sides.database.by_group.get(one.group.key, ())
        return Step(one, CREATE, places=self._with_role(p for p in places if p[1] in people))

    def _lone_organizations(self) -> Iterator[Group]:
        groups = self._sides.database.groups
        return (one for key, one in self._sides.provider.groups.items() if key not in groups)

    def _adopted(self, wanted: Iterable[Difference]) -> dict[str, str]:
        """Return the keys of the organizations that an interrupted sync created, by group."""
        if self._sides.source is Source.AUTH0:
            return {}
        groups = (one.group for one in wanted if one.kind is Kind.GROUP)
        lost = {str(group.id): group for group in groups if group}
        return {
            group.key: one.key
            for one in self._lone_organizations()
            if (group := lost.get(one.marks.get(MARK, "")))
            and one.slug == organization_name(group.slug)
        }

    def _group_name(self, one: Difference) -> Step:
        flaw = name_flaw(self._sides.right_value(one) or "", _LONGEST_NAME)
        return Step(one, SKIP, f"the name in the source {flaw}") if flaw else Step(one, UPDATE)

    # People

    def _removed_person(self, one: Difference) -> Step:
        return self._removed(one, one.person.key if one.person else "")

    def _new_person(self, one: Difference) -> Step:
        assert one.person  # noqa: S101 - it is about one
        name, email = one.person.name or one.person.email, one.person.email
        if flaw := email_flaw(email):
            return Step(one, SKIP, f"the e-mail address in the source {flaw}")
        if flaw := name_flaw(name, LONGEST_TEXT):
            return Step(one, SKIP, f"the name in the source {flaw}")
        groups = self._sides.shared | self._arriving
        places = self._sides.right.by_person.get(one.person.key, ())
        return Step(one, CREATE, places=self._with_role(p for p in places if p[0] in groups))

    def _with_role(self, places: Iterable[Place]) -> tuple[Place, ...]:
        if Part.MEMBERSHIPS not in self._parts:
            return ()
        return tuple(place for place in places if self._sides.roles(place))

    def _attribute(self, one: Difference) -> Step:
        value = self._sides.right_value(one) or ""
        is_name = one.kind is Kind.NAME
        flaw = name_flaw(value, LONGEST_TEXT) if is_name else email_flaw(value)
        if not value.strip():
            flaw = "is blank"
        what = "name" if is_name else "e-mail address"
        return Step(one, SKIP, f"the {what} in the source {flaw}") if flaw else Step(one, UPDATE)

    # Memberships

    def _membership(self, one: Difference) -> Step:
        if one.place not in self._sides.right.roles:
            return self._removed(one)
        return Step(one, CREATE) if self._sides.roles(one.place) else Step(one, SKIP, _WITHOUT_ROLE)

    def _role(self, one: Difference) -> Step:
        return Step(one, UPDATE) if self._sides.roles(one.place) else Step(one, SKIP, _WITHOUT_ROLE)


def _unknown_role(one: Difference) -> Step:
    return Step(one, SKIP, f"the service has only the roles {', '.join(ROLES)}")


def _new_group(one: Difference) -> Step:
    key = one.group.key if one.group else ""
    return Step(
        one,
        SKIP,
        "needs a prefix and a default tree location; create the group with aspencli groups import, "
        f"with auth0_org_id {key}",
    )


def _left_invitation(one: Difference) -> Step:
    return Step(one, SKIP, "only the provider has invitations; use --source db")


# Values that only one object can have

Value = Callable[[Step, Sides], str | None]
"""A function that returns the value that a step wants, or gives up."""


def _addresses(sides: Sides) -> list[str]:
    target = sides.target
    return [one.email for one in (*target.people.values(), *target.outsiders.values())]


def _free(
    steps: Sequence[Step], sides: Sides, wanted: Value, freed: Value, what: str, held: list[str]
) -> list[Step]:
    """Skip the steps whose value another object keeps, or that several want."""
    found, holders = list(steps), Counter(value.lower() for value in held)
    while True:
        claims = Counter(value.lower() for step in found if (value := wanted(step, sides)))
        gone = Counter(value.lower() for step in found if (value := freed(step, sides)))
        taken = {
            place: value
            for place, step in enumerate(found)
            if (value := wanted(step, sides))
            and (claims[value.lower()] > 1 or holders[value.lower()] > gone[value.lower()])
        }
        if not taken:
            return found
        for place, value in taken.items():
            found[place] = found[place].skipped(f"another one has or gets the {what} {value}")


def _wanted_address(step: Step, sides: Sides) -> str | None:
    one = step.difference
    if step.outcome == CREATE and one.kind in {Kind.ACCOUNT, Kind.USER} and one.person:
        return one.person.email
    is_change = step.outcome == UPDATE and one.kind is Kind.EMAIL
    return sides.right_value(one) if is_change else None


def _freed_address(step: Step, sides: Sides) -> str | None:
    one = step.difference
    if step.outcome == DELETE and one.kind in {Kind.ACCOUNT, Kind.USER} and one.person:
        return one.person.email
    is_change = step.outcome == UPDATE and one.kind is Kind.EMAIL
    return sides.target_value(one) if is_change else None


def _wanted_name(step: Step, sides: Sides) -> str | None:
    one = step.difference
    is_change = step.outcome == UPDATE and one.kind is Kind.GROUP_NAME
    return sides.right_value(one) if is_change else None


def _freed_name(step: Step, sides: Sides) -> str | None:
    one = step.difference
    is_change = step.outcome == UPDATE and one.kind is Kind.GROUP_NAME
    is_end = step.outcome == DELETE and one.kind is Kind.GROUP
    return sides.target_value(one) if is_change or is_end else None


def in_order(steps: Sequence[Step], sides: Sides) -> list[Step]:
    """Return the steps in the order in which they are carried out.

    An address is given up before another object takes it.
    """
    return [steps[place] for place in _chained(steps, sides)[0]]


def turn(step: Step, sides: Sides) -> tuple[int, bool]:
    """Return when a step is carried out, as a sort key."""
    one = step.difference
    number = _TURNS.get((one.kind, step.outcome), len(_TURNS))
    return number, one.kind is Kind.ROLE and ADMIN not in sides.roles(one.place)


def _chained(steps: Sequence[Step], sides: Sides) -> tuple[list[int], set[int]]:
    """Return the places of the steps in their order, and of those that exchange addresses."""
    holders = {
        value.lower(): place
        for place, step in enumerate(steps)
        if (value := _freed_address(step, sides))
    }
    found: dict[int, None] = {}
    circular: set[int] = set()
    for first in sorted(range(len(steps)), key=lambda place: turn(steps[place], sides)):
        chain: list[int] = []
        place: int | None = first
        while place is not None and place not in found and place not in chain:
            chain.append(place)
            wanted = _wanted_address(steps[place], sides)
            place = holders.get(wanted.lower()) if wanted else None
        if place in chain:
            circular.update(chain[chain.index(place) :])
        found.update(dict.fromkeys(reversed(chain)))
    return list(found), circular

"""The limits of a sync: how much it changes, and what it never takes away from a group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from aspencli.errors import RefusedError
from aspencli.identity.comparison import Kind
from aspencli.identity.directory import Place
from aspencli.identity.sync import ADMIN, CREATE, DELETE, KNOWN, UPDATE, Sides, Step
from aspencli.text import counted

USUAL = 100
"""The number of changes that a sync makes at most, unless another number is given."""
EMPTIED = "would lose its last member"
UNLED = "would lose its last administrator"
_NAMED = 20  # groups listed in an error


@dataclass(frozen=True)
class Loss:
    """A group of the target that a plan would leave without members, or without administrators.

    Attributes:
        group: The key of the group.
        text: The loss, as the end of a sentence about the group.
    """

    group: str
    text: str


def count(steps: Iterable[Step]) -> int:
    """Return the number of objects that a plan writes."""
    return sum(step.writes for step in steps)


def check_number(steps: Sequence[Step], most: int) -> None:
    """Check that a plan makes no more changes than allowed.

    Raises:
        RefusedError: It makes more.
    """
    number = count(steps)
    if number <= most:
        return
    added = number - sum(1 for step in steps if step.writes)
    beside = f" ({counted(added, 'membership')} of new objects included)" if added else ""
    raise RefusedError(
        f"The plan has {counted(number, 'change')}{beside}, more than --max-changes {most:,}; "
        "nothing was written.",
        hint=f"Review it with --dry-run. If it is right, pass --max-changes {number}.",
    )


def losses(steps: Iterable[Step], sides: Sides) -> list[Loss]:
    """Return the groups that the plan would empty, or whose last administrator it would remove."""
    before, after = sides.target.roles, dict(sides.target.roles)
    for step in steps:
        _apply(step, sides, after)
    left: dict[str, list[frozenset[str]]] = {}
    for (group, _person), roles in after.items():
        left.setdefault(group, []).append(roles)
    found = []
    for group, places in sides.target.by_group.items():
        if group not in left:
            found.append(Loss(group, EMPTIED))
        elif _has_admin(before[place] for place in places) and not _has_admin(left[group]):
            found.append(Loss(group, UNLED))
    return found


def refusal(found: Sequence[Loss], sides: Sides) -> RefusedError:
    """Return the error for a plan that takes too much away from some groups."""
    named = [f"{_name_of(sides, one.group)} {one.text}" for one in found[:_NAMED]]
    more = [f"and {len(found) - _NAMED:,} more groups"] if len(found) > _NAMED else []
    return RefusedError(
        "The plan would leave groups without a member or without an administrator; nothing was "
        "written.",
        hint="Check that the source is right. To leave these groups as they are and sync the rest, "
        "add --skip-protected.",
        details=[*named, *more],
    )


def without_losses(steps: Iterable[Step], found: Iterable[Loss], sides: Sides) -> Iterator[Step]:
    """Yield the steps; those that take something away from these groups are skipped."""
    texts = {one.group: one.text for one in found}
    for step in steps:
        place = next((each for each in _taken(step, sides) if each[0] in texts), None)
        if place is None:
            yield step
        else:
            yield step.skipped(f"{_name_of(sides, place[0])} {texts[place[0]]}")


def _apply(step: Step, sides: Sides, roles: dict[Place, frozenset[str]]) -> None:
    """Change the roles of the target as a step does."""
    kind, outcome = step.difference.kind, step.outcome
    if outcome == CREATE:
        added = [step.difference.place] if kind is Kind.MEMBERSHIP else step.places
        roles.update((place, sides.roles(place)) for place in added)
    elif outcome == UPDATE and kind is Kind.GROUP:
        roles.update((place, sides.roles(place)) for place in step.places)
    elif outcome == UPDATE and kind is Kind.ROLE:
        place = step.difference.place
        roles[place] = sides.roles(place) | (roles[place] - KNOWN)
    else:
        for place in _taken(step, sides):
            roles.pop(place, None)


def _taken(step: Step, sides: Sides) -> Sequence[Place]:
    """Return the memberships that a step ends, or in which it changes the role."""
    one = step.difference
    if one.kind is Kind.MEMBERSHIP and step.outcome == DELETE:
        return [one.place]
    if one.kind is Kind.ROLE and step.outcome == UPDATE:
        return [one.place]
    if one.kind in {Kind.ACCOUNT, Kind.USER} and step.outcome == DELETE and one.person:
        return sides.target.by_person.get(one.person.key, ())
    return ()


def _has_admin(roles: Iterable[frozenset[str]]) -> bool:
    return any(ADMIN in each for each in roles)


def _name_of(sides: Sides, group: str) -> str:
    return (sides.database.groups.get(group) or sides.provider.groups[group]).name

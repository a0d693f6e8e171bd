"""Changes of users and groups as steps, each of which sets one value on one side.

The same steps show a plan, carry it out, revert it if the other side fails, and undo it later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from typing import Any, Final, NamedTuple

from aspen.database.roles import Right


class Kind(StrEnum):
    """The kind of thing that has a value: the first three in the database, others elsewhere."""

    USER = "user"
    ROLE = "role"
    GROUP = "group"
    ACCOUNT = "account"
    MEMBERSHIP = "membership"
    MEMBER_ROLE = "member role"
    ORGANIZATION = "organization"
    INVITATION = "invitation"

    @property
    def is_in_database(self) -> bool:
        """Return True for the database, False for the identity provider."""
        return self in _STORED

    @property
    def is_row(self) -> bool:
        """Return True if its fields have values, and not only its existence."""
        return self in _WITH_FIELDS


_STORED = frozenset({Kind.USER, Kind.ROLE, Kind.GROUP})
_WITH_FIELDS = frozenset({Kind.USER, Kind.GROUP, Kind.ACCOUNT, Kind.ORGANIZATION})
TABLES = {Kind.USER: "aspen.users", Kind.GROUP: "aspen.groups"}
"""The tables of the kinds that are rows in the database."""
EXISTS = ""
"""The field that stands for the existence of a thing as a whole."""


class Absence(Enum):
    """A marker for a field of something that does not exist."""

    ABSENT = "absent"


ABSENT: Final = Absence.ABSENT

Value = str | bool | int | Mapping[str, Any] | None
"""A value in JSON; of an existence, None means that it does not exist."""


class Slot(NamedTuple):
    """Something that holds one value.

    The key has the ID of a user, group, account, or organization; of a role, those of user and
    group, or of organization and account; of a membership, those of organization and account; and
    of an invitation, those of organization and invitation. The field of a role is its name.
    """

    kind: Kind
    key: tuple[int | str, ...]
    field: str = EXISTS


@dataclass(frozen=True)
class Step:
    """A change of one value."""

    kind: Kind
    key: tuple[int | str, ...]
    field: str
    before: Value
    after: Value
    item: str  # what people call the thing: an e-mail address, or the name of a group

    @property
    def slot(self) -> Slot:
        """Return what holds the value."""
        return Slot(self.kind, self.key, self.field)

    @property
    def is_provided(self) -> bool:
        """Return True if the value is at the identity provider."""
        return not self.kind.is_in_database

    @property
    def side(self) -> str:
        """Return the name of the side, as in results."""
        return "identity provider" if self.is_provided else "database"

    @property
    def inverse(self) -> Step:
        """Return the step that reverts it."""
        return replace(self, before=self.after, after=self.before)

    @property
    def is_field(self) -> bool:
        """Return True if a field changes, False if the thing itself comes or goes."""
        return self.kind.is_row and self.field != EXISTS

    @property
    def is_final(self) -> bool:
        """Return True if it deletes something that cannot be made again as it was."""
        return self.after is None and (
            self.kind is Kind.INVITATION
            or (self.kind in {Kind.ACCOUNT, Kind.ORGANIZATION} and not self.is_field)
        )

    @property
    def outcome(self) -> str:
        """Return ``create``, ``update``, or ``delete``."""
        if self.is_field:
            return "update"
        return "create" if self.before is None else "delete"

    def row(self) -> dict[str, Any]:
        """Return the row of a plan or a result."""
        is_role = self.kind in {Kind.ROLE, Kind.MEMBER_ROLE}
        field = self.field if self.is_field else "role" if is_role else None
        return {
            "side": self.side,
            "kind": "role" if is_role else self.kind.value,
            "item": self.item,
            "field": field,
            "before": self._shown(self.before),
            "after": self._shown(self.after),
            "outcome": self.outcome,
        }

    def describe(self) -> str:
        """Describe what the step would do, as the end of a sentence."""
        row = self.row()
        what = f"{row['kind']} {row['item']}"
        if self.is_field:
            return f"{what}: {self.field} from {row['before']!r} to {row['after']!r}"
        if row["field"]:
            what = f"{row['kind']} {self.field} of {row['item']}"
        return f"{what}: {self.outcome}"

    def to_json(self) -> dict[str, Any]:
        """Return the step as JSON."""
        return {**vars(self), "kind": self.kind.value, "key": list(self.key)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Step:
        """Return the step that `to_json` wrote.

        Raises:
            ValueError: It did not write this.
        """
        names = {"kind", "key", "field", "before", "after", "item"}
        key = found.get("key")
        if set(found) != names or not isinstance(key, list) or not isinstance(found["field"], str):
            raise ValueError(found)
        return cls(**{**found, "kind": Kind(found["kind"]), "key": tuple(key)})

    def _shown(self, value: Value) -> Any:
        if value is None or self.is_field:
            return value
        if self.kind in {Kind.ROLE, Kind.MEMBER_ROLE}:
            return self.field
        return value["id"] if isinstance(value, Mapping) else value


def removal(kind: Kind, key: tuple[int | str, ...], field: str, item: str) -> Step:
    """Return the step that removes something that is only there or not; its inverse adds it."""
    return Step(kind, key, field, True, None, item)


def inverses(steps: Iterable[Step]) -> list[Step]:
    """Return the steps that revert others, in reverse order."""
    return [step.inverse for step in reversed(list(steps))]


def on_side(steps: Iterable[Step], *, database: bool) -> list[Step]:
    """Return the steps in the database, or those at the identity provider."""
    return [step for step in steps if step.kind.is_in_database == database]


def rights_for(steps: Iterable[Step]) -> list[Right]:
    """Return the database privileges that the steps need."""
    found: dict[Right, None] = {}
    for step in on_side(steps, database=True):
        if step.kind is Kind.ROLE:
            right = Right("DELETE" if step.after is None else "INSERT", "aspen.user_roles")
        elif step.is_field:
            right = Right("UPDATE", TABLES[step.kind], (step.field,))
        else:
            right = Right("DELETE" if step.after is None else "INSERT", TABLES[step.kind])
        found[right] = None
    return list(found)

"""Creation of a group, with its identity provider organization, through the API."""

from __future__ import annotations

from typing import Protocol

from aspencli.errors import AspenError, UncertainError
from aspencli.services.checks import clean_identifier, clean_name
from aspencli.shapes import Group, NewGroup

_SERVER_ERROR = 500
_LIVE = (
    "The service as it was last published answers so where the name or the prefix is taken or "
    "there is no such location: see aspencli groups list, aspencli locations list."
)


class Groups(Protocol):
    """The groups of the API."""

    def create(self, group: NewGroup) -> Group:
        """Create a group."""


def checked_group(
    *, name: str, prefix: str, default_tree_location: int, **others: str | None
) -> NewGroup:
    """Return the new group after validating all text; fields that are None are omitted.

    Raises:
        BadInputError: A text is blank, too long, or contains an invisible character.
    """
    group = NewGroup(
        name=clean_name(name, "the name"),
        prefix=clean_identifier(prefix, "the prefix"),
        default_tree_location_id=default_tree_location,
    )
    for key, text in others.items():
        if text is not None:
            group[key] = clean_name(text, f"the {key.replace('_', ' ')}")  # type: ignore[literal-required] # keys of the type
    return group


def make_group(groups: Groups, group: NewGroup) -> Group:
    """Create the group.

    Raises:
        ConflictError: The name or the prefix is taken.
        UncertainError: No response was received.
    """
    try:
        return groups.create(group)
    except UncertainError as error:
        error.hint = (
            "Run the same command again: it makes the group, or says that it is there (exit code 7)"
        )
        raise
    except AspenError as error:
        if error.answer is not None and error.answer.status == _SERVER_ERROR:
            error.hint = _LIVE
        raise

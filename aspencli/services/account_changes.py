"""What a file may say of users, their roles, and groups; and what they are found by."""

from __future__ import annotations

from collections.abc import Callable

from aspencli.errors import BadInputError
from aspencli.services.cells import Field, Understood, named, truth
from aspencli.services.checks import clean_email, clean_text
from aspencli.services.layout import Kind
from aspencli.services.mapping import flaw
from db.bulk.accounts import (
    ADDRESS,
    AUTH0_ORG,
    AUTH0_USER,
    DIVISION,
    EMAIL,
    GISAID,
    GROUP_COLUMNS,
    GROUP_NAME,
    GROUPS,
    IN_GROUP,
    PLACE,
    PREFIX,
    ROLE,
    SUBMITTING_LAB,
    SYSTEM_ADMIN,
    TREE_LOCATION,
    USER_COLUMNS,
    USER_NAME,
    USERS,
)

_USER_NEEDS, _GROUP_NEEDS = "every user has one", "every group has one"
_LONGEST = 1_000  # characters; what the service takes for the longest of these texts


def _checked(clean: Callable[[str], str]) -> Callable[[str], Understood]:
    """The meaning of a cell that another command takes as an option."""

    def understand(cell: str) -> Understood:
        reason = flaw(cell, longest=_LONGEST)
        if reason:
            return None, reason
        try:
            return clean(cell), None
        except BadInputError as error:
            return None, error.message

    return understand


_seen = _checked(lambda cell: clean_text(cell, "it"))


def _text(shortest: int = 1, longest: int = _LONGEST) -> Callable[[str], Understood]:
    """A text of one line; its bounds are those of the service's API (POST /v2/groups/)."""

    def understand(cell: str) -> Understood:
        if len(cell) < shortest:
            return None, f"has {len(cell)} characters; at least {shortest} are needed"
        reason = flaw(cell, longest=longest)
        return (None, reason) if reason else _seen(cell)

    return understand


def _account(cell: str) -> Understood:
    """What the identity provider calls somebody or something."""
    if any(map(str.isspace, cell)):
        return None, "holds white space"
    return _seen(cell)


_email = Field(EMAIL, _checked(clean_email), uncleared=_USER_NEEDS)
_auth0_user = Field(AUTH0_USER, _account, uncleared=_USER_NEEDS)

USER_CHANGES = Kind(
    table=USERS,
    keys={"email": _email, "auth0_user_id": _auth0_user},
    fields={
        "email": _email,
        "new_email": _email,
        "name": Field(USER_NAME, _text(), uncleared=_USER_NEEDS),
        "auth0_user_id": _auth0_user,
        "new_auth0_user_id": _auth0_user,
        "system_admin": Field(SYSTEM_ADMIN, truth, uncleared="a user is one, or is not"),
        "gisaid_submitter_id": Field(GISAID, _text()),
        "role": Field(ROLE, named),
    },
    renaming={"new_email": "email", "new_auth0_user_id": "auth0_user_id"},
    creates=tuple(USER_COLUMNS.values()),
    within=("group", Field(IN_GROUP, named)),
)

_prefix = Field(PREFIX, _text(2, 25), uncleared=_GROUP_NEEDS)
_name = Field(GROUP_NAME, _text(3, 128), uncleared=_GROUP_NEEDS)

GROUP_CHANGES = Kind(
    table=GROUPS,
    keys={"prefix": _prefix, "name": _name},
    fields={
        "prefix": _prefix,
        "new_prefix": _prefix,
        "name": _name,
        "new_name": _name,
        "address": Field(ADDRESS, _text()),
        "division": Field(DIVISION, _text()),
        "location": Field(PLACE, _text()),
        "default_tree_location": Field(TREE_LOCATION, named, uncleared=_GROUP_NEEDS),
        "submitting_lab": Field(SUBMITTING_LAB, _text(3, 128)),
        "auth0_org_id": Field(AUTH0_ORG, _account, uncleared=_GROUP_NEEDS),
    },
    renaming={"new_prefix": "prefix", "new_name": "name"},
    creates=tuple(GROUP_COLUMNS.values()),
)
